"""Losing these: nodes that nobody asked for, that are asked for ever more, or never again.

The launcher here is a fake: what befalls real jobs and steps is tried on a real Slurm in
tests/integration/test_site.py.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from stormsweep.cluster import keeper as kept
from stormsweep.cluster.keeper import Ended, Keeper, nodes_for
from stormsweep.cluster.launchers import JobLauncher, _step_end
from stormsweep.cluster.pool import NodeChanged, NodesOver, PoolBroken
from stormsweep.cluster.scheduler import Job
from stormsweep.config.sites import Site
from stormsweep.errors import SlurmError

_LIMIT = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


class Launcher:
    """Starts nodes that live until the test ends them."""

    def __init__(self, places: int = 100, renews: bool = True) -> None:
        self.renews = renews
        #: What agents say of their end.
        self.said: dict[str, Ended] = {}
        self.stops = 0
        self.alive: list[str] = []
        self.started: list[str] = []
        self.ends: dict[str, Ended] = {}
        self.given: dict[str, float] = {}
        self.avoided: list[str] = []
        self.room = places
        self.trouble: SlurmError | None = None

    def places(self) -> int:
        return self.room

    def free(self) -> int:
        return self.room - len(self.alive)

    def start(self, name: str, command: Sequence[str]) -> str:
        if self.trouble is not None:
            raise self.trouble
        assert command == ["agent", name]
        self.alive.append(name)
        self.started.append(name)
        return f"job {name}"

    def end(self, name: str, failure: str = "", reason: str = "left", known: bool = True) -> None:
        self.alive.remove(name)
        self.ends[name] = Ended(failure, reason, known=known)

    def ended(self) -> Mapping[str, Ended]:
        ends, self.ends = self.ends, {}
        return ends

    def granted(self) -> Mapping[str, float]:
        given, self.given = self.given, {}
        return given

    def stop(self, names: Collection[str]) -> None:
        self.stops += 1
        for name in [name for name in names if name in self.alive]:
            self.end(name)

    def look(self) -> None:
        pass

    def avoid(self, host: str, for_good: bool = False) -> None:
        self.avoided.append(host)

    def close(self) -> None:
        self.alive.clear()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_TICK_SECONDS", 0.005)
    monkeypatch.setattr(kept, "_PAUSE_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(kept, "_GRACE_SECONDS", 0.05)


class Told:
    """A keeper at work, and what it tells."""

    def __init__(self, launcher: Launcher | JobLauncher, least: int, most: int) -> None:
        self.events: queue.Queue[NodeChanged | NodesOver | PoolBroken] = queue.Queue()
        self.keeper = Keeper(
            launcher,
            lambda name: ["agent", name],
            self.events.put,
            lambda name, end: getattr(launcher, "said", {}).get(name, end),
            lambda: None,
            least,
            most,
        )
        self.keeper.start()

    def all(self) -> list[NodeChanged | NodesOver | PoolBroken]:
        return [self.events.get_nowait() for _ in range(self.events.qsize())]


@pytest.fixture
def begin() -> Iterator[Callable[..., Told]]:
    begun: list[Told] = []

    def start(launcher: Launcher | JobLauncher, least: int, most: int) -> Told:
        begun.append(Told(launcher, least, most))
        return begun[-1]

    yield start
    for one in begun:
        one.keeper.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.002)


def test_there_are_as_many_nodes_as_have_work(begin: Callable[..., Told]) -> None:
    launcher = Launcher()
    told = begin(launcher, 1, 4)
    until(lambda: len(launcher.alive) == 4)
    told.keeper.want(2)
    assert told.keeper.surplus == 2
    for name in launcher.alive[:2]:
        told.keeper.release(name)
    # One that does not leave by itself, though told so at its sign of life, is stopped.
    assert not told.keeper.beat(launcher.started[0])
    until(lambda: len(launcher.alive) == 2)
    told.keeper.want(0)
    assert told.keeper.surplus == 1, "one stays, as was asked for"
    told.keeper.want(99)
    until(lambda: len(launcher.alive) == 4)
    assert launcher.stops >= 1
    assert [nodes_for(tasks, 4) for tasks in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_nodes_that_wait_are_let_go_before_those_that_work(begin: Callable[..., Told]) -> None:
    launcher = Launcher()
    told = begin(launcher, 1, 4)
    until(lambda: len(launcher.alive) == 4)
    told.keeper.ready("1")
    told.keeper.ready("3")
    told.keeper.want(3)
    assert told.keeper.spare(told.keeper.surplus) == 1
    until(lambda: launcher.alive == ["1", "2", "3"])
    told.keeper.want(1)
    assert told.keeper.spare(told.keeper.surplus) == 1
    until(lambda: launcher.alive == ["1", "3"])
    assert told.keeper.surplus == 1, "one that works has no work, and is let go by its pool"


def test_a_step_whose_time_is_over_has_no_successor(begin: Callable[..., Told]) -> None:
    launcher = Launcher(places=2, renews=False)
    told = begin(launcher, 2, 2)
    until(lambda: len(launcher.alive) == 2)
    for name in ("1", "2"):
        told.keeper.ready(name)
        told.keeper.release(name, over=True)
        assert not told.keeper.beat(name)
        launcher.end(name)
    found: list[object] = []
    until(lambda: bool(found.extend(told.all())) or NodesOver() in found)
    assert len(launcher.started) == 2
    assert not any(isinstance(one, PoolBroken) for one in found)


def test_no_step_is_begun_where_one_has_not_left_yet(begin: Callable[..., Told]) -> None:
    launcher = Launcher(places=1, renews=False)
    told = begin(launcher, 1, 1)
    until(lambda: launcher.alive == ["1"])
    told.keeper.ready("1")
    told.keeper.release("1")
    time.sleep(0.03)
    assert launcher.started == ["1"]
    launcher.end("1")
    until(lambda: launcher.alive == ["2"])


def test_a_job_whose_time_is_over_has_one(begin: Callable[..., Told]) -> None:
    launcher = Launcher()
    told = begin(launcher, 1, 1)
    until(lambda: launcher.alive == ["1"])
    told.keeper.ready("1")
    told.keeper.release("1", over=True)
    launcher.end("1")
    until(lambda: launcher.alive == ["2"])


def test_what_an_agent_says_counts_before_an_exit_code(begin: Callable[..., Told]) -> None:
    launcher = Launcher()
    launcher.said["1"] = Ended("no-gpu", "n1 shows the job no GPU")
    told = begin(launcher, 1, 1)
    until(lambda: launcher.alive == ["1"])
    launcher.end("1", "killed", "FAILED")
    found: list[object] = []
    until(lambda: bool(found.extend(told.all())) or any(isinstance(o, PoolBroken) for o in found))
    assert found[-1] == PoolBroken("job 1: n1 shows the job no GPU")
    assert launcher.started == ["1"], "another node would be as the first"


def test_a_node_without_its_gpus_ends_nothing_while_others_are_just_starting(
    begin: Callable[..., Told],
) -> None:
    """Losing this: a study on eight nodes, for the one that is the first to say a word."""
    launcher = Launcher()
    for name in ("1", "3", "4", "5", "6"):
        launcher.said[name] = Ended("no-gpu", "n1 shows the job no GPU")
    launcher.said["2"] = Ended("no-gpu", "n2 shows the job no GPU")
    told = begin(launcher, 2, 2)
    until(lambda: len(launcher.alive) == 2)
    assert told.keeper.beat("2")
    for name in ("1", "3", "4", "5"):
        until(lambda name=name: name in launcher.alive)
        launcher.end(name, "killed", "FAILED")
    until(lambda: "6" in launcher.alive)
    assert told.keeper.beat("6")
    assert not any(isinstance(event, PoolBroken) for event in told.all())
    launcher.end("2", "killed", "FAILED")
    until(lambda: PoolBroken("job 2: n2 shows the job no GPU") in told.all())


def test_a_node_that_ends_is_replaced_and_named(begin: Callable[..., Told]) -> None:
    launcher = Launcher()
    told = begin(launcher, 2, 2)
    until(lambda: len(launcher.alive) == 2)
    told.keeper.ready("1")
    launcher.end("1", "node-failure", "NODE_FAIL")
    until(lambda: launcher.alive == ["2", "3"])
    assert told.keeper.end_of("1") == Ended("node-failure", "NODE_FAIL")
    assert told.keeper.end_of("2") is None
    assert NodeChanged("1", "ended", "node-failure", "job 1: NODE_FAIL") in told.all()
    assert not told.keeper.beat("1"), "an agent whose job was given up must go"


@pytest.mark.parametrize("failure", ["killed", "walltime"])
def test_nodes_that_end_before_any_work_are_asked_for_a_few_times_only(
    begin: Callable[..., Told], failure: str
) -> None:
    launcher = Launcher()
    told = begin(launcher, 1, 1)
    for number in range(1, kept._MOST_FAILURES + 1):
        until(lambda name=str(number): name in launcher.alive)
        launcher.end(str(number), failure, "no such file: python")
    until(lambda: any(isinstance(event, PoolBroken) for event in told.all()))
    time.sleep(0.1)
    assert len(launcher.started) == kept._MOST_FAILURES


def test_a_scheduler_that_forgets_all_its_jobs_at_one_stroke_ends_no_study(
    begin: Callable[..., Told],
) -> None:
    """Losing this: a study that a slurmctld takes with it which was killed, and is back."""
    launcher = Launcher()
    told = begin(launcher, 9, 9)
    until(lambda: len(launcher.alive) == 9)
    for name in list(launcher.alive):
        launcher.end(name, "cancelled", "not known any more", known=False)
    until(lambda: len(launcher.started) == 18)
    assert not any(isinstance(event, PoolBroken) for event in told.all())


def test_nodes_on_which_no_worker_can_work_are_followed_by_a_few_others_only(
    begin: Callable[..., Told],
) -> None:
    launcher = Launcher()
    told = begin(launcher, 1, 1)
    for number in range(1, kept._MOST_FAILURES + 1):
        until(lambda name=str(number): name in launcher.alive)
        told.keeper.ready(str(number))
        told.keeper.refuse(str(number), f"n{number}", f"n{number} cannot open the data")
        assert not told.keeper.beat(str(number)), "its agent is told to leave"
    found: list[object] = []
    until(lambda: bool(found.extend(told.all())) or any(isinstance(o, PoolBroken) for o in found))
    assert found[-1] == PoolBroken(f"n{kept._MOST_FAILURES} cannot open the data")
    time.sleep(0.1)
    assert len(launcher.started) == kept._MOST_FAILURES


def test_a_node_on_which_none_can_work_ends_nothing_while_another_works(
    begin: Callable[..., Told],
) -> None:
    launcher = Launcher()
    told = begin(launcher, 1, 2)
    until(lambda: len(launcher.alive) == 2)
    told.keeper.ready("1")
    told.keeper.works("1")
    for number in range(2, 3 * kept._MOST_FAILURES):
        until(lambda name=str(number): name in launcher.alive)
        told.keeper.ready(str(number))
        told.keeper.refuse(str(number), "n2", "n2 cannot open the data")
    assert told.keeper._misses > 2 * kept._MOST_FAILURES, "it is asked for ever more seldom"
    assert not any(isinstance(event, PoolBroken) for event in told.all())


def test_while_others_work_a_no_of_the_scheduler_ends_nothing(begin: Callable[..., Told]) -> None:
    launcher = Launcher()
    told = begin(launcher, 1, 3)
    until(lambda: len(launcher.alive) == 3)
    told.keeper.ready("1")
    launcher.trouble = SlurmError("failed", "sbatch", 1, "", _LIMIT, refused=True)
    launcher.end("2", "cancelled")
    launcher.end("3", "cancelled")
    time.sleep(0.2)
    assert not any(isinstance(event, PoolBroken) for event in told.all())
    launcher.trouble = None
    until(lambda: len(launcher.alive) == 3)


def test_a_limit_on_submitted_jobs_ends_nothing_while_some_wait(
    begin: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: the four jobs that a debug QOS took, because it did not take the fifth."""
    launcher = Launcher()
    start, refused = launcher.start, SlurmError("failed", "sbatch", 1, "", _LIMIT, refused=True)

    def limited(name: str, command: Sequence[str]) -> str:
        if len(launcher.alive) >= 2:
            raise refused
        return start(name, command)

    monkeypatch.setattr(launcher, "start", limited)
    told = begin(launcher, 4, 4)
    until(lambda: told.keeper._misses > 2 * kept._MOST_FAILURES)
    launcher.end(launcher.alive[0], "cancelled")
    until(lambda: len(launcher.started) == 3)
    # All that worked end together: what comes in their place waits again.
    for name in list(launcher.alive):
        told.keeper.ready(name)
        launcher.end(name, "walltime")
    until(lambda: len(launcher.started) == 5)
    before = told.keeper._misses
    until(lambda: told.keeper._misses > before + kept._MOST_FAILURES)
    assert not any(isinstance(event, PoolBroken) for event in told.all())


