"""What a study would do, told before it does: all that `plan` says, from one reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stormsweep.records import Entry, TaskDone
from stormsweep.results.journal import of_kind
from stormsweep.search.plan import Plan
from stormsweep.study.forecast import Forecast, forecast
from stormsweep.study.layout import Layout
from stormsweep.study.problem import Ready
from stormsweep.study.remaining import Remaining, runs_left
from stormsweep.study.staff import Staff


@dataclass(frozen=True, slots=True)
class Outline:
    """What a study would do.

    Attributes
    ----------
    plan : Plan
        All runs; where a strategy learns from scores, about what it will come to.
    layout : Layout or None
        Of the next session; None where a short trial will find it.
    untried : Layout
        The same, without a trial.
    forecast : Forecast
        How long what is left takes in that layout.
    trained : int
        Epochs of training on record.
    left : int
        Epochs that are left; about, where a strategy learns from scores.
    runs_left : int
        Runs that they are of.
    """

    plan: Plan
    layout: Layout | None
    untried: Layout
    forecast: Forecast
    trained: int = 0
    left: int = 0
    runs_left: int = 0


def outline(
    directory: Path,
    found: Remaining,
    staff: Staff,
    entries: Sequence[Entry],
    ready: Ready | str,
    model: str = "",
) -> Outline:
    """Say what a study would do.

    Parameters
    ----------
    directory : Path
        The study's.
    found : Remaining
        What is left of it.
    staff : Staff
        Its workers.
    entries : sequence of Entry
        Its journal so far.
    ready : Ready or str
        Its data, or why nothing can be reckoned with them yet.
    model : str
        SHA-256 of the builder's code, as far as it is known.
    """
    untried = staff.without_trial()
    file = staff.in_layout(untried)
    ahead, reached = found.ahead(file, entries), found.progress.reached
    told = forecast(file, directory, ahead, entries, ready, model)
    left = runs_left(ahead.runs, found.progress)
    return Outline(
        found.plan,
        staff.layout(),
        untried,
        told,
        trained=sum(done.to_epoch - done.from_epoch for done in of_kind(entries, TaskDone)),
        left=sum(run.milestones[-1] - reached.get(run.id, 0) for run in left),
        runs_left=len(left),
    )
