"""A model built once more before it is trained: what outlives a build shows before a run learns."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import keras
import numpy as np

from stormsweep.errors import RunError
from stormsweep.training.building import build_model, run_case
from stormsweep.training.engine import FoldData
from stormsweep.training.kept import held_bytes
from stormsweep.training.outlived import forget, refuse_moved
from stormsweep.training.policy import precision_of_layers
from stormsweep.training.randomness import seeded
from stormsweep.training.seeds import initial_seed

#: Bytes of a model from which on its memory is not left to the next collection of garbage.
_LARGE = 1 << 26


def refuse_shared(
    passed: set[Hashable],
    model: keras.Model,
    builder: Callable[..., Any],
    hyperparameters: Mapping[str, Any],
    seed: int,
    fold: int,
    data: FoldData,
    precision: str,
) -> None:
    """Refuse a model that would share with the next one of its builder what training changes.

    Only the second run of a worker could be refused otherwise: which runs fail would depend on the
    number of workers, and those that do not would keep the builder from being mended.

    Parameters
    ----------
    passed : set
        Builders with hyperparameters that were seen to share nothing: they are not called again.
    model : keras.Model
        Remembered (see `outlived.remember`) and not yet trained.
    builder, hyperparameters, seed, fold, data : callable, mapping, int, int, FoldData
        As given to `engine.Engine.start`. Nothing that the model draws later is drawn by the next
        one: what Keras draws from is seeded anew.
    precision : str
        As of `policy.precision_of_layers`.

    Raises
    ------
    RunError
        If it does, if the next one begins with other weights, because the builder keeps something,
        or if the builder raises when it is called again.
    """
    call = builder, json.dumps(dict(hyperparameters), sort_keys=True, default=repr)
    known = isinstance(builder, Hashable)
    if known and call in passed:
        return
    case = data.inputs[data.validation[:1]]
    label = getattr(builder, "__qualname__", repr(builder))
    try:
        with precision_of_layers(precision), seeded(initial_seed(seed, fold)):
            again = build_model(builder, hyperparameters, case.shape[1:])
            run_case(again, case)  # some models have weights only once they saw a case
            alike = _begin_alike(model, again)
            refuse_moved(again, label, case)
        if not alike:
            raise RunError(
                f"{label} returns other initial weights when it is called again with the same "
                "seed: it keeps what its first call made, which belongs outside of it, at module "
                "level; or it draws them from a generator of its own that has no seed, or goes on "
                "from call to call"
            )
    except Exception:
        # A run that does not share may come next: nothing was trained.
        forget(model)
        raise
    if known:
        passed.add(call)
    large = held_bytes(again) > _LARGE
    del again
    if large:
        gc.collect()


def _begin_alike(model: keras.Model, again: keras.Model) -> bool:
    """Tell whether two models that are not trained, and have seen a case, have the same weights.

    Almost: what a builder learns with several threads, say, may differ in the last digits.
    """

    def numbers(variable: Any) -> Any:
        return np.asarray(keras.ops.convert_to_numpy(variable)).astype(np.float64)

    pairs = zip(model.variables, again.variables, strict=False)
    return all(
        one.shape == other.shape
        and np.allclose(numbers(one), numbers(other), rtol=1e-4, atol=1e-7, equal_nan=True)
        for one, other in pairs
    )
