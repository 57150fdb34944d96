"""Losing this: whoever stops a study waits for workers that have nothing to keep."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from stormsweep.cluster.local import LocalPool, dask_logs
from stormsweep.cluster.pool import WorkerReady


class Kept(logging.Handler):
    """Keep what Dask has to say."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def sleep_long(path: str) -> None:
    Path(path).touch()
    time.sleep(60)


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)


def test_a_pool_closes_without_waiting_for_what_its_workers_do(tmp_path: Path) -> None:
    kept = Kept()
    with dask_logs(kept):
        pool = LocalPool(1, 1, 4.0, tmp_path, [str(Path(__file__).parents[2])])
        try:
            joined: list[WorkerReady] = []
            until(lambda: bool(joined.extend(_ready(pool)) or joined))
            pool.submit(joined[0].worker, joined[0].pid, "t", sleep_long, str(tmp_path / "begun"))
            until((tmp_path / "begun").exists)
        finally:
            pool.close()
    assert not psutil.pid_exists(joined[0].pid)
    # What Dask says before it kills a worker that did not leave by itself.
    assert [text for text in kept.texts if "still alive" in text] == []


def _ready(pool: LocalPool) -> list[WorkerReady]:
    return [event for event in pool.events(0.1) if isinstance(event, WorkerReady)]
