"""Losing these: an epoch trained twice or never, a run given up or waited for ever, at a walltime.

The pool is a fake with a disk: its workers leave checkpoints that hold their records, as real ones
do. Real workers that pause are in tests/integration/test_walltime.py.
"""

from __future__ import annotations

import dataclasses
import os
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.cluster import deadline
from stormsweep.cluster.pool import Event, Finished, NodesOver, WorkerLost, WorkerReady
from stormsweep.config.study import EngineTable, StudyFile
from stormsweep.data.prepared import PreparedData
from stormsweep.records import Entry, RunFailed, TaskDone, TaskPaused, TaskRetried, WorkerEvent
from stormsweep.results.facts import stretches
from stormsweep.results.journal import JournalWriter, of_kind, read
from stormsweep.results.progress import progress_of
from stormsweep.search.plan import Plan, make_plan
from stormsweep.search.space import grid
from stormsweep.study import pausing, tally
from stormsweep.study.execute import Execution, never
from stormsweep.study.patience import Patience
from stormsweep.study.tally import Speeds
from stormsweep.study.watching import Silent
from stormsweep.training.checkpoint import path_of
from stormsweep.work import Task, TaskOrder
from tests.checkpoints import kept, last
from tests.unit.test_execute import STUDY, WELCOME

JAX = STUDY.model_copy(update={"engine": EngineTable(use="jax")})
PLAN = make_plan(grid({"batch_size": [8, 16], "x": [0, 1], "epochs": [2, 5]}), {}, 2)
LAST = 5


class Disk:
    """What survives drivers and workers: the records in checkpoints, and a count of epochs."""

    def __init__(self) -> None:
        self.records: dict[Path, TaskDone | TaskPaused] = {}
        self.trained: Counter[tuple[str, int]] = Counter()

    def carry_out(self, order: TaskOrder, epochs: float) -> TaskDone | TaskPaused:
        """Train so many epochs of a task; take what a checkpoint holds already."""
        task, folder = order.task, Path(order.checkpoints)
        folder.mkdir(exist_ok=True)
        for epoch in range(task.start + 1, task.to_epoch + 1):
            known = self.records.get(path_of(folder, task.run.id, epoch))
            if known is not None and path_of(folder, task.run.id, epoch).exists():
                return known
        if task.start:
            assert path_of(folder, task.run.id, task.start).exists(), "its checkpoint is gone"
        stop = int(min(task.to_epoch, task.start + epochs))
        for epoch in range(task.start + 1, stop + 1):
            self.trained[task.run.id, epoch] += 1
        result = record(order, stop)
        if stop > task.start:
            path = path_of(folder, task.run.id, stop)
            path.touch()
            self.records[path] = result
        return result


def record(order: TaskOrder, stop: int) -> TaskDone | TaskPaused:
    """Return a record whose losses are the numbers of their epochs."""
    task, count = order.task, stop - order.task.start
    times: dict[str, Any] = {"submitted": order.submitted, "started": 1.0, "stopped": 1.0 + count}
    times |= {"worker": order.worker, "session": order.session, "run": task.run.id}
    times |= {"phases": {"train": float(count)}, "patches": 10 * count, "updates": count}
    times |= {"memory_mb": 1.0, "parameters": 5, "threads": 0, "cores": [], "bundle": 1}
    if stop < task.to_epoch:
        losses = [float(epoch) for epoch in range(task.start + 1, stop + 1)]
        return TaskPaused(from_epoch=task.start, to_epoch=stop, epoch_loss=losses, **times)
    return TaskDone(
        from_epoch=task.from_epoch,
        to_epoch=stop,
        scores={"roc_auc": 0.5 + 0.01 * stop},
        epoch_loss=[float(epoch) for epoch in range(task.from_epoch + 1, stop + 1)],
        resumed=task.paused_at,
        **times,
    )