@pytest.mark.parametrize("failure", ["preempted", "node-failure", "cancelled"])
def test_ends_that_are_nobodys_fault_end_no_study(begin: Callable[..., Told], failure: str) -> None:
    launcher = Launcher()
    told = begin(launcher, 1, 1)
    for number in range(1, 2 * kept._MOST_FAILURES):
        until(lambda name=str(number): name in launcher.alive)
        launcher.end(str(number), failure, "no luck")
    until(lambda: str(2 * kept._MOST_FAILURES) in launcher.alive)
    assert not any(isinstance(event, PoolBroken) for event in told.all())


def test_the_end_of_a_node_is_told_while_another_is_asked_for(begin: Callable[..., Told]) -> None:
    """An sbatch may hang for minutes."""
    launcher = Launcher()
    told = begin(launcher, 1, 2)
    until(lambda: len(launcher.alive) == 2)
    told.keeper.ready("1")
    told.keeper.ready("2")
    released = threading.Event()
    start = launcher.start
    launcher.start = lambda *given: released.wait(30) and start(*given)  # type: ignore[method-assign, assignment, return-value]
    launcher.end("1")
    until(lambda: told.keeper.end_of("1") is not None)
    launcher.end("2", "killed", "gone")
    until(lambda: told.keeper.end_of("2") == Ended("killed", "gone"))
    released.set()
    until(lambda: len(launcher.alive) == 2)


