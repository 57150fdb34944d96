"""Losing these: all runs of a study for one bad node or GPU, or all nodes for some bad runs.

The pool is a fake, as in test_execute.py: workers on nodes, of which one loses what it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stormsweep.cluster.pool import Event, Finished, NodeChanged, WorkerLost, WorkerReady
from stormsweep.data.prepared import PreparedData
from stormsweep.records import PlaceRefused, Proposed, RunFailed, TaskDone, TaskRetried
from stormsweep.results import facts
from stormsweep.results.journal import JournalWriter, of_kind, read
from stormsweep.results.progress import progress_of
from stormsweep.search.bundling import Bundling
from stormsweep.search.plan import make_plan
from stormsweep.search.search import Search
from stormsweep.search.space import grid
from stormsweep.study.execute import Execution
from stormsweep.study.orders import Orders, Reception
from stormsweep.study.setup import Welcome
from stormsweep.study.suspicion import Suspicion
from stormsweep.study.watching import Silent
from stormsweep.work import Run, Task, TaskOrder
from tests.unit.test_execute import (
    JAX,
    MANY,
    PLAN,
    STUDY,
    WELCOME,
    FakePool,
    OneByOne,
    done,
    every_task,
    train,
)

BAD = PLAN.runs[0].id


class Nodes(FakePool):
    """Workers on nodes; what is not lost is done once nothing else happens, so takes long.

    Parameters
    ----------
    workers : str
        Their names, each of a node or of this machine.
    fate : callable
        Given worker and run: ``killed`` or ``raises``; empty: all is well.
    """

    def __init__(self, workers: str, fate: Callable[[str, str], str]) -> None:
        super().__init__()
        self.fate, self.slow = fate, list[Event]()
        self.alive = {name: number for number, name in enumerate(workers.split(), start=1)}
        self.queue = [self.ready(name) for name in self.alive]
        self.lost: Counter[str] = Counter()

    def ready(self, name: str) -> WorkerReady:
        return WorkerReady(name, self.host(name), self.alive[name])

    def host(self, name: str) -> str:
        return name.partition("-")[0] if "-" in name else "h"

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        if token == "welcome" or self.alive.get(worker) != pid:
            super().submit(worker, pid, token, function, argument)
            return
        orders: list[TaskOrder] = argument if isinstance(argument, list) else [argument]
        fates = [self.fate(worker, order.task.run.id) for order in orders]
        self.lost[self.host(worker)] += any(fates)
        assert self.lost.total() < 200, "it goes on for ever"
        if "killed" in fates:
            self.alive[worker] = pid + 100
            lost = WorkerLost(worker, self.host(worker), pid, "killed", "it died", token)
            self.queue += [lost, self.ready(worker)]
            return
        results = [
            RunFailed(order.task.run.id, 0, 1, "error", "no space", worker, 1)
            if how
            else done(order)
            for order, how in zip(orders, fates, strict=True)
        ]
        result = results if isinstance(argument, list) else results[0]
        (self.queue if any(fates) else self.slow).append(Finished(worker, token, result))

    def events(self, timeout: float) -> Iterator[Event]:
        if not self.queue and self.slow:
            self.queue.append(self.slow.pop(0))
        yield from super().events(timeout)

    def refuse(self, worker: str, pid: int, why: str, for_good: bool = False) -> None:
        super().refuse(worker, pid, why)
        assert "comes to nothing there, while others get on" in why
        assert for_good, "nothing opens it again"


def failed(entries: list[Any]) -> dict[str, str]:
    return {one.run: one.reason for one in of_kind(entries, RunFailed)}


@pytest.mark.parametrize("how", ["killed", "raises"])
def test_a_bad_node_fails_no_run_and_gets_no_more_work(tmp_path: Path, how: str) -> None:
    """Losing this: the runs of a night, one after the other, to the node that is idle first."""
    pool = Nodes("n1-1-0 n2-2-0 n2-2-1", lambda worker, _: how * worker.startswith("n2"))
    entries = train(tmp_path, pool, plan=MANY)
    every_task(entries, MANY)
    assert failed(entries) == {}
    assert set(pool.refused) == {"n2-2-0", "n2-2-1"}
    assert pool.lost["n2"] <= 2 * len(MANY.runs)


def search_on(folder: Path, pool: Nodes) -> list[Any]:
    plan = make_plan([{"x": number, "epochs": 1} for number in range(OneByOne.trials)], {}, 2)
    search = Search(OneByOne, {}, 2, lambda scores: (scores["roc_auc"],))
    data = cast(PreparedData, SimpleNamespace(path=folder, fingerprint="f"))
    run = Execution(STUDY, plan, folder, data, [100, 100], cast(Any, pool), Silent(), search=search)
    run.await_first_worker()
    with JournalWriter(folder / "journal.jsonl", run.recall) as journal:
        run.train(journal, 1, False)
    return read(folder / "journal.jsonl")


def proposed_first(entries: list[Any]) -> int:
    """Return how many trials were proposed before any score."""
    kinds = [type(entry.record) for entry in entries]
    return kinds[: kinds.index(TaskDone)].count(Proposed)


@pytest.mark.parametrize("how", ["killed", "raises"])
def test_a_bad_node_is_not_proposed_one_trial_after_the_other(tmp_path: Path, how: str) -> None:
    """Losing this: a strategy that learns, told to propose its trials before it has a score."""
    pool = Nodes("n1-1-0 n2-2-0", lambda worker, _: how * worker.startswith("n2"))
    entries = search_on(tmp_path, pool)
    assert failed(entries) == {}
    assert len(of_kind(entries, TaskDone)) == 2 * OneByOne.trials
    assert proposed_first(entries) <= 3, "it waits for the good node"


def test_the_only_node_of_a_search_is_not_left_idle_after_some_losses(tmp_path: Path) -> None:
    """Losing this: workers that stand still until those beside them are done."""
    tried: Counter[str] = Counter()

    def fate(worker: str, run: str) -> str:
        tried[run] += 1
        if tried[run] > 1 or len(tried) > 4:
            return ""
        return "raises" if worker == "n1-1-3" else "killed"

    entries = search_on(tmp_path, Nodes("n1-1-0 n1-1-1 n1-1-2 n1-1-3", fate))
    assert proposed_first(entries) == 3, "of two runs each: one failed, and three are tried again"
    assert len(of_kind(entries, TaskDone)) == 2 * OneByOne.trials - 1


def test_a_bad_node_is_named_on_record_and_told_of_in_three_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: which node it was, and why, once the terminal with its hundred lines is gone."""
    noted: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda _, text: noted.append(text))
    pool = Nodes("n1-1-0 n2-2-0", lambda worker, _: "raises" * worker.startswith("n2"))
    entries = train(tmp_path, pool, plan=MANY)
    assert pool.lost["n2"] > 3
    why = "n2: one run after the other comes to nothing there, while others get on"
    why += "; the last one: no space"
    assert of_kind(entries, PlaceRefused) == [PlaceRefused(1, "n2", why)]
    assert facts.refused(entries) == [why]
    first, second, third = noted
    assert first.endswith("failed on n2 (no space); it is tried elsewhere from epoch 0")
    assert second == "another run failed on n2 (no space); all that do are tried elsewhere"
    assert third == f"{why}; workers there get no work"


