"""Fingerprints of what a search is about: data, splits, estimators, parameters, functions.

Two values of the same contents have the same fingerprint in every process and on every machine.
Nothing is pickled for it: a pickle of equal values need not be the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np


def fingerprint(*values: Any) -> str:
    """Return the fingerprint of values, in their order.

    Parameters
    ----------
    *values : object
        Arrays, sparse matrices, frames, estimators, functions, distributions, generators of random
        numbers, and whatever is made of these.

    Returns
    -------
    str
        Sixteen hexadecimal digits.

    Examples
    --------
    >>> fingerprint({"a": 1, "b": [2.0]}) == fingerprint({"b": [2.0], "a": 1})
    True
    >>> fingerprint(1) == fingerprint(1.0)
    False
    """
    return _Digests().of(list(values))[:16]


class _Digests:
    """The digests of objects that may hold one another."""

    def __init__(self) -> None:
        #: By identity, with the object itself: as long as it is here nothing else has its place.
        self._known: dict[int, tuple[str, Any]] = {}

    def of(self, value: Any) -> str:
        """Return the digest of a value."""
        if id(value) not in self._known:
            # Met again inside itself, it stands for itself.
            self._known[id(value)] = "itself", value
            self._known[id(value)] = _digest(_parts(value, self.of)), value
        return self._known[id(value)][0]


def _digest(parts: Iterable[str | bytes | memoryview]) -> str:
    found = hashlib.sha256()
    for part in parts:
        # Each with its length, so that ("ab", "c") is another text than ("a", "bc").
        piece = part.encode() if isinstance(part, str) else part
        found.update(f"{len(piece)}:".encode())
        found.update(piece)
    return found.hexdigest()


def _parts(value: Any, inner: Callable[[Any], str]) -> list[Any]:
    """Return what makes a value what it is; what is inside it by its digest, `inner`."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    match value:
        case None | bool() | int() | float() | complex() | str():
            return [kind, repr(value)]
        case bytes() | bytearray():
            return [kind, bytes(value)]
        case np.ndarray() if value.dtype.hasobject:
            held = value.ravel().tolist()
            if all(type(one) is str for one in held):
                return [kind, "texts", str(value.shape), *held]
            return [kind, str(value.shape), *map(inner, held)]
        case np.ndarray():
            whole = np.ascontiguousarray(value)
            return ["ndarray", whole.dtype.str, str(value.shape), whole.reshape(-1).view(np.uint8)]
        case np.generic():
            return [kind, value.tobytes()]
        case Mapping():
            return [kind, *sorted(inner(key) + inner(held) for key, held in value.items())]
        case list() | tuple():
            return [kind, *map(inner, value)]
        case set() | frozenset():
            return [kind, *sorted(map(inner, value))]
        case type() | types.ModuleType() | types.BuiltinFunctionType():
            return [kind, getattr(value, "__module__", "") or "", _name(value)]
        case types.MethodType():
            return [kind, inner(value.__func__), inner(value.__self__)]
        case types.FunctionType():
            return [kind, *_function(value, inner)]
        case types.CodeType():
            return [kind, value.co_code, inner(value.co_names), inner(value.co_consts)]
        case functools.partial():
            return [kind, inner(value.func), inner(value.args), inner(value.keywords)]
        case np.random.RandomState():
            return [kind, inner(value.get_state(legacy=False))]
        case np.random.Generator():
            return [kind, inner(value.bit_generator.state)]
        case range() | slice():
            return [kind, repr(value)]
    if _is_sparse(value):
        whole = value.tocsr().copy()
        whole.sum_duplicates()
        return [kind, str(value.shape), *map(inner, (whole.data, whole.indices, whole.indptr))]
    if _is_frame(value):
        return [kind, *_frame(value, inner)]
    if hasattr(value, "get_params") and not inspect.isclass(value):
        return [kind, inner(value.get_params(deep=False))]
    if hasattr(value, "get_config") and hasattr(value, "get_weights"):  # A model of Keras's.
        return [kind, inner(value.get_config()), inner(value.get_weights())]
    if hasattr(value, "dist") and hasattr(value, "kwds"):  # A frozen distribution of SciPy.
        return [kind, value.dist.name, inner(value.args), inner(value.kwds)]
    return [kind, *_object(value, inner)]


def _function(value: types.FunctionType, inner: Any) -> list[str]:
    """Return what makes a function what it is: its code, and the values that it closes over."""
    closed = [] if value.__closure__ is None else [cell.cell_contents for cell in value.__closure__]
    parts = (value.__code__, value.__defaults__, value.__kwdefaults__, closed)
    return [value.__module__, value.__qualname__, *map(inner, parts)]


def _frame(value: Any, inner: Any) -> list[str]:
    """Return what makes a frame or series what it is: names, index and columns."""
    if not hasattr(value, "columns"):
        named = getattr(value, "name", None), getattr(value, "index", None)
        return [inner(named[0]), inner(np.asarray(named[1])), _column(value, inner)]
    index = getattr(value, "index", None)
    names = list(value.columns)
    columns = (
        [_column(value.iloc[:, n], inner) for n in range(len(names))]
        if _pandas(value)
        else [_column(value[name], inner) for name in names]
    )
    return [inner(names), inner(None if index is None else np.asarray(index)), *columns]


def _column(column: Any, inner: Any) -> str:
    return str(inner([str(column.dtype), np.asarray(column)]))


def _object(value: Any, inner: Any) -> list[str]:
    """Return what makes any other object what it is: its attributes, or else its own words."""
    if hasattr(value, "__dict__"):
        return [inner(vars(value))]
    text = repr(value)
    return [] if " at 0x" in text else [text]


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", None) or getattr(value, "__name__", ""))


def _is_sparse(value: Any) -> bool:
    return hasattr(value, "tocsr") and hasattr(value, "nnz")


def _pandas(value: Any) -> bool:
    return hasattr(value, "iloc")


def _is_frame(value: Any) -> bool:
    # A frame, or a series, of pandas or polars.
    return hasattr(value, "dtypes" if hasattr(value, "columns") else "to_frame") and hasattr(
        value, "shape"
    )
