"""Random numbers of Keras that no other thread can disturb."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import keras
import numpy as np
from keras.src.random import seed_generator


@contextmanager
def seeded(seed: int) -> Iterator[Callable[[], bool]]:
    """Let everything that Keras draws inside the block follow from a seed alone.

    ``keras.utils.set_random_seed`` seeds Python's global generator, from which Keras then takes the
    seeds of initial weights and of dropout. Other threads of a worker draw from it as well (Dask
    samples dictionaries to estimate their size), so that now and then a model would begin with
    other weights. Inside the block Keras has a generator of its own.

    Parameters
    ----------
    seed : int
        From `seeds.seed32`.

    Yields
    ------
    callable
        Tells whether anything was drawn from NumPy's or Python's global generator since. What was
        may be a constant of the model, which then follows the seed.
    """
    with _cheaply():
        keras.utils.set_random_seed(seed)
    before = seed_generator.python_random
    seed_generator.python_random = random.Random(seed)
    began = _global_states()
    try:
        yield lambda: _global_states() != began
    finally:
        seed_generator.python_random = before


def _global_states() -> tuple[object, ...]:
    # What code of users draws from, whatever NumPy recommends.
    numpy_state = np.random.get_state()  # noqa: NPY002
    return *(np.asarray(part).tobytes() for part in numpy_state), random.getstate()


def _cheaply() -> AbstractContextManager[None]:
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    from stormsweep.training.kernels import kernels_kept

    return kernels_kept()