@pytest.mark.parametrize("how", ["killed", "raises"])
def test_a_bad_gpu_of_one_machine_fails_no_run(tmp_path: Path, how: str) -> None:
    pool = Nodes("0 1 2", lambda worker, _: how * (worker == "2"))
    pool.model = Welcome("", "abc", "H100 (gpu)", gpu=True)
    entries = train(tmp_path, pool, plan=MANY, study=JAX)
    every_task(entries, MANY)
    assert failed(entries) == {}
    assert set(pool.refused) == {"2"}


def test_what_a_bad_gpu_lost_is_trained_in_bundles_elsewhere(tmp_path: Path) -> None:
    """Losing this: the better part of a GPU's speed, for each run that the bad one had first."""
    sizes: Counter[int] = Counter()

    class Sizes(Nodes):
        def submit(self, worker: str, pid: int, token: str, *given: Any) -> None:
            if token != "welcome" and worker != "2":
                sizes[len(given[-1]) if isinstance(given[-1], list) else 1] += 1
            super().submit(worker, pid, token, *given)

    pool = Sizes("2 0 1", lambda worker, _: "raises" * (worker == "2"))
    pool.model = Welcome("", "abc", "H100 (gpu)", gpu=True)
    rates = [number / 1000 for number in range(1, 31)]
    plan = make_plan(grid({"learning_rate": rates, "epochs": [1]}), {}, 2)
    entries = train(tmp_path, pool, plan=plan, study=JAX)
    every_task(entries, plan)
    assert failed(entries) == {}
    assert pool.lost["h"] == 1, "the good ones took what it lost"
    assert sizes == {20: 3}


