"""A study followed from its journal, from any machine that sees it."""

from __future__ import annotations

import math

from stormsweep.config.study import METRICS
from stormsweep.records import Entry, RunPlanned, SessionBegun, StudyBegun, TaskDone, TaskPaused
from stormsweep.records import WorkerEvent as Worker
from stormsweep.results.journal import Follower
from stormsweep.results.progress import Progress
from stormsweep.results.standing import Standing
from stormsweep.study.study import Study
from stormsweep.study.watching import State


class Following:
    """How far a study is, kept up to date from its journal.

    Times are those of the journal, by its driver's clock: another machine's may differ.

    Parameters
    ----------
    study : Study
        The study; its journal need not exist yet.
    """

    def __init__(self, study: Study) -> None:
        self._follower = Follower(study.journal_path)
        self._metric = study.file.search.metric
        self._standing = Standing(METRICS[self._metric] == "maximize")
        self._progress = Progress()
        self._runs: dict[str, RunPlanned] = {}
        self._workers: set[tuple[str, int]] = set()
        self._begun = self._now = 0.0
        self._epochs = self._epochs_session = self._patches_session = 0

    def look(self) -> State | None:
        """Take in what came since the last look; None: nothing is recorded yet."""
        for entry in self._follower.new():
            self._take(entry)
        return self._state() if self._runs else None

    @property
    def finished(self) -> bool:
        """Whether every run is finished or failed."""
        return bool(self._runs) and not any(map(self._milestones_left, self._runs.values()))

    def _take(self, entry: Entry) -> None:
        self._progress.take(entry)
        self._now = max(self._now, entry.time)
        match entry.record:
            case StudyBegun(metric=metric):
                self._metric = metric
            case RunPlanned() as planned:
                self._runs[planned.run] = planned
            case SessionBegun():
                self._workers.clear()
                self._begun, self._epochs_session, self._patches_session = entry.time, 0, 0
            case Worker(event="ready") as event:
                self._workers.add((event.worker, event.pid))
            case Worker() as event:
                self._workers.discard((event.worker, event.pid))
            case TaskDone() | TaskPaused() as record if record.run in self._runs:
                self._count(record)
            case _:
                pass

    def _count(self, record: TaskDone | TaskPaused) -> None:
        epochs = record.to_epoch - record.start
        self._epochs += epochs
        self._epochs_session += epochs
        self._patches_session += record.patches
        if isinstance(record, TaskDone):
            run = self._runs[record.run]
            values = {**run.hyperparameters, "epochs": record.to_epoch}
            self._standing.add(values, run.fold, record.scores[self._metric])

    def _milestones_left(self, run: RunPlanned) -> int:
        if run.run in self._progress.failed:
            return 0
        reached = self._progress.reached.get(run.run, 0)
        return sum(milestone > reached for milestone in run.milestones)

    def _state(self) -> State:
        failed = [name for name in self._progress.failed if name in self._runs]
        tasks = sum(len(run.milestones) for run in self._runs.values())
        epochs = sum(
            self._progress.reached.get(run.run, 0)
            if run.run in self._progress.failed
            else max(run.milestones)
            for run in self._runs.values()
        )
        seconds = self._now - self._begun
        rate = self._epochs_session / seconds if seconds > 0 else 0.0
        return State(
            tasks=tasks,
            tasks_done=tasks - sum(map(self._milestones_left, self._runs.values())),
            share=min(1.0, self._epochs / epochs) if epochs else 1.0,
            failed=len(failed),
            workers=len(self._workers),
            busy=None,
            patches_per_second=self._patches_session / seconds if seconds > 0 else 0.0,
            seconds=seconds,
            seconds_left=(epochs - self._epochs) / rate if rate else math.nan,
            metric=self._metric,
            leader=self._standing.leader,
        )
