"""Random numbers of Keras that no other thread can disturb."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

#: What Dask draws from, once something was seeded here.
_OF_DASK = random.Random(0)
_SEED_PYTHON = random.seed


@contextmanager
def seeded(seed: int) -> Iterator[Callable[[], bool]]:
    """Let everything that Keras draws inside the block follow from a seed alone.

    ``keras.utils.set_random_seed`` seeds Python's global generator, from which Keras then takes the
    seeds of initial weights and of dropout. Other threads of a worker may draw from it as well, so
    that now and then a model would begin with other weights. Inside the block Keras has a generator
    of its own; it follows a seed that the user sets in the block, by ``set_random_seed`` or
    ``random.seed``.

    Parameters
    ----------
    seed : int
        From `seeds.seed32`.

    Yields
    ------
    callable
        Tells whether anything was drawn since, other than the seeds of Keras's layers and
        initializers: from the global generators of NumPy, Python and Keras, or by an operation of
        TensorFlow that keeps a state. It may be a constant of the model, which then belongs to this
        seed.
    """
    _have_dask_draw_elsewhere()
    before = random.seed, seed_generator.python_random
    lent = random.Random(seed)

    def seed_both(*args: Any, **options: Any) -> None:
        _SEED_PYTHON(*args, **options)
        # A module that was imported in an earlier block may have kept the name.
        if isinstance(lent_now := seed_generator.python_random, random.Random):
            lent_now.seed(*args, **options)

    with _kernels_kept():
        try:
            random.seed = _SEED_PYTHON  # not that of a block around this one
            keras.utils.set_random_seed(seed)
            random.seed, seed_generator.python_random = seed_both, lent
            began = _drawn_from()
            yield lambda: _drawn_from() != began
        finally:
            random.seed, seed_generator.python_random = before


def seeds_given() -> object:
    """Return what is another one once Keras gave a layer or an initializer a seed."""
    return seed_generator.python_random.getstate()


def _drawn_from() -> tuple[object, ...]:
    # What code of users draws from, whatever NumPy recommends.
    numpy_state = np.random.get_state()  # noqa: NPY002
    return (
        *(np.asarray(part).tobytes() for part in numpy_state),
        random.getstate(),
        # Keras makes it when first asked for numbers without a seed.
        global_state.get_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR) is None,
        _made_with_a_state(),
    )


def _have_dask_draw_elsewhere() -> None:
    """Keep Dask from Python's global generator: its threads sample lists to estimate their size."""
    sizeof: Any = sys.modules.get("dask.sizeof")
    if sizeof is not None:
        sizeof.random = _OF_DASK


def _kernels_kept() -> AbstractContextManager[None]:
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    from stormsweep.training.kernels import kernels_kept

    return kernels_kept()


def _made_with_a_state() -> int:
    if keras.backend.backend() != "tensorflow":
        return 0
    from stormsweep.training.kernels import made_with_a_state

    return made_with_a_state()
