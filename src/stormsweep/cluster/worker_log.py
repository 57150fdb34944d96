"""What a worker says, line by line: when, how bad, at which task, what."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)s %(task)s: %(message)s"
_OF_PYTHON = re.compile(r"resource_tracker|warnings\.warn\(")
_task = "no task"


def begin() -> None:
    """Have everything that is logged in this process stand in its log so."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT))
    handler.addFilter(_with_task)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Dask has handlers of its own, which know no task.
    for name in ("distributed", "distributed.worker", "distributed.nanny"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def last_words(path: Path) -> str:
    """Return the last line of a log that says anything, in the form ``; the last line of ...``.

    What Python says of itself when it is ended is passed over. Empty where there is no such line.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = [line for line in lines if line.strip() and not _OF_PYTHON.search(line)]
    return f"; the last line of {path.name}: {said[-1].strip()[:300]}" if said else ""


def at(task: str) -> None:
    """Say which task this process is at from now on."""
    global _task
    _task = task


def _with_task(record: logging.LogRecord) -> bool:
    record.task = _task
    return True
