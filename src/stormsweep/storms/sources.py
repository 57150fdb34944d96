"""Where the two files of the NCAR storm archive are taken from."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from stormsweep.errors import DataError
from stormsweep.storms import schema
from stormsweep.storms.download import shown


@dataclass(frozen=True, slots=True)
class Archive:
    """One of the two files that the storm data come in.

    Attributes
    ----------
    folder : str
        The folder that it unpacks to.
    packed : int
        Its size in bytes, about.
    growth : float
        What it unpacks to, in parts of its size, about.
    most : int
        Bytes that neither it nor what it unpacks to can have.
    pattern : re.Pattern
        What the files in it are called.
    """

    folder: str
    packed: int
    growth: float
    most: int
    pattern: re.Pattern[str]

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.folder}.tar.gz"

    @property
    def url(self) -> str:
        """Where NCAR's authors put it."""
        return f"https://storage.googleapis.com/{self.folder}/{self.name}"


#: The tables are text; the patches are compressed inside of their NetCDF files already.
ARCHIVES = (
    Archive(schema.TABLE_FOLDER, 40_000_000, 3.5, 10**9, schema.TABLE_NAME),
    Archive(schema.PATCH_FOLDER, 2_000_000_000, 1.1, 8 * 10**9, schema.PATCH_NAME),
)


def source_of(archive: Archive, sources: Sequence[Path | str]) -> Path | str | None:
    """Decide where an archive is taken from.

    Parameters
    ----------
    archive : Archive
        The archive.
    sources : sequence of Path or str
        What was given; none: the archive's own place.

    Returns
    -------
    Path or str or None
        A file, a URL, or None where none of the sources has it.

    Raises
    ------
    DataError
        If a source is not there, not a plain file, or of a kind that is not allowed.
    """
    if not sources:
        return archive.url
    names = [each.name for each in ARCHIVES]
    exact: list[Path | str] = []
    general: list[Path | str] = []
    for source in sources:
        text = str(source)
        if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
            if scheme[1].lower() not in ("http", "https") or not urlsplit(text).hostname:
                raise DataError(
                    f"--from: given {shown(text)!r}; allowed are http:// and https:// URLs, "
                    "folders and files"
                )
            parts = urlsplit(text)
            last = parts.path.rpartition("/")[2]
            if last == archive.name:
                exact.append(text)
            elif last not in names:
                appended = f"{parts.path.rstrip('/')}/{archive.name}"
                general.append(urlunsplit(parts._replace(path=appended, fragment="")))
            continue
        path = Path(source)
        if path.is_dir():
            if os.path.lexists(path / archive.name):
                general.append(plain(path / archive.name))
        elif not os.path.lexists(path):
            raise DataError(f"--from: {path}: no such file or folder")
        elif path.name not in names:
            raise DataError(f"--from: {path}: an archive is called {' or '.join(names)}")
        elif path.name == archive.name:
            exact.append(plain(path))
    return next(iter(exact + general), None)


def plain(path: Path) -> Path:
    """Return the path of an archive, having seen that it is a plain file."""
    if path.is_symlink():
        raise DataError(f"{path}: is a symbolic link to {path.readlink()}; name that file itself")
    if not path.is_file():
        raise DataError(f"{path}: is no plain file")
    return path
