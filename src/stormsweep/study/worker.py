"""What a worker does with a task: open the data, train from milestone to milestone, score.

Where the worker's time would be over before a milestone, the run is paused at the end of an epoch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray

from stormsweep.cluster.topology import pinned
from stormsweep.data.layout import PartName
from stormsweep.data.prepared import Part, PreparedData
from stormsweep.data.turned import open_turned, vectors_of
from stormsweep.errors import RunError
from stormsweep.records import (
    Augmentation,
    Delivered,
    Delivery,
    Protocol,
    RunFailed,
    Sample,
    Sampled,
    TaskDone,
    TaskOrder,
    TaskPaused,
)
from stormsweep.study import pausing
from stormsweep.study.protocol import FoldRows, fold_rows, whole_part
from stormsweep.study.setup import builder_of, engine_for
from stormsweep.training import checkpoint
from stormsweep.training.engine import AdvanceResult, FoldData, GoOn, State, Trajectory, Turning
from stormsweep.training.scores import check_probabilities, scores
from stormsweep.verification.errors import standard_errors
from stormsweep.verification.forecasts import CASE, forecasts

log = logging.getLogger(__name__)
T = TypeVar("T")
Timed = TypeVar("Timed", TaskDone, TaskPaused)
#: Batches that make an epoch of a sample.
_SAMPLE_BATCHES = 4


def train_task(order: TaskOrder) -> TaskDone | TaskPaused | RunFailed:
    """Carry out one task; whatever goes wrong in it is returned, not raised.

    The state before the task comes from this process's memory when it holds that very run, else
    from the checkpoint. The checkpoint written after the task holds its result too: a task whose
    result was lost on the way to the journal is not trained again. So does the checkpoint of a
    pause: one that the order does not know of is returned, and the run goes on with the next order.
    """
    return guarded(order, lambda: _train_task(order, score=True))


def fit_task(order: TaskOrder) -> TaskDone | TaskPaused | RunFailed:
    """Train without scoring: the whole training part leaves nothing to validate on.

    The order's fold is the number after the last; all else is as in `train_task`.
    """
    return guarded(order, lambda: _train_task(order, score=False))


def deliver_task(delivery: Delivery) -> Delivered | RunFailed:
    """Predict the test part with the trained model, and write predictions and model down."""
    return guarded(delivery.order, lambda: _deliver(delivery))


def sample_task(sample: Sample) -> Sampled | RunFailed:
    """Train the first batches of a run again and again, to see how fast this worker is."""
    return guarded(sample.order, lambda: _sample(sample))


def guarded(order: TaskOrder, work: Callable[[], T]) -> T | RunFailed:
    """Return what `work` returns, or what went wrong in it."""
    try:
        return work()
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
            "out-of-memory" if type(error).__name__ == "ResourceExhaustedError" else "error",
            f"{type(error).__name__}: {text[:300]} ({Path(where.filename).name}:{where.lineno})",
            traceback.format_exc(),
        )


def _failed(order: TaskOrder, kind: str, reason: str, detail: str = "") -> RunFailed:
    held.pop(order.task.run.id, None)
    task = order.task
    return RunFailed(
        task.run.id,
        task.from_epoch,
        task.to_epoch,
        kind,
        reason,
        order.worker,
        order.session,
        detail,
    )


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
    clock.lap("build")
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


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A run under way: a task's only one, or one of a bundle.

    Attributes
    ----------
    order, data : TaskOrder, FoldData
        What is to be done, on which cases.
    run : Trajectory
        The run.
    before : list of float
        Losses of the task's epochs that were trained before a pause.
    begun : int
        Epoch of the checkpoint that the run was taken from, or 0.
    """

    order: TaskOrder
    data: FoldData
    run: Trajectory
    before: list[float]
    begun: int

    def losses(self, trained: AdvanceResult | None) -> list[float]:
        """Return the losses of the task's epochs so far, those before a pause included."""
        losses = self.before + (trained.losses if trained else [])
        own = max(0, self.run.epoch - self.order.task.from_epoch)
        # Where a checkpoint was lost, more was trained than the task's own epochs.
        return losses[len(losses) - own :]


