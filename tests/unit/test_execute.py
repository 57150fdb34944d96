"""Losing these: a task done twice or never when workers come, go and fail in odd moments.

The pool here is a fake (threads and processes are not what is tested): events come in the order
that the test says. Real workers, killed for real, are in tests/integration.
"""

from __future__ import annotations

import gc
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.cluster.pool import (
    Broken,
    Event,
    Finished,
    NodeChanged,
    PoolBroken,
    WorkerLost,
    WorkerReady,
)
from stormsweep.config.sites import Found, Site
from stormsweep.config.study import EngineTable, StudyFile
from stormsweep.data.prepared import PreparedData
from stormsweep.errors import (
    DataAwayError,
    ModelError,
    StormsweepError,
    StudyBusyError,
    StudyInterrupted,
)
from stormsweep.records import PlaceRefused, RunFailed, TaskDone, TaskRetried
from stormsweep.results.journal import JournalWriter, of_kind, read
from stormsweep.results.progress import progress_of
from stormsweep.search.plan import Plan, make_plan
from stormsweep.search.proposals import Known, Outcome, Proposal
from stormsweep.search.search import Search
from stormsweep.search.space import grid
from stormsweep.study import lock, orders
from stormsweep.study.demand import Demand
from stormsweep.study.execute import Execution
from stormsweep.study.layout import Layout
from stormsweep.study.orders import Orders, Reception
from stormsweep.study.places import Place
from stormsweep.study.session import Session
from stormsweep.study.setup import Welcome, emulated
from stormsweep.study.watching import Silent
from stormsweep.training.checkpoint import path_of
from stormsweep.work import TaskOrder
from tests.checkpoints import kept, last

STUDY = StudyFile.model_validate({"study": {"name": "s"}, "search": {"space": {"epochs": [1, 2]}}})
PLAN = make_plan(grid({"batch_size": [8, 16], "epochs": [1, 2]}), {}, 2)
MANY = make_plan(grid({"batch_size": [8, 16, 32], "x": [0, 1], "epochs": [1, 2, 3]}), {}, 2)
WELCOME = Welcome("", "abc")


def done(order: TaskOrder) -> TaskDone:
    task = order.task
    score = {"roc_auc": 0.5 + 0.1 * task.to_epoch}
    return TaskDone(
        task.run.id, task.from_epoch, task.to_epoch, score, order.worker, order.session,
        order.submitted, 1.0, 2.0, {}, [0.1], 10, 1, 1.0, 5,
    )  # fmt: skip


class FakePool:
    """Answers every task at once, unless the test has something else happen to it."""

    patience = 60.0

    def __init__(self, *happens: Callable[[FakePool, str, int, Any], Event | None]) -> None:
        self.happens = list(happens)
        self.queue: list[Event] = [WorkerReady("0", "h", 1), WorkerReady("1", "h", 2)]
        self.alive = {"0": 1, "1": 2}
        self.model: Welcome | DataAwayError = WELCOME
        self.wants: list[int] = []
        self.refused: list[str] = []

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        if self.alive.get(worker) != pid:
            return
        if token == "welcome":
            if isinstance(self.model, DataAwayError):
                self.queue.append(Broken(worker, token, self.model))
            else:
                self.queue.append(Finished(worker, token, self.model))
            return
        happening = self.happens.pop(0) if self.happens else None
        event = happening(self, worker, pid, argument) if happening else None
        several = isinstance(argument, list)
        result = [done(order) for order in argument] if several else done(argument)
        self.queue.append(event or Finished(worker, token, result))

    def lose(self, worker: str, pid: int, failure: str = "killed") -> WorkerLost:
        self.alive[worker] = pid + 10
        self.queue.append(WorkerLost(worker, "h", pid, failure, "it died", "t"))
        return cast(WorkerLost, WorkerReady(worker, "h", pid + 10))

    def events(self, timeout: float) -> Iterator[Event]:
        while self.queue:
            yield self.queue.pop(0)

    def dismiss(self, worker: str, pid: int) -> None:
        pass

    def refuse(self, worker: str, pid: int, why: str, for_good: bool = False) -> None:
        self.refused.append(worker)
        if set(self.refused) == set(self.alive):
            self.queue.append(PoolBroken(why))

    def want(self, tasks: int) -> None:
        self.wants.append(tasks)

    def close(self) -> None:
        pass


