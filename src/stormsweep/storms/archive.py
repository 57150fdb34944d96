"""Fetch the NCAR storm archive: both of its files downloaded, checked and unpacked.

`fetch` tells the whole story. What was fetched, its size, its checksum and the files that it held
stand in ``archives.json`` beside, and everything is compared with that ever after.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stormsweep import files
from stormsweep.errors import DataError, StudyInterrupted
from stormsweep.files import readable
from stormsweep.storms import schema
from stormsweep.storms.download import WAITS, Resuming, shown, stated_bytes
from stormsweep.storms.holdings import (
    RECORD,
    Record,
    add_record,
    checked,
    fault,
    read_records,
    size_of,
)
from stormsweep.storms.sources import ARCHIVES, Archive, plain, source_of
from stormsweep.storms.twin import MARK
from stormsweep.storms.unpack import DamagedArchive, extract

#: Told what is being done and how much of it, from 0 to 1.
Progress = Callable[[str, float], None]
Say = Callable[[str], None]
Action = Literal["nothing", "unpack", "download"]
_NO_LOCKS = frozenset({errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies in a data folder after `fetch`.

    Attributes
    ----------
    folder : Path
        The data folder.
    runs : int
        Runs of the forecast model: pairs of a table and a file of patches.
    first, last : datetime.date
        The first and the last run date.
    bytes : int
        Size of the storm files.
    unpacked : tuple of str
        Archives that were unpacked this time; none: everything was there.
    """

    folder: Path
    runs: int
    first: dt.date
    last: dt.date
    bytes: int
    unpacked: tuple[str, ...]

    def __str__(self) -> str:
        whole = len(schema.RUN_DATES)
        of = "" if self.runs == whole else f" of the archive's {whole}"
        return (
            f"{self.runs}{of} runs from {self.first} to {self.last} in {self.folder}: "
            f"{self.runs} tables and {self.runs} patch files, {readable(self.bytes)}"
        )


@dataclass(frozen=True, slots=True)
class _Task:
    """One archive, and what is to be done about it."""

    archive: Archive
    action: Action
    source: Path | str | None
    record: Record | None


def fetch(
    folder: Path | str,
    sources: Sequence[Path | str] = (),
    *,
    keep_archives: bool = True,
    progress: Progress | None = None,
    say: Say | None = None,
    waits: Sequence[float] = WAITS,
) -> Fetched:
    """Bring the storm files into a data folder, as far as they are not there.

    What is there already is checked and not fetched again; half a download is gone on with.

    Parameters
    ----------
    folder : Path or str
        The data folder: what ``data.path`` of a study file names.
    sources : sequence of Path or str, optional
        Where to take the archives from instead of their own place: a URL (http or https) that
        their names are appended to, a folder that holds them, or the files or their URLs. A file
        of this machine is unpacked from where it lies.
    keep_archives : bool
        Whether downloaded archives stay in the folder once they are unpacked.
    progress : callable, optional
        Told what is being done and how much of it.
    say : callable, optional
        Told in a line what happened.
    waits : sequence of float
        Seconds to wait before each further try of a download that broke.

    Returns
    -------
    Fetched
        What lies in the folder now.

    Raises
    ------
    DataError
        In one line, if the archives cannot be had, are not those that were fetched first, hold
        what they must not, have no room, or what lies in the folder is not whole.
    StudyInterrupted
        On Ctrl-C; what was downloaded is kept.
    """
    folder, tell, say = Path(folder), progress or (lambda *_: None), say or (lambda _: None)
    if (folder / MARK).exists():
        raise DataError(f"{folder}: holds a twin, which is synthetic; name another folder")
    records = read_records(folder)
    tasks = [_task(folder, archive, records.get(archive.name), sources) for archive in ARCHIVES]
    todo = [task for task in tasks if task.action != "nothing"]
    try:
        for task in tasks:
            kept = folder / task.archive.name
            if task not in todo and task.record and os.path.lexists(kept):
                checked(kept, task.record, tell)
        if todo:
            _check_room(folder, todo)
            with _made(folder), _alone(folder):
                for task in todo:
                    _carry_out(folder, task, tell, say, waits)
    except KeyboardInterrupt:
        raise StudyInterrupted(_kept(folder)) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{folder}: the disk is full or your quota is used up; make room and fetch again: "
            "what was downloaded is kept"
        ) from None
    if not keep_archives:
        for task in tasks:
            (folder / task.archive.name).unlink(missing_ok=True)
    return _counted(folder, tuple(task.archive.name for task in todo))


def _task(
    folder: Path, archive: Archive, record: Record | None, sources: Sequence[Path | str]
) -> _Task:
    """Decide what is to be done about an archive."""
    place, kept = folder / archive.folder, folder / archive.name
    empty = place.is_dir() and not any(place.iterdir())
    if os.path.lexists(place) and not empty:
        if lacks := fault(folder, archive, record):
            raise DataError(
                f"{place}: not whole: {lacks}; remove or rename it and fetch again, which unpacks "
                "it anew"
            )
        return _Task(archive, "nothing", None, record)
    if os.path.lexists(kept):
        return _Task(archive, "unpack", plain(kept), record)
    source = source_of(archive, sources)
    if source is None:
        given = ", ".join(shown(str(each)) for each in sources)
        raise DataError(f"--from: {given} has no {archive.name}")
    return _Task(archive, "download" if isinstance(source, str) else "unpack", source, record)


