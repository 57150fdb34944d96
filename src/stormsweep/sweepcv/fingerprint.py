"""Fingerprints of what a search is about: data, splits, estimators, parameters, functions.

Two values of the same contents have the same fingerprint in every process and on every machine.
Nothing is pickled for it: a pickle of equal values need not be the same bytes. But what a pickle
would take of an object, that is, what workers are given of it, is what an object is. What offers
nothing of the kind is refused: a search must not go on with the scores of other data.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import inspect
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import MetadataRequest

from stormsweep.errors import UserError

#: Code below these is not the user's own, nor is what was installed (see `_installed`).
_LIBRARIES = (Path(os.__file__).parent, Path(__file__).parents[1])
#: What scikit-learn's `clone` carries over beside an estimator's parameters.
_CARRIED = ("_metadata_request", "_sklearn_output_config")
#: What fitted estimators hold that is another each time: an address, a version, times of fits.
_FLEETING = frozenset(("_stop_words_id", "_sklearn_version", "cv_results_", "refit_time_"))


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

    Raises
    ------
    UserError
        If an object does not say what it holds.

    Examples
    --------
    >>> fingerprint({"a": 1, "b": [2.0]}) == fingerprint({"b": [2.0], "a": 1})
    True
    >>> fingerprint(1) == fingerprint(1.0)
    False
    """
    return _Digests().of(list(values))[:16]


class _Digests:
    """The digests of objects that may hold one another.

    Parameters
    ----------
    learned : bool
        Whether an estimator is what it has learned, or only its parameters.
    """

    def __init__(self, learned: bool = False) -> None:
        self._learned = learned
        #: By identity, with the object itself: as long as it is here nothing else has its place.
        self._known: dict[int, tuple[str, Any]] = {}

    def of(self, value: Any) -> str:
        """Return the digest of a value."""
        if id(value) not in self._known:
            # Met again inside itself, it stands for itself.
            self._known[id(value)] = "itself", value
            try:
                self._known[id(value)] = _digest(_parts(value, self.of, self._learned)), value
            except BaseException:
                del self._known[id(value)]
                raise
        return self._known[id(value)][0]


def _digest(parts: Iterable[str | bytes | memoryview]) -> str:
    found = hashlib.sha256()
    for part in parts:
        # Each with its length, so that ("ab", "c") is another text than ("a", "bc").
        piece = part.encode() if isinstance(part, str) else part
        found.update(f"{len(piece)}:".encode())
        found.update(piece)
    return found.hexdigest()


