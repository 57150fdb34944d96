"""Losing these: nodes that nobody replaces, because their scheduler still knows their job."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from stormsweep.cluster.launchers import JobLauncher
from stormsweep.cluster.scheduler import Job
from stormsweep.config.sites import Site


class Queue:
    """A scheduler of whose jobs each test says what they are at."""

    name = "Slurm"

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.cancelled: list[str] = []

    def submit(self, script: str, folder: Path, key: str = "") -> str:
        id = str(len(self.states) + 1)
        self.states[id] = "PENDING"
        return id

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        return {id: Job(self.states[id], "", "") for id in ids}

    def jobs_of(self, key: str) -> dict[str, Job]:
        return {}

    def cancel(self, ids: Collection[str]) -> None:
        self.cancelled += ids


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def launcher(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobLauncher:
    monkeypatch.setattr("stormsweep.cluster.launchers._LOOKS", (0.0, 0.0))
    launcher = JobLauncher(Site(scheduler="slurm"), "x", "key", tmp_path, tmp_path, queue)  # type: ignore[arg-type]
    monkeypatch.setattr(launcher, "look", lambda: setattr(launcher, "_due", 0.0))
    return launcher


def test_a_job_that_was_requeued_is_taken_for_lost_and_cancelled(
    queue: Queue, launcher: JobLauncher
) -> None:
    launcher.start("1", ["agent"])
    launcher.start("2", ["agent"])
    assert launcher.ended() == {}
    queue.states["1"] = "RUNNING"
    assert launcher.ended() == {}
    queue.states["1"] = "PENDING"
    (name, end), *more = launcher.ended().items()
    assert (name, end.failure, end.reason) == ("1", "cancelled", "Slurm put it back in the queue")
    # The other one waits since it was submitted.
    assert not more
    assert queue.cancelled == ["1"]
    assert launcher.ended() == {}