def _check_room(folder: Path, tasks: Sequence[_Task]) -> None:
    """Refuse to begin what the disk has no room for."""
    packed = unpacked = 0
    for task in tasks:
        archive = task.archive
        if isinstance(task.source, Path):
            size = task.source.stat().st_size
        else:
            stated = stated_bytes(task.source or archive.url)
            # What is not credible is said of the download itself.
            size = stated if stated and stated <= archive.most else archive.packed
            packed += max(0, size - (size_of(_half(folder, archive)) or 0))
        unpacked += round(size * archive.growth)
    free = files.free_bytes(folder)
    if packed + unpacked > free:
        raise DataError(
            f"{folder}: not enough room: about {readable(packed + unpacked)} are needed "
            f"({readable(packed)} to download, {readable(unpacked)} unpacked) and "
            f"{readable(free)} are free; make room, or name a folder on another disk"
        )


def _carry_out(folder: Path, task: _Task, tell: Progress, say: Say, waits: Sequence[float]) -> None:
    """Download, where that is to be done, and unpack."""
    archive, source = task.archive, task.source
    for left in folder.glob(f".{archive.folder}.*.partial"):
        say(f"{left}: half unpacked when it was interrupted; unpacking anew")
        shutil.rmtree(left)
    if isinstance(source, Path):
        _unpack(folder, archive, source, str(source), task.record, tell)
    else:
        assert source is not None
        # A server that states too short a length is found out here only. Once more, then:
        for wait in (*waits[:1], None):
            path = _download(folder, task, source, tell, say, waits)
            try:
                _unpack(folder, archive, path, shown(source), task.record, tell)
                break
            except DamagedArchive as error:
                path.unlink()
                if wait is None:
                    raise DataError(
                        f"{shown(source)}: downloaded twice, and damaged or cut short both times "
                        f"({error}); name another source with --from"
                    ) from None
                say(f"{error}; downloading it once more in {wait:.0f} s")
                time.sleep(wait)
            except DataError as error:
                path.unlink()
                raise DataError(f"{shown(source)}: thrown away: {error}") from None
    # Another source may have served where this half file came from nowhere any more.
    half = _half(folder, archive)
    for file in (half, half.with_name(f"{half.name}.json")):
        file.unlink(missing_ok=True)


def _download(
    folder: Path, task: _Task, url: str, tell: Progress, say: Say, waits: Sequence[float]
) -> Path:
    """Have pooch bring an archive, checked against its recorded checksum."""
    import pooch

    archive, record = task.archive, task.record
    half, staging = _half(folder, archive), folder / f".{archive.name}.fetching"
    what = f"downloading {archive.name}"
    tell(what, 0.0)
    if staging.is_dir():
        # Killed while pooch had the file, empty or whole, under a name of its own.
        for left in staging.iterdir():
            if left.name != archive.name and size_of(left) and not half.exists():
                os.replace(left, half)
            elif left.name != archive.name:
                left.unlink()
    pooch.get_logger().setLevel(logging.WARNING)
    keeper = pooch.create(
        path=staging,
        base_url="",
        registry={archive.name: record.sha256 if record else None},
        urls={archive.name: url},
    )
    downloader = Resuming(
        half,
        archive.most,
        record.bytes if record else None,
        lambda had, total: tell(what, min(had / (total or archive.packed), 1.0)),
        say,
        waits,
    )
    try:
        got = keeper.fetch(archive.name, downloader=downloader)
        os.replace(got, folder / archive.name)
    except ValueError as error:
        raise DataError(
            f"{shown(url)}: not the archive that was fetched first: "
            f"{str(error).partition('. ')[0]}; if it was replaced on purpose, remove "
            f"{folder / RECORD} and fetch again"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            staging.rmdir()
    tell(what, 1.0)
    return folder / archive.name


def _unpack(
    folder: Path, archive: Archive, path: Path, source: str, record: Record | None, tell: Progress
) -> None:
    """Unpack an archive, and record it once that has shown it to be whole."""
    checksum = checked(path, record, tell)
    what = f"unpacking {archive.name}"
    tell(what, 0.0)
    with files.replacing_folder(folder / archive.folder) as beside:
        listed = extract(
            path, beside, archive.folder, archive.most, lambda share: tell(what, share)
        )
        if not any(archive.pattern.fullmatch(name) for name in listed):
            raise DataError(f"{path}: holds no files that are called {archive.pattern.pattern}")
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        size = path.stat().st_size
        made = Record(source, size, checksum, record.fetched if record else now, listed)
        add_record(folder, archive.name, made)


def _counted(folder: Path, unpacked: tuple[str, ...]) -> Fetched:
    from stormsweep.storms import find_runs

    runs = find_runs(folder)
    size = sum(path.stat().st_size for run in runs for path in (run.table, run.patches))
    return Fetched(folder, len(runs), runs[0].date, runs[-1].date, size, unpacked)


def _kept(folder: Path) -> str:
    sizes = {each.name: size_of(_half(folder, each)) for each in ARCHIVES}
    kept = [f"{readable(size)} of {name}" for name, size in sizes.items() if size]
    return f"{' and '.join(kept) or 'everything finished so far'} {'are' if kept else 'is'} kept"


def _half(folder: Path, archive: Archive) -> Path:
    return folder / f"{archive.name}.part"


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the data folder; take it away again when nothing came to lie in it."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in new:
                path.rmdir()
        raise


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second fetch out of the folder, where the file system can."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder}: another `stormsweep data fetch` is at work here") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)
