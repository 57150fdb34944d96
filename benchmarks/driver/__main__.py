"""Measure the driver on workers that sleep: ``python -m benchmarks.driver --help``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
#: Workers, tasks, and how long a task sleeps at least and at most.
CASES = {
    "64-1s": (64, 5_760, 0.9, 1.1),
    "256-1s": (256, 23_040, 0.9, 1.1),
    "64-0.1s": (64, 12_800, 0.09, 0.11),
    "256-0.1s": (256, 25_600, 0.09, 0.11),
    "100000": (256, 100_000, 0.0, 0.05),
}


def main() -> None:
    """Measure each case in a process of its own, and write the table anew after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.driver", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--profile", type=Path, help="profile the driver too, into this folder")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(_measure(asked.one, asked.profile)))
        return
    path = asked.output / "driver.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for name in asked.only:
        command = [sys.executable, "-m", "benchmarks.driver", "--one", name]
        if asked.profile:
            command += ["--profile", str(asked.profile / name)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        asked.output.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        text = _table(found)
        (asked.output / "driver.md").write_text(text, encoding="utf-8")
    print(text)


def _measure(name: str, profile: Path | None) -> dict[str, Any]:
    import dataclasses

    from benchmarks.driver.session import Case, measure
    from stormsweep.cluster import machine

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        case = Case(*CASES[name])
        measured = measure(case, Path(folder), profile)
    return {
        **dataclasses.asdict(case),
        **dataclasses.asdict(measured),
        "processor": machine.processor(),
        "cores": machine.cores(),
        "load_before": load,
        "profiled": profile is not None,
        # Of cases without this, tasks left an empty file: see `_warning`.
        "checkpoints_written": True,
    }


def _table(found: dict[str, Any]) -> str:
    any_ = next(iter(found.values()))
    lines = [
        f"The driver, {any_['cores']} cores for it and for all worker processes, "
        f"{any_['processor']}.",
        "",
        *_warning(found),
        "| workers | a task sleeps, s | tasks | wall, s | efficiency | tasks/s | driver, ms a task "
        "| workers, ms a task | driver's memory, MB | journal, bytes a task | workers there, s |",
        "| " + "--- | " * 10 + "--- |",
    ]
    for case in (found[name] for name in CASES if name in found):
        tasks = case["tasks"]
        lines.append(
            f"| {case['workers']} | {case['shortest']:g} to {case['longest']:g} | {tasks:,} "
            f"| {case['wall']:.1f} | {case['efficiency']:.1%} | {tasks / case['wall']:,.0f} "
            f"| {1000 * case['driver_cpu'] / tasks:.2f} | {1000 * case['workers_cpu'] / tasks:.2f} "
            f"| {case['memory_at'][0]:.0f}, {case['memory_at'][-1]:.0f}, {case['memory_mb']:.0f} "
            f"| {case['journal_mb'] * 2**20 / tasks:,.0f} | {case['before']:.0f} |"
        )
    lines += [
        "",
        "Efficiency: seconds to sleep over workers times wall, from the first task sent to the",
        "last result on record. Milliseconds are of processor time between these two: the driver's",
        "hold Dask's scheduler and nannies, the workers' what they do while they sleep. Memory:",
        "when a tenth of the tasks was done, when all were, and the peak, imports included. It",
        "grows with the plan, of which each configuration's scores are part, not with the journal.",
    ]
    return "\n".join(lines) + "\n"


def _warning(found: dict[str, Any]) -> list[str]:
    """Say which cases were measured before tasks wrote checkpoints; nothing, if none was."""
    old = [name for name in CASES if name in found and not found[name].get("checkpoints_written")]
    if not old:
        return []
    which = "All rows" if len(old) == len(found) else f"The rows of the cases {', '.join(old)}"
    return [
        f"**{which} were measured when a task left an empty file as its checkpoint.** Tasks of a",
        "real study write and sync theirs, and so do those of this benchmark since 26 November",
        "2026: for 256 workers, two slower cores then gave a clearly lower efficiency",
        "([figures](../README.md#the-driver)).",
        "",
    ]


if __name__ == "__main__":
    main()
