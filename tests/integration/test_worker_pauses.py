"""Losing these: what a worker in a hurry leaves behind is not what the next one goes on from.

Worker's functions are called in this process, with TensorFlow, data and checkpoints as in a study.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stormsweep.cluster import deadline
from stormsweep.records import TaskDone, TaskPaused
from stormsweep.study import pausing, worker
from stormsweep.study.orders import Orders
from stormsweep.study.stretches import recorded
from stormsweep.study.study import Study
from stormsweep.training import checkpoint
from stormsweep.training.engine import AdvanceResult
from stormsweep.training.keras_tf import KerasTrajectory
from stormsweep.work import Run, Task, TaskOrder

from .conftest import digits_study

RUN = Run("r-f0", {"batch_size": 64, "learning_rate": 0.01}, 0, (3, 8))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Any]:
    folder = tmp_path_factory.mktemp("digits")
    study = Study.from_toml(digits_study(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return study, study.prepare()


@pytest.fixture
def order(study: tuple[Study, Any], tmp_path: Path) -> Callable[..., TaskOrder]:
    orders = Orders(study[0].file, study[1], tmp_path, None)

    def make(paused_at: int = -1, from_epoch: int = 3, to_epoch: int = 8) -> TaskOrder:
        return orders.order(Task(RUN, from_epoch, to_epoch, paused_at), "", "0", 1)

    return make


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Set after how many epochs the worker's time is over."""

    def set_after(epochs: int) -> None:
        def allowance(foreseen: float) -> Any:
            # The question before the data are opened, and that before the first epoch.
            answers = [True, True, *[True] * (epochs - 1)] if epochs else [True]
            return lambda seconds: bool(answers and answers.pop())

        monkeypatch.setattr(pausing, "allowance", allowance)
        worker.held.clear()

    yield set_after
    worker.held.clear()


def calm(order: Callable[..., TaskOrder], monkeypatch: pytest.MonkeyPatch) -> TaskDone:
    """Return the task as an undisturbed worker does it; its checkpoint is removed."""
    with monkeypatch.context() as patch:
        patch.setattr(pausing, "allowance", lambda foreseen: None)
        first = worker.train_task(order(from_epoch=0, to_epoch=3))
        done = worker.train_task(order())
    assert isinstance(first, TaskDone)
    assert isinstance(done, TaskDone)
    checkpoint.discard(Path(order().checkpoints), RUN.id, [8])
    return done


def paused(result: Any) -> TaskPaused:
    assert isinstance(result, TaskPaused), result
    return result


def the_same(result: Any, expected: TaskDone) -> None:
    assert isinstance(result, TaskDone), result
    for name in ("scores", "epoch_loss", "from_epoch", "to_epoch", "parameters"):
        assert getattr(result, name) == getattr(expected, name), name