class HurriedPool:
    """Workers that have time for some epochs, then leave and are followed by others.

    Parameters
    ----------
    workers : int
        How many.
    disk : Disk
        Where they leave checkpoints.
    time_of : callable
        How many epochs a new worker has time for.
    lost : callable, optional
        Why a worker is lost after its checkpoint and before its answer; empty: it is not.
    """

    patience = 60.0

    def __init__(
        self,
        workers: int,
        disk: Disk,
        time_of: Callable[[], float],
        lost: Callable[[], str] = lambda: "",
    ) -> None:
        self.disk, self.time_of, self.lost = disk, time_of, lost
        self.queue: list[Event] = []
        self.alive: dict[str, int] = {}
        self.left: dict[int, float] = {}
        self.dismissed: set[int] = set()
        self.pid = 0
        for number in range(workers):
            self.join(str(number))

    def join(self, worker: str) -> None:
        self.pid += 1
        self.alive[worker] = self.pid
        self.left[self.pid] = self.time_of()
        self.queue.append(WorkerReady(worker, "h", self.pid))

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        assert pid not in self.dismissed, "a worker that was let go is asked for more"
        if self.alive.get(worker) != pid:
            return
        if token == "welcome":
            self.queue.append(Finished(worker, token, WELCOME))
            return
        several = isinstance(argument, list)
        orders = argument if several else [argument]
        assert len({order.task.start for order in orders}) == 1
        results = [self.disk.carry_out(order, self.left[pid]) for order in orders]
        longest = max(
            result.to_epoch - order.task.start
            for result, order in zip(results, orders, strict=True)
        )
        self.left[pid] = max(0.0, self.left[pid] - longest)
        if failure := self.lost():
            self.queue.append(WorkerLost(worker, "h", pid, failure, "it went", token))
            self.join(worker)
            return
        self.queue.append(Finished(worker, token, results if several else results[0]))

    def want(self, tasks: int) -> None:
        pass

    def dismiss(self, worker: str, pid: int) -> None:
        assert self.alive[worker] == pid
        self.dismissed.add(pid)
        self.queue.append(WorkerLost(worker, "h", pid, "walltime", "its time was over", None))
        self.join(worker)

    def events(self, timeout: float) -> Any:
        for _ in range(3):
            if self.queue:
                yield self.queue.pop(0)

    def close(self) -> None:
        pass


def drive(
    folder: Path,
    pool: Any,
    session: int = 1,
    leaving: Callable[[], bool] = never,
    plan: Plan = PLAN,
    study: StudyFile = STUDY,
) -> Execution:
    data = cast(PreparedData, SimpleNamespace(path=folder, fingerprint="f"))
    run = Execution(study, plan, folder, data, [100, 100], pool, Silent())
    run.await_first_worker()
    with JournalWriter(folder / "journal.jsonl", run.recall) as journal:
        run.train(journal, session, False, leaving=leaving)
    return run


def whole(entries: list[Entry], plan: Plan = PLAN) -> None:
    """See that every task is on record once with all its losses, and every epoch in one stretch."""
    done = of_kind(entries, TaskDone)
    found = sorted((record.run, record.to_epoch) for record in done)
    assert found == sorted((run.id, stop) for run in plan.runs for stop in run.milestones)
    for one in done:
        assert one.epoch_loss == [*range(one.from_epoch + 1, one.to_epoch + 1)]
    epochs = Counter(
        (one.run, epoch)
        for one in stretches(entries)
        for epoch in range(one.start + 1, one.to_epoch + 1)
    )
    assert epochs == {
        (run.id, epoch): 1 for run in plan.runs for epoch in range(1, run.milestones[-1] + 1)
    }
    assert sum(one.patches for one in stretches(entries)) == 10 * len(epochs)


class PowerCut(BaseException):
    pass


