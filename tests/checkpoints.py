"""What checkpoints a study has, and which it is to keep."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stormsweep.records import RunPlanned
from stormsweep.results.facts import planned_runs
from stormsweep.results.journal import read
from stormsweep.training.checkpoint import path_of
from stormsweep.work import Run


def kept(directory: Path) -> set[str]:
    """Return the names of all files among a study's checkpoints."""
    return {path.name for path in (directory / "checkpoints").iterdir()}


def last(runs: Iterable[Run | RunPlanned]) -> set[str]:
    """Return the names of the checkpoints that runs end with: what a study goes on from."""
    return {
        path_of(Path(), run.id if isinstance(run, Run) else run.run, run.milestones[-1]).name
        for run in runs
    }


def planned(directory: Path) -> list[RunPlanned]:
    """Return the runs that a journal says are planned."""
    return list(planned_runs(read(directory / "journal.jsonl")).values())
