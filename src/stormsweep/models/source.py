"""A model builder checked by reading its source: nothing is imported, Keras least of all.

What the source alone does not tell for certain (a decorated function, a name that is bound twice,
a module that is not written in Python) passes here; a worker, which imports it, finds it out.
"""

from __future__ import annotations

import ast
import importlib.util
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from inspect import Parameter
from pathlib import Path

from stormsweep.errors import ModelError, nearest
from stormsweep.models.build import check_parameters

#: Imports that are followed from module to module, at most.
_DEEPEST = 5
#: What a module may get names by that do not stand in it.
_HIDDEN = ("__getattr__", "globals", "setattr", "exec", "__dict__", "modules")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """A module as text: its file, its name as a package's module (none for a file), its tree."""

    path: Path
    name: str
    tree: ast.Module


def check_source(spec: str, names: Iterable[str]) -> Path | None:
    """Refuse a builder whose source shows that it cannot be found or does not take the space.

    Parameters
    ----------
    spec : str
        ``package.module:function`` or ``/path/file.py:function``.
    names : iterable of str
        Names of all hyperparameters, searched and fixed.

    Returns
    -------
    Path or None
        The file that the function stands in, where that is certain.

    Raises
    ------
    ModelError
        If the file is not Python, has no such function, or its parameters do not fit.
    """
    function = spec.rpartition(":")[2]
    found = _found(spec)
    if found is None:
        return None
    path, definition = found
    if definition.args.kwarg is None:
        check_parameters(function, dict(_parameters(definition.args)), False, names)
    return path


def asks_for(spec: str, name: str) -> bool:
    """Tell whether a builder's source shows that it asks for a hyperparameter by name.

    Parameters
    ----------
    spec : str
        As for `check_source`.
    name : str
        Of the hyperparameter.
    """
    try:
        found = _found(spec)
    except ModelError:
        return False
    return found is not None and name in dict(_parameters(found[1].args))


def _found(spec: str) -> tuple[Path, _Definition] | None:
    """Return the definition of a builder and its file; None where that is not certain."""
    place, _, function = spec.rpartition(":")
    try:
        module = read_file(Path(place)) if place.endswith(".py") else read_module(place)
        if module is None:
            return None
        bound = binding(module.tree, function)
        if not bound and not _hides(module.tree):
            known = [node.name for node in module.tree.body if isinstance(node, _Definition)]
            raise ModelError(
                f"model.build: {place} has no function {function!r}{nearest(function, known)}"
            )
        return _definition(module, function, bound)
    except RecursionError:
        return None


def read_file(path: Path) -> Source | None:
    """Read a file, or return None where it cannot be read; a mistake in it is a `ModelError`."""
    try:
        with warnings.catch_warnings():
            # Of escapes in texts, say: a worker that imports the file gives them.
            warnings.simplefilter("ignore")
            return Source(path, "", ast.parse(path.read_bytes()))
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise ModelError(f"model.build: {path}{line}: SyntaxError: {error.msg}") from None
    except (OSError, ValueError, MemoryError):
        return None


def read_module(name: str) -> Source | None:
    """Read a module without importing it or its parents, or return None if there is no source."""
    found: ModuleSpec | None = None
    top, *rest = name.split(".")
    try:
        found = importlib.util.find_spec(top)
        for number in range(len(rest)):
            if found is None or found.submodule_search_locations is None:
                return None
            full = ".".join([top, *rest[: number + 1]])
            found = PathFinder.find_spec(full, list(found.submodule_search_locations))
    except (ImportError, ValueError, AttributeError):
        return None
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return None
    source = read_file(Path(found.origin))
    return source and Source(source.path, name, source.tree)


def _definition(
    module: Source, name: str, bound: list[ast.AST], depth: int = 0
) -> tuple[Path, _Definition] | None:
    """Return the function that a name stands for, and its file; None where that is not certain."""
    if len(bound) != 1 or bound[0] not in module.tree.body or depth > _DEEPEST:
        return None
    (one,) = bound
    if isinstance(one, ast.FunctionDef):
        return None if one.decorator_list else (module.path, one)
    if not isinstance(one, ast.ImportFrom) or not one.module or not module.name:
        return None
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    try:
        full = importlib.util.resolve_name("." * one.level + one.module, package)
    except ImportError:
        return None
    # Another package may do with its modules what it likes when it is imported.
    other = read_module(full) if full.partition(".")[0] == module.name.partition(".")[0] else None
    if other is None:
        return None
    original = [alias.name for alias in one.names if (alias.asname or alias.name) == name][-1]
    return _definition(other, original, binding(other.tree, original), depth + 1)


def binding(tree: ast.Module, name: str) -> list[ast.AST]:
    """Return all that binds or alters a name of a module, or may do so."""
    nodes = list(_own(tree))
    own = [number for number, node in enumerate(nodes) if name in _names(node)]
    # What `import *` brings is bound anew by what follows.
    first = own[-1] if own else -1
    return [
        node
        for number, node in enumerate(nodes)
        if number in own or ("*" in _names(node) and number > first)
    ]


def _own(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk what belongs to a module itself, and what functions declare to be global."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if isinstance(node, _Definition | ast.ClassDef | ast.Lambda):
            yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.Global))
        else:
            yield from _own(node)


def _names(node: ast.AST) -> Iterable[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Import():
            return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        case ast.ImportFrom():
            return [alias.asname or alias.name for alias in node.names]
        case ast.Global():
            return node.names
        case ast.Name(ctx=ast.Store() | ast.Del()):
            return [node.id]
        case ast.Attribute(value=ast.Name(), ctx=ast.Store() | ast.Del()):
            # net.__signature__ = ...
            return [node.value.id] if isinstance(node.value, ast.Name) else []
        case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
            return [node.name] if node.name else []
        case _:
            return []


def _hides(tree: ast.Module) -> bool:
    """Whether a module may have names that do not stand in it."""
    for node in ast.walk(tree):
        named = getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)
        if any(word in _HIDDEN for word in named):
            return True
    return False


def _parameters(given: ast.arguments) -> Iterator[tuple[str, Parameter]]:
    """Yield the parameters that can be given by name, with whether each has a default."""
    places = [*given.posonlyargs, *given.args]
    without = len(places) - len(given.defaults)
    for number, one in enumerate(places):
        if number >= len(given.posonlyargs):
            yield one.arg, _parameter(one.arg, Parameter.POSITIONAL_OR_KEYWORD, number >= without)
    for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield one.arg, _parameter(one.arg, Parameter.KEYWORD_ONLY, default is not None)


def _parameter(name: str, kind: object, has_default: bool) -> Parameter:
    return Parameter(name, kind, default=None if has_default else Parameter.empty)  # type: ignore[arg-type]