class CheckpointingPool(FakePool):
    """Workers that leave checkpoints as real ones do, and take a lost result from there."""

    def __init__(self, workers: int, rounds: list[int]) -> None:
        super().__init__()
        self.alive = {str(n): n + 1 for n in range(workers)}
        self.queue = [WorkerReady(name, "h", pid) for name, pid in self.alive.items()]
        #: How many events the driver finds, each time it looks.
        self.rounds = rounds
        self.trained: Counter[tuple[str, int]] = Counter()

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        if isinstance(argument, TaskOrder):
            task, folder = argument.task, Path(argument.checkpoints)
            folder.mkdir(exist_ok=True)
            if not path_of(folder, task.run.id, task.to_epoch).exists():
                if task.from_epoch:
                    assert path_of(folder, task.run.id, task.from_epoch).exists()
                self.trained[task.run.id, task.to_epoch] += 1
                path_of(folder, task.run.id, task.to_epoch).touch()
        super().submit(worker, pid, token, function, argument)

    def events(self, timeout: float) -> Iterator[Event]:
        for _ in range(self.rounds.pop() if self.rounds else 1):
            if self.queue:
                yield self.queue.pop(0)


def train(
    folder: Path,
    pool: FakePool,
    watch: Callable[[], None] = lambda: None,
    retry: bool = False,
    plan: Plan = PLAN,
    study: StudyFile = STUDY,
) -> list[Any]:
    data = cast(PreparedData, SimpleNamespace(path=folder, fingerprint="f"))
    run = Execution(study, plan, folder, data, [100, 100], cast(Any, pool), Silent())
    run.await_first_worker()
    path = folder / "journal.jsonl"
    with JournalWriter(path, run.recall) as journal:
        run.train(journal, 1, retry, watch)
        assert run.state().tasks_done == run.state().tasks
    return read(path)


def every_task(entries: list[Any], plan: Plan = PLAN) -> None:
    found = [(record.run, record.to_epoch) for record in of_kind(entries, TaskDone)]
    assert sorted(found) == sorted((run.id, stop) for run in plan.runs for stop in run.milestones)


def test_all_tasks_are_done_once(tmp_path: Path) -> None:
    every_task(train(tmp_path, FakePool()))


def test_a_worker_lost_before_the_driver_looked_is_no_trouble(tmp_path: Path) -> None:
    pool = FakePool()
    pool.alive["0"] = 11
    pool.queue[1:1] = [
        WorkerLost("0", "h", 1, "killed", "it died", None),
        WorkerReady("0", "h", 11),
    ]
    every_task(train(tmp_path, pool))


def test_a_lost_task_is_given_out_again_and_a_third_loss_fails_its_run(tmp_path: Path) -> None:
    lose = FakePool.lose
    for name in "ab":
        (tmp_path / name).mkdir()
    once = train(tmp_path / "a", FakePool(lambda pool, name, pid, _: lose(pool, name, pid)))
    every_task(once)
    assert len(of_kind(once, TaskRetried)) == 1

    run = PLAN.runs[0].id

    def always(pool: FakePool, worker: str, pid: int, order: TaskOrder) -> Event | None:
        pool.happens.append(always)
        return lose(pool, worker, pid) if order.task.run.id == run else None

    entries = train(tmp_path / "b", FakePool(always, always))
    failure = of_kind(entries, RunFailed)
    assert [(f.run, f.failure) for f in failure] == [(run, "killed")]
    assert "3 times" in failure[0].reason
    assert len(of_kind(entries, TaskDone)) == PLAN.tasks - 2


AWAY = DataAwayError("n1 cannot open the data: /data/x: no prepared data here")


def away(pool: FakePool, worker: str, pid: int, order: Any) -> Event | None:
    """Have worker 0 say that it cannot open the data, whatever it is asked."""
    pool.happens.append(away)
    return Broken(worker, "t", AWAY) if worker == "0" else None


@pytest.mark.parametrize("engine", ["tensorflow", "jax"])
def test_a_worker_that_cannot_open_the_data_fails_no_run(tmp_path: Path, engine: str) -> None:
    """Losing this: all runs of a study, failed one after another by the node that is idle first."""
    pool = FakePool(away, away)
    study = STUDY.model_copy(update={"engine": EngineTable(use=engine)})
    entries = train(tmp_path, pool, study=study)
    every_task(entries)
    assert of_kind(entries, RunFailed) == []
    retried = of_kind(entries, TaskRetried)
    assert {(each.worker, each.attempt, each.reason) for each in retried} == {("0", 1, str(AWAY))}
    assert pool.refused == ["0"], "it gets nothing more"


