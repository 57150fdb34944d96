"""Losing these: runs that count as failed because a node cannot open the data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stormsweep.cluster import station
from stormsweep.cluster.station import Station
from stormsweep.data.prepared import PreparedData, PreparedWriter, Target, Variable
from stormsweep.errors import DataAwayError
from stormsweep.study import worker
from stormsweep.study.bundle import train_bundle
from stormsweep.study.cases import open_all
from stormsweep.work import Delivery, Protocol, Run, Sample, Task, TaskOrder

PROTOCOL = Protocol(2, "random", "", "none", 1.0, 1, False, None, 0)


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    path, targets = tmp_path / "data", np.arange(40) % 2
    about: dict[str, Any] = {"source": "npz", "synthetic": True, "inputs": [Variable("x", "")]}
    with PreparedWriter(path, target=Target("y", "", 0.5), groups=[], **about) as writer:
        inputs = np.linspace(0, 1, 40, dtype=np.float32)[:, np.newaxis]
        writer.append(inputs, targets.astype(float), {}, np.arange(40) >= 30)
    return PreparedData.open(path)


@pytest.fixture
def order(data: PreparedData, tmp_path: Path) -> TaskOrder:
    task = Task(Run("r-f0", {"batch_size": 8}, 0, (1,)), 0, 1)
    where = str(data.path), data.fingerprint, PROTOCOL, "", False
    how = "tensorflow", "float32", True, str(tmp_path / "checkpoints"), 1
    return TaskOrder(task, "m:f", "", *where, *how, "n7-1-0", 1, 0.0)


def test_no_task_fails_for_data_that_cannot_be_opened_here(
    data: PreparedData, order: TaskOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(station, "_here", Station(node="n7"))
    data.path.rename(data.path.with_name("elsewhere"))
    missing = r"no prepared data here \(manifest.json is missing\)$"
    said = rf"^n7 cannot open the data: {data.path}: {missing}"
    works: list[tuple[Any, Any]] = [
        (worker.train_task, order),
        (worker.fit_task, order),
        (worker.sample_task, Sample(order, 0.1)),
        (worker.deliver_task, Delivery(order, "")),
        (train_bundle, [order, order]),
    ]
    for function, argument in works:
        with pytest.raises(DataAwayError, match=said):
            function(argument)
    # An automounter may take its time: what could not be opened once is looked for again.
    data.path.with_name("elsewhere").rename(data.path)
    open_all(str(data.path), data.fingerprint, "", True)


def test_what_is_missing_or_other_is_named(data: PreparedData, tmp_path: Path) -> None:
    path = str(data.path)
    with pytest.raises(DataAwayError, match=rf"{path}: the data changed since this session"):
        open_all(path, "another", "", False)
    with pytest.raises(
        DataAwayError, match=rf"{tmp_path}/turned: turned patches changed or missing$"
    ):
        open_all(path, data.fingerprint, str(tmp_path / "turned"), False)
    shutil.rmtree(data.path / "test")
    with pytest.raises(
        DataAwayError, match=rf"{path}/test/inputs.npy: missing since it was prepared$"
    ):
        open_all(path, data.fingerprint, "", True)


def test_a_copy_on_the_node_is_what_is_opened_and_named(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = {str(data.path): str(tmp_path / "scratch")}
    monkeypatch.setattr(station, "_here", Station(node="n7", copies=copies))
    with pytest.raises(DataAwayError, match=f"^n7 cannot open the data: {tmp_path}/scratch: "):
        open_all(str(data.path), data.fingerprint, "", False)