def _parts(value: Any, inner: Callable[[Any], str], learned: bool) -> list[Any]:
    """Return what makes a value what it is; what is inside it by its digest, `inner`."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    match value:
        case None:
            return [kind]
        case bool() | int() | float() | complex() | str():
            plain = next(t for t in (bool, int, float, complex, str) if isinstance(value, t))
            return [kind, plain.__repr__(value)]
        case bytes() | bytearray():
            return [kind, bytes(value)]
        case np.ma.MaskedArray():
            masked = np.ma.getmaskarray(value), value.fill_value
            return [kind, inner(np.asarray(value.data)), *map(inner, masked)]
        case np.ndarray():
            return [kind, *_array(value, inner)]
        case np.generic():
            return [kind, inner(np.asarray(value))]
        case _ if _is_of(value, "xarray") and hasattr(value, "coords"):
            return [kind, *_labelled(value, inner)]
        case Mapping():
            return [kind, *sorted(inner(key) + inner(held) for key, held in value.items())]
        case list() | tuple():
            return [kind, *map(inner, value)]
        case set() | frozenset():
            return [kind, *sorted(map(inner, value))]
        case type() | types.ModuleType() | types.BuiltinFunctionType():
            # A method of an object is that object's.
            owner = getattr(value, "__self__", None)
            owner = None if isinstance(owner, types.ModuleType) else owner
            return [kind, getattr(value, "__module__", "") or "", _name(value), inner(owner)]
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
            return [kind, inner([value.start, value.stop, value.step])]
        case MetadataRequest():  # It also holds its estimator, which may be the one it was of.
            return [kind, repr(value)]
    if _is_sparse(value):
        whole = value.tocsr().copy()
        whole.sum_duplicates()
        return [kind, str(value.shape), *map(inner, (whole.data, whole.indices, whole.indptr))]
    if _is_frame(value):
        return [kind, *_frame(value, inner)]
    if hasattr(value, "get_params") and not inspect.isclass(value):
        return [kind, *_estimator(value, inner, learned)]
    if hasattr(value, "get_config") and hasattr(value, "get_weights"):  # A model of Keras's.
        return [kind, inner(value.get_config()), inner(value.get_weights())]
    if hasattr(value, "get_config") and _is_of(value, "keras"):
        # A loss, say. A pickle has the time in it, and its configuration may not be all. Names are
        # numbered as things are made.
        held = value.get_config() | {n: v for n, v in vars(value).items() if n[0] != "_"}
        return [kind, *_values({n: v for n, v in held.items() if n != "name"}, inner)]
    if hasattr(value, "dist") and hasattr(value, "kwds"):  # A frozen distribution of SciPy.
        return [kind, value.dist.name, inner(value.args), inner(value.kwds)]
    return [kind, *_object(value, inner)]


def _estimator(value: Any, inner: Any, learned: bool) -> list[Any]:
    """Return what makes an estimator what it is: what a clone of it would have."""
    if learned:
        return _object(value, inner)
    clone = getattr(type(value), "__sklearn_clone__", BaseEstimator.__sklearn_clone__)
    if clone is not BaseEstimator.__sklearn_clone__:
        # A frozen one is its own clone: what it has learned reaches every fit.
        return [_Digests(learned=True).of(value)]
    carried = {name: getattr(value, name) for name in _CARRIED if hasattr(value, name)}
    return [inner(value.get_params(deep=False)), *([inner(carried)] if carried else [])]


def _array(value: Any, inner: Any) -> list[Any]:
    """Return what makes an array what it is, whatever its class adds."""
    # The short form of the type does not say what fields there are.
    fields = inner(value.dtype) if value.dtype.names else ""
    about = [value.dtype.str, fields, str(value.shape)]
    added = [] if type(value) in (np.ndarray, np.memmap) else [inner(getattr(value, "__dict__", 0))]
    if value.dtype.hasobject:
        held = value.ravel().tolist()
        if all(type(one) is str for one in held):
            return [*about, "texts", *held, *added]
        return [*about, *map(inner, held), *added]
    whole = np.ascontiguousarray(value).view(np.ndarray)
    return [*about, whole.reshape(-1).view(np.uint8), *added]


def _labelled(value: Any, inner: Any) -> list[str]:
    """Return what makes an array or a data set of xarray what it is: its coordinates, too."""
    whole = isinstance(value, Mapping)
    held = dict(value.variables if whole else value.coords)
    named = {name: [list(one.dims), np.asarray(one)] for name, one in held.items()}
    parts = [named, list(value.coords), dict(value.attrs), dict(getattr(value, "children", {}))]
    if not whole:
        parts += [value.name, list(value.dims), np.asarray(value)]
    return list(map(inner, parts))


def _function(value: types.FunctionType, inner: Any) -> list[str]:
    """Return what makes a function what it is: its code, and the values that it gets at.

    Those that it closes over; of the user's own functions also those of its module that its code
    names. Installed modules are what they are.
    """
    closed = [_content(cell) for cell in value.__closure__ or ()]
    parts = [value.__code__, value.__defaults__, value.__kwdefaults__, closed]
    found = [str(value.__module__), value.__qualname__, *map(inner, parts)]
    if not _installed(value.__code__.co_filename):
        names = sorted(set(_names(value.__code__, only_global=True)))
        attributes = frozenset(_names(value.__code__))
        found += _reached(names, value.__globals__, attributes, inner)
    return found


def _content(cell: types.CellType) -> list[Any]:
    """Return what a closure's cell holds; one may be empty (a function that is not there yet)."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _names(code: types.CodeType, only_global: bool = False) -> Iterator[str]:
    """Yield the names in a code and in what is defined inside it."""
    if only_global:
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield str(step.argval)
    else:
        yield from code.co_names
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _names(one, only_global)