def test_where_no_worker_can_open_the_data_the_study_ends_and_says_so(tmp_path: Path) -> None:
    pool = FakePool()
    pool.model = AWAY
    with pytest.raises(StormsweepError, match=r"^no workers: n1 cannot open the data: /data/x: no"):
        train(tmp_path, pool)
    assert pool.refused == ["0", "1"]


def test_workers_that_lose_the_data_again_and_again_end_the_study(tmp_path: Path) -> None:
    """Others may come for ever, where each can open the data until it is asked for work."""

    class Replacing(FakePool):
        def refuse(self, worker: str, pid: int, why: str, for_good: bool = False) -> None:
            self.refused.append(worker)
            self.queue.append(self.lose(worker, pid, "cancelled"))

    def all_away(pool: FakePool, worker: str, pid: int, order: Any) -> Event:
        pool.happens.append(all_away)
        return Broken(worker, "t", AWAY)

    pool = Replacing(all_away, all_away)
    with pytest.raises(StormsweepError, match="no workers: n1 cannot open the data"):
        train(tmp_path, pool)
    assert len(pool.refused) == 3 * STUDY.site.layout[0]
    assert of_kind(read(tmp_path / "journal.jsonl"), RunFailed) == []


def test_a_pool_that_has_no_workers_any_more_ends_the_study(tmp_path: Path) -> None:
    """Losing this: a driver that waits for ever for a process that the system does not start."""

    def alone(pool: FakePool, worker: str, pid: int, order: Any) -> Event:
        pool.queue.append(WorkerLost(worker, "h", pid, "killed", "it died", "t"))
        return PoolBroken("none took its place")

    with pytest.raises(StormsweepError, match="no workers: none took its place"):
        train(tmp_path, FakePool(None, alone))  # type: ignore[arg-type]
    assert len(of_kind(read(tmp_path / "journal.jsonl"), TaskRetried)) == 1


def failing(run: str) -> Any:
    """Have one run fail whenever it is tried."""

    def fail(pool: FakePool, worker: str, pid: int, order: TaskOrder) -> Event | None:
        pool.happens.append(fail)
        if order.task.run.id != run:
            return None
        return Finished(worker, "t", RunFailed(run, 0, 1, "error", "no", worker, 1))

    return fail


def test_failed_runs_stay_failed_until_they_are_tried_again(tmp_path: Path) -> None:
    run = PLAN.runs[0].id

    fail = failing(run)
    first = train(tmp_path, FakePool(fail, fail))
    assert set(progress_of(first).failed) == {run}
    again = train(tmp_path, FakePool())
    assert set(progress_of(again).failed) == {run}
    retried = train(tmp_path, FakePool(), retry=True)
    assert progress_of(retried).failed == {}
    every_task(retried)


def test_a_builder_that_is_no_good_stops_the_study(tmp_path: Path) -> None:
    pool = FakePool()
    pool.model = Welcome("model.build: there is no such thing", "")
    with pytest.raises(ModelError, match="no such thing"):
        train(tmp_path, pool)


