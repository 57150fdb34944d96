"""Files that are whole or not there: written beside, synced, then moved into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stormsweep.errors import DataError

_CHUNK = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; move it into place when the block ends well.

    Parameters
    ----------
    path : Path
        The file to create or replace. Its folder is created when missing.

    Yields
    ------
    Path
        A file name in the same folder. It is removed again when the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield beside
        with open(beside, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; move it into place when the block ends well.

    An existing folder at `path` is replaced. When the block raises, nothing at `path` changes.

    Parameters
    ----------
    path : Path
        The folder to create or replace.

    Yields
    ------
    Path
        An empty folder in the same parent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    beside.mkdir()
    try:
        yield beside
        if path.exists():
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            os.replace(path, old)
            os.replace(beside, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def check_space(path: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for.

    Parameters
    ----------
    path : Path
        What is to be written; it need not exist.
    needed : int
        Bytes.

    Raises
    ------
    DataError
        If the file system has fewer bytes free.
    """
    free = free_bytes(path)
    if needed > free:
        raise DataError(f"{path}: needs {readable(needed)}, and the disk has {readable(free)} free")


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def free_bytes(path: Path) -> int:
    """Return how many bytes are free on the disk that `path` lies, or would lie, on."""
    parent = path.absolute()
    while not parent.exists():
        parent = parent.parent
    return shutil.disk_usage(parent).free


def readable(size: float) -> str:
    """Word a number of bytes.

    Examples
    --------
    >>> readable(1), readable(65_536), readable(2_041_000_000)
    ('1 byte', '65.5 kB', '2.0 GB')
    """
    if size < 1000:
        return f"{size:.0f} byte{'' if round(size) == 1 else 's'}"
    units = ("kB", "MB", "GB")
    power = next((power for power in (1, 2) if size < 999.95 * 1000**power), 3)
    return f"{size / 1000**power:,.1f} {units[power - 1]}"