@given(
    workers=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(1, 30), max_size=4),
    engine=st.sampled_from([STUDY, JAX]),
)
def test_pauses_and_drivers_that_end_at_any_moment_lose_nothing_and_do_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory,
    workers: int,
    seed: int,
    cuts: list[int],
    engine: StudyFile,
) -> None:
    """Some drivers lose their power, so that any part of a round may be on disk; others leave."""
    folder, chance, disk = tmp_path_factory.mktemp("study"), random.Random(seed), Disk()
    path = folder / "journal.jsonl"

    def pool() -> HurriedPool:
        # Some have no time at all: their run is paused where it was.
        return HurriedPool(
            workers,
            disk,
            lambda: chance.choice([0, 1, 2, 3, 4, 9]),
            lambda: "walltime" if chance.random() < 0.1 else "",
        )

    session = 0
    with pytest.MonkeyPatch.context() as patch:
        # What is judged here is not patience.
        patch.setattr("stormsweep.study.patience.STANDSTILLS", 10**6)
        for cut in cuts:
            session, left, syncs = session + 1, path.read_bytes() if path.exists() else b"", 0

            def sync(descriptor: int, cut: int = cut) -> None:
                nonlocal left, syncs
                syncs += 1
                written = path.read_bytes()
                if syncs == cut:
                    kept = min(len(left), len(written))
                    left = written[: chance.randint(kept, len(written))]
                    raise PowerCut
                left = written

            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(os, "fsync", sync)
                rounds = iter(range(chance.randint(3, 60)))
                leaving = (lambda rounds=rounds: next(rounds, None) is None) if cut % 2 else never
                try:
                    drive(folder, pool(), session, leaving, study=engine)
                except PowerCut:
                    path.write_bytes(left)
        end = drive(folder, pool(), session + 1, study=engine)
    assert not end.unfinished
    assert end.state().tasks_done == end.state().tasks
    assert end.state().share == pytest.approx(1.0)
    assert set(disk.trained.values()) == {1}, "an epoch was trained twice"
    whole(read(path))
    assert kept(folder) == last(PLAN.runs)


def test_a_driver_that_leaves_says_that_work_is_left_and_the_next_goes_on(tmp_path: Path) -> None:
    disk, asked = Disk(), iter(range(12))
    pool = HurriedPool(2, disk, lambda: 3)
    first = drive(tmp_path, pool, leaving=lambda: next(asked, None) is None)
    assert first.unfinished
    assert 0 < first.epochs < LAST * len(PLAN.runs)
    assert first.epochs == sum(disk.trained.values())
    entries = read(tmp_path / "journal.jsonl")
    assert progress_of(entries).paused
    second = drive(tmp_path, HurriedPool(2, disk, lambda: 99), session=2)
    assert not second.unfinished
    assert first.epochs + second.epochs == LAST * len(PLAN.runs)
    whole(read(tmp_path / "journal.jsonl"))


def test_workers_that_were_let_go_are_no_losses(tmp_path: Path) -> None:
    run = drive(tmp_path, HurriedPool(2, Disk(), lambda: 2))
    entries = read(tmp_path / "journal.jsonl")
    assert not of_kind(entries, TaskRetried)
    events = {event.event for event in of_kind(entries, WorkerEvent)}
    assert events == {"ready", "left"}
    assert run.state().workers == 2


def test_a_worker_that_has_the_name_of_one_that_was_let_go_keeps_its_work(tmp_path: Path) -> None:
    """The successor may join before the end of the other is known."""

    class Overlapping(HurriedPool):
        def dismiss(self, worker: str, pid: int) -> None:
            super().dismiss(worker, pid)
            lost, ready = self.queue[-2:]
            self.queue[-2:] = [ready, lost]

    drive(tmp_path, Overlapping(1, Disk(), lambda: 2))
    whole(read(tmp_path / "journal.jsonl"))


@pytest.mark.parametrize("failure", ["node-failure", "cancelled", "preempted"])
def test_losses_that_are_nobodys_fault_never_give_a_run_up(tmp_path: Path, failure: str) -> None:
    losses = iter([failure] * 40)
    pool = HurriedPool(1, Disk(), lambda: 99, lambda: next(losses, ""))
    # Each loss takes its checkpoint with it, so that no run gets on.
    pool.disk.carry_out = lambda order, epochs: record(order, order.task.to_epoch)  # type: ignore[method-assign]
    drive(tmp_path, pool)
    entries = read(tmp_path / "journal.jsonl")
    assert not of_kind(entries, RunFailed)
    assert {one.attempt for one in of_kind(entries, TaskRetried)} == {1}
    assert len(of_kind(entries, TaskRetried)) == 40
    assert len(of_kind(entries, TaskDone)) == PLAN.tasks


