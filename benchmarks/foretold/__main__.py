"""Measure studies and foretell them: ``python -m benchmarks.foretold --help``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
#: Workers that sleep, and tasks of each; from the first two the others are foretold.
SLEEPING = {4: 40, 16: 40, 1: 80, 2: 80, 64: 40, 256: 40}
FITTED = (4, 16)


def main() -> None:
    """Measure each case in a process of its own, then foretell all, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.foretold", description=__doc__)
    parser.add_argument("--only", nargs="*", type=int, choices=SLEEPING, help="workers that sleep")
    parser.add_argument(
        "--studies",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="directories of one study after another, run on this machine in several layouts",
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the studies' data")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--note", help="what readers must know of how this was measured")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        from benchmarks.foretold.sleeping import measure

        measure(asked.one, SLEEPING[asked.one], asked.work)
        return
    for workers in SLEEPING if asked.only is None else asked.only:
        command = [sys.executable, "-m", "benchmarks.foretold", "--work", str(asked.work)]
        subprocess.run([*command, "--one", str(workers)], check=True)
    path = asked.output / "foretold.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    from benchmarks.foretold import real, sleeping, table

    if all((asked.work / str(workers)).is_dir() for workers in FITTED):
        found["sleeping"] = sleeping.foretold(asked.work, FITTED, list(SLEEPING))
    if asked.studies:
        found["real"] = real.foretold(asked.studies)
    if asked.note:
        found["note"] = asked.note
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = table.of(found)
    (asked.output / "foretold.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
