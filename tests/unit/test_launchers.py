"""Losing these: nodes that nobody replaces, because their scheduler still knows their job.

And a log that grows twice a second, because the disk is full.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import pytest

from stormsweep.cluster.launchers import JobLauncher, StepLauncher
from stormsweep.cluster.scheduler import Job
from stormsweep.config.sites import Site
from stormsweep.errors import SlurmError


class Queue:
    """A scheduler of whose jobs each test says what they are at."""

    name = "Slurm"

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.cancelled: list[str] = []
        self.scripts: list[str] = []
        #: Whether no other node fits than those that are not wanted.
        self.alone = False

    def submit(self, script: str, folder: Path, key: str = "") -> str:
        self.scripts.append(script)
        if self.alone and "--exclude" in script:
            raise SlurmError("failed", "sbatch", 1, "", "error: not available", refused=True)
        id = str(len(self.states) + 1)
        self.states[id] = "PENDING"
        return id

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        return {id: Job(self.states[id], "", "", self.seconds.get(id)) for id in ids}

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


def test_a_node_is_granted_when_its_scheduler_says_and_once_and_so_is_its_end(
    queue: Queue, launcher: JobLauncher
) -> None:
    launcher.start("1", ["agent"])
    launcher.start("2", ["agent"])
    launcher.ended()
    assert launcher.granted() == {}
    queue.states["1"], queue.seconds["1"] = "RUNNING", 40.0
    launcher.ended()
    (name, ago), *more = launcher.granted().items()
    assert not more
    assert name == "1"
    assert 40.0 <= ago < 42.0, "it ran for 40 s before it was seen to"
    launcher.ended()
    assert launcher.granted() == {}
    queue.states["1"], queue.seconds["1"] = "COMPLETED", 55.0
    assert launcher.ended()["1"].seconds == 55.0
    # One that was over before anybody saw it run.
    queue.states["2"], queue.seconds["2"] = "TIMEOUT", 7.0
    end = launcher.ended()["2"]
    assert (end.failure, end.seconds) == ("walltime", 7.0)


def test_a_node_at_fault_is_not_asked_for_again_as_long_as_others_fit(
    queue: Queue, launcher: JobLauncher
) -> None:
    """Losing this: Slurm gives the bad node, which is idle, again and again."""
    launcher.start("1", ["agent"])
    launcher.avoid("n2")
    launcher.avoid("n1")
    launcher.start("2", ["agent"])
    queue.alone = True
    launcher.start("3", ["agent"])
    asked = ["#SBATCH --exclude=n1,n2\n" in script for script in queue.scripts]
    assert asked == [False, True, True, False]
    assert "--exclude" not in queue.scripts[-1]
    launcher.avoid("n2", for_good=True)
    with pytest.raises(SlurmError):
        launcher.start("4", ["agent"])
    assert "#SBATCH --exclude=n2\n" in queue.scripts[-1], "what was wrong with n1 may have passed"


def test_a_step_is_started_on_a_node_at_fault_only_where_no_other_is_free(tmp_path: Path) -> None:
    launcher = StepLauncher("7", ["n1", "n2"], 1, tmp_path)
    launcher.avoid("n1")
    assert launcher._free() == ["n2", "n1"]


def test_no_step_is_started_again_on_a_node_that_gets_no_more_work(tmp_path: Path) -> None:
    """Losing this: each such step is taken for a node that comes, and runs that failed wait for it.

    They are tried on the good node again then, as if no other place could have been had.
    """
    launcher = StepLauncher("7", ["n1", "n2"], 1, tmp_path)
    launcher._steps["2"] = "n2", cast(Any, None)
    launcher.avoid("n1")
    assert launcher.free() == 1, "what is wrong may pass"
    launcher.avoid("n1", for_good=True)
    assert (launcher.places(), launcher.free()) == (1, 0)


def test_a_step_whose_log_cannot_be_written_is_asked_for_later_and_without_srun_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is not there refuses as a full disk does."""
    monkeypatch.setenv("PATH", str(tmp_path))
    logs = tmp_path / "logs"
    launcher = StepLauncher("7", ["n1"], 1, logs)
    with pytest.raises(SlurmError, match="srun: its log cannot be written: ") as full:
        launcher.start("1", ["agent"])
    assert full.value.passing
    assert launcher.free() == 1
    logs.mkdir()
    with pytest.raises(SlurmError, match="srun: cannot be started: ") as missing:
        launcher.start("1", ["agent"])
    assert not missing.value.passing
