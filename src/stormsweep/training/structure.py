"""When two models are the same program: what may differ is in variables, all else must be equal."""

from __future__ import annotations

import inspect
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
    was called with must be equal too, but the learning rate where it is a variable of Keras's own
    optimizers and nothing can have closed over it.

    Parameters
    ----------
    builder : callable
        The model builder.
    hyperparameters : mapping
        Of the run.
    model : keras.Model
        What it returned, compiled.
    *rest : hashable
        Whatever else the program depends on: input shape, precision, chance.

    Returns
    -------
    hashable or None
        The key; None where the model or its optimizer cannot be written down, and so never shared.
    """
    try:
        passed = arguments(builder, hyperparameters, ())
        with warnings.catch_warnings():
            # Keras warns that lambdas cannot be loaded again; nothing is loaded again here.
            warnings.simplefilter("ignore")
            compiled = model.get_compile_config() or {}
            structure = {
                "model": model.get_config(),
                "loss": [compiled.get("loss"), compiled.get("loss_weights")],
                "optimizer": _without_rate(compiled["optimizer"]),
            }
        if not _closes_over_something(structure["model"], model):
            passed = {name: value for name, value in passed.items() if name != "learning_rate"}
        text = json.dumps([_without_names(structure), passed], sort_keys=True)
        key: tuple[Any, ...] = (builder, type(model), text, *rest)
        hash(key)
    except Exception:  # a user's get_config may raise anything; not sharing is always right
        return None
    return key


def _without_rate(optimizer: Any) -> Any:
    """Leave out the learning rate where it is a variable: it is one of Keras's own optimizers.

    A schedule, or an optimizer of the user's own, may have it as a constant of the program.
    """
    if isinstance(optimizer, list | tuple):
        return [_without_rate(each) for each in optimizer]
    if not isinstance(optimizer, Mapping) or optimizer.get("module") != "keras.optimizers":
        return optimizer
    config = {
        name: "variable"
        if name == "learning_rate" and isinstance(value, int | float)
        else _without_rate(value)
        for name, value in optimizer["config"].items()
    }
    return {**optimizer, "config": config}


def _closes_over_something(config: Any, model: keras.Model) -> bool:
    """Tell whether a function of the user's own may hold what no configuration says.

    Layers are written down with their arguments. A function is so by its name, and a loss of a
    class of its own by what the class cares to tell.
    """
    losses = [
        loss
        for loss in keras.tree.flatten(getattr(model, "loss", None))
        if not (isinstance(loss, str | None) or _is_keras(loss) or _is_keras(type(loss)))
    ]
    if not all(inspect.isfunction(loss) for loss in losses):
        return True
    layers = model._flatten_layers(include_self=True)
    held = [*losses, *(value for layer in layers for value in vars(layer).values())]
    functions = [one for one in held if inspect.isfunction(one) and not _is_keras(one)]
    plain = {one.__name__ for one in functions if _is_plain(one)}
    others = {one.__name__ for one in functions if not _is_plain(one)}
    named = {loss.__name__ for loss in losses} | set(_functions(config))
    return not named <= plain - others


def _is_keras(what: Any) -> bool:
    return str(getattr(what, "__module__", "")).split(".")[0] == "keras"


def _is_plain(function: Any) -> bool:
    """Tell whether a function is the same wherever it comes from."""
    given = function.__closure__, function.__defaults__, function.__kwdefaults__
    return not any(given)


def _functions(config: Any) -> list[str]:
    """Return the names of all functions in what Keras wrote down."""
    if isinstance(config, Mapping):
        if config.get("class_name") in ("function", "__lambda__"):
            return [config["config"] if isinstance(config["config"], str) else "<lambda>"]
        config = list(config.values())
    if isinstance(config, list | tuple):
        return [name for each in config for name in _functions(each)]
    return []


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