def test_a_run_that_never_gets_through_an_epoch_before_the_walltime_fails_with_advice(
    tmp_path: Path,
) -> None:
    pool = HurriedPool(1, Disk(), lambda: 99, lambda: "walltime")
    pool.disk.carry_out = lambda order, epochs: record(order, order.task.to_epoch)  # type: ignore[method-assign]
    drive(tmp_path, pool)
    failures = of_kind(read(tmp_path / "journal.jsonl"), RunFailed)
    assert len(failures) == len(PLAN.runs)
    assert {failure.failure for failure in failures} == {"walltime"}
    assert "it went, 3 times at epoch 0" in failures[0].reason
    assert "longer walltime" in failures[0].reason


def test_a_run_for_which_new_workers_have_no_time_fails_and_is_not_waited_for(
    tmp_path: Path,
) -> None:
    drive(tmp_path, HurriedPool(1, Disk(), lambda: 0))
    failures = of_kind(read(tmp_path / "journal.jsonl"), RunFailed)
    assert len(failures) == len(PLAN.runs)
    assert "a new worker had no time for an epoch, 3 times" in failures[0].reason


class LastMinutes(HurriedPool):
    """Workers of one job, whose time is over together; only the first has some left."""

    def join(self, worker: str) -> None:
        super().join(worker)
        self.left[self.pid] = 3.0 if worker == "0" else 0.0

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        super().submit(worker, pid, token, function, argument)
        if isinstance(self.queue[-1], Finished) and isinstance(self.queue[-1].result, TaskPaused):
            late = replace(self.queue[-1].result, had=0.1)
            self.queue[-1] = Finished(worker, token, late)

    def dismiss(self, worker: str, pid: int) -> None:
        self.dismissed.add(pid)
        del self.alive[worker]
        self.queue.append(WorkerLost(worker, "h", pid, "walltime", "its time was over", None))
        if not self.alive:
            self.queue.append(NodesOver())


def test_the_last_run_of_a_job_is_not_given_up_because_other_workers_have_no_time_either(
    tmp_path: Path,
) -> None:
    plan = make_plan(grid({"batch_size": [8], "epochs": [50]}), {}, 2)
    plan = replace(plan, runs=plan.runs[:1])
    driver = drive(tmp_path, LastMinutes(8, Disk(), lambda: 0), plan=plan)
    entries = read(tmp_path / "journal.jsonl")
    assert of_kind(entries, RunFailed) == []
    assert driver.unfinished, "the session ends, and the next one goes on"
    assert max(pause.to_epoch for pause in of_kind(entries, TaskPaused)) == 3


def test_a_run_that_gets_on_may_lose_its_worker_to_the_walltime_for_ever() -> None:
    patience, run = Patience(), PLAN.runs[0]
    for epoch in range(20):
        for _ in range(2):
            verdict = patience.lost(Task(run, 0, 99, epoch), "walltime", "it went", alone=True)
            assert not verdict.given_up
    assert patience.lost(Task(run, 0, 99, 19), "walltime", "it went", alone=True).given_up


def test_patience_with_killed_workers_is_as_without_walltimes() -> None:
    patience, task = Patience(), Task(PLAN.runs[0], 0, 2)
    for failure in ("killed", "walltime", "preempted", "killed", "node-failure", "walltime"):
        assert not patience.lost(task, failure, "{odd} reason", alone=True).given_up
    assert "3 times" in patience.lost(task, "killed", "{odd} reason", alone=True).given_up