def test_a_no_to_the_first_node_is_the_end(begin: Callable[..., Told]) -> None:
    launcher = Launcher()
    launcher.trouble = SlurmError("failed", "sbatch", 1, "", "Invalid account", refused=True)
    told = begin(launcher, 1, 1)
    found: list[NodeChanged | NodesOver | PoolBroken] = []
    until(lambda: bool(found.extend(told.all())) or bool(found))
    assert isinstance(found[0], PoolBroken)
    assert "Invalid account" in found[0].reason


def test_a_scheduler_that_is_away_for_long_is_waited_for(begin: Callable[..., Told]) -> None:
    launcher = Launcher()
    launcher.trouble = SlurmError("did not answer within 120 s", "sbatch")
    told = begin(launcher, 1, 1)
    until(lambda: told.keeper._misses > 2 * kept._MOST_FAILURES)
    launcher.trouble = None
    until(lambda: len(launcher.alive) == 1)
    assert not any(isinstance(event, PoolBroken) for event in told.all())


def test_that_a_node_was_given_is_told_as_of_then_and_its_length_with_its_end(
    begin: Callable[..., Told],
) -> None:
    launcher = Launcher()
    told = begin(launcher, 1, 1)
    until(lambda: launcher.alive == ["1"])
    launcher.given = {"1": 30.0}
    until(lambda: not launcher.given)
    launcher.alive.remove("1")
    launcher.ends["1"] = Ended("walltime", "over", 77.0)
    seen: list[NodeChanged] = []
    until(lambda: bool(seen.extend(told.all()) or [e for e in seen if e.event == "ended"]))
    events = {event.event: event for event in seen if event.node == "1"}
    assert 29 < time.time() - events["granted"].when < 35
    assert events["ended"].seconds == 77.0
    assert events["asked"].seconds == 0.0


