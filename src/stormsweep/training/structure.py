"""When two models are the same program: what may differ is in variables, all else must be equal."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import keras

from stormsweep.training.building import arguments


def program_key(
    builder: Callable[..., Any],
    hyperparameters: Mapping[str, Any],
    model: keras.Model,
    *rest: Hashable,
) -> Hashable | None:
    """Return what two runs must have in common to share a compiled program.

    Keras writes a custom activation or loss down by name only, not what it closes over. Equal
    configurations alone would therefore prove nothing: the builder and all hyperparameters that it
    was called with, but the learning rate, must be equal too.

    Parameters
    ----------
    builder : callable
        The model builder.
    hyperparameters : mapping
        Of the run.
    model : keras.Model
        What it returned, compiled.
    *rest : hashable
        Whatever else the program depends on: input shape, precision.

    Returns
    -------
    hashable or None
        The key; None where the model or its optimizer cannot be written down, and so never shared.
    """
    try:
        passed = arguments(builder, hyperparameters, ())
        others = {name: value for name, value in passed.items() if name != "learning_rate"}
        with warnings.catch_warnings():
            # Keras warns that lambdas cannot be loaded again; nothing is loaded again here.
            warnings.simplefilter("ignore")
            compiled = model.get_compile_config() or {}
            structure = {
                "model": model.get_config(),
                "loss": [compiled.get("loss"), compiled.get("loss_weights")],
                "optimizer": _without_rate(compiled["optimizer"]),
            }
        text = json.dumps([_without_names(structure), others], sort_keys=True)
        key: tuple[Any, ...] = (builder, type(model), text, *rest)
        hash(key)
    except Exception:  # a user's get_config may raise anything; not sharing is always right
        return None
    return key


def _without_rate(optimizer: Any) -> Any:
    """Leave out the learning rate where it is a variable; a schedule is part of the program."""
    if isinstance(optimizer, Mapping):
        return {
            name: "variable"
            if name == "learning_rate" and isinstance(value, int | float)
            else _without_rate(value)
            for name, value in optimizer.items()
        }
    return optimizer


def _without_names(structure: Any) -> Any:
    """Replace names by their order of appearance: Keras numbers layers through the process."""
    order: dict[str, str] = {}

    def collect(value: Any) -> None:
        if isinstance(value, Mapping):
            name = value.get("name")
            if isinstance(name, str):
                order.setdefault(name, f"#{len(order)}")
            for item in value.values():
                collect(item)
        elif isinstance(value, list | tuple):
            for item in value:
                collect(item)

    def replace(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): replace(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [replace(item) for item in value]
        return order.get(value, value) if isinstance(value, str) else value

    collect(structure)
    return replace(structure)
