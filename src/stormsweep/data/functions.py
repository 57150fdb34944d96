"""Source ``package.module:function``: data that a Python function of the user returns."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.config.study import DataTable
from stormsweep.data.arrays import Progress, prepare_arrays
from stormsweep.data.layout import digest
from stormsweep.data.prepared import PreparedData
from stormsweep.data.provenance import of_files
from stormsweep.errors import DataError, nearest
from stormsweep.files import namesake

_KEYS = ("inputs", "target", "groups", "synthetic", "units")


def prepare_function(
    config: DataTable,
    seed: int,
    destination: Path,
    progress: Progress | None = None,
    *,
    group_by: str = "none",
) -> PreparedData:
    """Prepare what a function returns.

    The function takes no argument, or one, the table ``[data]`` as a `DataTable`. It returns a
    mapping:

    ``inputs``
        Numbers of shape (n, h, w), (n, h, w, channels) or (n, columns).
    ``target``
        Numbers of shape (n,).
    ``groups``
        Optional: a mapping from names to labels of shape (n,).
    ``synthetic``
        Optional: True if the data are made up; False by default.
    ``units``
        Optional: units of the target, text.

    Parameters
    ----------
    config : DataTable
        ``source`` is ``package.module:function`` or ``/path/file.py:function``. ``inputs`` may
        name the channels, ``target`` the target; ``groups`` are the function's own.
    seed, destination, progress, group_by
        As for `stormsweep.data.tables.prepare_csv`.

    Raises
    ------
    DataError
        In one line, if the function cannot be found, raises, or returns something else.
    """
    function = find(config.source)
    where = f"data.source: {config.source}"
    try:
        result = function(config) if _takes_config(function) else function()
    except Exception as error:
        raise DataError(f"{where}: {_one_line(error)}") from error
    if not isinstance(result, Mapping):
        raise DataError(
            f"{where}: returned {type(result).__name__}; a mapping with inputs and target is "
            "expected"
        )
    for key in result:
        if key not in _KEYS:
            raise DataError(
                f"{where}: returned the key {key!r}{nearest(str(key), _KEYS)}; allowed: "
                f"{', '.join(_KEYS)}"
            )
    for key in ("inputs", "target"):
        if key not in result:
            raise DataError(f"{where}: returned no {key!r}")
    given = result.get("groups") or {}
    if not isinstance(given, Mapping):
        raise DataError(f"{where}: groups are {type(given).__name__}; a mapping is expected")
    synthetic, units = result.get("synthetic", False), result.get("units", "")
    if not isinstance(synthetic, (bool, np.bool_)) or not isinstance(units, str):
        raise DataError(f"{where}: synthetic must be True or False, units text")
    return prepare_arrays(
        config,
        seed,
        destination,
        progress,
        group_by,
        where=where,
        names=("inputs", config.target or "target"),
        inputs=_as_array(where, "inputs", result["inputs"]),
        target=_as_array(where, "target", result["target"]),
        groups={
            str(name): _as_array(where, f"groups[{name!r}]", values)
            for name, values in given.items()
        },
        synthetic=bool(synthetic),
        units=units,
        provenance={"function": config.source, **_code(function)},
    )


def check_place(source: str) -> None:
    """See, without importing anything, whether the file or package of a function exists.

    Raises
    ------
    DataError
        If it does not.
    """
    place, _ = _parts(source)
    if place.endswith(".py"):
        _check_file(Path(place))
        return
    top = place.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        raise DataError(f"data.source: there is no module {top!r}")


def find(source: str) -> Callable[..., Any]:
    """Import the function that ``package.module:function`` or ``/path/file.py:function`` names.

    Raises
    ------
    DataError
        If the module or the function is missing, or the module raises when it is imported.
    """
    place, name = _parts(source)
    try:
        module = _load(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if place == missing or place.startswith(f"{missing}."):
            raise DataError(f"data.source: there is no module {missing!r}") from None
        raise DataError(f"data.source: importing {place}: {_one_line(error)}") from error
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"data.source: importing {place}: {_one_line(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise DataError(f"data.source: {place} has no function {name!r}{nearest(name, known)}")
    found: Callable[..., Any] = function
    return found


def _parts(source: str) -> tuple[str, str]:
    """Return the module or file, and the name of the function."""
    place, _, name = source.rpartition(":")
    named = place.endswith(".py") or place.partition(".")[0]
    if not named or not name.isidentifier():
        raise DataError(
            f'data.source: given {source!r}; must be "package.module:function" or '
            '"/path/file.py:function"'
        )
    return place, name


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"data.source: there is no file {path}{namesake(path)}")


def _load(path: Path) -> ModuleType:
    _check_file(path)
    # Files of one name in two folders are two modules.
    name = f"_stormsweep_data_{path.stem}_{digest(str(path.resolve()))[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise DataError(f"data.source: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _takes_config(function: Callable[..., Any]) -> bool:
    """Whether the function has a parameter without default, or one called config."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = next((one for one in parameters if one.kind in positional), None)
    return first is not None and (
        first.default is inspect.Parameter.empty or first.name == "config"
    )


def _code(function: Callable[..., Any]) -> dict[str, Any]:
    """Describe the file that the function stands in, so that an edit of it is noticed."""
    try:
        path = Path(inspect.getsourcefile(inspect.unwrap(function)) or "")
    except TypeError:
        return {}
    return of_files(path.parent, [path]) if path.is_file() else {}


def _as_array(where: str, name: str, value: Any) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {name}: {_one_line(error)}") from None
    if array.ndim == 0:
        raise DataError(f"{where}: {name} is a single value; one entry a case is expected")
    return array


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
