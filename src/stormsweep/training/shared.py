"""A model built once more before it is trained: what outlives a build shows before a run learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from stormsweep.training.building import build_model
from stormsweep.training.engine import FoldData
from stormsweep.training.outlived import forget, refuse_moved
from stormsweep.training.policy import precision_of_layers
from stormsweep.training.randomness import seeded
from stormsweep.training.seeds import initial_seed


def refuse_shared(
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
        If it does, or if the builder raises when it is called again.
    """
    case = data.inputs[data.validation[:1]]
    try:
        with precision_of_layers(precision), seeded(initial_seed(seed, fold)):
            again = build_model(builder, hyperparameters, case.shape[1:])
            refuse_moved(again, getattr(builder, "__qualname__", repr(builder)), case)
    except Exception:
        # A run that does not share may come next: nothing was trained.
        forget(model)
        raise
