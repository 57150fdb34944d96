"""Workers that sleep for as long as training would take: how well the driver is foretold."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stormsweep import Study
from stormsweep.records import TaskDone
from stormsweep.results import facts
from stormsweep.results.journal import of_kind, read
from stormsweep.scaling import runtime
from stormsweep.scaling.beside import around, durations, parameters_of
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
    """Fit to journals of some numbers of workers, and foretell those of all."""
    journals = {count: _journal(work, count) for count in workers if (work / str(count)).is_dir()}
    entries = {count: read(path) for count, path in journals.items()}
    tables = [runtime.observations(entries[count], study=str(count)) for count in fitted]
    model = runtime.fit(pd.concat(tables, ignore_index=True))
    known = around(entries[max(fitted)])
    rows = []
    for count, path in journals.items():
        study = Study.from_toml(path.parent)
        plan = study.plan()
        patches = [int(size["epoch_patches"]) for size in facts.study(entries[count]).fold_sizes]
        machine = Machine.local(count, 1)
        said = durations(
            plan,
            patches,
            model,
            known,
            threads=1,
            workers=count,
            parameters=parameters_of(entries[count]),
            common=runtime.check(pd.concat(tables, ignore_index=True)).median,
        )
        # Nobody begins before all are there: what is foretold is what comes after that.
        found = foretell(plan, patches, said, machine, study.file.study.seed)
        done = of_kind(entries[count], TaskDone)
        measured = max(task.stopped for task in done) - min(task.submitted for task in done)
        rows.append(
            {
                "workers": count,
                "tasks": len(done),
                "fitted": count in fitted,
                "measured": measured,
                "foretold": list(found.makespan),
                "utilisation": sum(task.stopped - task.started for task in done) / measured / count,
                "utilisation_foretold": found.utilisation.median,
            }
        )
    return sorted(rows, key=lambda row: int(row["workers"]))


def _journal(work: Path, count: int) -> Path:
    return work / str(count) / "runs" / "asleep" / "journal.jsonl"
