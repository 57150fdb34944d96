"""The journal: the study's memory, one checksummed JSON line a record, appended and synced.

One writer, the driver, appends; anybody may read. A line is a JSON object whose last key, ``crc``,
is the CRC-32 of the rest. A last line that was torn by a crash fails its checksum and is dropped; a
damaged line before the last is an error, because records after it would be doubtful. A line whose
checksum fits is whole: what this version does not know of it another version wrote, and nobody
may cut it off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar, get_args

from stormsweep.errors import DiskError, JournalError
from stormsweep.records import Entry, Record

FORMAT = 1
T = TypeVar("T", bound=Record)
#: A record's end with something after it: two lines whose line end was lost are not a torn one.
_WHOLE_RECORD = re.compile(rb'"crc":"[0-9a-f]{8}"\}[^\n]')
_KINDS: dict[str, type[Record]] = {cls.kind: cls for cls in get_args(Record)}
_FIELDS = {cls: tuple(field.name for field in dataclasses.fields(cls)) for cls in get_args(Record)}


class UnknownRecordError(ValueError):
    """A line is whole, and says what this version of Stormsweep does not know."""


def encode(entry: Entry) -> str:
    """Return the line of the journal that holds `entry`, newline included.

    Floats that are not finite become ``{"$float": "nan"}`` and the like, so that every line is
    strict JSON.
    """
    record = entry.record
    body = {"v": FORMAT, "time": round(entry.time, 6), "kind": record.kind}
    # Records hold plain values only: `dataclasses.asdict` would copy them all once more.
    body |= {name: _plain(getattr(record, name)) for name in _FIELDS[type(record)]}
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f'{text[:-1]},"crc":"{_crc(text)}"}}\n'


def decode(line: str) -> Entry:
    """Return the entry that a line of the journal holds.

    Raises
    ------
    ValueError
        If the line is torn or damaged.
    UnknownRecordError
        If it is neither, and says what this version does not know.
    """
    head, mark, tail = line.rstrip("\n").rpartition(',"crc":"')
    if not mark or len(tail) != 10 or tail[8:] != '"}':
        raise ValueError("the line is incomplete")
    text = head + "}"
    if _crc(text) != tail[:8]:
        raise ValueError("the checksum does not fit")
    body = json.loads(text)
    if (stated := body.pop("v", None)) != FORMAT:
        raise UnknownRecordError(f"format {stated!r}; this one reads format {FORMAT}")
    kind = body.pop("kind", None)
    if kind not in _KINDS:
        raise UnknownRecordError(f"a record of kind {kind!r}")
    if "$float" in text:
        body = {key: _floats(value) for key, value in body.items()}
    try:
        return Entry(body.pop("time"), _KINDS[kind](**body))
    except (TypeError, KeyError):
        known = {*_FIELDS[_KINDS[kind]]}
        other = sorted(body.keys() - known) or sorted(known - body.keys())
        raise UnknownRecordError(f"{', '.join(other)} of a record of kind {kind!r}") from None


def read(path: Path) -> list[Entry]:
    """Read all whole entries of a journal.

    Parameters
    ----------
    path : Path
        The file ``journal.jsonl``.

    Returns
    -------
    list of Entry
        In the order they were written. A torn last line is left out.

    Raises
    ------
    JournalError
        If the file is missing, or a line before the last is damaged, or one is of another version.
    """
    return list(each(path))


def each(path: Path) -> Iterator[Entry]:
    """Yield what `read` returns, entry by entry: none is kept, however long the journal is."""
    for entry, _ in _scan(path):
        yield entry


def _scan(path: Path) -> Iterator[tuple[Entry, int]]:
    """Yield the entries, each with the number of bytes up to its end."""
    good = 0
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise JournalError(f"{path}: there is no journal here") from None
    with stream:
        for number, line in enumerate(stream, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("the line is incomplete")
                entry = decode(line.decode("utf-8"))
            except UnknownRecordError as error:
                raise _foreign(path, f"line {number}", error) from None
            except ValueError as error:
                after = sum(1 for _ in stream)
                if not after and not _WHOLE_RECORD.search(line):
                    return
                raise JournalError(
                    f"{path}: line {number} of {number + after} is damaged ({error}); restore the "
                    "file from a copy, or cut it off before that line to train again what follows"
                ) from None
            good += len(line)
            yield entry, good


def _foreign(path: Path, which: str, error: UnknownRecordError) -> JournalError:
    return JournalError(
        f"{path}: {which} was written by another version of Stormsweep ({error}); "
        "go on with that one, or a later one"
    )


class Follower:
    """Read a journal while it grows.

    Parameters
    ----------
    path : Path
        The file; it need not exist yet.
    known : int
        Bytes of it that are known already.
    """

    def __init__(self, path: Path, known: int = 0) -> None:
        self._path, self._good = path, known

    def new(self) -> Iterator[Entry]:
        """Yield the whole entries that came since the last call.

        What is not whole is being written, or was torn and will be cut off: it is looked at again.

        Raises
        ------
        JournalError
            If another version wrote one of them.
        """
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            stream.seek(self._good)
            for line in stream:
                try:
                    if not line.endswith(b"\n"):
                        return
                    entry = decode(line.decode("utf-8"))
                except UnknownRecordError as error:
                    raise _foreign(self._path, "a line", error) from None
                except ValueError:
                    return
                self._good += len(line)
                yield entry


class JournalWriter:
    """The one writer of a journal.

    Parameters
    ----------
    path : Path
        The file; created when missing. A torn last line is cut off.
    told : callable, optional
        Given every entry that is there already, in order; none is kept, nor of those written.

    Raises
    ------
    JournalError
        If a line before the last is damaged, one is of another version, or another process writes
        to it.
    """

    def __init__(self, path: Path, told: Callable[[Entry], object] | None = None) -> None:
        self.path = path
        good = 0
        for entry, end in _scan(path) if path.exists() else ():
            good = end
            if told is not None:
                told(entry)
        if any(True for _ in Follower(path, good).new()):
            # What is cut off below must not be a record that came meanwhile.
            raise JournalError(f"{path}: another process wrote to it; this one stops")
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self._descriptor, good)
        self._size = good

    def append(self, *records: Record, when: float | None = None) -> None:
        """Append records and return when they are on the disk; see `write`.

        Parameters
        ----------
        *records : Record
            What happened.
        when : float, optional
            When it happened, in seconds since 1970; default: now.
        """
        self.write([Entry(time.time() if when is None else when, record) for record in records])

    def write(self, entries: Iterable[Entry]) -> None:
        """Append entries, all with one sync, and return when they are on the disk.

        Raises
        ------
        DiskError
            If the disk is full or cannot be written to; the journal then ends where it ended.
        JournalError
            If another process wrote to it.
        """
        data = "".join(map(encode, entries)).encode()
        if os.fstat(self._descriptor).st_size != self._size:
            raise JournalError(f"{self.path}: another process wrote to it; this one stops")
        # Who reads along may have seen what was written: Ctrl-C must not take it back.
        with _signals_wait():
            try:
                written = 0
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
                os.fsync(self._descriptor)
                self._size += len(data)
            except OSError as error:
                # What nobody was told is on record must not be there.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
                raise DiskError(f"{self.path}: cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM wait for what is under way; in the main thread, which they reach."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def later(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    theirs = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in theirs:
            signal.signal(number, later)
        yield
    finally:
        for number, handler in theirs.items():
            signal.signal(number, handler)
        for which, frame in came[:1]:
            theirs[signal.Signals(which)](which, frame)


def of_kind(entries: Iterable[Entry], kind: type[T]) -> list[T]:
    """Return the records of one kind, in order."""
    return [entry.record for entry in entries if isinstance(entry.record, kind)]


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _floats(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"$float"}:
        return float(value["$float"])
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_floats(item) for item in value]
    return value