def record(
    member: Member, trained: AdvanceResult, found: dict[str, float], clock: Clock, bundle: int = 1
) -> TaskDone:
    """Return the record of a milestone reached; `timed` puts the times in."""
    order, task = member.order, member.order.task
    on_test, errors = test_scores(order, member.run, member.data.climatology)
    return TaskDone(
        run=task.run.id,
        from_epoch=task.from_epoch,
        to_epoch=task.to_epoch,
        scores=found,
        worker=order.worker,
        session=order.session,
        submitted=order.submitted,
        started=clock.started,
        stopped=clock.started,
        phases={},
        epoch_loss=member.losses(trained),
        patches=trained.patches,
        updates=trained.updates,
        memory_mb=peak_memory_mb(),
        parameters=member.run.parameters,
        test_scores=on_test,
        test_errors=errors,
        threads=order.threads,
        cores=list(pinned()),
        bundle=bundle,
        resumed=task.paused_at,
    )


def timed(done: Timed, clock: Clock, stopped: float | None = None) -> Timed:
    """Return a record with its share of the seconds so far; `stopped` is now unless given."""
    shares = {phase: round(seconds / done.bundle, 6) for phase, seconds in clock.phases.items()}
    return dataclasses.replace(done, stopped=stopped or time.time(), phases=shares)


def save(member: Member, done: TaskDone) -> None:
    """Write the checkpoint of a milestone; it holds the record of its task."""
    try:
        _save(member, done.to_epoch, {"task": dataclasses.asdict(done)})
    except OSError as error:
        # The score counts all the same; whoever goes on trains the way there once more.
        log.warning("no checkpoint of %s: %s", done.run, error)


def _save(member: Member, epoch: int, about: dict[str, Any]) -> None:
    order = member.order
    about = {"protocol": fingerprint(order)} | about
    checkpoint.save(Path(order.checkpoints), order.task.run.id, epoch, member.run.state(), about)


def unfit(order: TaskOrder, clock: Clock, bundle: int = 1) -> TaskPaused:
    """Return the record of a task of which not one epoch fits into the time left."""
    return TaskPaused(
        run=order.task.run.id,
        from_epoch=order.task.start,
        to_epoch=order.task.start,
        worker=order.worker,
        session=order.session,
        submitted=order.submitted,
        started=clock.started,
        stopped=time.time(),
        phases={phase: round(s / bundle, 6) for phase, s in clock.phases.items()},
        epoch_loss=[],
        patches=0,
        updates=0,
        memory_mb=peak_memory_mb(),
        parameters=0,
        threads=order.threads,
        cores=list(pinned()),
        bundle=bundle,
    )


def pause(
    member: Member, trained: AdvanceResult | None, clock: Clock, bundle: int = 1
) -> TaskPaused:
    """Leave a run at the epoch that it is at: write its checkpoint and return the record.

    Parameters
    ----------
    member : Member
        The run.
    trained : AdvanceResult or None
        What was trained; None where not even the way to the task's begin was.
    clock : Clock
        Of the task.
    bundle : int
        How many runs the clock is for.
    """
    order, run = member.order, member.run
    nothing = unfit(order, clock, bundle)
    held.pop(order.task.run.id, None)
    if run.epoch == member.begun:
        # The next one begins where this one did.
        return dataclasses.replace(nothing, from_epoch=run.epoch, to_epoch=run.epoch)
    paused = dataclasses.replace(
        nothing,
        from_epoch=order.task.start if trained else run.epoch,
        to_epoch=run.epoch,
        epoch_loss=trained.losses if trained else [],
        patches=trained.patches if trained else 0,
        updates=trained.updates if trained else 0,
        parameters=run.parameters,
    )
    about = {
        "pause": dataclasses.asdict(paused),
        "since": order.task.from_epoch,
        "losses": member.losses(trained),
    }
    try:
        _save(member, run.epoch, about)
    except OSError as error:
        log.warning("no checkpoint of %s: %s", paused.run, error)
        return nothing
    return paused


