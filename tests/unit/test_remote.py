"""Losing these: the good nodes of a cluster, or one bad node that is asked for again and again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stormsweep.cluster import dask_pool
from stormsweep.cluster.node_order import NodeOrder
from stormsweep.cluster.remote import RemotePool
from tests.unit.test_keeper import Launcher, until


def anything(*_: Any, **__: Any) -> Any:
    """Stand for Dask's scheduler or client, which none of these tests asks for anything."""
    scheduler = SimpleNamespace(handlers={}, add_plugin=lambda _: None, address="tls://here:1")
    nothing = {name: lambda *_, **__: None for name in ("sync", "close", "register_plugin")}
    return SimpleNamespace(scheduler=scheduler, **nothing)


@pytest.fixture
def launcher() -> Launcher:
    return Launcher()


@pytest.fixture
def pool(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RemotePool]:
    monkeypatch.setattr(dask_pool, "LocalCluster", anything)
    monkeypatch.setattr(dask_pool, "Client", anything)
    monkeypatch.setattr(dask_pool, "beat_rarely", lambda _: None)
    monkeypatch.setattr(dask_pool, "offer", lambda _: None)
    monkeypatch.setattr(RemotePool, "_command", lambda _, node: ["agent", node])
    order = NodeOrder(
        scheduler="", workers=2, threads=1, memory_gb=1.0, logs=str(tmp_path / "logs"), imported=[]
    )
    pool = RemotePool(launcher, order, tmp_path / ".private", (1, 1), [])
    yield pool
    pool.close()


def test_a_node_is_asked_for_no_more_once_none_of_its_workers_can_work(
    pool: RemotePool, launcher: Launcher
) -> None:
    """One worker may have a GPU that is dead, while the others of its node are good.

    Where all lack the data, say, Slurm would give the same node again, which is idle.
    """
    until(lambda: launcher.alive == ["1"])
    for number in (0, 1):
        pool._joined(f"tls://n1:{number}", f"n1-1-{number}", number)
    pool.refuse("n1-1-0", 0, "n1: a worker could not be set up")
    assert launcher.avoided == []
    pool.refuse("n1-1-1", 1, "n1 cannot open the data")
    assert launcher.avoided == ["n1"]