def test_no_more_nodes_than_there_are_places(begin: Callable[..., Told]) -> None:
    launcher = Launcher(places=2)
    begin(launcher, 3, 3)
    until(lambda: len(launcher.alive) == 2)
    launcher.room = 1  # A node of the allocation died.
    launcher.end("1", "node-failure")
    time.sleep(0.05)
    assert launcher.alive == ["2"]


class Queue:
    """A scheduler's queue, as the test says that it is."""

    name = "Slurm"

    def __init__(self) -> None:
        self.known: dict[str, Job] = {"7": Job("PENDING"), "8": Job("COMPLETED")}
        self.cancelled: list[str] = []
        self.asked = 0

    def submit(self, script: str, folder: Path, key: str = "") -> str:
        id = str(10 + len(self.known))
        self.known[id] = Job("PENDING", "Resources")
        return id

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        self.asked += 1
        return {id: self.known[id] for id in ids if id in self.known}

    def jobs_of(self, key: str) -> dict[str, Job]:
        return dict(self.known)

    def cancel(self, ids: Collection[str]) -> None:
        self.cancelled += ids
        self.known |= dict.fromkeys(ids, Job("CANCELLED"))


@pytest.fixture
def jobs(tmp_path: Path) -> tuple[JobLauncher, Queue]:
    waiting = Queue()
    site = Site(scheduler="slurm")
    return JobLauncher(site, "x-workers", "k", tmp_path, tmp_path, waiting), waiting  # type: ignore[arg-type]


def test_jobs_of_a_driver_that_was_killed_are_cancelled_first(
    jobs: tuple[JobLauncher, Queue],
) -> None:
    launcher, waiting = jobs
    assert launcher.start("1", ["agent"]) == "job 12"
    assert waiting.cancelled == ["7"]
    launcher.start("2", ["agent"])
    assert waiting.cancelled == ["7"]