def test_a_run_that_was_lost_with_its_bundle_is_tried_alone_elsewhere() -> None:
    """Losing this: a good run, for one beside it that takes its workers with it."""
    tasks = [Task(Run(name, {"learning_rate": 0.1}, 0, (2, 5)), 2, 5) for name in "abcd"]
    other = Task(Run("e", {"batch_size": 8}, 0, (2, 5)), 2, 5)
    bundling = Bundling(JAX.engine)
    assert bundling.together([*tasks, other], 1) == tasks
    assert bundling.together([*tasks, other], 2) == tasks[:3], "the rest is for the other"
    assert bundling.together([other, *tasks], 1) == [other]
    for _ in range(2):
        bundling.lost(tasks[:2], "killed")
    assert bundling.together(tasks, 1) == tasks[:1]
    assert bundling.together(tasks[2:], 1) == tasks[2:]
    assert Bundling.none().together(tasks, 1) == tasks[:1]


def test_a_worker_that_is_set_up_while_its_node_is_shut_gets_no_work() -> None:
    """Losing this: one more run for each worker of a bad node that was just replaced."""
    pool = FakePool()
    asked = cast(Orders, SimpleNamespace(build="b", question=lambda names: None))
    reception = Reception(cast(Any, pool), asked, [], workers=2)
    for event in pool.queue[:2]:
        assert reception.take(event) is None
    assert reception.take(Finished("0", "welcome", WELCOME)) is not None
    reception.shut("h", "one run after the other comes to nothing there")
    assert reception.take(Finished("1", "welcome", WELCOME)) is None
    assert pool.refused == ["0", "1"]


def test_a_bad_gpu_gets_no_work_when_its_node_starts_anew() -> None:
    """Losing this: runs, each time that the other GPUs' node is replaced."""
    pool, gpu = FakePool(), Welcome("", "abc", "H100 (gpu)", gpu=True)
    asked = cast(Orders, SimpleNamespace(build="b", question=lambda names: None))
    reception = Reception(cast(Any, pool), asked, [], workers=2)
    for node, gets_work in (("n1-1", True), ("n1-2", False)):
        reception.take(WorkerReady(f"{node}-0", "n1", 1))
        assert (reception.take(Finished(f"{node}-0", "welcome", gpu)) is not None) is gets_work
        reception.shut("worker 0 of n1", "one run after the other comes to nothing there")
    assert pool.refused == ["n1-1-0", "n1-2-0"]
    reception.take(WorkerReady("n1-2-1", "n1", 2))
    assert reception.take(Finished("n1-2-1", "welcome", gpu)) is not None, "that one is good"


def test_a_run_that_kills_its_workers_anywhere_fails_and_takes_no_node_with_it(
    tmp_path: Path,
) -> None:
    pool = Nodes("n1-1-0 n1-1-1 n2-2-0", lambda _, run: "killed" * (run == BAD))
    entries = train(tmp_path, pool)
    assert failed(entries) == {BAD: "it died, 3 times"}
    assert sorted(pool.lost.values()) == [1, 2], "it was tried on both nodes"
    assert not pool.refused


def test_a_run_that_raises_is_tried_on_one_more_node_and_fails(tmp_path: Path) -> None:
    pool = Nodes("n1-1-0 n1-1-1 n2-2-0", lambda _, run: "raises" * (run == BAD))
    entries = train(tmp_path, pool)
    assert failed(entries) == {BAD: "no space"}
    assert pool.lost == {"n1": 1, "n2": 1}
    assert [one.run for one in of_kind(entries, TaskRetried)] == [BAD]


@pytest.mark.parametrize("how", ["killed", "raises"])
def test_many_bad_runs_take_no_node_with_them(tmp_path: Path, how: str) -> None:
    bad = {run.id for run in MANY.runs[::2]}
    pool = Nodes("n1-1-0 n1-1-1 n2-2-0 n2-2-1", lambda _, run: how * (run in bad))
    entries = train(tmp_path, pool, plan=MANY)
    assert failed(entries).keys() == bad
    assert not pool.refused
    assert len(progress_of(entries).reached) == len(MANY.runs) - len(bad)


