"""What a worker does with a bundle: several runs of one structure, trained side by side."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import DataAwayError, RunError
from stormsweep.records import RunFailed, TaskDone, TaskPaused
from stormsweep.study import pausing, stretches, worker
from stormsweep.study.cases import fold_of
from stormsweep.study.setup import engine_for
from stormsweep.study.stretches import Clock, Member
from stormsweep.training.engine import AdvanceResult, BundleEngine, FoldData, GoOn
from stormsweep.training.scores import scores
from stormsweep.work import TaskOrder

log = logging.getLogger(__name__)
Engine = BundleEngine[Any]
Result = TaskDone | TaskPaused | RunFailed


def train_bundle(orders: Sequence[TaskOrder]) -> list[Result]:
    """Carry out the tasks of a bundle; what goes wrong is returned, as far as `guarded` does so.

    All is as in `worker.train_task` for each of them, one checkpoint a run included: a bundle that
    was interrupted goes on in bundles of any size, or run by run.

    Parameters
    ----------
    orders : sequence of TaskOrder
        Of one structure, batch size and stretch of epochs, paused at the same, for one worker.

    Returns
    -------
    list of TaskDone, TaskPaused or RunFailed
        One for each task, in their order.
    """
    found: dict[str, Result] = {}
    try:
        for outcome in _train(orders):
            found[outcome.run] = outcome
    except DataAwayError:
        raise
    except Exception as error:
        for order in orders:
            if order.task.run.id not in found:
                found[order.task.run.id] = _failed(order, error)
    return [found[order.task.run.id] for order in orders]


def _failed(order: TaskOrder, error: Exception) -> RunFailed:
    def raises() -> RunFailed:
        raise error

    return worker.guarded(order, raises)


def _train(orders: Sequence[TaskOrder]) -> Iterator[Result]:
    clock = Clock()
    left: list[TaskOrder] = []
    for order in orders:
        if (known := stretches.recorded(order)) is not None:
            yield known
        else:
            left.append(order)
    if not left:
        return
    first = left[0]
    go_on = pausing.allowance(first.foreseen)
    if go_on is not None and not go_on(None):
        yield from (stretches.unfit(order, clock, len(left)) for order in left)
        return
    folds = {order.task.run.fold: fold_of(order) for order in left}
    engine = cast(Engine, engine_for(first))
    clock.lap("open")
    members: dict[int, Member] = {}
    short: list[Member] = []
    for outcome in _begun(left, folds, go_on):
        if isinstance(outcome, RunFailed):
            yield outcome
        elif outcome.run.epoch < first.task.start:
            short.append(outcome)
        else:
            members[id(outcome.run)] = outcome
    clock.built(*members.values(), *short)
    if short:
        # For none of them there is time, nor for the others.
        others = [(member, None) for member in members.values()]
        yield from _left([*((member, None) for member in short), *others], clock)
        return
    runs = [member.run for member in members.values()]
    for part in engine.train(runs, first.task.to_epoch, go_on):
        together = [(members[id(run)], result) for run, result in part]
        yield from _after_training(engine, together, clock)
        clock = Clock()


def _left(paused: Sequence[tuple[Member, AdvanceResult | None]], clock: Clock) -> list[TaskPaused]:
    """Leave runs where they are, write their checkpoints, and say so."""
    records = [stretches.pause(member, result, clock, len(paused)) for member, result in paused]
    clock.lap("checkpoint")
    stopped = clock.now
    return [stretches.timed(record, clock, stopped) for record in records]


def _begun(
    orders: Sequence[TaskOrder], folds: dict[int, FoldData], go_on: GoOn | None
) -> Iterator[Member | RunFailed]:
    """Bring runs to where their tasks begin: from memory, from checkpoints, or from the start."""
    known = dict(worker.held)
    worker.held.clear()
    for order in orders:
        run = order.task.run
        try:
            yield stretches.begin(order, folds[run.fold], known.get(run.id), go_on)
        except Exception as error:
            yield _failed(order, error)


def _after_training(
    engine: Engine,
    together: list[tuple[Member, AdvanceResult | RunError]],
    clock: Clock,
) -> Iterator[Result]:
    """Score runs that were trained together, write their checkpoints, and say what they did."""
    clock.lap("train")
    trained: list[tuple[Member, AdvanceResult]] = []
    for member, result in together:
        if isinstance(result, RunError):
            yield _failed(member.order, result)
        else:
            trained.append((member, result))
    if not trained:
        return
    clock.move("train", "compile", trained[0][1].compile_seconds)
    if trained[0][0].run.epoch < trained[0][0].order.task.to_epoch:
        # Runs trained together are at the same epoch.
        yield from _left(trained, clock)
        return
    predicted = _predicted(engine, [member for member, _ in trained])
    records: list[tuple[Member, TaskDone]] = []
    for (member, result), probabilities in zip(trained, predicted, strict=True):
        if isinstance(probabilities, Exception):
            yield _failed(member.order, probabilities)
            continue
        try:
            done = _record(member, result, probabilities, clock, len(together))
            records.append((member, done))
        except Exception as error:
            yield _failed(member.order, error)
    clock.lap("score")
    for member, done in records:
        stretches.save(member, stretches.timed(done, clock))
    clock.lap("checkpoint")
    pausing.took(clock.phases["score"] + clock.phases["checkpoint"])
    stopped = clock.now
    for member, done in records:
        worker.held[done.run] = member.run
        yield stretches.timed(done, clock, stopped)


def _predicted(
    engine: Engine, members: Sequence[Member]
) -> Sequence[NDArray[np.float32] | Exception]:
    """Predict the validation rows of runs together, or where that fails each alone."""
    runs, rows = [member.run for member in members], [member.data.validation for member in members]
    try:
        return engine.predict(runs, rows)
    except Exception as error:
        if len(members) == 1:
            return [error]
    # Several need more memory than one; and what fails, fails alone. Not in the handler, where the
    # error holds on the device what did not fit.
    return [_predicted(engine, [member])[0] for member in members]


def _record(
    member: Member,
    result: AdvanceResult,
    probabilities: NDArray[np.float32],
    clock: Clock,
    together: int,
) -> TaskDone:
    data = member.data
    found = scores(data.labels[data.validation], probabilities, data.climatology)
    return stretches.record(member, result, found, clock, together)
