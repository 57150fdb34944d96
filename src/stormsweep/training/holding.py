"""What a model is made of, and what users have put into its parts, wherever they hide it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from types import MethodType, SimpleNamespace
from typing import Any

import keras

#: Attributes of layers that are no part of a program: methods that Keras has wrapped, and losses of
#: the call before.
_PASSED_OVER = ("build", "quantize", "_losses", "_losses_override")
#: What layers hold beside layers, and describe themselves, but change no program: initial weights
#: are variables, and metrics are not computed.
_NO_PART = (keras.Layer, keras.initializers.Initializer, keras.metrics.Metric)
_OF_KERAS = ("keras", "tensorflow", "jax", "jaxlib")
#: What holds nothing that a user has put there.
CLOSED = frozenset(sys.stdlib_module_names) | {*_OF_KERAS, "numpy", "optree", "ml_dtypes"}
#: So deep is looked, and at so many values: who holds more shares no program.
_DEPTH, _MOST = 12, 1_000_000


def parts_of(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """Return what a program is made of, and what these parts hold.

    Parts are layers and optimizers, and the constraints, regularizers and losses that they hold.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.

    Returns
    -------
    tuple of list and list
        The parts; and all that is in their attributes, opened as far as users may have put anything
        there.

    Raises
    ------
    ValueError
        If it is too much to look at.
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
    for kind in local_kinds(part):
        for value in vars(kind).values():
            yield from look.within(value)


def _is_of_keras(part: Any, name: str) -> bool:
    """Tell whether a private attribute of a part is Keras's or TensorFlow's own."""
    if not name.startswith("_"):
        return False
    return name.startswith("_self_") or name in _names_of_keras() or of_a_library(type(part))


@functools.cache
def _names_of_keras() -> set[str]:
    case = keras.Input((1,))
    same = keras.layers.Identity()(case)  # Keras before 3.14 knows no model without a layer
    made = (
        *(keras.layers.Layer(), keras.Sequential(), keras.Model(case, same)),
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
        if of_a_library(value):
            return []
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        # They are called there, and do not make initial weights.
        drawing = keras.initializers.Initializer
        seeds = [
            getattr(one, "seed", None) for one in (*cells, *defaults) if isinstance(one, drawing)
        ]
        return [*cells, *defaults, *vars(value).values(), *seeds]
    if isinstance(value, (type, *_NO_PART)):
        return []
    if callable(value) and (taken := _taken_over(value)) is not None:
        return [taken]
    if package_of(type(value)) in CLOSED and not isinstance(value, SimpleNamespace):
        return []
    methods = [one for kind in local_kinds(value) for one in vars(kind).values()]
    names = [name for kind in type(value).__mro__ for name in _slots(kind)]
    slots = [getattr(value, name) for name in names if hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).values(), *slots, *methods]


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    named = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in named if name not in ("__dict__", "__weakref__")]


def _taken_over(value: Any) -> Any:
    """Return the function that TensorFlow, JAX or a cache has taken over; None: there is none."""
    for name in ("python_function", "__wrapped__"):
        with contextlib.suppress(Exception):  # a user's object may raise anything
            if inspect.isfunction(inner := getattr(value, name, None)):
                return inner
    return None


def of_a_library(what: Any) -> bool:
    """Tell whether a class or a function is of Keras, or of what it computes with."""
    return package_of(what) in _OF_KERAS


def package_of(what: Any) -> str:
    """Return the package that a class or a function is of; empty where it does not say."""
    return str(getattr(what, "__module__", "")).partition(".")[0]


def local_kinds(what: Any) -> list[type]:
    """Return those classes of an object that a function made: their methods may close over more."""
    kinds = type(what).__mro__
    return [kind for kind in kinds if "<locals>" in kind.__qualname__ and not of_a_library(kind)]


def is_opaque(what: Any) -> bool:
    """Tell whether something of a user's is called, and nobody can see what it holds."""
    return (
        callable(what)
        and not isinstance(what, (type, *_NO_PART))
        and package_of(type(what)) not in CLOSED
        and not hasattr(what, "__dict__")
    )
