"""What a worker does with a bundle: several runs of one structure, trained side by side."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from stormsweep.cluster.topology import pinned
from stormsweep.errors import RunError
from stormsweep.records import RunFailed, TaskDone, TaskOrder
from stormsweep.study import worker
from stormsweep.study.setup import engine_for
from stormsweep.training import checkpoint
from stormsweep.training.engine import AdvanceResult, BundleEngine, FoldData, Trajectory
from stormsweep.training.scores import scores

log = logging.getLogger(__name__)
Engine = BundleEngine[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
    """A run of the bundle, under way."""

    order: TaskOrder
    data: FoldData
    run: Trajectory


def train_bundle(orders: Sequence[TaskOrder]) -> list[TaskDone | RunFailed]:
    """Carry out the tasks of a bundle; whatever goes wrong is returned, not raised.

    All is as in `worker.train_task` for each of them, one checkpoint a run included: a bundle that
    was interrupted goes on in bundles of any size, or run by run.

    Parameters
    ----------
    orders : sequence of TaskOrder
        Of one structure, batch size and stretch of epochs, for one worker.

    Returns
    -------
    list of TaskDone or RunFailed
        One of each, in the order of the tasks.
    """
    found: dict[str, TaskDone | RunFailed] = {}
    try:
        for outcome in _train(orders):
            found[outcome.run] = outcome
    except Exception as error:
        for order in orders:
            if order.task.run.id not in found:
                found[order.task.run.id] = _failed(order, error)
    return [found[order.task.run.id] for order in orders]


def _failed(order: TaskOrder, error: Exception) -> RunFailed:
    def raises() -> RunFailed:
        raise error

    return worker.guarded(order, raises)


def _train(orders: Sequence[TaskOrder]) -> Iterator[TaskDone | RunFailed]:
    clock = worker.Clock()
    left: list[TaskOrder] = []
    for order in orders:
        if stored := worker.load(order, order.task.to_epoch):
            yield TaskDone(**stored[1])
        else:
            left.append(order)
    if not left:
        return
    first = left[0]
    engine = cast(Engine, engine_for(first))
    folds = {order.task.run.fold: worker.fold_of(order) for order in left}
    clock.lap("open")
    members: dict[int, _Member] = {}
    for outcome in _begun(left, folds):
        if isinstance(outcome, RunFailed):
            yield outcome
        else:
            members[id(outcome.run)] = outcome
    clock.lap("build")
    runs = [member.run for member in members.values()]
    for part in engine.train(runs, first.task.to_epoch):
        together = [(members[id(run)], result) for run, result in part]
        yield from _after_training(engine, together, clock)
        clock = worker.Clock()


def _begun(
    orders: Sequence[TaskOrder], folds: dict[int, FoldData]
) -> Iterator[_Member | RunFailed]:
    """Bring runs to where their tasks begin: from memory, from checkpoints, or from the start."""
    known = dict(worker.held)
    worker.held.clear()
    for order in orders:
        run, data = known.get(order.task.run.id), folds[order.task.run.fold]
        try:
            if run is None or run.epoch != order.task.from_epoch:
                run = worker.begin(order, data)
            yield _Member(order, data, run)
        except Exception as error:
            yield _failed(order, error)


def _after_training(
    engine: Engine,
    together: list[tuple[_Member, AdvanceResult | RunError]],
    clock: worker.Clock,
) -> Iterator[TaskDone | RunFailed]:
    """Score runs that were trained together, write their checkpoints, and say what they did."""
    clock.lap("train")
    trained: list[tuple[_Member, AdvanceResult]] = []
    for member, result in together:
        if isinstance(result, RunError):
            yield _failed(member.order, result)
        else:
            trained.append((member, result))
    if not trained:
        return
    clock.move("train", "compile", trained[0][1].compile_seconds)
    members = [member for member, _ in trained]
    predicted = engine.predict([m.run for m in members], [m.data.validation for m in members])
    records: list[tuple[_Member, TaskDone]] = []
    for (member, result), probabilities in zip(trained, predicted, strict=True):
        try:
            done = _record(member, result, probabilities, clock.started, len(together))
            records.append((member, done))
        except Exception as error:
            yield _failed(member.order, error)
    clock.lap("score")
    for member, done in records:
        _save(member, _timed(done, clock, time.time()))
    clock.lap("checkpoint")
    stopped = time.time()
    for member, done in records:
        worker.held[done.run] = member.run
        yield _timed(done, clock, stopped)


def _record(
    member: _Member,
    result: AdvanceResult,
    probabilities: NDArray[np.float32],
    started: float,
    together: int,
) -> TaskDone:
    order, data, run = member.order, member.data, member.run
    on_test, errors = worker.test_scores(order, run, data.climatology)
    return TaskDone(
        run=order.task.run.id,
        from_epoch=order.task.from_epoch,
        to_epoch=order.task.to_epoch,
        scores=scores(data.labels[data.validation], probabilities, data.climatology),
        worker=order.worker,
        session=order.session,
        submitted=order.submitted,
        started=started,
        stopped=started,
        phases={},
        epoch_loss=result.losses,
        patches=result.patches,
        updates=result.updates,
        memory_mb=worker.peak_memory_mb(),
        parameters=run.parameters,
        test_scores=on_test,
        test_errors=errors,
        threads=order.threads,
        cores=list(pinned()),
        bundle=together,
    )


def _timed(done: TaskDone, clock: worker.Clock, stopped: float) -> TaskDone:
    """Return a record with its share of the seconds so far."""
    shares = {phase: round(seconds / done.bundle, 6) for phase, seconds in clock.phases.items()}
    return dataclasses.replace(done, stopped=stopped, phases=shares)


def _save(member: _Member, done: TaskDone) -> None:
    order = member.order
    about = {"protocol": worker.fingerprint(order), "task": dataclasses.asdict(done)}
    try:
        checkpoint.save(Path(order.checkpoints), done.run, done.to_epoch, member.run.state(), about)
    except OSError as error:
        # The score counts all the same; whoever goes on trains the way there once more.
        log.warning("no checkpoint of %s: %s", done.run, error)
