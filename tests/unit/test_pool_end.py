"""The end of a pool where nothing ends by itself, on a machine with far more work than cores.

Losing this: `cancel` tells users to kill a driver that ends as it should, and with it what would
end its workers; or a job is over before its driver has seen to the next one.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stormsweep.cluster import dask_pool, remote
from stormsweep.cluster.node_order import NodeOrder
from stormsweep.cluster.pool import END_SECONDS
from stormsweep.cluster.remote import RemotePool
from stormsweep.config.walltimes import margin
from stormsweep.study import jobs
from stormsweep.study.staff import Staff


class Slow:
    """What has to end, and each time takes all that it may; the clock is moved by that alone."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.taken: dict[str, float] = {}

    def monotonic(self) -> float:
        return self.now

    def _take(self, what: str, seconds: float) -> None:
        self.now += seconds
        self.taken[what] = seconds
        raise TimeoutError

    def keeper(self, *_: Any) -> Any:
        return SimpleNamespace(start=lambda: None, close=self._end_nodes)

    def _end_nodes(self, within: float) -> None:
        self.now += within
        self.taken["nodes"] = within

    def client(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(
            close=lambda timeout: self._take("client", timeout), register_plugin=lambda _: None
        )

    def cluster(self, *_: Any, **__: Any) -> Any:
        scheduler = SimpleNamespace(handlers={}, add_plugin=lambda _: None, address="tls://here:1")
        return SimpleNamespace(
            scheduler=scheduler,
            sync=lambda _, callback_timeout: self._take("workers", callback_timeout),
            close=lambda timeout: self._take("cluster", timeout),
        )


@pytest.mark.parametrize("within", [None, 1.5])
def test_all_of_a_pool_ends_within_one_time_and_each_part_has_some_of_it(
    within: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow()
    monkeypatch.setattr(dask_pool, "time", slow)
    monkeypatch.setattr(dask_pool, "LocalCluster", slow.cluster)
    monkeypatch.setattr(dask_pool, "Client", slow.client)
    monkeypatch.setattr(dask_pool, "beat_rarely", lambda _: None)
    monkeypatch.setattr(dask_pool, "offer", lambda _: None)
    monkeypatch.setattr(dask_pool, "_left_behind", dask_pool.threading.Event())
    monkeypatch.setattr(remote, "Keeper", slow.keeper)
    order = NodeOrder(
        scheduler="", workers=1, threads=1, memory_gb=1.0, logs=str(tmp_path / "logs"), imported=[]
    )
    launcher: Any = None
    pool = RemotePool(launcher, order, tmp_path / ".private", (1, 1), [])
    began = slow.now
    pool.close(*([] if within is None else [within]))
    assert list(slow.taken) == ["nodes", "client", "workers", "cluster"]
    allowed = END_SECONDS if within is None else within
    assert slow.now - began <= allowed + 1e-6
    assert min(slow.taken.values()) > 0.09 * allowed


def test_who_cancels_waits_longer_than_the_workers_may_take() -> None:
    # Dask's thread may take ten seconds more, and there is the journal to end.
    assert jobs._ENDING_S >= END_SECONDS + 20
    # What another machine wrote may be seen a minute later.
    assert jobs._ELSEWHERE_S >= jobs._ENDING_S + 60


@pytest.mark.parametrize("walltime", [60.0, 600.0, 4 * 3600.0, math.inf])
def test_a_driver_whose_job_ends_soon_keeps_time_for_what_comes_after_its_workers(
    walltime: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes leave when a third of the margin is left, where nothing ends them before."""
    given: list[float] = []
    pool = SimpleNamespace(close=given.append)
    monkeypatch.setattr(Staff, "_remote", lambda *_: pool)
    monkeypatch.setattr(Staff, "_local", lambda *_: pool)
    here = SimpleNamespace(memory_gb=1.0)
    file: Any = SimpleNamespace(engine=SimpleNamespace(use="tensorflow"), site=here)
    plan: Any = SimpleNamespace(runs=[])
    layout: Any = None
    left = math.inf if math.isinf(walltime) else margin(walltime) / 3
    place: Any = SimpleNamespace(ends=time.monotonic() + left)
    with Staff(file, tmp_path, plan, [], place).pool(layout):
        pass
    with Staff(file, tmp_path, plan, []).pool(layout):
        pass
    inside, local = given
    assert local == END_SECONDS
    assert 0 < inside <= (END_SECONDS if math.isinf(left) else left / 2)
