"""Where a task begins and ends: a run brought to an epoch, the record and checkpoint of its work.

The same for a run alone and for those of a bundle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from stormsweep.cluster import deadline
from stormsweep.cluster.topology import pinned
from stormsweep.records import TaskDone, TaskPaused
from stormsweep.study.cases import part_of
from stormsweep.study.setup import builder_of, engine_for
from stormsweep.training import checkpoint
from stormsweep.training.engine import AdvanceResult, FoldData, GoOn, State, Trajectory
from stormsweep.training.scores import scores
from stormsweep.verification.errors import standard_errors
from stormsweep.verification.forecasts import CASE, forecasts
from stormsweep.work import TaskOrder

log = logging.getLogger(__name__)
Timed = TypeVar("Timed", TaskDone, TaskPaused)


class Clock:
    """Where the seconds of a task go."""

    def __init__(self) -> None:
        self.started = time.time()
        #: How much of its job's time the worker has, as a share.
        self.share = deadline.share()
        self.phases: dict[str, float] = {}
        self._begun = self._last = time.perf_counter()

    @property
    def now(self) -> float:
        """The time; where the clock was set back meanwhile, `started` and what went by since."""
        return max(time.time(), self.started + time.perf_counter() - self._begun)

    def lap(self, phase: str) -> None:
        """Say that a phase ends now."""
        now = time.perf_counter()
        self.phases[phase] = round(self.phases.get(phase, 0.0) + now - self._last, 6)
        self._last = now

    def move(self, source: str, target: str, seconds: float) -> None:
        """Say that some seconds of a phase were another's."""
        self.phases[target] = round(self.phases.get(target, 0.0) + seconds, 6)
        self.phases[source] = round(max(0.0, self.phases[source] - seconds), 6)

    def built(self, *members: Member) -> None:
        """Say that runs are where their tasks begin; some had to be trained the way there again."""
        self.lap("build")
        for way in (member.way for member in members):
            if way is not None:
                self.move("build", "compile", way.compile_seconds)
                self.move("build", "train", way.train_seconds)


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 1024**2), 1)


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
    way : AdvanceResult or None
        What was trained before the task begins, because a checkpoint was lost.
    """

    order: TaskOrder
    data: FoldData
    run: Trajectory
    before: list[float]
    begun: int
    way: AdvanceResult | None = None

    def losses(self, trained: AdvanceResult | None) -> list[float]:
        """Return the losses of the task's epochs so far, those before a pause included."""
        losses = self.before + (trained.losses if trained else [])
        own = max(0, self.run.epoch - self.order.task.from_epoch)
        # Where a checkpoint was lost, more was trained than the task's own epochs.
        return losses[len(losses) - own :]

    def counted(self, trained: AdvanceResult | None) -> tuple[int, int]:
        """Return the patches and updates of all that was trained here."""
        both = [one for one in (self.way, trained) if one is not None]
        return sum(one.patches for one in both), sum(one.updates for one in both)


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
        builder_of(order.build, order.protocol.seed, order.precision)[0],
        task.run.hyperparameters,
        order.protocol.seed,
        task.run.fold,
        data,
    )
    if not epoch:
        return Member(order, data, trajectory, [], 0)
    losses = _take_up(order, trajectory)
    begun = trajectory.epoch
    if begun == epoch:
        return Member(order, data, trajectory, losses, epoch)
    # Nothing is lost but time: the way from there is trained once more.
    way = trajectory.advance(epoch, go_on)
    losses = losses + way.losses
    own = max(0, trajectory.epoch - task.from_epoch)
    return Member(order, data, trajectory, losses[len(losses) - own :], begun, way)


