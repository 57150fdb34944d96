"""What a worker says, line by line: when, how bad, at which task, what."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)s %(task)s: %(message)s"
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


def at(task: str) -> None:
    """Say which task this process is at from now on."""
    global _task
    _task = task


def _with_task(record: logging.LogRecord) -> bool:
    record.task = _task
    return True
