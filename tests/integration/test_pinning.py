"""Losing this: workers that the system moves about, or that come back on the wrong cores."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from stormsweep.cluster import machine
from stormsweep.cluster.local import LocalPool, dask_logs
from stormsweep.cluster.pool import Event, Finished, WorkerReady
from stormsweep.cluster.topology import pinned

from .test_local_pool import Kept


def cores_of_process(_: object) -> tuple[list[int], set[int], list[set[int]]]:
    """Return what a worker says of itself, and what the system says of it and all its threads."""
    threads = [os.sched_getaffinity(int(one.name)) for one in Path("/proc/self/task").iterdir()]
    return list(pinned()), os.sched_getaffinity(0), threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_a_worker_keeps_to_its_cores_and_its_successor_to_the_same(tmp_path: Path) -> None:
    core = machine.allowed()[-1]
    found: list[Event] = []

    def next_of(kind: Any) -> Any:
        while True:
            for event in found:
                if isinstance(event, kind):
                    found.remove(event)
                    return event
            found.extend(pool.events(0.1))

    with dask_logs(Kept()):
        paths = [str(Path(__file__).parents[2])]
        pool = LocalPool(1, 1, 4.0, tmp_path, paths, [(core,)])
        try:
            pids = []
            for _ in range(2):
                joined = next_of(WorkerReady)
                pids.append(joined.pid)
                pool.submit(joined.worker, joined.pid, "t", cores_of_process, None)
                said, own, threads = next_of(Finished).result
                assert said == [core]
                assert own == {core}
                assert all(each == {core} for each in threads)
                os.kill(joined.pid, signal.SIGKILL)
            assert pids[0] != pids[1]
        finally:
            pool.close()
