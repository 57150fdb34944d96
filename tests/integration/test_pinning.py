"""Losing these: workers that come back on the wrong cores, and a trial of layouts that is real."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from stormsweep import Study
from stormsweep.cluster import machine
from stormsweep.cluster.dask_pool import dask_logs
from stormsweep.cluster.local import LocalPool
from stormsweep.cluster.pool import Event, Finished, WorkerReady
from stormsweep.cluster.topology import pinned
from stormsweep.records import LayoutTried, TaskDone
from stormsweep.results.journal import of_kind
from stormsweep.study import trial

from .conftest import digits_study
from .test_local_pool import Kept


def cores_of_process(_: object) -> tuple[list[int], set[int], list[set[int]]]:
    """Return what a worker says of itself, and what the system says of it and all its threads."""
    threads = [os.sched_getaffinity(int(one.name)) for one in Path("/proc/self/task").iterdir()]
    return list(pinned()), os.sched_getaffinity(0), threads


@pytest.mark.slow
@pytest.mark.skipif(machine.cores() < 2, reason="with one core there is one layout")
def test_each_layout_is_tried_with_the_studys_own_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "worth_trying", lambda *_: True)
    monkeypatch.setattr(trial, "SECONDS", 0.5)
    space = "batch_size = [16, 32]\nlearning_rate = [0.01]\nepochs = [1]"
    file = digits_study(tmp_path, site='workers = "auto"', search__space=space)
    study = Study.from_toml(file, tmp_path / "runs")
    assert study.run().failed == []
    (found,) = of_kind(study.entries(), LayoutTried)
    assert len(found.tried) > 1
    assert all(one["patches_per_second"] > 0 for one in found.tried), found.tried
    assert {task.threads for task in of_kind(study.entries(), TaskDone)} == {found.threads}


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
