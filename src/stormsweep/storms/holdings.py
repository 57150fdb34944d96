"""What a data folder holds of the archive: what ``archives.json`` says, and whether it is so."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from stormsweep import files
from stormsweep.errors import DataError
from stormsweep.storms import schema
from stormsweep.storms.sources import Archive, plain

RECORD = "archives.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What ``archives.json`` says of an archive.

    Attributes
    ----------
    source : str
        Where it came from.
    bytes : int
        Its size.
    sha256 : str
        Its checksum.
    fetched : str
        When, as an ISO date and time.
    files : dict of str to int
        Size of every file that it unpacked to.
    """

    source: str
    bytes: int
    sha256: str
    fetched: str
    files: dict[str, int]


def read_records(folder: Path) -> dict[str, Record]:
    """Return what ``archives.json`` of a data folder says, by the archives' names.

    Raises
    ------
    DataError
        If the file is there and cannot be read.
    """
    path = folder / RECORD
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["archives"]
        records = {name: Record(**facts) for name, facts in said.items()}
        for record in records.values():
            if not (isinstance(record.files, dict) and isinstance(record.bytes, int)):
                raise TypeError("not as fetch writes it")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); put it back, or remove it to have the archives "
            "checked against nothing"
        ) from None
    return records


def add_record(folder: Path, name: str, record: Record) -> None:
    """Put what is known of an archive into ``archives.json``."""
    known = read_records(folder) | {name: record}
    files.write_json(
        folder / RECORD, {"archives": {name: asdict(each) for name, each in known.items()}}
    )


def fault(folder: Path, archive: Archive, record: Record | None) -> str | None:
    """Say what an unpacked archive lacks.

    With a record, every file that it lists must be there in its size. A folder that somebody else
    unpacked must have a file for every run of the archive.

    Returns
    -------
    str or None
        None where it is whole.
    """
    place = folder / archive.folder
    if not place.is_dir():
        return "is no folder"
    if record is not None:
        wrong = [name for name, size in record.files.items() if size_of(place / name) != size]
        if not wrong:
            return None
        name = min(wrong)
        size = size_of(place / name)
        how = "is missing" if size is None else f"has {size:,} instead of {record.files[name]:,}"
        return (
            f"{len(wrong)} of the {len(record.files)} files that were unpacked are missing or "
            f"changed; {name} {how}{'' if size is None else ' bytes'}"
        )
    dates = {
        match[1]
        for path in place.iterdir()
        if (match := archive.pattern.fullmatch(path.name)) and size_of(path)
    }
    missing = [date for date in schema.RUN_DATES if f"{date:%Y%m%d}" not in dates]
    if not missing:
        return None
    return (
        f"has files of {len(schema.RUN_DATES) - len(missing)} of the {len(schema.RUN_DATES)} runs, "
        f"and none of {missing[0]}"
    )


def checked(path: Path, record: Record | None, tell: Callable[[str, float], None]) -> str:
    """Return the checksum of an archive, having compared it with the recorded one."""
    what = f"checking {path.name}"
    tell(what, 0.0)
    size = plain(path).stat().st_size
    then = record and (
        f"{path}: not the archive that was fetched on {record.fetched[:10]} from {record.source}: "
    )
    remedy = f"remove it and fetch again, or remove {RECORD} if it was replaced on purpose"
    if record and size != record.bytes:
        raise DataError(f"{then}expected {record.bytes:,} bytes, got {size:,}; {remedy}")
    checksum = files.sha256(path)
    if record and checksum != record.sha256:
        raise DataError(f"{then}expected sha256 {record.sha256}, got {checksum}; {remedy}")
    tell(what, 1.0)
    return checksum


def size_of(path: Path) -> int | None:
    """Return the size of a plain file, None where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size if stat.S_ISREG(state.st_mode) else None