def _reached(
    names: Iterable[str], held: Mapping[str, Any], attributes: frozenset[str], inner: Any
) -> list[str]:
    """Return the values of names among `held`; of a user's own module what is named of it."""
    found = []
    for name in names:
        if name not in held or name.startswith("__"):
            continue
        value = held[name]
        if isinstance(value, types.ModuleType) and not _installed(getattr(value, "__file__", None)):
            # Without its name, which no function names of itself, it would not come to an end.
            below = sorted(attributes & vars(value).keys())
            found.append(name)
            found += _reached(below, vars(value), attributes - {name}, inner)
            continue
        found += _values({name: value}, inner)
    return found


def _values(held: Mapping[str, Any], inner: Any) -> list[str]:
    """Return values by name; of what has no fingerprint, what it is."""
    found = []
    for name in sorted(held):
        try:
            found += [name, inner(held[name])]
        except UserError:
            # A lock, an open file: nothing that scores are made of.
            found += [name, type(held[name]).__qualname__]
    return found


def _installed(file: str | None) -> bool:
    """Say whether a file of code is of Python, of a package that was installed, or of ours."""
    if file is None or file.startswith("<frozen"):
        return True
    path = Path(file)
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts) or any(
        path.is_relative_to(library) for library in _LIBRARIES
    )


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
    kind = column.dtype
    # Categories that do not occur are features of some estimators.
    known = [np.asarray(kind.categories), kind.ordered] if hasattr(kind, "ordered") else []
    return str(inner([str(kind), *known, np.asarray(column)]))


def _object(value: Any, inner: Any) -> list[str]:
    """Return what makes any other object what it is: its numbers, or what a pickle would take."""
    try:
        if hasattr(value, "__array__"):
            if hasattr(value, "detach"):  # A tensor of PyTorch's, which may be on a GPU.
                value = value.detach().cpu()
            return [inner(np.asarray(value)), inner(getattr(value, "mask", None))]
        reduce = copyreg.dispatch_table.get(type(value))
        taken: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        why = " ".join(str(error).split())
        raise UserError(
            f"directory: an object of {kind} does not say what it holds, so that a search with "
            f"other data could not be told from this one ({type(error).__name__}: {why}); search "
            "without a directory, or give the class __getstate__"
        ) from error
    if isinstance(taken, str):  # Something that a module has by this name.
        module = str(getattr(value, "__module__", ""))
        return [module, taken, inner(getattr(value, "__wrapped__", None))]
    make, arguments, state, *more = [*taken, None, None][: max(3, len(taken))]
    if isinstance(state, dict):
        state = {name: held for name, held in state.items() if name not in _FLEETING}
    made = _place(make) if isinstance(make, types.FunctionType) else inner(make)
    items = [list(one) if isinstance(one, Iterator) else one for one in more if one is not None]
    return [made, inner(arguments), inner(state), inner(items)]


def _place(value: types.FunctionType) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", None) or getattr(value, "__name__", ""))


def _is_of(value: Any, package: str) -> bool:
    """Say whether a value is an instance of a class of a package, which need not be installed."""
    return any(base.__module__.partition(".")[0] == package for base in type(value).__mro__)


def _is_sparse(value: Any) -> bool:
    return hasattr(value, "tocsr") and hasattr(value, "nnz")


def _pandas(value: Any) -> bool:
    return hasattr(value, "iloc")


def _is_frame(value: Any) -> bool:
    # A frame, or a series, of pandas or polars.
    return hasattr(value, "dtypes" if hasattr(value, "columns") else "to_frame") and hasattr(
        value, "shape"
    )
