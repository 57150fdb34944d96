"""When two models are the same program: what may differ is in variables, all else must be equal."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import warnings
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import keras
import numpy as np

from stormsweep.training.building import arguments
from stormsweep.training.holding import (
    CLOSED,
    is_opaque,
    local_kinds,
    of_a_library,
    package_of,
    parts_of,
)

log = logging.getLogger(__name__)


def program_key(
    builder: Callable[..., Any],
    hyperparameters: Mapping[str, Any],
    model: keras.Model,
    *rest: Hashable,
) -> Hashable | None:
    """Return what two runs must have in common to share a compiled program.

    Keras writes a custom activation or loss down by name only, not what it closes over. Equal
    configurations alone would therefore prove nothing: the builder and all hyperparameters that it
    was called with must be equal too. Only the learning rate may differ, where it is a variable of
    Keras's own optimizers and, as far as can be seen, nothing else in the model can hold it.

    A model may have been given constants that follow from none of these, but were drawn or learned:
    arrays and numbers that its layers, functions and objects hold must be equal as well.

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
        parts, held = parts_of(model)
        functions = [one for one in held if inspect.isfunction(one)]
        if not _may_hold_the_rate(structure, model, [*parts, *held], functions):
            passed = {name: value for name, value in passed.items() if name != "learning_rate"}
        text = json.dumps([_without_names(structure), passed], sort_keys=True)
        codes = tuple(_written(one) for one in functions if not of_a_library(one))
        state = {id(variable) for variable in (*model.variables, *model.optimizer.variables)}
        key: tuple[Any, ...] = (builder, type(model), text, codes, _digest(held, state), *rest)
        hash(key)
    except Exception as error:  # get_config may raise anything; not sharing is always right
        _tell_once(" ".join(f"{type(error).__name__}: {error}".split())[:300])
        return None
    return key


@functools.cache
def _tell_once(why: str) -> None:
    log.warning(
        "each run of this model is compiled anew, because it cannot be looked into: %s", why
    )


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


def _may_hold_the_rate(
    structure: Any, model: keras.Model, held: list[Any], functions: list[Any]
) -> bool:
    """Tell whether something of the user's own may hold a rate that no configuration tells.

    Layers are written down with their arguments. A function is so by its name, a class by what it
    cares to tell; those that a builder makes may close over its arguments.
    """
    if not _is_variable(structure["optimizer"]):
        return True
    if any(local_kinds(one) or is_opaque(one) for one in held):
        return True
    for loss in keras.tree.flatten(getattr(model, "loss", None)):
        own = isinstance(loss, keras.losses.Loss) and of_a_library(type(loss))
        if not own and not isinstance(loss, str | None) and not inspect.isfunction(loss):
            return True
    if not all(_is_plain(one) for one in functions if not of_a_library(one)):
        return True
    names = {keras.saving.get_registered_name(one) for one in functions}
    return not set(_functions(structure)) <= names


def _is_variable(optimizer: Any) -> bool:
    """Tell whether all learning rates that Keras wrote down are numbers: it has them as variables.

    A schedule or a function, which it calls, may hold whatever it likes.
    """
    if isinstance(optimizer, list | tuple):
        return all(_is_variable(each) for each in optimizer)
    if not isinstance(optimizer, Mapping):
        return True
    rate = optimizer.get("learning_rate")
    number = isinstance(rate, str | int | float | None)
    return number and all(_is_variable(each) for each in optimizer.values())


def _is_plain(function: Any) -> bool:
    """Tell whether a function is its code and what `_written` adds."""
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return not function.__closure__ and all(
        isinstance(default, int | float | str | None) for default in defaults
    )


def _written(function: Any) -> Hashable:
    """Return what tells a function from others of its name."""
    defaults = function.__defaults__, function.__kwdefaults__
    return function.__module__, function.__code__, repr(defaults) if _is_plain(function) else ""


def _digest(held: list[Any], state: set[int]) -> str:
    """Return a checksum of arrays, tensors and numbers, but not of what is in variables.

    To JAX, variables and generators are constants where they are none of the model's state.
    """
    found, on_jax = hashlib.sha256(), keras.backend.backend() == "jax"
    for value in held:
        if on_jax and isinstance(value, keras.random.SeedGenerator):
            value = value.state
        if on_jax and isinstance(value, keras.Variable) and id(value) not in state:
            value = keras.ops.convert_to_numpy(value)
        number = isinstance(value, int | float)
        if number or (hasattr(value, "__array__") and _is_constant(value)):
            array = np.asarray(value)
        elif hasattr(type(value), "__array__") and package_of(type(value)) not in CLOSED:
            array = np.asarray(value)  # of pandas, say
            if array.dtype == object:
                array = np.asarray(repr(value))
        else:
            array = None
        if array is not None:
            found.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return found.hexdigest()


def _is_constant(array: Any) -> bool:
    if isinstance(array, np.ndarray | np.generic):
        return True
    return keras.ops.is_tensor(array) and not hasattr(array, "assign")


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