def _take_up(order: TaskOrder, trajectory: Trajectory) -> list[float]:
    """Restore the last checkpoint up to a task's start; return the losses of its own epochs."""
    # That of the start may be lost, or could not be written; the one before it is still there then.
    for epoch in range(order.task.start, 0, -1):
        if (stored := _load(order, epoch)) is None:
            continue
        own = max(0, epoch - order.task.from_epoch)
        losses: list[float] = stored[1].get("losses", []) if own else []
        if len(losses) == own:
            trajectory.restore(stored[0], epoch)
            return losses
    return []


def fingerprint(order: TaskOrder, build: str = "") -> str:
    """Return a checksum of all that decides over scores beside the run itself.

    A checkpoint that was made under another seed, other data or another model is not taken up.

    Parameters
    ----------
    order : TaskOrder
        The task.
    build : str, optional
        What the builder is called; by default without the folder of its file, which may be moved:
        what stands in it is in the checksum of its code.
    """
    run, folds = order.task.run, order.protocol.folds
    build = build or order.build.rpartition("/")[2]
    # Before there were rounds, the number of their first fold was that of the whole training part.
    later = (f"round {run.fold // folds}",) if run.fold >= folds and not run.whole else ()
    parts = (
        build,
        order.model,
        order.fingerprint,
        order.protocol,
        order.score_test,
        order.engine,
        order.precision,
        order.packing,
        order.threads,
        *later,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def recorded(order: TaskOrder) -> TaskDone | TaskPaused | None:
    """Return what the task came to already, if a checkpoint tells: the driver does not know of it.

    The first pause after the one that the order knows of comes first: of what followed it a driver
    that was killed may have recorded nothing either.
    """
    task = order.task
    for epoch in range(task.start + 1, task.to_epoch + 1):
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
    if stored is None or stored[1].get("protocol") not in (
        fingerprint(order),
        # As it was written before builders could be moved.
        fingerprint(order, order.build),
    ):
        return None
    return stored


def record(
    member: Member, trained: AdvanceResult, found: dict[str, float], clock: Clock, bundle: int = 1
) -> TaskDone:
    """Return the record of a milestone reached; `timed` puts the times in."""
    order, task = member.order, member.order.task
    on_test, errors = test_scores(order, member.run)
    patches, updates = member.counted(trained)
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
        patches=patches,
        updates=updates,
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
    return dataclasses.replace(done, stopped=stopped or clock.now, phases=shares)


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
        stopped=clock.now,
        phases={phase: round(s / bundle, 6) for phase, s in clock.phases.items()},
        epoch_loss=[],
        patches=0,
        updates=0,
        memory_mb=peak_memory_mb(),
        parameters=0,
        threads=order.threads,
        cores=list(pinned()),
        bundle=bundle,
        had=round(clock.share, 3),
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
    if run.epoch == member.begun:
        # The next one begins where this one did.
        return dataclasses.replace(nothing, from_epoch=run.epoch, to_epoch=run.epoch)
    patches, updates = member.counted(trained)
    paused = dataclasses.replace(
        nothing,
        from_epoch=order.task.start if trained else run.epoch,
        to_epoch=run.epoch,
        epoch_loss=trained.losses if trained else [],
        patches=patches,
        updates=updates,
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
        return dataclasses.replace(nothing, had=0.0)
    return paused


def test_scores(
    order: TaskOrder, trajectory: Trajectory
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the scores on the test part, and their standard errors from resampled groups.

    Nothing of both where the order does not ask for them. Skill is against the frequency of events
    in the training part, whatever balancing made of it.
    """
    if not order.score_test:
        return {}, {}
    test = part_of(order, "test")
    probabilities = trajectory.predict(np.arange(len(test.labels)), test.inputs)
    climatology = float(np.mean(part_of(order).labels))
    found = scores(test.labels, probabilities, climatology)
    wanted = ("run_date", order.protocol.group_by, *test.groups)
    name = next((each for each in wanted if each in test.groups), CASE)
    blocks = None if name == CASE else test.groups[name]
    known = forecasts(probabilities, test.labels, climatology, blocks, name)
    return found, standard_errors(known, order.protocol.seed)
