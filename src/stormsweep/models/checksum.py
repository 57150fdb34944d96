"""Which version of a model's code a study is trained with: a checksum, read and not imported.

It covers the builder's file and what that imports of the user's own: modules in the file's folder
or, for a module of a package, in that package. They are found by their import statements, not among
what is loaded: the driver imports no model, and what else a worker has imported must not matter.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stormsweep import files
from stormsweep.errors import ModelError
from stormsweep.models.source import binding, read_file, read_module

#: Where packages are installed: their versions are the environment's, and their imports endless.
_INSTALLED = {"site-packages", "dist-packages"}
#: What holds statements.
_BLOCKS = (ast.stmt, ast.excepthandler, ast.match_case)


def checksum(spec: str, stands_in: Path | None) -> str:
    """Return the checksum of the code of a builder.

    Parameters
    ----------
    spec : str
        ``package.module:function`` or ``/path/file.py:function``.
    stands_in : Path or None
        The file that the function stands in, where that is known; it may be another than the one
        that the study names.

    Returns
    -------
    str
        SHA-256 of the file, if it is only one; else of the names, as seen from the folder, and
        checksums of all. Empty: there is no file.

    Raises
    ------
    ModelError
        If one cannot be read.
    """
    try:
        return _checksum(spec, stands_in)
    except OSError as error:
        said = error.strerror or type(error).__name__
        raise ModelError(
            f"model.build: {error.filename or spec}: cannot be read ({said})"
        ) from None


def _checksum(spec: str, stands_in: Path | None) -> str:
    named = _named(spec)
    if stands_in is not None and not stands_in.exists():  # as of code that was made from a text
        stands_in = None
    if named is None or named.installed:
        one = stands_in or (named and named.path)
        return files.sha256(one) if one else ""
    starts = [named.path]
    if stands_in is not None and not stands_in.samefile(named.path):
        starts.append(named.within(stands_in))
    known: dict[str, str] = {}
    # Only the file that the function stands in may lie elsewhere; one below the root may have its
    # name, and is first.
    for path in sorted(_reached(starts, named), key=named.elsewhere):
        label = named.label(path)
        known[f"../{label}" if label in known else label] = files.sha256(path)
    if len(known) == 1:
        return known.popitem()[1]
    lines = (f"{known[label]}  {label}\n" for label in sorted(known))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class _Named:
    """The module that a study names.

    Attributes
    ----------
    path : Path
        Its file.
    root : Path
        The folder that the user's own modules lie below.
    bases : sequence of Path
        Folders that the names of absolute imports may begin in.
    installed : bool
        Whether it came with an installed package, or is Stormsweep's own.
    """

    path: Path
    root: Path
    bases: Sequence[Path]
    installed: bool

    def find(self, folders: Sequence[Path], names: Sequence[str]) -> Path | None:
        """Return the file of a module, if it is one of the user's own."""
        for folder in folders:
            place = folder.joinpath(*names)
            beside = [place.parent / f"{place.name}.py"] if names else []
            for path in (place / "__init__.py", *beside):
                if path.is_relative_to(self.root) and path.is_file():
                    return path
        return None

    def within(self, path: Path) -> Path:
        """Return a path as imports find it, which may have come by another link to the folder."""
        if path.is_relative_to(self.root):
            return path
        real, root = path.resolve(), self.root.resolve()
        return self.root / real.relative_to(root) if real.is_relative_to(root) else path

    def elsewhere(self, path: Path) -> bool:
        """Whether a file does not lie below the root."""
        return not path.is_relative_to(self.root)

    def label(self, path: Path) -> str:
        """Return what a file is called, wherever the folder lies."""
        return path.name if self.elsewhere(path) else path.relative_to(self.root).as_posix()


def _named(spec: str) -> _Named | None:
    place = spec.rpartition(":")[0]
    if place.endswith(".py"):
        path, own, depth = Path(place).resolve(strict=True), True, 0
    else:
        try:
            module = read_module(place)
        except (ModelError, RecursionError):
            return None
        if module is None:
            return None
        path, names = module.path, place.split(".")
        own, depth = names[0] != "stormsweep", len(names) - (path.name != "__init__.py")
    installed = not own or not _INSTALLED.isdisjoint(path.parts)
    if depth:
        root = path.parents[depth - 1]
        return _Named(path, root, [root.parent], installed)
    # The folder of a file may itself be a package that its modules know by name.
    return _Named(path, path.parent, path.parents, installed)


def _reached(starts: list[Path], named: _Named) -> set[Path]:
    """Return files and all of the user's own that they import, and those import, and so on."""
    found: set[Path] = set()
    left = list(starts)
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            if path.is_relative_to(named.root) and (tree := _tree(path)) is not None:
                left += _imported(tree, path, named)
    return found


def _imported(tree: ast.Module, path: Path, named: _Named) -> Iterator[Path]:
    """Yield the user's own modules that a file takes something from."""
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names = alias.name.split(".")
                # Without `as` its parents are at hand, too.
                for number in range(len(names) if alias.asname else 1, len(names) + 1):
                    if own := named.find(named.bases, names[:number]):
                        yield own
        elif isinstance(node, ast.ImportFrom):
            # A dot is the file's own folder, two are the one above.
            folders = path.parents[node.level - 1 : node.level] if node.level else named.bases
            names = node.module.split(".") if node.module else []
            parent = named.find(folders, names)
            for alias in node.names:
                own = named.find(folders, [*names, alias.name])
                if own:
                    yield own
                if parent and (own is None or _binds(parent, alias.name)):
                    yield parent


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk the statements that may run where a builder is imported and called."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        yield node
        inner: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, ast.If) and _is_never_so(node.test):
            inner = node.orelse
        left += (one for one in inner if isinstance(one, _BLOCKS))


def _is_never_so(test: ast.expr) -> bool:
    """Whether a condition is one of those that hold for type checkers and scripts only."""
    match test:
        case ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case ast.Compare(ast.Name("__name__"), [ast.Eq()], [ast.Constant("__main__")]):
            return True
    return False


def _binds(path: Path, name: str) -> bool:
    """Whether a package has a name of its own in place of its module of that name."""
    tree = _tree(path)
    try:
        return tree is not None and bool(binding(tree, name))
    except RecursionError:
        return True


def _tree(path: Path) -> ast.Module | None:
    """Read a file; None for what is not Python, which no builder can have imported either."""
    try:
        source = read_file(path)
    except (ModelError, RecursionError):
        return None
    return None if source is None else source.tree
