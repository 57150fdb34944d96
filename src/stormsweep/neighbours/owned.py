"""Exports that come again: what we wrote is replaced at one stroke, what others wrote stays."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stormsweep.errors import UserError
from stormsweep.files import replacing, replacing_folder, write_json, writing

#: Beside what was written, the list of it.
MARKER = "stormsweep-export.json"
_SQLITE = b"SQLite format 3\x00"


def need(to: str, module: str, package: str, extra: str) -> None:
    """Refuse an export whose package is not installed.

    Raises
    ------
    UserError
        Saying what to install.
    """
    if find_spec(module) is None:
        raise UserError(
            f"export: --to {to} needs the package {package}; install it in the checkout: "
            f'pip install -e ".[{extra}]"'
        )


@contextmanager
def own_folder(path: Path, journal: str) -> Iterator[Path]:
    """Give a folder to fill that takes the place of our earlier export at `path`.

    Files in it that are not ours are taken along.

    Parameters
    ----------
    path : Path
        A folder that is missing, empty, or an earlier export of the same study.
    journal : str
        Tells the study from others.

    Raises
    ------
    UserError
        If the folder holds something else, before anything is written.
    """
    path = path.resolve()  # a link stays one
    before = _listed(path, journal)
    with writing(path), replacing_folder(path) as folder:
        yield folder
        made = sorted(_files(folder))
        for name in sorted(_files(path) - before if path.is_dir() else ()):
            if name in made:
                raise UserError(f"{path / name}: is not ours and in the way; move it elsewhere")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(path / name, folder / name)
        write_json(folder / MARKER, {"format": 1, "journal": journal, "files": made})


def _listed(path: Path, journal: str) -> set[str]:
    """Return the files that an earlier export wrote, with its list."""
    if not os.path.lexists(path):
        return set()
    if not path.is_dir():
        raise UserError(f"{path}: is there already and is no folder; name another with --output")
    if not any(path.iterdir()):
        return set()
    try:
        said = json.loads((path / MARKER).read_text(encoding="utf-8"))
        of, files = str(said["journal"]), {str(name) for name in said["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path}: is not empty, and no export of Stormsweep's; name another with --output"
        ) from None
    if of != journal:
        raise UserError(
            f"{path}: holds the export of another study, {of.rpartition('@')[0]!r}; "
            "name another folder with --output"
        )
    return files | {MARKER}


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def _copy(source: Path, to: Path) -> None:
    with suppress(OSError):
        os.link(source, to, follow_symlinks=False)
        return
    shutil.copy2(source, to, follow_symlinks=False)


@contextmanager
def own_database(path: Path, journal: str, query: str) -> Iterator[Path]:
    """Give a file name to write an SQLite database to that takes the place of our earlier one.

    Parameters
    ----------
    path : Path
        A file that is missing, or an earlier export of the same study.
    journal : str
        Tells the study from others.
    query : str
        Selects from such a database the journal of each thing in it, as JSON or as it is; NULL
        for one that is not ours.

    Raises
    ------
    UserError
        If the file holds something else, before anything is written.
    """
    path = path.resolve()
    if os.path.lexists(path):
        _refuse_foreign(path, journal, query)
    with (
        writing(path),
        replacing(path) as beside,
        tempfile.TemporaryDirectory(prefix="stormsweep-") as folder,
    ):
        # On a disk of this machine: SQLite's locks break on those of clusters. Its name needs no
        # quoting, which libraries do each in their own way.
        made = Path(folder) / "export.db"
        with _unsynced(made):
            yield made
        shutil.copyfile(made, beside)


@contextmanager
def _unsynced(path: Path) -> Iterator[None]:
    """Have SQLAlchemy write a database without waiting for the disk after every row.

    It is synced as a whole before it is moved into place.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def connected(connection: Any, _: Any) -> None:
        if not isinstance(connection, sqlite3.Connection):
            return
        files = [row[2] for row in connection.execute("PRAGMA database_list")]
        if str(path.resolve()) in files or str(path) in files:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = MEMORY")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


def _refuse_foreign(path: Path, journal: str, query: str) -> None:
    found: list[Any] | None = None
    if is_sqlite(path):
        with suppress(sqlite3.Error), closing(read_only(path)) as database:
            found = [row[0] for row in database.execute(query)]
    if found is None or None in found:
        raise UserError(
            f"{path}: is there already and holds more than an export of Stormsweep's; "
            "name another file with --output"
        )
    for of in found:
        text = str(of)
        text = json.loads(text) if text.startswith('"') else text
        if text != journal:
            raise UserError(
                f"{path}: holds the export of another study, {text.rpartition('@')[0]!r}; "
                "name another file with --output"
            )


def is_sqlite(path: Path) -> bool:
    """Tell whether a file is an SQLite database."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def read_only(path: Path) -> sqlite3.Connection:
    """Open an SQLite database without changing anything of it; by any thread."""
    uri = f"file:{quote(str(path.resolve()))}?mode=ro"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)