def test_a_precision_that_a_node_emulates_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: in bfloat16 a study takes fifty times as long on an old node, without a word."""
    noted: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda _, text: noted.append(text))
    pool = FakePool()
    pool.model = Welcome("", "abc", emulated="Xeon has no instructions for bfloat16")
    train(tmp_path, pool)
    assert noted == ["engine.precision: Xeon has no instructions for bfloat16"]


@pytest.mark.parametrize(
    ("engine", "precision", "sets", "told"),
    [
        ("tensorflow", "bfloat16", ["avx2", "avx512f"], True),
        ("tensorflow", "bfloat16", ["avx512_bf16"], False),
        ("tensorflow", "bfloat16", ["amx_bf16"], False),
        ("tensorflow", "float32", ["avx2"], False),
        ("tensorflow", "bfloat16", ["bf16"], False),
        ("tensorflow", "bfloat16", [], False),
        ("jax", "bfloat16", ["avx2"], False),
    ],
)
def test_bfloat16_is_emulated_where_the_processor_has_no_instructions_for_it(
    engine: str, precision: str, sets: list[str], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stormsweep.cluster.machine.instruction_sets", lambda: sets)
    assert ("no instructions for bfloat16" in emulated(engine, precision)) is told


def test_a_model_edited_while_the_study_runs_stops_it(tmp_path: Path) -> None:
    def edit(pool: FakePool, worker: str, pid: int, order: TaskOrder) -> Event:
        pool.model = Welcome("", "edited")
        return pool.lose(worker, pid)

    with pytest.raises(ModelError, match="edited while the study runs"):
        train(tmp_path, FakePool(edit))


def test_workers_that_die_before_any_work_end_the_study(tmp_path: Path) -> None:
    pool = FakePool()
    pool.queue = []
    for pid in range(1, 9):
        pool.queue += [WorkerReady("0", "h", pid), WorkerLost("0", "h", pid, "killed", "bad", None)]
    pool.alive = {}
    with pytest.raises(StormsweepError, match="workers die before they can work: bad"):
        train(tmp_path, pool)


NO_GPU = "JAX sees no GPU on h"


def welcomed(pool: FakePool, worker: str, pid: int) -> None:
    pool.queue.append(Finished(worker, "welcome", WELCOME))


def without_gpu(pool: FakePool, worker: str, pid: int) -> None:
    pool.queue.append(Finished(worker, "welcome", Welcome(NO_GPU, "")))


def raising(pool: FakePool, worker: str, pid: int) -> None:
    pool.queue.append(Broken(worker, "welcome", OSError("no space left")))


def dying(pool: FakePool, worker: str, pid: int) -> None:
    pool.queue.append(pool.lose(worker, pid))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (without_gpu, f"h: {NO_GPU}; such workers there get no work"),
        (raising, "h: a worker could not be set up: OSError('no space left'); such workers there"),
        (dying, "h: workers die before they can work: it died; see logs/worker-*.log; such"),
    ],
)
def test_a_worker_that_cannot_be_set_up_ends_nothing_where_another_works(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: Callable[[FakePool, str, int], None],
    said: str,
) -> None:
    """Losing this: a night on many nodes, and its chain, for one node that came in hours later."""
    noted: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda _, text: noted.append(text))

    class Uneven(FakePool):
        def submit(self, worker: str, pid: int, token: str, *given: Any) -> None:
            if token != "welcome":
                super().submit(worker, pid, token, *given)
            elif self.alive[worker] == pid:
                (what if worker == "0" and pid != 1 else welcomed)(self, worker, pid)

    def lose(pool: FakePool, worker: str, pid: int, order: Any) -> Event | None:
        if worker == "0":
            return pool.lose(worker, pid)
        pool.happens.append(lose)
        return None

    pool = Uneven(lose, lose)
    every_task(train(tmp_path, pool))
    assert pool.refused == ["0"]
    assert pool.alive["0"] <= 1 + 10 * 4, "it is not started for ever"
    assert [note[: len(said)] for note in noted if "was lost" not in note] == [said]


def test_a_node_whose_first_worker_sees_no_gpu_ends_the_study_before_any_work(
    tmp_path: Path,
) -> None:
    pool = FakePool()
    pool.model = Welcome(NO_GPU, "")
    with pytest.raises(ModelError, match=f"^{NO_GPU}$"):
        train(tmp_path, pool)
    assert not pool.refused


class TwoNodes(FakePool):
    """The second node is granted, and its worker joins once nothing else happens."""

    def __init__(self, *what: Callable[[FakePool, str, int], None]) -> None:
        super().__init__()
        self.what = dict(zip(("n1-1-0", "n2-2-0"), what, strict=True))
        self.alive = {"n1-1-0": 1, "n2-2-0": 2}
        self.queue = [NodeChanged("1", "granted"), NodeChanged("2", "granted")]
        self.later = [WorkerReady("n1-1-0", "n1", 1), WorkerReady("n2-2-0", "n2", 2)]

    def submit(self, worker: str, pid: int, token: str, *given: Any) -> None:
        if token != "welcome":
            super().submit(worker, pid, token, *given)
        elif self.alive[worker] == pid:
            self.what[worker](self, worker, pid)

    def events(self, timeout: float) -> Iterator[Event]:
        if not self.queue and self.later:
            self.queue.append(self.later.pop(0))
        yield from super().events(timeout)


@pytest.mark.parametrize("what", [without_gpu, raising])
def test_the_first_node_that_cannot_be_set_up_ends_nothing_where_another_is_starting(
    tmp_path: Path, what: Callable[[FakePool, str, int], None]
) -> None:
    """Losing this: a study that ends at once, now and then, for the one bad node of its job."""
    pool = TwoNodes(what, welcomed)
    entries = train(tmp_path, pool)
    every_task(entries)
    assert [one.place for one in of_kind(entries, PlaceRefused)] == ["n1"]
    assert pool.refused == ["n1-1-0"]


def test_what_many_workers_of_a_bad_node_say_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: thousands of lines, for one node whose workers are started again all day."""
    noted: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda _, text: noted.append(text))
    pool = TwoNodes(raising, welcomed)
    for name, pid in (("n1-1-1", 3), ("n1-3-0", 4)):
        pool.what[name], pool.alive[name] = raising, pid
        pool.later.insert(0, WorkerReady(name, "n1", pid))
    entries = train(tmp_path, pool)
    every_task(entries)
    assert sorted(pool.refused) == ["n1-1-0", "n1-1-1", "n1-3-0"]
    why = "n1: a worker could not be set up: OSError('no space left')"
    assert of_kind(entries, PlaceRefused) == [PlaceRefused(1, "n1", why)]
    assert noted == [f"{why}; such workers there get no work"]