def test_another_epoch_must_fit_with_scoring_and_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(deadline, "_end", float("inf"))
    monkeypatch.setattr(pausing, "_beside", float("nan"))
    assert pausing.allowance(5.0) is None, "without a deadline nobody asks"
    deadline.set_left(100.0)
    assert deadline.left() == 100.0
    unknown, known = pausing.allowance(0.0), pausing.allowance(60.0)
    assert unknown is not None
    assert known is not None
    assert unknown(None), "where nothing is known one epoch is tried"
    assert unknown(None, 60.0)
    assert not unknown(None, 80.0), "what is to be compiled first takes time too"
    assert not known(None)
    now = 1040.0
    assert unknown(20.0)
    now = 1060.0
    assert not unknown(20.0)
    monkeypatch.setattr(pausing, "_beside", 0.1)
    assert unknown(20.0), "here scoring takes no time"
    now = 1100.0
    assert not unknown(0.0)
    nothing = pausing.allowance(0.0)
    assert nothing is not None
    assert not nothing(None)


def test_an_epoch_is_foreseen_from_what_was_measured() -> None:
    small, large = (
        next(run for run in PLAN.runs if run.hyperparameters["batch_size"] == size)
        for size in (8, 16)
    )
    speeds = Speeds([96, 192], threads=1)
    assert speeds.foreseen([small]) == 0.0
    order = cast(Any, SimpleNamespace(task=Task(small, 0, 2, 1), submitted=0.0, worker="0"))
    order.session = 1
    one = dataclasses.replace(cast(TaskDone, record(order, 2)), phases={"train": 7.0})
    speeds.take(small, one)
    assert speeds.foreseen([small]) == pytest.approx(7.0), "one epoch after the pause took 7 s"
    other = dataclasses.replace(small, id="other", fold=1)
    assert speeds.foreseen([other]) == pytest.approx(14.0), "its fold has twice the patches"
    assert 0 < speeds.foreseen([large]) < 7.0
    assert speeds.foreseen([small, other]) == 0.0, "bundles were not measured"
    speeds.take(small, dataclasses.replace(one, threads=4, phases={"train": 1.0}))
    assert speeds.foreseen([small]) == pytest.approx(7.0)
    again = dataclasses.replace(one, patches=5 * 96, phases={"train": 30.0})
    speeds.take(small, again)
    assert speeds.foreseen([small]) == pytest.approx(6.0), (
        "four were trained again, for want of one"
    )


def test_what_an_epoch_is_foreseen_from_does_not_grow_with_the_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Losing this: a driver that is late for every task of a search of thousands."""
    weighed: list[int] = []

    def median(speeds: Sequence[float]) -> float:
        weighed.append(len(speeds))
        return statistics.median(speeds)

    monkeypatch.setattr(tally, "statistics", SimpleNamespace(median=median))
    speeds = Speeds([96, 192], threads=1)
    order = cast(Any, SimpleNamespace(task=Task(PLAN.runs[0], 0, 2, 1), submitted=0.0, worker="0"))
    order.session = 1
    one = dataclasses.replace(cast(TaskDone, record(order, 2)), phases={"train": 7.0})
    for n in range(1000):
        values = {**PLAN.runs[0].hyperparameters, "dropout": n / 1000}
        run = dataclasses.replace(PLAN.runs[0], id=f"{n}-f0", hyperparameters=values)
        assert n == 0 or speeds.foreseen([run]) == pytest.approx(7.0)
        speeds.take(run, one)
    assert len(weighed) == 999
    assert max(weighed) < 100


def test_a_new_worker_tries_and_the_others_are_told_what_to_expect(tmp_path: Path) -> None:
    told: list[tuple[bool, float]] = []

    class Listening(HurriedPool):
        def submit(self, worker: str, pid: int, token: str, function: Any, argument: Any) -> None:
            if isinstance(argument, TaskOrder):
                told.append((self.left[pid] == 7, argument.foreseen))
            super().submit(worker, pid, token, function, argument)

    drive(tmp_path, Listening(1, Disk(), lambda: 7))
    assert {foreseen for new, foreseen in told if new} == {0.0}
    # Epochs take a second each, and other batch sizes are judged by the updates they make.
    others = [foreseen for new, foreseen in told if not new]
    assert others
    assert all(0.5 < foreseen < 2 for foreseen in others)
