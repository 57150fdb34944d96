"""How a model builder is found and checked; needs no Keras itself."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from stormsweep.errors import ModelError, nearest

#: From hyperparameters (as keywords) to a Keras model, compiled or not.
Builder = Callable[..., Any]

#: Given by the engine, not by the study's space; passed to a builder that asks for them by name.
GIVEN = ("input_shape",)
#: Used by the engine; passed on only to a builder that asks for them by name.
SHARED = ("batch_size", "learning_rate")
_KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_place(spec: str) -> None:
    """See, without importing anything, whether the file or package of a builder exists.

    Raises
    ------
    ModelError
        If it does not.
    """
    place = spec.rpartition(":")[0]
    if place.endswith(".py"):
        if not Path(place).is_file():
            raise _no_file(spec, Path(place))
    elif importlib.util.find_spec(place.partition(".")[0]) is None:
        raise ModelError(
            f"model.build: given {spec!r}; there is no module {place.partition('.')[0]!r}"
        )


def find_builder(spec: str) -> Builder:
    """Import a model builder.

    Parameters
    ----------
    spec : str
        ``package.module:function`` or ``/path/file.py:function``. A file is loaded under a name of
        its own, with its folder importable, and again only if it changed.

    Returns
    -------
    callable
        The function.

    Raises
    ------
    ModelError
        If there is no such file, module or function, if importing it raises, or if it cannot be
        called.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name.isidentifier():
        raise ModelError(
            f'model.build: given {spec!r}; must be "package.module:function" or "file.py:function"'
        )
    module = _load_file(spec, Path(place)) if place.endswith(".py") else _load_module(spec, place)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ModelError(f"model.build: {place} has no function {name!r}{nearest(name, known)}")
    function = getattr(module, name)
    if not callable(function):
        raise ModelError(
            f"model.build: {spec} is {_article(type(function).__name__)}; must be a function"
        )
    return function  # type: ignore[no-any-return]


def _load_module(spec: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            parent, _, last = name.rpartition(".")
            known = _submodules(sys.modules.get(parent)) if parent else list(sys.modules)
            raise ModelError(
                f"model.build: given {spec!r}; there is no module {missing!r}{nearest(last, known)}"
            ) from None
        raise _import_failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _load_file(spec: str, path: Path) -> ModuleType:
    try:
        path = path.resolve()
        status = path.stat()
    except OSError:
        raise _no_file(spec, path) from None
    # Another name for another content: an edited file is loaded anew, an unchanged one never twice.
    mark = hashlib.sha256(f"{path} {status.st_mtime_ns} {status.st_size}".encode()).hexdigest()[:12]
    name = f"stormsweep_builder_{path.stem}_{mark}"
    if name in sys.modules:
        return sys.modules[name]
    loader = importlib.util.spec_from_file_location(name, path)
    if loader is None or loader.loader is None:
        raise ModelError(f"model.build: {path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(loader)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        loader.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _import_failed(str(path), error) from error
    return module


def _no_file(spec: str, path: Path) -> ModelError:
    known = [entry.name for entry in path.parent.glob("*.py")]
    return ModelError(
        f"model.build: given {spec!r}; there is no file {path}{nearest(path.name, known)}"
    )


def _submodules(package: ModuleType | None) -> list[str]:
    import pkgutil

    return [info.name for info in pkgutil.iter_modules(getattr(package, "__path__", []))]


def _import_failed(place: str, error: BaseException) -> ModelError:
    text = " ".join(str(error).split())
    return ModelError(f"model.build: importing {place} raised {type(error).__name__}: {text}")


def check_builder(function: Builder, names: Iterable[str]) -> None:
    """See whether a builder takes the hyperparameters of a study.

    Parameters
    ----------
    function : callable
        The builder.
    names : iterable of str
        Names of all hyperparameters, searched and fixed.

    Raises
    ------
    ModelError
        If a hyperparameter is not taken, if a parameter without default is given by nobody, or if
        the builder asks for ``epochs``: one training serves all numbers of epochs, so the model
        must not depend on it.
    """
    check_parameters(_label(function), *_parameters(function), names)


def check_parameters(
    label: str, taken: Mapping[str, inspect.Parameter], any_name: bool, names: Iterable[str]
) -> None:
    """See whether parameters fit the hyperparameters of a study; see `check_builder`.

    Parameters
    ----------
    label : str
        What the builder is called.
    taken : mapping
        Its parameters that can be given by name.
    any_name : bool
        Whether it takes any other name as well.
    names : iterable of str
        Names of all hyperparameters.

    Raises
    ------
    ModelError
        If they do not.
    """
    names = [name for name in names if name != "epochs"]
    if "epochs" in taken:
        raise ModelError(
            f"model.build: {label} has a parameter 'epochs'; the same training is scored at every "
            "number of epochs, so the model must not depend on it"
        )
    for name in names:
        if name not in taken and name not in SHARED and not any_name:
            allowed = [known for known in taken if known not in GIVEN]
            meant = nearest(name, [*allowed, *SHARED, "epochs"])
            raise ModelError(
                f"model.build: {label} does not take {name!r}{meant}; "
                f"it takes {', '.join(allowed) or 'no hyperparameters'}"
            )
    for name, parameter in taken.items():
        if parameter.default is inspect.Parameter.empty and name not in (*names, *GIVEN):
            raise ModelError(
                f"model.build: {label} needs {name!r}{nearest(name, names)}; "
                "give it in search.space or model.parameters"
            )


def _parameters(function: Builder) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the parameters that can be given by name, and whether any name is taken."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise ModelError(
            f"model.build: {_label(function)} does not say which parameters it takes; "
            "wrap it in a function with named parameters"
        ) from None
    taken = {p.name: p for p in parameters if p.kind in _KEYWORDS}
    return taken, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _label(function: Builder) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
