"""The random generators of a program, lent to a model of ours and put back as they were."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np

#: What Keras keeps of a seed.
_GLOBAL_SEEDS = ("global_random_seed", "global_seed_generator")
#: There is one set in a process: threads that did not take turns would put back each other's.
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Leave all generators as they were, whatever is seeded and drawn in the block.

    They are Python's, NumPy's, Keras's and TensorFlow's global ones. Another thread that comes to
    such a block waits until this one is left.
    """
    from keras.src.backend.common import global_state
    from keras.src.random import seed_generator

    with _ONE_AT_A_TIME, _seed_of_tensorflow_kept():
        python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - Keras seeds these
        kept = {name: global_state.get_global_attribute(name) for name in _GLOBAL_SEEDS}
        lent = seed_generator.python_random
        try:
            yield
        finally:
            seed_generator.python_random = lent
            for name, value in kept.items():
                global_state.set_global_attribute(name, value)
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002


@contextlib.contextmanager
def _seed_of_tensorflow_kept() -> Iterator[None]:
    try:
        from tensorflow.python.eager.context import context
    except ImportError:
        yield
        return
    held = context()
    seed, generator = held._seed, vars(held).get("_rng")
    try:
        yield
    finally:
        # Which also has it forget kernels that hold the state of the seed in between.
        held._set_global_seed(seed)
        if generator is not None:
            held._rng = generator