def _deliver(delivery: Delivery) -> Delivered:
    clock, order, folder = Clock(), delivery.order, Path(delivery.folder)
    trajectory = _bring(order, fold_of(order), None).run
    inputs = _part(order.data, order.fingerprint, "test").inputs
    probabilities = trajectory.predict(np.arange(len(inputs)), inputs)
    check_probabilities(probabilities)
    np.save(folder / "probabilities.npy", probabilities)
    file, form = trajectory.save(folder, inputs[:64])
    return Delivered(file, form, round(time.time() - clock.started, 3))


def _sample(sample: Sample) -> Sampled:
    order, data = sample.order, fold_of(sample.order)
    run = order.task.run
    few = data.train[: _SAMPLE_BATCHES * int(run.hyperparameters["batch_size"])]
    trajectory = engine_for(order).start(
        builder_of(order.build)[0],
        run.hyperparameters,
        order.protocol.seed,
        run.fold,
        dataclasses.replace(data, train=few),
    )
    trajectory.advance(1)
    began, patches = time.perf_counter(), 0
    while not patches or time.perf_counter() - began < sample.seconds:
        patches += trajectory.advance(trajectory.epoch + 1).patches
    seconds = time.perf_counter() - began
    memory = psutil.Process().memory_info()
    own = memory.rss - getattr(memory, "shared", 0)
    return Sampled(patches, seconds, round(own / 2**20, 1))


