"""When two models are the same program: what may differ is in variables, all else must be equal."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import sys
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from types import MethodType, SimpleNamespace
from typing import Any

import keras
import numpy as np

from stormsweep.training.building import arguments

#: Attributes of layers that are no part of a program: methods that Keras has wrapped, and losses of
#: the call before.
_PASSED_OVER = ("build", "quantize", "_losses", "_losses_override")
#: What layers hold beside layers, and describe themselves, but change no program: initial weights
#: are variables, and metrics are not computed.
_NO_PART = (keras.Layer, keras.initializers.Initializer, keras.metrics.Metric)
_OF_KERAS = ("keras", "tensorflow", "jax", "jaxlib")
#: What holds nothing that a user has put there.
_CLOSED = frozenset(sys.stdlib_module_names) | {*_OF_KERAS, "numpy", "optree", "ml_dtypes"}
#: So deep is looked, and at so many values: who holds more shares no program.
_DEPTH, _MOST = 12, 1_000_000


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
        parts, held = _parts(model)
        functions = [one for one in held if inspect.isfunction(one)]
        if not _may_hold_the_rate(structure, model, [*parts, *held], functions):
            passed = {name: value for name, value in passed.items() if name != "learning_rate"}
        text = json.dumps([_without_names(structure), passed], sort_keys=True)
        codes = tuple(_written(one) for one in functions if not _of_a_library(one))
        state = {id(variable) for variable in (*model.variables, *model.optimizer.variables)}
        key: tuple[Any, ...] = (builder, type(model), text, codes, _digest(held, state), *rest)
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


def _may_hold_the_rate(
    structure: Any, model: keras.Model, held: list[Any], functions: list[Any]
) -> bool:
    """Tell whether something of the user's own may hold a rate that no configuration tells.

    Layers are written down with their arguments. A function is so by its name, a class by what it
    cares to tell; those that a builder makes may close over its arguments.
    """
    if not _is_variable(structure["optimizer"]):
        return True
    if any(_local_kinds(one) or _is_opaque(one) for one in held):
        return True
    for loss in keras.tree.flatten(getattr(model, "loss", None)):
        own = isinstance(loss, keras.losses.Loss) and _of_a_library(type(loss))
        if not own and not isinstance(loss, str | None) and not inspect.isfunction(loss):
            return True
    if not all(_is_plain(one) for one in functions if not _of_a_library(one)):
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


def _of_a_library(what: Any) -> bool:
    return _package(what) in _OF_KERAS


def _package(what: Any) -> str:
    return str(getattr(what, "__module__", "")).partition(".")[0]


def _local_kinds(what: Any) -> list[type]:
    """Return those classes of an object that a function made: their methods may close over more."""
    kinds = type(what).__mro__
    return [kind for kind in kinds if "<locals>" in kind.__qualname__ and not _of_a_library(kind)]


def _is_opaque(what: Any) -> bool:
    """Tell whether something of a user's is called, and nobody can see what it holds."""
    return (
        callable(what)
        and not isinstance(what, (type, *_NO_PART))
        and _package(type(what)) not in _CLOSED
        and not hasattr(what, "__dict__")
    )


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


def _parts(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """Return what a program is made of, and what these parts hold.

    Parts are layers and optimizers, and the constraints, regularizers and losses that they hold.
    """
    parts = model._flatten_layers(include_self=True)
    parts += [model.optimizer, getattr(model.optimizer, "inner_optimizer", None)]
    look = _Look()
    held = [value for part in parts for value in _held(part, look)]
    for variable in model.variables:
        held += [getattr(variable, "regularizer", None), getattr(variable, "constraint", None)]
    described = {
        id(value): value
        for value in held
        if callable(value)
        and hasattr(value, "get_config")
        and not isinstance(value, (type, *_NO_PART))
    }
    held += [value for part in described.values() for value in _held(part, look)]
    tracked = {id(part) for part in parts}
    # Some are called by a function or an object, and Keras does not know of them.
    for layer in [one for one in held if isinstance(one, keras.Layer) and id(one) not in tracked]:
        for part in layer._flatten_layers(include_self=True):
            if id(part) not in tracked:
                tracked.add(id(part))
                parts.append(part)
                held += [*_held(part, look), *part.variables]
    return [*parts, *described.values()], held


def _held(part: Any, look: _Look) -> Iterator[Any]:
    """Return the attributes of a part, and what is in them, and in methods made by a function."""
    for name, value in getattr(part, "__dict__", {}).items():
        if name in _PASSED_OVER:
            continue
        for found in look.within(value):
            # Keras itself counts: how often a layer that models share was called, say.
            if not (isinstance(found, int) and _is_of_keras(part, name)):
                yield found
    for kind in _local_kinds(part):
        for value in vars(kind).values():
            yield from look.within(value)


def _is_of_keras(part: Any, name: str) -> bool:
    """Tell whether a private attribute of a part is Keras's or TensorFlow's own."""
    if not name.startswith("_"):
        return False
    return name.startswith("_self_") or name in _names_of_keras() or _of_a_library(type(part))


@functools.cache
def _names_of_keras() -> set[str]:
    case = keras.Input((1,))
    made = (
        *(keras.layers.Layer(), keras.Sequential(), keras.Model(case, case)),
        *(keras.optimizers.SGD(), keras.losses.MeanSquaredError()),
    )
    return {"_obj_reference_counts_dict"}.union(*map(vars, made))


class _Look:
    """Finds what values hold: each of them once, and not without end."""

    def __init__(self) -> None:
        self._opened: dict[int, Any] = {}
        self._count = 0

    def within(self, value: Any, depth: int = _DEPTH) -> Iterator[Any]:
        """Return a value, and what is in it: in collections, functions, methods and objects.

        Raises
        ------
        ValueError
            If that is too much.
        """
        self._count += 1
        if self._count > _MOST:
            raise ValueError("too much to look at")
        if not isinstance(value, Mapping | list | tuple):
            yield value
        inside = _inside(value)
        if inside and depth and self._opened.setdefault(id(value), inside) is inside:
            for each in inside:
                yield from self.within(each, depth - 1)


def _inside(value: Any) -> list[Any]:
    """Return what a value holds, in an order that does not depend on chance."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | deque):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, staticmethod | classmethod):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget]
    if inspect.isfunction(value):
        if _of_a_library(value):
            return []
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        # Which are called there, and do not make initial weights.
        seeds = [one.seed for one in (*cells, *defaults) if hasattr(one, "seed") and _draws(one)]
        return [*cells, *defaults, *vars(value).values(), *seeds]
    if isinstance(value, (type, *_NO_PART)):
        return []
    if callable(value) and (taken := _taken_over(value)) is not None:
        return [taken]
    if _package(type(value)) in _CLOSED and not isinstance(value, SimpleNamespace):
        return []
    methods = [one for kind in _local_kinds(value) for one in vars(kind).values()]
    names = [name for kind in type(value).__mro__ for name in _slots(kind)]
    slots = [getattr(value, name) for name in names if hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).values(), *slots, *methods]


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    named = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in named if name not in ("__dict__", "__weakref__")]


def _draws(value: Any) -> bool:
    return isinstance(value, keras.initializers.Initializer)


def _taken_over(value: Any) -> Any:
    """Return the function that TensorFlow, JAX or a cache has taken over; None: there is none."""
    for name in ("python_function", "__wrapped__"):
        with contextlib.suppress(Exception):  # a user's object may raise anything
            if inspect.isfunction(inner := getattr(value, name, None)):
                return inner
    return None


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
        elif hasattr(type(value), "__array__") and _package(type(value)) not in _CLOSED:
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
