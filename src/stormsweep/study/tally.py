"""How far a study is and how fast it gets on, counted record by record."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from stormsweep.config.study import METRICS
from stormsweep.records import Entry, TaskDone, TaskPaused
from stormsweep.results.progress import Progress
from stormsweep.results.standing import Standing
from stormsweep.search.plan import Plan, cost, structure
from stormsweep.study.pace import Pace
from stormsweep.study.watching import State
from stormsweep.work import Run, Task

#: How often is looked for the run that has most left, in seconds: there may be many.
_LOOK_SECONDS = 5.0
#: From so many speeds, the last ones, is told how fast a structure is that was not measured yet.
_LAST = 64


class Tally:
    """Counts what is on record; keeps numbers, no record.

    Parameters
    ----------
    plan : Plan
        The study's runs.
    metric : str
        The score that ranks configurations.
    patches_per_epoch : sequence of int
        Patches of the balanced training fold, for each fold.
    threads : int
        Compute threads of a worker of this session.
    expected : Plan, optional
        Where more runs will come up: what it may all come to.
    cases : str
        What the cases are called.
    """

    def __init__(
        self,
        plan: Plan,
        metric: str,
        patches_per_epoch: Sequence[int],
        threads: int,
        expected: Plan | None = None,
        cases: str = "cases",
    ) -> None:
        self._metric, self._patches, self._cases = metric, patches_per_epoch, cases
        self.runs = {run.id: run for run in plan.runs}
        #: How far every run is, by the entries taken so far.
        self.progress = Progress()
        #: Tasks done and epochs trained in this session.
        self.trained = self.epochs = 0
        self._tasks, self._tasks_done, self._failures = plan.tasks, 0, 0
        self._cost_done = 0.0
        self._cost_all = self._cost_of(plan)
        #: What there is at least to be done, as far as anybody can foresee.
        self._tasks_expected = expected.tasks if expected else 0
        self._cost_expected = self._cost_of(expected) if expected else 0.0
        self._patches_session = 0
        self._standing = Standing(METRICS[metric] == "maximize")
        self._speeds = Speeds(patches_per_epoch, threads)
        self._look_again = self._chain = 0.0
        self.begin()

    def _cost_of(self, plan: Plan) -> float:
        return sum(self._cost(run, run.milestones[-1]) for run in plan.runs)

    def add(self, run: Run) -> None:
        """Take in a run that came up, or a known one that has further milestones now."""
        before = self.runs.get(run.id)
        self.runs[run.id] = run
        self._tasks += len(run.milestones) - (len(before.milestones) if before else 0)
        self._cost_all += self._cost(
            run, run.milestones[-1] - (before.milestones[-1] if before else 0)
        )
        self._look_again = 0.0

    def over(self) -> None:
        """Say that no more runs will come up."""
        self._tasks_expected, self._cost_expected = 0, 0.0

    def begin(self, session: int = 0) -> None:
        """Say that the first task of a session, with this number, is about to be given out."""
        self._session = session
        self._began = time.monotonic()
        self._pace = Pace(self._began)

    def take(self, entry: Entry, now: bool) -> None:
        """Take in an entry of the journal.

        Parameters
        ----------
        entry : Entry
            The next one.
        now : bool
            Whether it is of this session.
        """
        record = entry.record
        if not isinstance(record, TaskDone | TaskPaused) or record.run not in self.runs:
            self.progress.take(entry)
            return
        run, before = self.runs[record.run], self.progress.epoch(record.run)
        self.progress.take(entry)
        gained = self._cost(run, self.progress.epoch(record.run) - before)
        self._cost_done += gained
        if not now:
            self.measured(record)
        if isinstance(record, TaskDone):
            self._tasks_done += 1
            values = {**run.hyperparameters, "epochs": record.to_epoch}
            self._standing.add(values, run.fold, record.scores[self._metric])
        # What was found in an earlier session's checkpoint took no time of this one.
        if now and record.session == self._session:
            self._pace.take(time.monotonic(), gained, record.stopped - record.started)
            self._patches_session += record.patches
        if now:
            self.trained += isinstance(record, TaskDone)
            self.epochs += record.to_epoch - record.start

    def measured(self, record: TaskDone | TaskPaused) -> None:
        """Take note of how fast a stretch was: the next task may go out before it is on record."""
        if (run := self.runs.get(record.run)) is not None:
            self._speeds.take(run, record)

    def give_up(self, run: Run) -> None:
        """Count what is left of a failed run as done: nobody will wait for it."""
        self._failures += 1
        reached = self.progress.reached.get(run.id, 0)
        self._tasks_done += sum(stop > reached for stop in run.milestones)
        self._cost_all -= self._cost(run, run.milestones[-1] - self.progress.epoch(run.id))

    def foreseen(self, tasks: Sequence[Task]) -> float:
        """Return about how long an epoch of all these together takes, in seconds; 0: unknown."""
        return self._speeds.foreseen([task.run for task in tasks])

    def state(self, workers: int, busy: int) -> State:
        """Return how far the study is; told how many workers there are and have a task."""
        now = time.monotonic()
        seconds = now - self._began
        whole = max(self._cost_all, self._cost_expected)
        work, chain = whole - self._cost_done, self._longest_chain(now)
        left, *between = self._pace.left(now, work, workers, [chain])
        return State(
            tasks=max(self._tasks, self._tasks_expected),
            tasks_done=self._tasks_done,
            share=min(1.0, self._cost_done / whole) if whole else 1.0,
            failed=self._failures,
            workers=workers,
            busy=busy,
            patches_per_second=self._patches_session / seconds if seconds > 0 else 0.0,
            seconds=seconds,
            seconds_left=left,
            metric=self._metric,
            leader=self._standing.leader,
            left_between=(between[0], between[1]),
            cases=self._cases,
        )

    def _longest_chain(self, now: float) -> float:
        """Return what is left of the run that has most left; looked for every few seconds."""
        if now >= self._look_again:
            began = time.monotonic()
            self._chain = max(
                (
                    self._cost(run, run.milestones[-1] - self.progress.epoch(name))
                    for name, run in self.runs.items()
                    if name not in self.progress.failed
                ),
                default=0.0,
            )
            self._look_again = now + max(_LOOK_SECONDS, 100 * (time.monotonic() - began))
        return self._chain

    def _cost(self, run: Run, epochs: int) -> float:
        return cost(epochs, self._patches[run.fold], run.hyperparameters["batch_size"])


class Speeds:
    """How fast epochs are trained, as last measured for each structure.

    Parameters
    ----------
    patches_per_epoch : sequence of int
        Patches of the balanced training fold, for each fold.
    threads : int
        Compute threads of a worker; what was measured with others says nothing.
    """

    def __init__(self, patches_per_epoch: Sequence[int], threads: int) -> None:
        self._patches, self._threads = patches_per_epoch, threads
        #: Bundles are faster.
        self._alone, self._bundled = _Measured(), _Measured()

    def take(self, run: Run, record: TaskDone | TaskPaused) -> None:
        """Take in a record of a run."""
        # Where a checkpoint was lost, more was trained than the stretch: its patches tell.
        again = record.patches / max(1, self._patches[run.fold])
        epochs = max(record.to_epoch - record.start, again)
        train = record.phases.get("train", 0.0)
        if epochs > 0 and train > 0 and record.threads in (0, self._threads):
            known = self._bundled if record.bundle > 1 else self._alone
            known.take(structure(run), epochs * self._cost(run) / train)

    def foreseen(self, runs: Sequence[Run]) -> float:
        """Return about how long an epoch of runs trained together takes, in seconds; 0: unknown.

        Where their structure was not measured yet, the median of the last speeds is taken.
        """
        known = self._bundled if len(runs) > 1 else self._alone
        speed = known.speed(structure(runs[0]))
        return sum(map(self._cost, runs)) / speed if speed else 0.0

    def _cost(self, run: Run) -> float:
        return cost(1, self._patches[run.fold], run.hyperparameters["batch_size"])


@dataclass(frozen=True, slots=True)
class _Measured:
    """Speeds, as `search.plan.cost` per second of training: by structure, and the last of all."""

    known: dict[str, float] = field(default_factory=dict)
    # In a search each configuration may be a structure of its own: all would be too many to sort.
    last: deque[float] = field(default_factory=lambda: deque(maxlen=_LAST))

    def take(self, kind: str, speed: float) -> None:
        self.known[kind] = speed
        self.last.append(speed)

    def speed(self, kind: str) -> float | None:
        if not self.last:
            return None
        return self.known[kind] if kind in self.known else statistics.median(self.last)