def test_workers_that_die_on_a_node_are_told_of_once_whatever_their_last_words() -> None:
    told: list[tuple[str, str]] = []
    pool = FakePool()
    asked = cast(Orders, SimpleNamespace(build="b", question=lambda names: None))
    reception = Reception(cast(Any, pool), asked, [], 3, record=lambda *one: told.append(one))
    for event in (pool.queue[0], Finished("0", "welcome", WELCOME)):
        reception.take(event)
    for name in ("n1-1-0", "n1-1-1"):
        for pid in range(3):
            reception.take(WorkerReady(name, "n1", pid))
            words = f"it died; the last line of worker-{name}.log: process {pid}"
            reception.lost(WorkerLost(name, "n1", pid, "killed", words, "welcome"), excused=False)
        reception.take(WorkerReady(name, "n1", 9))
    assert pool.refused == ["n1-1-0", "n1-1-1"]
    assert [place for place, _ in told] == ["n1"]


def test_a_builder_that_two_nodes_cannot_import_ends_the_study(tmp_path: Path) -> None:
    pool = TwoNodes(without_gpu, without_gpu)
    with pytest.raises(ModelError, match=f"^{NO_GPU}$"):
        train(tmp_path, pool)


@pytest.mark.parametrize("other", [welcomed, dying])
def test_workers_that_die_on_the_first_node_end_nothing_until_another_was_tried(
    tmp_path: Path, other: Callable[[FakePool, str, int], None]
) -> None:
    def dies(pool: FakePool, worker: str, pid: int) -> None:
        host = worker.partition("-")[0]
        pool.alive[worker] = pid + 10
        pool.queue += [WorkerLost(worker, host, pid, "killed", "it died", "welcome")]
        # Nodes start their workers again, with some time between.
        again = WorkerReady(worker, host, pid + 10)
        (pool.queue if pid < 100 else pool.later).append(again)

    pool = TwoNodes(dies, welcomed if other is welcomed else dies)
    if other is welcomed:
        every_task(train(tmp_path, pool))
        return
    with pytest.raises(StormsweepError, match="workers die before they can work: it died"):
        train(tmp_path, pool)


class Hanging(TwoNodes):
    """The worker of the second node joins first, and hangs while it is set up."""

    def __init__(
        self, patch: pytest.MonkeyPatch, what: Callable[[FakePool, str, int], None]
    ) -> None:
        super().__init__(what, lambda *_: None)
        self.later.reverse()
        self.patch, self.looks = patch, 0

    def events(self, timeout: float) -> Iterator[Event]:
        if not self.queue and not self.later:
            # Time passes.
            self.looks += 1
            assert self.looks < 20, "it waits for ever"
            self.patch.setattr(orders, "_COMING_SECONDS", 0.0)
        yield from super().events(timeout)


def test_a_run_does_not_wait_for_a_node_that_hangs_while_it_is_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: the nodes of a study that never ends, for a file system that hangs on one."""
    run = PLAN.runs[0].id

    pool = Hanging(monkeypatch, welcomed)
    pool.happens = [failing(run)]
    entries = train(tmp_path, pool)
    assert set(progress_of(entries).failed) == {run}
    assert len(of_kind(entries, TaskDone)) == PLAN.tasks - 2


def test_what_is_wrong_with_one_node_is_said_where_the_other_hangs_while_it_is_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: a misspelt builder, told of once the walltime is over, or never."""
    pool = Hanging(monkeypatch, without_gpu)
    with pytest.raises(ModelError, match=f"^{NO_GPU}$"):
        train(tmp_path, pool)
    assert pool.refused == ["n1-1-0"], "it waited for the other"