@pytest.mark.parametrize(("how", "losses"), [("killed", 3), ("raises", 1)])
def test_on_one_machine_a_run_fails_as_soon_as_ever(tmp_path: Path, how: str, losses: int) -> None:
    pool = Nodes("0 1", lambda _, run: how * (run == BAD))
    assert failed(train(tmp_path, pool)).keys() == {BAD}
    assert pool.lost == {"h": losses}


def test_a_run_that_waits_for_another_node_goes_on_where_it_is_the_last(tmp_path: Path) -> None:
    """Losing this: a study that waits for ever for a node that is gone."""

    class Leaving(Nodes):
        def events(self, timeout: float) -> Iterator[Event]:
            if self.lost["n1"] == 2 and self.alive.pop("n2-2-0", None):
                self.slow.clear()
                self.queue.append(WorkerLost("n2-2-0", "n2", 2, "cancelled", "let go", "t"))
            yield from super().events(timeout)

    pool = Leaving("n1-1-0 n2-2-0", lambda worker, run: "killed" * (run == BAD))
    pool.fate = lambda worker, run: "killed" * (run == BAD and worker == "n1-1-0")
    entries = train(tmp_path, pool)
    assert failed(entries) == {BAD: "it died, 3 times"}
    assert "n2-2-0" not in pool.alive


def test_losses_before_a_milestone_are_forgiven_after_it(tmp_path: Path) -> None:
    """Losing this: long runs that lose a worker now and then, and get on all the same."""
    lost: Counter[tuple[str, int]] = Counter()

    def twice(pool: FakePool, worker: str, pid: int, order: TaskOrder) -> Event | None:
        pool.happens.append(twice)
        lost[order.task.run.id, order.task.to_epoch] += 1
        third = lost[order.task.run.id, order.task.to_epoch] == 3
        return None if third else pool.lose(worker, pid)

    entries = train(tmp_path, FakePool(twice, twice), plan=MANY)
    every_task(entries, MANY)
    assert failed(entries) == {}
    assert max(one.attempt for one in of_kind(entries, TaskRetried)) == 3


def test_a_place_is_at_fault_only_where_nothing_gets_on_there_that_does_elsewhere() -> None:
    suspicion = Suspicion()
    suspicion.done("b", "another")
    for number in range(4):
        suspicion.lost("a", f"run {number}", 5.0)
        assert suspicion.unfit({"a": 0.0, "b": 999.0}) == [], "they may be at fault themselves"
    suspicion.done("b", "run 0")
    assert suspicion.of_any
    assert suspicion.unfit({"a": 4.0, "b": 0.0}) == ["a"]
    assert suspicion.unfit({"a": 0.0}) == [], "there is no other place"
    assert suspicion.unfit({"a": 6.0, "b": 0.0}) == [], "something gets on there too"
    suspicion.lost("b", "run 1", 5.0)
    assert suspicion.unfit({"a": 0.0, "b": 0.0}) == ["a"]
    suspicion.lost("b", "run 2", 5.0)
    assert suspicion.unfit({"a": 0.0, "b": 0.0}) == [], "those runs are at fault"
    suspicion.lost("a", "run 4", 5.0)
    assert suspicion.unfit({"a": 0.0, "b": 0.0}) == ["a"]
    suspicion.done("a", "run 5")
    assert suspicion.unfit({"a": 0.0, "b": 0.0}) == []
    suspicion.done("b", "run 3")
    assert not suspicion.of_any, "that was lost before"


def test_a_place_is_in_doubt_while_nobody_knows_whose_fault_its_losses_are() -> None:
    suspicion = Suspicion()
    for run in "abc":
        assert suspicion.doubted == set()
        suspicion.lost("n1", run, 5.0)
    assert suspicion.doubted == {"n1"}
    suspicion.done("n2", "a")
    assert suspicion.doubted == {"n1"}, "it got on elsewhere"
    suspicion.lost("n2", "b", 5.0)
    assert suspicion.doubted == set(), "it did not get on elsewhere"
    suspicion.lost("n1", "d", 5.0)
    suspicion.given_up("c")
    assert suspicion.doubted == set(), "that will never be known of it"
    suspicion.lost("n1", "e", 5.0)
    assert suspicion.doubted == {"n1"}
    suspicion.done("n1", "f")
    assert suspicion.doubted == set()


