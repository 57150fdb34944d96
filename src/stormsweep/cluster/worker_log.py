"""What a worker says, line by line: when, how bad, at which task, what."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)s %(task)s: %(message)s"
#: Where a process begins to write: all of one name share a log, in this session and others.
_BEGINNING = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO no task: process (?P<pid>\d+) begins$", re.MULTILINE
)
#: Bytes at the end of a log in which last words are looked for.
_END = 1 << 16
_OF_PYTHON = re.compile(r"resource_tracker|warnings\.warn\(")
_NO_TASK = "no task"
_task = _NO_TASK


def begin() -> None:
    """Have everything that is logged in this process stand in its log so."""
    # A line that finds no room on the disk is lost, without a traceback in its place.
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT))
    handler.addFilter(_with_task)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Dask has handlers of its own, which know no task.
    for name in ("distributed", "distributed.worker", "distributed.nanny"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Whatever the level is: `last_words` looks for it, and for a process that has no task yet.
    at(_NO_TASK)
    record = {"levelname": "INFO", "msg": f"process {os.getpid()} begins"}
    handler.handle(logging.makeLogRecord(record))


def last_words(path: Path, pid: int | None = None) -> str:
    """Return the last line of a log that says anything, in the form ``; the last line of ...``.

    What Python says of itself when it is ended is passed over. Empty where there is no such line.

    Parameters
    ----------
    path : Path
        The log; its last 64 KiB are read.
    pid : int, optional
        Whose words are meant, where several processes write to it one after another.
    """
    try:
        with open(path, "rb") as stream:
            before = max(0, stream.seek(0, os.SEEK_END) - _END)
            stream.seek(before)
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    if pid is not None:
        text = _of_process(text, pid, whole=before == 0)
    said = [line for line in text.splitlines() if line.strip() and not _OF_PYTHON.search(line)]
    return f"; the last line of {path.name}: {said[-1].strip()[:300]}" if said else ""


def _of_process(text: str, pid: int, whole: bool) -> str:
    """Return what a process wrote of a log, or of the end of one."""
    begun = list(_BEGINNING.finditer(text))
    ends = [*(one.start() for one in begun[1:]), len(text)]
    for one, end in reversed(list(zip(begun, ends, strict=False))):
        if int(one["pid"]) == pid:
            return text[one.end() : end]
    # One that has written more than is read: its beginning is not there.
    return "" if whole else text[: begun[0].start() if begun else None]


def at(task: str) -> None:
    """Say which task this process is at from now on."""
    global _task
    _task = task


def _with_task(record: logging.LogRecord) -> bool:
    record.task = _task
    return True