def test_workers_that_die_are_told_of_where_the_other_node_hangs_while_it_is_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(pool: FakePool, worker: str, pid: int) -> None:
        pool.alive[worker] = pid + 10
        pool.queue.append(WorkerLost(worker, "n1", pid, "killed", "it died", "welcome"))
        cast(TwoNodes, pool).later.append(WorkerReady(worker, "n1", pid + 10))
        if pid > 100:
            monkeypatch.setattr(orders, "_COMING_SECONDS", 0.0)
        assert pid < 200, "it goes on for ever"

    pool = Hanging(monkeypatch, dies)
    with pytest.raises(StormsweepError, match="workers die before they can work: it died"):
        train(tmp_path, pool)


def test_no_worker_at_all_is_said_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakePool, "patience", 0.0)
    pool = FakePool()
    pool.queue = []
    with pytest.raises(StormsweepError, match="no worker was ready"):
        train(tmp_path, pool)


def test_a_driver_that_lost_its_study_stops(tmp_path: Path) -> None:
    def lost() -> None:
        raise StormsweepError("taken over")

    with pytest.raises(StormsweepError, match="taken over"):
        train(tmp_path, FakePool(), watch=lost)


def test_a_driver_that_lost_its_study_while_it_waited_writes_nothing(tmp_path: Path) -> None:
    """It may have waited for days: what lies there is the other's, and in use."""
    journal, partial = tmp_path / "journal.jsonl", tmp_path / "checkpoints" / ".x.partial"
    partial.parent.mkdir()
    partial.touch()
    journal.write_text("of the other, who is just wr")
    before = journal.read_bytes()

    class Awaited(FakePool):
        patience = math.inf

        def events(self, timeout: float) -> Iterator[Event]:
            (tmp_path / lock.FILE).write_text('{"token": "of another"}')
            yield from super().events(timeout)

    about = SimpleNamespace(
        file=STUDY, plan=PLAN, data=SimpleNamespace(path=tmp_path, fingerprint="f"),
        folds=[SimpleNamespace(train=range(100))] * 2, audited=False, together=False,
        search=None, reached={},
    )  # fmt: skip
    pool = Awaited()
    pool.dashboard = 0  # type: ignore[attr-defined]
    staff = SimpleNamespace(
        hire=lambda *_: SimpleNamespace(layout=Layout(2, 1), pool=pool), in_layout=lambda _: STUDY
    )
    kept = SimpleNamespace(
        folder=tmp_path, journal_path=journal, refuse_other_model=lambda model: None
    )
    written: list[str] = []
    with lock.DriverLock(tmp_path) as ours:
        given: Any = (about, kept, staff, Silent(), ours, lambda: written.append("study.toml"))
        with pytest.raises(StudyBusyError, match="took the study over"):
            Session(*given).run(False, lambda: False)
    assert (written, journal.read_bytes(), partial.exists()) == ([], before, True)


def test_a_driver_says_that_it_is_ending_before_it_waits_for_its_workers(tmp_path: Path) -> None:
    """Losing this: `cancel` interrupts the waiting again and again, and workers stay behind."""
    about = SimpleNamespace(
        file=STUDY, data=SimpleNamespace(path=tmp_path, fingerprint="f"), folds=[]
    )
    kept = SimpleNamespace(folder=tmp_path, recorded=False)
    said: list[object] = []

    def hire(*given: Any) -> None:
        given[-1].callback(lambda: said.append(ours._said.get("ending")))
        assert "ending" not in ours._said
        raise KeyboardInterrupt

    with lock.DriverLock(tmp_path) as ours:
        given: Any = (about, kept, SimpleNamespace(hire=hire), Silent(), ours, lambda: None)
        with pytest.raises(StudyInterrupted):
            Session(*given).run(False, lambda: False)
    assert said == [True]


def test_a_driver_that_lost_its_study_does_not_wait_on(tmp_path: Path) -> None:
    def lost() -> None:
        raise StudyBusyError("taken over")

    class Empty(FakePool):
        patience = math.inf

    pool = Empty()
    pool.queue = []
    data = cast(PreparedData, SimpleNamespace(path=tmp_path, fingerprint="f"))
    run = Execution(STUDY, PLAN, tmp_path, data, [100, 100], cast(Any, pool), Silent())
    with pytest.raises(StudyBusyError):
        run.await_workers(1, lost)