def test_stretches_add_up_to_the_task(
    order: Callable[..., TaskOrder],
    after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    whole = calm(order, monkeypatch)
    after(2)
    first = paused(worker.train_task(order()))
    assert (first.from_epoch, first.to_epoch) == (3, 5)
    assert set(first.phases) == {"open", "build", "compile", "train", "checkpoint"}
    again = paused(worker.train_task(order()))
    about = {"phases": {}, "stopped": 0.0}
    same = (dataclasses.replace(one, **about) for one in (first, again))
    assert len(set(map(str, same))) == 1, "a pause that nobody heard of is told once more"
    after(1)
    second = paused(worker.train_task(order(5)))
    assert (second.from_epoch, second.to_epoch) == (5, 6)
    heard_of_nothing = paused(worker.train_task(order()))
    assert heard_of_nothing.to_epoch == 5, "pauses are told in their order"
    after(9)
    done = worker.train_task(order(6))
    the_same(done, whole)
    assert isinstance(done, TaskDone)
    assert done.start == 6
    for what in ("patches", "updates"):
        parts = [getattr(one, what) for one in (first, second, done)]
        assert sum(parts) == getattr(whole, what)
    assert first.epoch_loss + second.epoch_loss == whole.epoch_loss[:3]
    assert worker.train_task(order(6)) == dataclasses.replace(
        done,
        phases=recorded(order(6)).phases,  # type: ignore[union-attr]
        stopped=recorded(order(6)).stopped,  # type: ignore[union-attr]
    )


def test_where_nothing_fits_nothing_is_opened_or_written(
    order: Callable[..., TaskOrder],
    after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(deadline, "_end", 0.0)
    early = paused(worker.train_task(order(from_epoch=0, to_epoch=3)))
    assert (early.from_epoch, early.to_epoch, early.phases) == (0, 0, {})
    after(0)
    late = paused(worker.train_task(order(from_epoch=0, to_epoch=3)))
    assert (late.from_epoch, late.to_epoch, late.epoch_loss) == (0, 0, [])
    assert not list(tmp_path.glob("*.npz"))


def test_a_pause_whose_checkpoint_was_lost_is_trained_again_however_often_time_is_over(
    order: Callable[..., TaskOrder],
    after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    whole = calm(order, monkeypatch)
    after(2)
    worker.train_task(order())
    checkpoint.discard(tmp_path, RUN.id, [3, 5])
    # The way to epoch 5 has to be trained again; the time is over in epoch 2, then in epoch 4.
    way = paused(worker.train_task(order(5)))
    epoch = whole.patches // 5, whole.updates // 5
    assert (way.from_epoch, way.to_epoch) == (2, 2)
    assert (way.patches, way.updates) == (2 * epoch[0], 2 * epoch[1])
    further = paused(worker.train_task(order(2)))
    assert (further.from_epoch, further.to_epoch) == (2, 4)
    assert checkpoint.path_of(tmp_path, RUN.id, 4).exists()
    after(9)
    the_same(worker.train_task(order(4)), whole)


def test_a_way_that_is_trained_again_is_booked_as_training(
    order: Callable[..., TaskOrder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Losing this: minutes of training on record as the building of a model, by no patches."""
    whole, advance = calm(order, monkeypatch), KerasTrajectory.advance
    checkpoint.discard(tmp_path, RUN.id, [3])
    worker.held.clear()
    seconds: list[float] = []

    def advanced(*given: Any) -> AdvanceResult:
        result = advance(*given)
        seconds.append(result.train_seconds)
        return result

    monkeypatch.setattr(KerasTrajectory, "advance", advanced)
    done = worker.train_task(order())
    the_same(done, whole)
    assert isinstance(done, TaskDone)
    # Eight epochs, of which the task has five.
    assert (done.patches, done.updates) == (whole.patches // 5 * 8, whole.updates // 5 * 8)
    assert len(seconds) == 2
    assert sum(seconds) <= done.phases["train"] + 1e-4
    parts = sum(done.phases.values())
    assert parts <= done.stopped - done.started + 0.01, "no second stands in two phases"


def test_a_run_whose_last_checkpoint_could_not_be_written_goes_on_from_the_one_before(
    order: Callable[..., TaskOrder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Losing this: all of a run is trained again, not what came after its last checkpoint."""
    calm(order, monkeypatch)
    worker.train_task(order())
    whole = worker.train_task(order(from_epoch=8, to_epoch=10))
    assert isinstance(whole, TaskDone)
    checkpoint.discard(tmp_path, RUN.id, [8, 10])
    worker.held.clear()
    done = worker.train_task(order(from_epoch=8, to_epoch=10))
    the_same(done, whole)
    assert isinstance(done, TaskDone)
    # Seven epochs, of which the task has two.
    assert (done.patches, done.updates) == (whole.patches // 2 * 7, whole.updates // 2 * 7)


def test_a_pause_that_cannot_be_written_down_is_none(
    order: Callable[..., TaskOrder],
    after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    whole = calm(order, monkeypatch)
    after(2)

    def full(*_: Any) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        left = paused(worker.train_task(order()))
    assert (left.from_epoch, left.to_epoch, left.patches, left.epoch_loss) == (3, 3, 0, [])
    after(9)
    the_same(worker.train_task(order()), whole)