class Coming(Nodes):
    """As of `Nodes`; the second node is granted, and its workers join once all else is done."""

    def __init__(self, workers: str, fate: Callable[[str, str], str]) -> None:
        super().__init__(workers, fate)
        self.slow += [ready for ready in self.queue if ready.host == "n2"]
        self.queue = [ready for ready in self.queue if ready.host != "n2"]
        self.queue[:0] = [NodeChanged("1", "granted"), NodeChanged("2", "granted")]

    def events(self, timeout: float) -> Iterator[Event]:
        self.slow.sort(key=lambda event: isinstance(event, WorkerReady))
        yield from super().events(timeout)

    def want(self, tasks: int) -> None:
        coming = any(isinstance(event, WorkerReady) for event in self.slow)
        assert not coming or tasks > 1, "the other node would be let go"


class Settling(Nodes):
    """As of `Nodes`; the worker of the second node joins at once, and is set up after all else."""

    def submit(self, worker: str, pid: int, token: str, *given: Any) -> None:
        if token == "welcome" and worker.startswith("n2"):
            self.slow.append(Finished(worker, token, self.model))
        else:
            super().submit(worker, pid, token, *given)

    def events(self, timeout: float) -> Iterator[Event]:
        self.slow.sort(key=lambda event: isinstance(event, Finished) and event.token == "welcome")
        yield from super().events(timeout)


@pytest.mark.parametrize("starting", [Coming, Settling])
@pytest.mark.parametrize("how", ["killed", "raises"])
def test_a_strategy_waits_with_its_trials_for_a_good_node_that_is_just_starting(
    tmp_path: Path, how: str, starting: type[Nodes]
) -> None:
    """Losing this: all trials of a search, proposed for a bad node before there is one score."""
    pool = starting("n1-1-0 n2-2-0", lambda worker, _: how * worker.startswith("n1"))
    entries = search_on(tmp_path, pool)
    assert failed(entries) == {}
    assert len(of_kind(entries, TaskDone)) == 2 * OneByOne.trials
    assert proposed_first(entries) <= 3


@pytest.mark.parametrize("how", ["killed", "raises"])
def test_runs_of_a_bad_node_wait_for_one_that_is_just_starting(tmp_path: Path, how: str) -> None:
    """Losing this: all runs of a study, to the bad one of its nodes that was the first to start."""
    pool = Coming("n1-1-0 n2-2-0", lambda worker, _: how * worker.startswith("n1"))
    entries = train(tmp_path, pool, plan=MANY)
    every_task(entries, MANY)
    assert failed(entries) == {}
    assert pool.refused == ["n1-1-0"]


def test_the_last_run_waits_for_a_node_that_is_just_starting(tmp_path: Path) -> None:
    pool = Coming("n1-1-0 n2-2-0", lambda name, run: "raises" * (run == BAD and name == "n1-1-0"))
    entries = train(tmp_path, pool)
    every_task(entries)
    assert failed(entries) == {}


def test_a_run_does_not_wait_for_a_node_that_ended_before_it_had_a_worker(tmp_path: Path) -> None:
    pool = Coming("n1-1-0 n2-2-0", lambda _, run: "raises" * (run == BAD))
    pool.slow = [NodeChanged("2", "ended", "cancelled")]
    assert failed(train(tmp_path, pool)) == {BAD: "no space"}


def test_a_worker_that_is_set_up_while_its_node_is_given_up_gets_no_task(tmp_path: Path) -> None:
    """Losing this: a task to a worker that was just said to get none."""

    class Late(Nodes):
        def submit(self, worker: str, pid: int, token: str, *given: Any) -> None:
            if token == "welcome" and pid > 100:
                self.slow.append(Finished(worker, token, self.model))
            else:
                assert worker not in self.refused
                super().submit(worker, pid, token, *given)

    pool = Late("n1-1-0 n2-2-0", lambda worker, _: "killed" * worker.startswith("n2"))
    every_task(train(tmp_path, pool, plan=MANY), MANY)
    assert pool.refused == ["n2-2-0"]