@pytest.mark.parametrize(
    ("state", "failure"),
    [
        ("TIMEOUT", "walltime"),
        ("NODE_FAIL", "node-failure"),
        ("CANCELLED", "cancelled"),
        ("PREEMPTED", "preempted"),
        ("OUT_OF_MEMORY", "out-of-memory"),
        ("FAILED", "killed"),
        ("COMPLETED", ""),
    ],
)
def test_how_a_job_ended_is_said_in_our_words(
    state: str, failure: str, jobs: tuple[JobLauncher, Queue], tmp_path: Path
) -> None:
    launcher, waiting = jobs
    launcher.start("1", ["agent"])
    (tmp_path / "slurm-12.out").write_text(
        "first\nbash: python: command not found\n\n  warnings.warn('resource_tracker: 1')\n"
    )
    waiting.known["12"] = Job(state)
    found: dict[str, Ended] = {}
    until(lambda: bool(found.update(launcher.ended())) or bool(found))
    assert found["1"].failure == failure
    assert ("command not found" in found["1"].reason) == (failure in ("killed", "out-of-memory"))
    assert launcher.ended() == {}


def test_jobs_whose_end_nobody_knows_are_asked_for_a_few_times_only(
    begin: Callable[..., Told], jobs: tuple[JobLauncher, Queue], tmp_path: Path
) -> None:
    """Losing this: on a PBS without job history, a set-up line that fails has no last job."""
    launcher, waiting = jobs
    launcher.look = lambda: setattr(launcher, "_due", 0.0)  # type: ignore[method-assign]
    waiting.jobs = lambda ids: {}  # type: ignore[method-assign]
    (tmp_path / "slurm-15.out").write_text("module: command not found\n")
    told = begin(launcher, 1, 1)
    found: list[NodeChanged | NodesOver | PoolBroken] = []
    until(lambda: bool(found.extend(told.all())) or any(isinstance(o, PoolBroken) for o in found))
    assert isinstance(found[-1], PoolBroken)
    assert found[-1].reason == (
        "job 15: Slurm does not know the job any more; the last line of slurm-15.out: "
        "module: command not found"
    )
    time.sleep(0.1)
    assert len(waiting.known) == 2 + kept._MOST_FAILURES


def test_a_job_that_slurm_forgot_is_given_up_after_some_looks(
    jobs: tuple[JobLauncher, Queue],
) -> None:
    launcher, waiting = jobs
    launcher.start("1", ["agent"])
    del waiting.known["12"]
    before, found = waiting.asked, {}
    until(lambda: bool(found.update(launcher.ended())) or bool(found))
    reason = "Slurm does not know the job any more"
    assert found == {"1": Ended("cancelled", reason, known=False)}
    assert waiting.asked - before == 3


def test_the_queue_is_not_looked_at_all_the_time(
    jobs: tuple[JobLauncher, Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, waiting = jobs
    monkeypatch.setattr("stormsweep.cluster.launchers._LOOKS", (600.0, 900.0))
    launcher.start("1", ["agent"])
    until(lambda: launcher.ended() == {} and waiting.asked == 1)
    for _ in range(100):
        launcher.ended()
    assert waiting.asked == 1
    # Unless something happened.
    launcher.look()
    until(lambda: launcher.ended() == {} and waiting.asked == 2)


_AWAY = "Unable to contact slurm controller (connect failure)"


@pytest.mark.parametrize(
    ("code", "said", "failure"),
    [
        (0, "", ""),
        (-9, "", "killed"),
        (143, "slurmstepd: error: *** STEP 5.0 ON n1 CANCELLED DUE TO TIME LIMIT ***", "walltime"),
        (1, "srun: error: Node failure on n2\nsrun: Job step aborted", "node-failure"),
        (1, "slurmstepd: error: *** STEP 5.0 CANCELLED DUE TO PREEMPTION ***", "preempted"),
        (143, "slurmstepd: error: *** STEP 5.0 ON n1 CANCELLED AT 2026 ***", "cancelled"),
        (137, "slurmstepd: error: Detected 1 oom_kill event in StepId=5.0", "out-of-memory"),
        (1, "Traceback", "killed"),
        (1, f"srun: error: Unable to create step for job 5: {_AWAY}", "cancelled"),
        (1, f"srun: error: Unable to confirm allocation for job 5: {_AWAY}\nsrun: x", "cancelled"),
        (1, "srun: error: Unable to create step for job 5: Invalid account", "killed"),
        # Of a node's agent that does not find its driver, say.
        (1, f"srun: error: {_AWAY}\nOSError: Connection refused", "killed"),
    ],
)
def test_how_a_step_ended_is_said_in_our_words(code: int, said: str, failure: str) -> None:
    assert _step_end(code, said).failure == failure
