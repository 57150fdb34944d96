"""A study followed from its journal, from any machine that sees it."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

from stormsweep.config.strategies import KNOWN_AHEAD
from stormsweep.config.study import METRICS, cases_of
from stormsweep.records import (
    Entry,
    NodeEvent,
    PlaceRefused,
    PlanCut,
    Proposed,
    RunFailed,
    RunPlanned,
    SearchEnded,
    SessionBegun,
    StudyBegun,
    TaskDone,
    TaskPaused,
    TaskRetried,
)
from stormsweep.records import WorkerEvent as Worker
from stormsweep.results.journal import Follower
from stormsweep.results.progress import Progress
from stormsweep.results.standing import Standing
from stormsweep.search.plan import cost
from stormsweep.study.lock import driver_of
from stormsweep.study.pace import Pace
from stormsweep.study.remaining import plan_of
from stormsweep.study.study import Study
from stormsweep.study.watching import AtWork, State

#: How many of the last failures are shown.
_FAILURES = 3


class Following:
    """How far a study is, kept up to date from its journal.

    What workers are at, which no journal can have, is read from what the driver says beside its
    sign of life. Times are by the driver's clock: another machine's may differ.

    Parameters
    ----------
    study : Study
        The study; its journal need not exist yet.
    """

    def __init__(self, study: Study) -> None:
        self._directory, self._file = study.directory, study.file
        self._follower = Follower(study.journal_path)
        self._metric = study.file.search.metric
        self._standing = Standing(METRICS[self._metric] == "maximize")
        self._progress = Progress()
        self._runs: dict[str, RunPlanned] = {}
        self._patches: list[int] = []
        self._workers: set[tuple[str, int]] = set()
        self._waiting: set[str] = set()
        #: The last of them; those that are over once another session begins.
        self._failures: deque[str] = deque(maxlen=_FAILURES)
        self._refused: set[str] = set()
        self._begun = self._now = 0.0
        self._session = 0
        #: Whether no more runs will come up, by the strategy that there is.
        self._over, self._strategy = True, ""
        #: Tasks and cost of all that will about come up; None: not known, or not looked yet.
        self._expected: tuple[int, float] | None = None
        self._foresees = False
        self._pace = Pace(0.0)
        self._cost_done, self._patches_session = 0.0, 0
        #: The driver's count of its signs of life, and when it was seen to change.
        self._beat, self._seen = -1, 0.0

    def look(self) -> State | None:
        """Take in what came since the last look; None: nothing is recorded yet."""
        for entry in self._follower.new():
            self._take(entry)
        return self._state() if self._runs else None

    @property
    def finished(self) -> bool:
        """Whether every run is finished or failed, and no more will come up."""
        left = any(map(self._milestones_left, self._runs.values()))
        return bool(self._runs) and not left and self._over

    def _take(self, entry: Entry) -> None:
        before = self._progress.epoch(getattr(entry.record, "run", ""))
        self._progress.take(entry)
        self._now = max(self._now, entry.time)
        match entry.record:
            case StudyBegun(metric=metric, fold_sizes=sizes, strategy=strategy):
                self._metric = metric
                if strategy != self._strategy:
                    self._over, self._strategy = strategy in KNOWN_AHEAD, strategy
                self._patches = [int(size["epoch_patches"]) for size in sizes]
                self._expected, self._foresees = None, False
            case PlanCut():
                self._runs = dict(self._progress.planned)
            case Proposed():
                self._over = False
            case SearchEnded():
                self._over = True
            case RunPlanned(run=run):
                self._runs[run] = self._progress.planned[run]
            case SessionBegun() as begun:
                self._workers.clear()
                self._waiting.clear()
                for line in self._refused.intersection(self._failures):
                    self._failures.remove(line)
                self._refused.clear()
                self._begun, self._patches_session = begun.opened or entry.time, 0
                self._session = begun.session
                self._pace = Pace(self._begun)
            case Worker(event="ready") as event:
                self._workers.add((event.worker, event.pid))
            case Worker() as event:
                self._workers.discard((event.worker, event.pid))
            case NodeEvent(event="asked", node=node):
                self._waiting.add(node)
            case NodeEvent() as event:
                self._waiting.discard(event.node)
                if event.failure:
                    self._failures.append(f"node {event.node} ({event.failure}): {event.detail}")
            case PlaceRefused(reason=why):
                line = f"no work: {why}"
                self._failures.append(line)
                self._refused.add(line)
            case RunFailed() as failed:
                self._failures.append(f"run {failed.run} ({failed.failure}): {failed.reason}")
            case TaskRetried() as lost:
                self._failures.append(
                    f"run {lost.run} is tried again; it came to nothing on worker {lost.worker} "
                    f"({lost.reason})"
                )
            case TaskDone() | TaskPaused() as record if record.run in self._runs:
                self._count(record, before, entry.time)
            case _:
                pass

    def _count(self, record: TaskDone | TaskPaused, before: int, when: float) -> None:
        run = self._runs[record.run]
        gained = self._cost(run, self._progress.epoch(record.run) - before)
        self._cost_done += gained
        # What was found in an earlier session's checkpoint took no time of this one.
        if record.session == self._session:
            self._patches_session += record.patches
            self._pace.take(when, gained, record.stopped - record.started)
        if isinstance(record, TaskDone):
            values = {**run.hyperparameters, "epochs": record.to_epoch}
            self._standing.add(values, run.fold, record.scores[self._metric])

    def _cost(self, run: RunPlanned, epochs: int) -> float:
        batch = int(run.hyperparameters["batch_size"])
        return cost(epochs, self._patches[run.fold], batch)

    def _foreseen(self) -> tuple[int, float] | None:
        """Return tasks and cost of what the strategy will about come to, as the driver expects it.

        None where the study file says another strategy, or other folds, than the journal. It hangs
        on the file alone, and is reckoned once.
        """
        if not self._foresees:
            self._foresees = True
            plan = plan_of(self._file)
            if plan.expected and plan.folds == len(self._patches):
                costs = (
                    cost(
                        run.milestones[-1],
                        self._patches[run.fold],
                        run.hyperparameters["batch_size"],
                    )
                    for run in plan.runs
                )
                self._expected = plan.tasks, math.fsum(costs)
        return self._expected

    def _left(self, run: RunPlanned) -> float:
        """Return what is left of a run; nothing of one that failed."""
        if run.run in self._progress.failed:
            return 0.0
        return self._cost(run, max(run.milestones) - self._progress.epoch(run.run))

    def _milestones_left(self, run: RunPlanned) -> int:
        if run.run in self._progress.failed:
            return 0
        reached = self._progress.reached.get(run.run, 0)
        return sum(milestone > reached for milestone in run.milestones)

    def _state(self) -> State:
        failed = [name for name in self._progress.failed if name in self._runs]
        tasks = sum(len(run.milestones) for run in self._runs.values())
        done = tasks - sum(map(self._milestones_left, self._runs.values()))
        left = [self._left(run) for run in self._runs.values()]
        whole = self._cost_done + sum(left)
        # The runs on record are those that were proposed so far.
        expected = (0, 0.0) if self._over else self._foreseen()
        if expected is not None:
            tasks, whole = max(tasks, expected[0]), max(whole, expected[1])
        at_work, clock = self._at_work()
        now = max(self._now, clock)
        seconds = now - self._begun
        middle = low = high = math.nan
        if expected is not None:
            work = whole - self._cost_done
            middle, low, high = self._pace.left(now, work, len(self._workers), left)
        return State(
            tasks=tasks,
            tasks_done=done,
            share=min(1.0, self._cost_done / whole) if whole else 1.0,
            failed=len(failed),
            workers=len(self._workers),
            busy=None if at_work is None else len(at_work),
            patches_per_second=self._patches_session / seconds if seconds > 0 else 0.0,
            seconds=seconds,
            seconds_left=middle,
            metric=self._metric,
            leader=self._standing.leader,
            left_between=(low, high),
            at_work=at_work or (),
            failures=tuple(self._failures),
            nodes_waiting=len(self._waiting),
            cases=cases_of(self._file.data.source),
        )

    def _at_work(self) -> tuple[tuple[AtWork, ...] | None, float]:
        """Return what workers are at, as the driver said last, and its clock by now.

        None and 0 where no driver says: none is at work, or it is of an older version.
        """
        driver = driver_of(self._directory) or {}
        said: dict[str, Any] = driver.get("work") or {}
        if not said:
            return None, 0.0
        if driver["beat"] != self._beat:
            self._beat, self._seen = driver["beat"], time.monotonic()
        clock = float(said["clock"]) + time.monotonic() - self._seen
        found = []
        for worker, name, start, stop, bundle, sent in said["tasks"]:
            if (run := self._runs.get(name)) is not None:
                point = run.hyperparameters, run.fold, int(start), int(stop), int(bundle)
                found.append(AtWork(str(worker), *point, max(0.0, clock - float(sent))))
        return tuple(found), clock
