"""How far a study is, read from its journal and kept up to date while the journal grows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from stormsweep.records import (
    Entry,
    PlanCut,
    RunFailed,
    RunPlanned,
    StudyBegun,
    TaskDone,
    TaskPaused,
)


@dataclass(slots=True)
class Progress:
    """What a journal says of the runs; its size depends on their number, not on what was recorded.

    Attributes
    ----------
    reached : dict of str to int
        Run to its last milestone on record.
    paused : dict of str to int
        Run to the epoch at which it waits, where that is none of its milestones.
    failed : dict of str to RunFailed
        Runs that failed and did not get on since.
    session : int
        Number of the last session.
    begun : StudyBegun or None
        What the journal says that the study is about, as last said.
    folds_at_first : int
        Folds that the study began with; more rounds make them more.
    planned : dict of str to RunPlanned
        Runs that are on record as planned, each with all its milestones that are still needed.
    """

    reached: dict[str, int] = field(default_factory=dict)
    paused: dict[str, int] = field(default_factory=dict)
    failed: dict[str, RunFailed] = field(default_factory=dict)
    session: int = 0
    begun: StudyBegun | None = None
    folds_at_first: int = 0
    planned: dict[str, RunPlanned] = field(default_factory=dict)

    def epoch(self, run: str) -> int:
        """Return the epoch from which a run goes on."""
        return self.paused.get(run, self.reached.get(run, 0))

    def take(self, entry: Entry) -> None:
        """Take in the next entry."""
        match entry.record:
            case TaskDone() as done:
                self.reached[done.run] = max(done.to_epoch, self.reached.get(done.run, 0))
                self.paused.pop(done.run, None)
                self.failed.pop(done.run, None)
            case TaskPaused() as pause:
                self.paused[pause.run] = pause.to_epoch
                if pause.to_epoch == self.reached.get(pause.run, 0):
                    del self.paused[pause.run]
                if pause.to_epoch > pause.from_epoch:
                    self.failed.pop(pause.run, None)
            case RunFailed() as failure:
                self.failed[failure.run] = failure
            case RunPlanned(run=run) as plan:
                if (before := self.planned.get(run)) is not None:
                    stops = sorted({*before.milestones, *plan.milestones})
                    plan = dataclasses.replace(plan, milestones=stops)
                self.planned[run] = plan
            case PlanCut(runs=runs):
                for run, last in runs.items():
                    self._cut(run, last)
            case StudyBegun() as begun:
                self.begun = begun
                self.folds_at_first = self.folds_at_first or begun.folds
            case other:
                self.session = max(self.session, getattr(other, "session", 0))

    def _cut(self, run: str, last: int) -> None:
        """Leave a run with its milestones up to one, and none without any; it has not failed."""
        self.failed.pop(run, None)
        if (plan := self.planned.pop(run, None)) is not None:
            stops = [epoch for epoch in plan.milestones if epoch <= last]
            if stops:
                self.planned[run] = dataclasses.replace(plan, milestones=stops)


def progress_of(entries: Iterable[Entry]) -> Progress:
    """Read from a journal how far every run is."""
    progress = Progress()
    for entry in entries:
        progress.take(entry)
    return progress
