"""Losing these: a verification waits for ever for a worker that cannot live, or gives up too early.

The pool here is a fake, as in test_execute.py: events come in the order that the test says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stormsweep.cluster.pool import (
    Broken,
    Event,
    Finished,
    PoolBroken,
    WorkerLost,
    WorkerReady,
)
from stormsweep.config.study import StudyFile
from stormsweep.data.prepared import PreparedData
from stormsweep.errors import DataAwayError, ModelError, RunError, StormsweepError
from stormsweep.records import TaskPaused
from stormsweep.study.choice import Choice
from stormsweep.study.setup import Welcome
from stormsweep.study.verify import Verification
from stormsweep.study.watching import Silent
from stormsweep.work import TaskOrder

STUDY = StudyFile.model_validate({"study": {"name": "s"}, "search": {"space": {"epochs": [2]}}})


class FakePool:
    """Tells of one worker at a time; the test says what becomes of each thing it is asked."""

    patience = 60.0

    def __init__(self, answer: Callable[[str], list[Event]]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.queue: list[Event] = [WorkerReady("0", "h", 1)]

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        self.asked.append(function.__name__)
        self.queue += self.answer(token)

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield all there is at once: a loss and the next worker come together."""
        queue, self.queue = self.queue, []
        yield from queue

    def close(self) -> None:
        pass


def verify(folder: Path, pool: FakePool, epochs: int = 2) -> None:
    data = cast(PreparedData, SimpleNamespace(path=folder, fingerprint="f"))
    choice = Choice(
        configuration="c",
        hyperparameters={"batch_size": 8, "epochs": epochs},
        stops=(epochs,),
        threshold=0.5,
        threshold_folds=(2, 2),
        look=1,
        finished=True,
    )
    look = Verification(STUDY, folder, data, choice, cast(Any, pool), Silent())
    # Whatever the folds are numbered, and however many there will be.
    assert look._run.whole
    assert look._run.id.endswith("-whole")
    look.carry_out(cast(Any, None), lambda _: None, lambda: None)


def lost(pid: int = 1) -> list[Event]:
    return [WorkerLost("0", "h", pid, "killed", "it died", None), WorkerReady("0", "h", pid)]


def test_a_worker_that_dies_before_any_work_ends_the_verification(tmp_path: Path) -> None:
    pool = FakePool(lambda _: lost())
    with pytest.raises(StormsweepError, match="workers die before they can work: it died"):
        verify(tmp_path, pool)
    assert set(pool.asked) == {"welcome"}


def test_a_worker_that_never_comes_ends_the_verification(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(FakePool, "patience", 0.0)
    pool = FakePool(lambda _: [])
    pool.queue = []
    with pytest.raises(StormsweepError, match="no worker was ready within"):
        verify(tmp_path, pool)


def test_a_worker_lost_at_work_is_followed_by_another_three_times(tmp_path: Path) -> None:
    def answer(token: str) -> list[Event]:
        if token == "welcome":
            return [Finished("0", token, Welcome("", "abc"))]
        return lost()

    pool = FakePool(answer)
    with pytest.raises(RunError, match="the worker was lost 3 times"):
        verify(tmp_path, pool)
    assert pool.asked == ["welcome", "fit_task"] * 3


def test_a_worker_that_cannot_open_the_data_is_followed_by_another_as_long_as_some_come(
    tmp_path: Path,
) -> None:
    away = DataAwayError("n1 cannot open the data: /data/x: no prepared data here")

    class Refusing(FakePool):
        left = 1

        def refuse(self, worker: str, pid: int, why: str, for_good: bool = False) -> None:
            more, self.left = self.left, self.left - 1
            self.queue.append(WorkerReady("0", "h", pid + 1) if more else PoolBroken(why))

    def answer(token: str) -> list[Event]:
        if token == "welcome":
            return [Finished("0", token, Welcome("", "abc"))]
        return [Broken("0", token, away)]

    pool = Refusing(answer)
    with pytest.raises(StormsweepError, match=r"^no workers: n1 cannot open the data"):
        verify(tmp_path, pool)
    assert pool.asked == ["welcome", "fit_task"] * 2


def test_a_builder_edited_between_two_workers_is_refused(tmp_path: Path) -> None:
    found = iter(("abc", "edited"))

    def answer(token: str) -> list[Event]:
        if token == "welcome":
            return [Finished("0", token, Welcome("", next(found)))]
        return lost()

    with pytest.raises(ModelError, match="was edited while the study runs"):
        verify(tmp_path, FakePool(answer))


class HurriedPool(FakePool):
    """Workers with time for one epoch each, and others after them."""

    def __init__(self, epochs: int, losses: list[str]) -> None:
        super().__init__(lambda token: [Finished("0", token, Welcome("", "abc"))])
        self.epochs, self.losses = epochs, losses
        self.orders: list[TaskOrder] = []
        self.pid, self.gone = 1, [0]

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        assert pid == self.pid, "a worker that is gone is asked"
        if not isinstance(argument, TaskOrder):
            super().submit(worker, pid, token, function, argument)
            return
        self.orders.append(argument)
        start = argument.task.start
        if self.losses:
            self.queue.append(WorkerLost("0", "h", pid, self.losses.pop(), "it went", token))
            self.join()
            return
        if start + self.epochs >= argument.task.to_epoch:
            raise Reached
        phases: dict[str, float] = {}
        self.queue.append(
            Finished(
                worker, token,
                TaskPaused(
                    argument.task.run.id, start, start + self.epochs, worker, 0,
                    argument.submitted, 1.0, 2.0, phases, [0.1], 1, 1, 1.0, 5, 1, [], 1,
                ),
            )
        )  # fmt: skip

    def join(self) -> None:
        self.pid += 1
        self.queue.append(WorkerReady("0", "h", self.pid))

    def dismiss(self, worker: str, pid: int) -> None:
        self.gone.append(pid)
        self.queue.append(WorkerLost("0", "h", pid, "killed", "it was let go", None))
        self.join()


class Reached(Exception):
    pass


def test_pauses_and_losses_that_are_nobodys_fault_are_no_attempts(tmp_path: Path) -> None:
    pool = HurriedPool(1, ["preempted", "node-failure"] * 5 + ["killed"] * 2)
    with pytest.raises(Reached):
        verify(tmp_path, pool, epochs=9)
    assert [order.task.start for order in pool.orders] == [0] * 12 + [*range(9)]
    assert pool.gone[1:] == [*range(13, 21)]


def test_a_verification_for_which_no_worker_has_time_ends_with_advice(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="longer walltime"):
        verify(tmp_path, HurriedPool(0, []))
    with pytest.raises(RunError, match="longer walltime"):
        verify(tmp_path, HurriedPool(1, ["walltime"] * 9))