def test_nodes_that_are_ready_do_not_wait_for_ever_for_those_that_never_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: core-hours of three nodes that wait, are renewed and wait, for a fourth."""
    now = 0.0

    class Slow(FakePool):
        patience = math.inf

        def events(self, timeout: float) -> Iterator[Event]:
            nonlocal now
            now += 60.0
            # The queue takes its time, which costs nothing.
            return super().events(timeout) if now > 86400.0 else iter(())

    monkeypatch.setattr("stormsweep.study.execute.time.monotonic", lambda: now)
    pool = Slow()
    pool.dashboard = 0  # type: ignore[attr-defined]
    site = Site(scheduler="slurm", walltime="00:30:00")
    about = SimpleNamespace(
        file=STUDY, plan=PLAN, data=SimpleNamespace(path=tmp_path, fingerprint="f"),
        folds=[SimpleNamespace(train=range(100))] * 2, audited=False, together=True,
        place=Place(Found("far", site, None), (2, 2)), search=None, reached={},
    )  # fmt: skip
    staff = SimpleNamespace(
        hire=lambda *_: SimpleNamespace(layout=Layout(4, 1), pool=pool), in_layout=lambda _: STUDY
    )
    kept = SimpleNamespace(folder=tmp_path, recorded=False)
    with lock.DriverLock(tmp_path) as ours:
        given: Any = (about, kept, staff, Silent(), ours, lambda: None)
        with pytest.raises(StormsweepError, match="2 of 4 workers were ready 15 min after the fir"):
            Session(*given).run(False, lambda: False)
    assert 86400.0 + 900.0 <= now < 86400.0 + 1200.0, "half their walltime, and no more"


@given(
    cut=st.integers(1, 40),
    share=st.floats(0, 1),
    workers=st.integers(1, 6),
    rounds=st.lists(st.integers(0, 8), max_size=60),
)
def test_a_power_cut_loses_nothing_that_must_be_trained_again(
    tmp_path_factory: pytest.TempPathFactory,
    cut: int,
    share: float,
    workers: int,
    rounds: list[int],
) -> None:
    """Of a round whose sync did not end any part may be on the disk, cut anywhere."""
    folder = tmp_path_factory.mktemp("study")
    path = folder / "journal.jsonl"
    pool, left, syncs = CheckpointingPool(workers, rounds), b"", 0

    class PowerCut(BaseException):
        pass

    def sync(descriptor: int) -> None:
        nonlocal left, syncs
        syncs += 1
        written = path.read_bytes()
        if syncs == cut:
            left = written[: len(left) + round(share * (len(written) - len(left)))]
            raise PowerCut
        left = written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", sync)
        try:
            train(folder, pool, plan=MANY)
        except PowerCut:
            path.write_bytes(left)
    again = CheckpointingPool(2, [])
    every_task(train(folder, again, plan=MANY), MANY)
    assert set((pool.trained + again.trained).values()) == {1}, "something was trained twice"
    assert kept(folder) == last(MANY.runs)


@pytest.mark.parametrize("keeps", [True, False])
def test_a_checkpoint_that_could_not_be_written_does_not_cost_the_one_before(
    tmp_path: Path, keeps: bool
) -> None:
    """Losing this: a worker that takes a run over begins it anew, because a quota was full."""
    checkpoints = tmp_path / "checkpoints"

    class Full(CheckpointingPool):
        """Workers that find no room for the checkpoint of the second of three milestones."""

        def submit(
            self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
        ) -> None:
            if isinstance(argument, TaskOrder) and argument.task.from_epoch == 2:
                before = path_of(checkpoints, argument.task.run.id, 1)
                assert before.exists(), "from where is it to go on?"
                FakePool.submit(self, worker, pid, token, function, argument)
                path_of(checkpoints, argument.task.run.id, 3).touch()
                return
            super().submit(worker, pid, token, function, argument)
            if isinstance(argument, TaskOrder) and argument.task.to_epoch == 2:
                path_of(checkpoints, argument.task.run.id, 2).unlink()

    table = STUDY.study.model_copy(update={"keep_checkpoints": keeps})
    study = STUDY.model_copy(update={"study": table})
    every_task(train(tmp_path, Full(2, []), plan=MANY, study=study), MANY)
    assert kept(tmp_path) == (last(MANY.runs) if keeps else set())


def test_what_is_on_record_is_not_kept_in_memory(tmp_path: Path) -> None:
    def living() -> int:
        return sum(type(thing) is TaskDone for thing in gc.get_objects())

    before, found = living(), []
    pool = CheckpointingPool(3, [3] * 99)
    train(tmp_path, pool, lambda: found.append(living() - before), plan=MANY)
    assert max(found) <= 2 * 3
    assert MANY.tasks > 10 * 3


def test_no_folder_is_listed_for_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    for name in ("listdir", "scandir"):
        original = getattr(os, name)

        def listing(path: Any = ".", original: Any = original) -> Any:
            listed.append(str(path))
            return original(path)

        monkeypatch.setattr(os, name, listing)
    counts = []
    for name, plan in {"few": PLAN, "many": MANY}.items():
        (tmp_path / name).mkdir()
        train(tmp_path / name, CheckpointingPool(2, []), plan=plan)
        counts.append(sum(path.startswith(str(tmp_path / name)) for path in listed))
    assert counts[0] == counts[1]


class OneByOne:
    """A strategy of ten trials that is asked for one at a time, as those that learn are."""

    trials = 10

    def __init__(self) -> None:
        self.begun: set[int] = set()

    def propose(self) -> list[Proposal]:
        number = len(self.begun)
        return [Proposal(number, {"x": number}, 1, 2)] if number < self.trials else []

    def take(self, event: Proposal | Outcome | Known) -> None:
        if isinstance(event, Proposal):
            self.begun.add(event.trial)


def test_nodes_are_wanted_for_trials_that_a_strategy_has_still_to_begin(tmp_path: Path) -> None:
    """Losing this: seven of eight nodes, let go when the first worker of the first one came."""
    pool = FakePool()
    search = Search(OneByOne, {}, 2, lambda scores: (scores["roc_auc"],))
    plan = make_plan([{"x": number, "epochs": 1} for number in range(10)], {}, 2)
    data = cast(PreparedData, SimpleNamespace(path=tmp_path, fingerprint="f"))
    run = Execution(
        STUDY, plan, tmp_path, data, [100, 100], cast(Any, pool), Silent(), search=search
    )
    run.await_first_worker()
    with JournalWriter(tmp_path / "journal.jsonl", run.recall) as journal:
        run.train(journal, 1, False)
    assert len(of_kind(read(tmp_path / "journal.jsonl"), TaskDone)) == 20
    # Held for a minute, so that none is let go and asked for again, until the end is known.
    assert set(pool.wants[:-1]) == {20}
    assert pool.wants[-1] == 0


def test_a_strategy_that_waits_for_scores_keeps_its_nodes_for_a_moment_only() -> None:
    demand = Demand(trials=10, folds=3)
    assert demand.tasks(there=3, begun=1, idle=False, now=0.0) == 30
    # As is proposed when workers are idle, nothing is left to begin for now.
    assert demand.tasks(there=2, begun=4, idle=True, now=59.0) == 30
    assert demand.tasks(there=5, begun=4, idle=True, now=61.0) == 5
    assert demand.tasks(there=5, begun=4, idle=False, now=62.0) == 5 + 18
    assert demand.tasks(there=9, begun=12, idle=False, now=200.0) == 9


JAX = STUDY.model_copy(update={"engine": EngineTable(use="jax")})


def test_a_lost_bundle_goes_on_in_smaller_ones_until_the_run_at_fault_is_alone(
    tmp_path: Path,
) -> None:
    guilty, sizes = PLAN.runs[0].id, []

    def hungry(pool: FakePool, worker: str, pid: int, argument: Any) -> Event | None:
        pool.happens.append(hungry)
        orders = argument if isinstance(argument, list) else [argument]
        sizes.append(len(orders))
        bad = any(order.task.run.id == guilty for order in orders)
        return pool.lose(worker, pid, "out-of-memory") if bad else None

    pool = FakePool(hungry, hungry)
    pool.queue = pool.queue[:1]
    entries = train(tmp_path, pool, study=JAX)
    failures = of_kind(entries, RunFailed)
    assert [(f.run, f.failure) for f in failures] == [(guilty, "out-of-memory")]
    assert len(of_kind(entries, TaskDone)) == PLAN.tasks - 2
    assert max(sizes) == 2, "runs of one batch size and two folds"


def test_one_failed_run_of_a_bundle_leaves_the_others(tmp_path: Path) -> None:
    run = PLAN.runs[0].id

    def fail(pool: FakePool, worker: str, pid: int, argument: Any) -> Event | None:
        pool.happens.append(fail)
        if not isinstance(argument, list):
            return None
        results: list[Any] = [done(order) for order in argument]
        for place, order in enumerate(argument):
            if order.task.run.id == run:
                results[place] = RunFailed(run, 0, 1, "diverged", "nan", worker, 1)
        return Finished(worker, "t", results)

    entries = train(tmp_path, FakePool(fail, fail), study=JAX)
    assert set(progress_of(entries).failed) == {run}
    assert len(of_kind(entries, TaskDone)) == PLAN.tasks - 2
