"""A chain of jobs: a mistake here ends a study that should go on, or fills a queue for nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stormsweep.cluster.jobscript import job_script
from stormsweep.cluster.scheduler import Job
from stormsweep.config.sites import Site
from stormsweep.errors import SlurmError
from stormsweep.records import Entry, SessionBegun, WorkerEvent
from stormsweep.results.journal import Follower, JournalWriter
from stormsweep.study import successor
from stormsweep.study.chain import Link, was_cancelled
from stormsweep.study.successor import Successor

LINK = Link(Path("/runs/x"), "mine", Path("/sites.toml"), max_jobs=3)


def test_two_jobs_that_record_nothing_hold_the_chain() -> None:
    assert LINK.idle_now(5) == 0  # There was none before it.
    second = LINK.successor("1", 5)
    third = second.successor("2", 5)
    assert (second.idle_now(5), third.idle_now(5), third.idle_now(6)) == (1, 2, 0)
    assert (second.last, third.last) == (False, True)


def test_a_job_is_told_all_that_its_predecessor_knew() -> None:
    first = Link(Path("/runs/it's"), "mine", Path("/s.toml"), 1, 9, 2, "90", True)
    link = first.successor("77", 12)
    words = link.command()
    assert words[3:5] == ["drive", "/runs/it's"]
    assert " ".join(words[5:]) == (
        "--site mine --sites /s.toml --job 2 --max-jobs 9 --nodes 2 --walltime 90 "
        "--after 77 --done 12 --retry-failed"
    )
    script = job_script(Site(scheduler="slurm"), link.order("storms", Site(scheduler="slurm")))
    assert "#SBATCH --dependency=afterany:77\n" in script
    assert "#SBATCH --nodes=2\n" in script
    assert "--environment" not in script
    site = Site(scheduler="slurm", setup=["true"])
    assert "--retry-failed --environment < <(" in job_script(site, link.order("storms", site))


@pytest.mark.parametrize(("walltime", "seconds"), [("00:05:00", None), ("04:00:00", 120)])
def test_slurm_is_not_asked_for_a_signal_that_could_come_at_the_start(
    walltime: str, seconds: int | None
) -> None:
    site = Site(scheduler="slurm", walltime=walltime)
    assert LINK.order("x", site).warning_s == seconds


@pytest.mark.parametrize("state", ["TIMEOUT", "NODE_FAIL", "PREEMPTED", "FAILED", "COMPLETED"])
def test_only_what_somebody_cancelled_ends_the_chain(state: str) -> None:
    assert not was_cancelled(Job(state))
    assert not was_cancelled(None)
    assert was_cancelled(Job("CANCELLED"))


class Queue:
    """As much of Slurm as a successor meets: it fails, refuses or forgets as it is told."""

    def __init__(self, *troubles: SlurmError) -> None:
        self.troubles = list(troubles)
        self.submitted: list[str] = []
        self.cancelled: list[str] = []
        self.known: dict[str, Job] = {}

    def submit(self) -> str:
        if self.troubles:
            raise self.troubles.pop(0)
        id = str(len(self.submitted) + 1)
        self.submitted.append(id)
        self.known[id] = Job("PENDING", "Dependency")
        return id

    def jobs(self, ids: list[str]) -> dict[str, Job]:
        return {id: self.known[id] for id in ids if id in self.known}

    def cancel(self, ids: list[str]) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        self.cancelled += ids


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST", "_HELD", "_NAP"):
        monkeypatch.setattr(successor, name, 0.01)
    monkeypatch.setattr(successor, "_LONGEST", 0.05)
    monkeypatch.setattr(successor, "_CANCEL", (0.0, 0.01))


def kept(
    queue: Queue,
    waiting: Callable[[], str | None] = lambda: None,
    held: Callable[[], bool] = lambda: False,
) -> Successor:
    made = Successor(queue, queue.submit, waiting, held)  # type: ignore[arg-type]
    made.start()
    return made


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


PASSING = SlurmError("failed", "sbatch", 1, err="Socket timed out")
REFUSED = SlurmError("failed", "sbatch", 1, err="sbatch: error: QOSMaxSubmitJob", refused=True)


def test_what_slurm_forgot_is_submitted_again(quick: None) -> None:
    queue = Queue()
    made = kept(queue)
    assert made.id == "1"
    queue.known.clear()
    until(lambda: made.id == "2")
    made.close()
    assert not queue.cancelled


def test_trouble_and_limits_pass(quick: None) -> None:
    queue = Queue(PASSING, REFUSED, PASSING)
    made = kept(queue)
    until(lambda: made.id == "1")
    assert made.none is None
    made.close()


def test_one_that_somebody_cancelled_is_not_put_back(quick: None) -> None:
    queue = Queue()
    made = kept(queue)
    queue.known["1"] = Job("CANCELLED")
    until(lambda: made.id is None)
    made.close()
    assert queue.submitted == ["1"]
    assert made.none == "job 1, which was to go on, was cancelled"


def test_none_is_left_in_the_queue_when_all_is_done(quick: None) -> None:
    queue = Queue()
    made = kept(queue)
    queue.troubles.append(PASSING)
    made.abandon()
    made.close()
    assert queue.cancelled == ["1"]


def test_a_job_that_was_started_again_keeps_the_successor_it_has(quick: None) -> None:
    queue = Queue()
    made = kept(queue, waiting=lambda: "41")
    queue.known["41"] = Job("PENDING", "Dependency")
    assert made.id == "41"
    made.close()
    assert not queue.submitted


def test_a_chain_that_gets_on_after_all_goes_on(quick: None) -> None:
    stuck = [True]
    queue = Queue()
    made = kept(queue, held=lambda: stuck[0])
    time.sleep(0.1)
    assert not queue.submitted
    stuck[0] = False
    until(lambda: made.id == "1")
    made.close()


def test_a_follower_sees_each_entry_once_and_none_that_is_half_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    follower = Follower(path)
    assert list(follower.new()) == []
    with JournalWriter(path) as journal:
        journal.append(SessionBegun(1, "h", 1, "local", 1, 1))
        assert [type(entry.record) for entry in follower.new()] == [SessionBegun]
        journal.append(WorkerEvent(1, "0", "ready", "h", 2), WorkerEvent(1, "0", "lost", "h", 2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert [_event(entry) for entry in follower.new()] == ["ready"]
    path.write_bytes(whole)
    assert [_event(entry) for entry in follower.new()] == ["lost"]
    assert json.loads(whole.splitlines()[-1])["event"] == "lost"


def _event(entry: Entry) -> str:
    assert isinstance(entry.record, WorkerEvent)
    return entry.record.event