def fingerprint(order: TaskOrder) -> str:
    """Return a checksum of all that decides over scores beside the run itself.

    A checkpoint that was made under another seed, other data or another model is not taken up.
    """
    parts = (
        order.build,
        order.model,
        order.fingerprint,
        order.protocol,
        order.score_test,
        order.engine,
        order.precision,
        order.packing,
        order.threads,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def recorded(order: TaskOrder) -> TaskDone | TaskPaused | None:
    """Return what the task came to already, if a checkpoint tells: the driver does not know of it.

    The milestone's counts first, then that of the latest pause after the one that the order knows.
    """
    task = order.task
    for epoch in range(task.to_epoch, task.start, -1):
        stored = _load(order, epoch)
        if stored is None:
            continue
        if epoch == task.to_epoch and "task" in stored[1]:
            return TaskDone(**stored[1]["task"])
        if epoch < task.to_epoch and stored[1].get("since") == task.from_epoch:
            return TaskPaused(**stored[1]["pause"])
    return None


def _load(order: TaskOrder, epoch: int) -> tuple[State, dict[str, Any]] | None:
    """Return the state after an epoch and what is known of it, if they are on disk."""
    stored = checkpoint.load(Path(order.checkpoints), order.task.run.id, epoch, log.warning)
    if stored is None or stored[1].get("protocol") != fingerprint(order):
        return None
    return stored


#: The runs whose state this process has in memory, by id: those of its last task.
held: dict[str, Trajectory] = {}


def _bring(order: TaskOrder, data: FoldData, go_on: GoOn | None) -> Member:
    known = held.get(order.task.run.id)
    held.clear()
    return begin(order, data, known, go_on)


def begin(order: TaskOrder, data: FoldData, known: Trajectory | None, go_on: GoOn | None) -> Member:
    """Bring a run to where its task begins: from memory, from a checkpoint, or from the start.

    Parameters
    ----------
    order, data : TaskOrder, FoldData
        The task, and the cases of its fold.
    known : Trajectory or None
        The run as this process has it in memory.
    go_on : callable or None
        Where it says no, the run is left before its task begins.
    """
    task, epoch = order.task, order.task.start
    if known is not None and known.epoch == epoch == task.from_epoch:
        return Member(order, data, known, [], epoch)
    trajectory = engine_for(order).start(
        builder_of(order.build)[0],
        task.run.hyperparameters,
        order.protocol.seed,
        task.run.fold,
        data,
    )
    if not epoch:
        return Member(order, data, trajectory, [], 0)
    own = max(0, epoch - task.from_epoch)
    stored = _load(order, epoch)
    losses = [] if stored is None else stored[1].get("losses", [])
    if stored is not None and len(losses) == own:
        trajectory.restore(stored[0], epoch)
        return Member(order, data, trajectory, losses, epoch)
    # Nothing is lost but time: the way is trained once more.
    losses = trajectory.advance(epoch, go_on).losses
    own = max(0, trajectory.epoch - task.from_epoch)
    return Member(order, data, trajectory, losses[len(losses) - own :], 0)


def test_scores(
    order: TaskOrder, trajectory: Trajectory, climatology: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the scores on the test part, and their standard errors from resampled groups.

    Nothing of both where the order does not ask for them.
    """
    if not order.score_test:
        return {}, {}
    test = _part(order.data, order.fingerprint, "test")
    probabilities = trajectory.predict(np.arange(len(test.labels)), test.inputs)
    found = scores(test.labels, probabilities, climatology)
    name = next((each for each in ("run_date", *test.groups) if each in test.groups), CASE)
    blocks = None if name == CASE else test.groups[name]
    known = forecasts(probabilities, test.labels, climatology, blocks, name)
    return found, standard_errors(known, order.protocol.seed)


@functools.cache
def _part(path: str, fingerprint: str, name: PartName = "train") -> Part:
    data = PreparedData.open(Path(path))
    if data.fingerprint != fingerprint:
        raise RunError(f"{path}: the data changed since this session of the study began")
    return data.part(name)


@functools.lru_cache(maxsize=4)
def _rows(path: str, fingerprint: str, protocol: Protocol) -> list[FoldRows]:
    """Return the folds, and after the last of them the whole training part."""
    part = _part(path, fingerprint)
    return [*fold_rows(part, protocol), whole_part(part, protocol)]


def fold_of(order: TaskOrder) -> FoldData:
    """Return the cases of a task's fold."""
    part = _part(order.data, order.fingerprint)
    rows = _rows(order.data, order.fingerprint, order.protocol)[order.task.run.fold]
    inputs, labels, versions = part.inputs, part.labels, range(1)
    augmentation = order.protocol.augmentation
    if augmentation is not None and augmentation.copies:
        inputs = _turned(order.turned, order.fingerprint)
        labels = np.tile(labels, 1 + augmentation.copies)
        # In 2019 all patches were turned and none was left as it was.
        versions = range(augmentation.method != "physical", 1 + augmentation.copies)
    return FoldData(
        inputs=inputs,
        labels=labels,
        train=rows.train,
        validation=rows.validation,
        class_weight=rows.class_weight,
        climatology=rows.climatology,
        versions=versions,
        turning=_turning(order.data, augmentation),
    )


@functools.cache
def _turned(path: str, fingerprint: str) -> NDArray[np.float32]:
    return open_turned(Path(path), fingerprint)


@functools.cache
def _turning(path: str, augmentation: Augmentation | None) -> Turning | None:
    if augmentation is None or augmentation.copies:
        return None
    manifest = PreparedData.open(Path(path)).manifest
    physical = augmentation.method == "physical"
    mean, std = (tuple(v[key] for v in manifest["inputs"]) for key in ("mean", "std"))
    return Turning(
        rotate_degrees=augmentation.rotate_degrees,
        flip=augmentation.flip,
        turns_vectors=physical,
        vectors=tuple(vectors_of(manifest)) if physical else (),
        mean=mean,
        std=std,
    )


class Clock:
    """Where the seconds of a task go."""

    def __init__(self) -> None:
        self.started = time.time()
        self.phases: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Say that a phase ends now."""
        now = time.perf_counter()
        self.phases[phase] = round(now - self._last, 6)
        self._last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Say that some seconds of a phase were another's."""
        self.phases[target] = round(seconds, 6)
        self.phases[source] = round(max(0.0, self.phases[source] - seconds), 6)


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 1024**2), 1)
