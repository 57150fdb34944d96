"""What a worker does with a task: open the data, train from milestone to milestone, score.

Where the worker's time would be over before a milestone, the run is paused at the end of an epoch.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray

from stormsweep.cluster import worker_log
from stormsweep.errors import DataAwayError, DivergedError, RunError
from stormsweep.records import RunFailed, TaskDone, TaskPaused
from stormsweep.study import pausing
from stormsweep.study.cases import fold_of, part_of
from stormsweep.study.setup import builder_of, engine_for
from stormsweep.study.stretches import (
    Clock,
    Member,
    begin,
    pause,
    record,
    recorded,
    save,
    timed,
    unfit,
)
from stormsweep.training.engine import (
    AdvanceResult,
    FoldData,
    GoOn,
    Trajectory,
    says_out_of_memory,
)
from stormsweep.training.scores import check_probabilities, scores
from stormsweep.work import Delivered, Delivery, Sample, Sampled, TaskOrder

log = logging.getLogger(__name__)
T = TypeVar("T")
#: Batches that make an epoch of a sample.
_SAMPLE_BATCHES = 4


def train_task(order: TaskOrder) -> TaskDone | TaskPaused | RunFailed:
    """Carry out one task; whatever goes wrong in it is returned, not raised: see `guarded`.

    The state before the task comes from this process's memory when it holds that very run, else
    from the checkpoint. The checkpoint written after the task holds its result too: a task whose
    result was lost on the way to the journal is not trained again. So does the checkpoint of a
    pause: one that the order does not know of is returned, and the run goes on with the next order.
    """
    return guarded(order, lambda: _train_task(order, score=True))


def fit_task(order: TaskOrder) -> TaskDone | TaskPaused | RunFailed:
    """Train without scoring: the whole training part leaves nothing to validate on.

    The order's fold is the number after those of the first round, which decides over chance alone;
    that the run is of no fold stands in its name, ``<id>-whole``. All else is as in `train_task`.
    """
    return guarded(order, lambda: _train_task(order, score=False))


def deliver_task(delivery: Delivery) -> Delivered | RunFailed:
    """Predict the test part with the trained model, and write predictions and model down."""
    return guarded(delivery.order, lambda: _deliver(delivery))


def sample_task(sample: Sample) -> Sampled | RunFailed:
    """Train the first batches of a run again and again, to see how fast this worker is."""
    return guarded(sample.order, lambda: _sample(sample))


def guarded(order: TaskOrder, work: Callable[[], T]) -> T | RunFailed:
    """Return what `work` returns, or what went wrong in it.

    Raises
    ------
    DataAwayError
        If the data cannot be opened here: the task is for another worker.
    """
    task = order.task
    worker_log.at(f"{task.run.id} epochs {task.from_epoch}-{task.to_epoch}")
    try:
        return work()
    except DataAwayError:
        raise
    except MemoryError:
        return _failed(order, "out-of-memory", "Python could not get the memory it asked for")
    except RunError as error:
        detail = traceback.format_exc() if error.__cause__ is not None else ""
        return _failed(order, error.kind, str(error), detail)
    except Exception as error:
        text = " ".join(str(error).split())
        where = traceback.extract_tb(error.__traceback__)[-1]
        return _failed(
            order,
            "out-of-memory" if says_out_of_memory(error) else "error",
            f"{type(error).__name__}: {text[:300]} ({Path(where.filename).name}:{where.lineno})",
            traceback.format_exc(),
        )


def _failed(order: TaskOrder, kind: str, reason: str, detail: str = "") -> RunFailed:
    held.pop(order.task.run.id, None)
    return RunFailed.of(order, kind, reason, detail)


def _train_task(order: TaskOrder, score: bool) -> TaskDone | TaskPaused:
    task = order.task
    if (known := recorded(order)) is not None:
        return known
    clock, go_on = Clock(), pausing.allowance(order.foreseen)
    if go_on is not None and not go_on(None):
        return unfit(order, clock)
    data = fold_of(order)
    clock.lap("open")
    own = _bring(order, data, go_on)
    clock.built(own)
    if own.run.epoch < task.start:
        return _leave(own, None, clock)
    trained = own.run.advance(task.to_epoch, go_on)
    clock.lap("train")
    clock.move("train", "compile", trained.compile_seconds)
    if own.run.epoch < task.to_epoch:
        return _leave(own, trained, clock)
    result: dict[str, float] = {}
    if score:
        probabilities = own.run.predict(data.validation)
        result = scores(data.labels[data.validation], probabilities, data.climatology)
    done = record(own, trained, result, clock)
    clock.lap("score")
    held.clear()
    held[task.run.id] = own.run
    save(own, timed(done, clock))
    clock.lap("checkpoint")
    pausing.took(clock.phases["score"] + clock.phases["checkpoint"])
    return timed(done, clock)


def _leave(own: Member, trained: AdvanceResult | None, clock: Clock) -> TaskPaused:
    paused = pause(own, trained, clock)
    clock.lap("checkpoint")
    return timed(paused, clock)


def _deliver(delivery: Delivery) -> Delivered:
    clock, order, folder = Clock(), delivery.order, Path(delivery.folder)
    trajectory = _bring(order, fold_of(order), None).run
    inputs = part_of(order, "test").inputs
    probabilities = trajectory.predict(np.arange(len(inputs)), inputs)
    check_probabilities(probabilities)
    np.save(folder / "probabilities.npy", probabilities)
    file, form = trajectory.save(folder, inputs[:64])
    problem = _problem_of(order, folder / file, form, inputs, probabilities)
    return Delivered(file, form, round(clock.now - clock.started, 3), problem)


def _problem_of(
    order: TaskOrder,
    path: Path,
    form: str,
    inputs: NDArray[np.float32],
    probabilities: NDArray[np.float32],
) -> str:
    """Say why a file cannot be loaded to predict what its model predicts; empty: it can."""
    from stormsweep.training.saving import check_model, load_whole, rebuilt

    run, seed = order.task.run, order.protocol.seed

    def load() -> Any:
        if form != "weights":
            return load_whole(path)
        builder = builder_of(order.build, seed, order.precision)[0]
        shape = inputs.shape[1:]
        return rebuilt(path, builder, run.hyperparameters, shape, order.precision, seed, run.fold)

    return check_model(path, load, inputs, probabilities)


def _sample(sample: Sample) -> Sampled:
    order, data = sample.order, fold_of(sample.order)
    run = order.task.run
    few = data.train[: _SAMPLE_BATCHES * int(run.hyperparameters["batch_size"])]
    trajectory = engine_for(order).start(
        builder_of(order.build, order.protocol.seed, order.precision)[0],
        run.hyperparameters,
        order.protocol.seed,
        run.fold,
        dataclasses.replace(data, train=few),
    )
    initial = trajectory.state()

    def train() -> float:
        began, diverged = time.perf_counter(), False
        try:
            trajectory.advance(trajectory.epoch + 1)
        except DivergedError:
            # As fast as any; a few batches over and over diverge sooner than an epoch of all.
            diverged = True
        seconds = time.perf_counter() - began
        if diverged:
            trajectory.restore(initial, 0)
        return seconds

    train()
    seconds, patches = 0.0, 0
    while not patches or seconds < sample.seconds:
        seconds += train()
        patches += len(few)
    memory = psutil.Process().memory_info()
    own = memory.rss - getattr(memory, "shared", 0)
    return Sampled(patches, seconds, round(own / 2**20, 1))


#: The runs whose state this process has in memory, by id: those of its last task.
held: dict[str, Trajectory] = {}


def _bring(order: TaskOrder, data: FoldData, go_on: GoOn | None) -> Member:
    known = held.get(order.task.run.id)
    held.clear()
    return begin(order, data, known, go_on)
