"""`cancel` of a driver on another machine: in tests/integration/test_cancel.py one is real.

Losing this: the work of all nodes since their last milestones, for a driver that goes on and has
them replaced.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stormsweep.errors import SlurmError, StormsweepError, UserError
from stormsweep.study import jobs
from stormsweep.study.lock import FILE, STOP_FILE


class Queue:
    """The jobs of a study whose driver is in none of them."""

    driven = False

    def __init__(self) -> None:
        self.cancels = 0

    def cancel(self) -> list[str]:
        self.cancels += 1
        return []


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a study whose driver is at work on another machine, and deaf."""
    driver = {"host": "login1", "pid": 7, "started": 0.0, "token": "t", "beat": 1, "seen": "now"}
    (tmp_path / FILE).write_text(json.dumps(driver))
    monkeypatch.setattr(jobs, "is_alive", lambda *_: True)
    monkeypatch.setattr(jobs, "_ELSEWHERE_S", 0.2)
    monkeypatch.setattr(jobs.slurm, "available", lambda: True)
    return tmp_path


def test_no_job_is_cancelled_before_the_driver_has_ended(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue()
    monkeypatch.setattr(jobs, "Jobs", lambda _: queue)
    with pytest.raises(StormsweepError, match="process 7 on login1, was told to end 0 s ago and"):
        jobs.cancel(directory)
    assert queue.cancels == 0
    assert not (directory / STOP_FILE).exists()


def test_a_driver_in_a_job_is_not_told_where_slurm_cannot_be_asked_for_what_follows_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Path) -> None:
        raise SlurmError("did not answer", "squeue")

    monkeypatch.setattr(jobs, "Jobs", away)
    monkeypatch.setattr(jobs, "_tell", lambda *_: pytest.fail("its successor would go on"))
    (directory / "site.json").write_text('{"submitted": true}')
    with pytest.raises(SlurmError, match="did not answer"):
        jobs.cancel(directory)


@pytest.mark.parametrize("ending", [False, True])
def test_a_driver_that_ends_is_not_told_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, ending: bool
) -> None:
    """Losing this: it stops waiting for its workers, and leaves behind those that are slow."""
    driver = json.loads((directory / FILE).read_text()) | ({"ending": True} if ending else {})
    (directory / FILE).write_text(json.dumps(driver))
    told: list[object] = []
    monkeypatch.setattr(jobs, "Jobs", lambda _: Queue())
    monkeypatch.setattr(jobs, "_tell", lambda *given: told.append(given))
    monkeypatch.setattr(jobs, "_AGAIN_S", 0.0)
    with pytest.raises(StormsweepError, match="is still at work"):
        jobs.cancel(directory)
    assert (len(told) == 1) == ending


def test_a_directory_that_cannot_be_written_to_is_said_with_what_to_do(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(jobs, "Jobs", lambda _: Queue())
    monkeypatch.setattr(jobs, "ask_to_stop", refused)
    with pytest.raises(UserError, match="Permission denied; stop it there: kill -INT 7"):
        jobs.cancel(directory)
