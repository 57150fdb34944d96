"""Workers that sleep for as long as training would take: how well the driver is foretold."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep import Study
from stormsweep.records import TaskDone
from stormsweep.results import facts
from stormsweep.results.journal import of_kind, read
from stormsweep.scaling.beside import around
from stormsweep.scaling.durations import Durations
from stormsweep.scaling.foretold import foretell
from stormsweep.scaling.machine import Machine

#: A task sleeps between these, in seconds.
_SHORTEST, _LONGEST = 0.5, 1.5


def measure(workers: int, each: int, work: Path) -> None:
    """Run a study on workers that sleep, with so many tasks for each of them."""
    from benchmarks.driver.session import Case
    from benchmarks.driver.session import measure as run

    folder = work / str(workers)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tasks = max(80, -(-workers * each // 80) * 80)
    run(Case(workers, tasks, _SHORTEST, _LONGEST), folder)


def foretold(work: Path, fitted: Sequence[int], workers: Sequence[int]) -> list[dict[str, Any]]:
    """Fit to journals of some numbers of workers, and foretell those of all.

    Of tasks that sleep there is nothing to fit but their mean and their scatter: what is tried here
    is the queue, the driver and the way between tasks.
    """
    entries = {count: read(path) for count in workers if (path := _journal(work, count)).is_file()}
    seconds = np.concatenate([_seconds(of_kind(entries[count], TaskDone)) for count in fitted])
    known = around([entry for count in fitted for entry in entries[count]])
    rows = []
    for count, own in entries.items():
        study = Study.from_toml(_journal(work, count).parent)
        plan, done = study.plan(), of_kind(own, TaskDone)
        runs = len(plan.runs)
        # Milestones are 5 epochs apart.
        said = Durations(
            epoch=[float(seconds.mean()) / 5] * runs,
            before=[0.0] * runs,
            ending=[0.0] * runs,
            compiling=[0.0] * runs,
            program=[0] * runs,
            scatter=float(np.log(seconds).std()),
            dispatch=known.dispatch,
            driver=known.driver,
        )
        patches = [int(size["epoch_patches"]) for size in facts.study(own).fold_sizes]
        # Nobody begins before all are there: what is foretold is what comes after that.
        found = foretell(plan, patches, said, Machine.local(count, 1), study.file.study.seed)
        measured = max(task.stopped for task in done) - min(task.submitted for task in done)
        rows.append(
            {
                "workers": count,
                "tasks": len(done),
                "fitted": count in fitted,
                "measured": measured,
                "foretold": list(found.makespan),
                "utilisation": float(_seconds(done).sum()) / measured / count,
                "utilisation_foretold": found.utilisation.median,
            }
        )
    return sorted(rows, key=lambda row: int(row["workers"]))


def _seconds(done: Sequence[TaskDone]) -> NDArray[np.float64]:
    return np.array([task.stopped - task.started for task in done])


def _journal(work: Path, count: int) -> Path:
    return work / str(count) / "runs" / "asleep" / "journal.jsonl"
