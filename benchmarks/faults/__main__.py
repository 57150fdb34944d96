"""Run studies on a real Slurm under faults: ``python -m benchmarks.faults --help``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.slurm.cluster import MiniSlurm, why_not

from .campaign import Campaign, facts
from .kinds import KINDS, WALLTIME
from .table import table

RESULTS = Path(__file__).parents[1] / "results"


def main() -> int:
    """Run study after study until there were enough faults; go on where that stopped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=100, metavar="N", help="all together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, WALLTIME], metavar="KIND")
    parser.add_argument("--ways", nargs="+", choices=["run", "submit"], default=["run", "submit"])
    parser.add_argument("--a-study", type=int, default=12, help="faults a study at most")
    parser.add_argument("--epochs", type=int, default=60, help="from milestone to milestone")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no study after so many")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--keep", type=Path, help="keep the folders of studies with violations")
    parser.add_argument(
        "--add", nargs="+", type=Path, metavar="JSON", default=[], help="take in other results"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was found before")
    asked = parser.parse_args()
    reason = why_not()
    if reason is not None:
        print(f"no Slurm can be started here: {reason}", file=sys.stderr)
        return 2
    path = asked.output / "faults.json"
    settings = {"seed": asked.seed, "epochs": asked.epochs}
    told: dict[str, Any] = {"settings": settings, "studies": []}
    if path.is_file() and not asked.fresh:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["settings"] != settings:
            print(f"{path}: is of {told['settings']}; give the same, or --fresh", file=sys.stderr)
            return 2
    asked.output.mkdir(parents=True, exist_ok=True)
    for other in asked.add:
        more = json.loads(other.read_text(encoding="utf-8"))
        told = {**more, **told}
        told["studies"] += [{"seed": more["settings"]["seed"]} | one for one in more["studies"]]
    if asked.add:
        _write(told, asked.output)
        print(table(told))
        return 0
    until = time.monotonic() + 60 * asked.minutes
    kinds = asked.kinds or [*KINDS, WALLTIME]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, MiniSlurm() as slurm:
        known = {(run, epoch): scores for run, epoch, scores in told.get("reference", [])}
        campaign = Campaign(slurm, Path(folder), asked.epochs, kinds, asked.ways, asked.keep, known)
        told["reference"] = [[*key, scores] for key, scores in campaign.reference.items()]
        told["facts"] = facts(slurm)
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        while (left := asked.faults - _count(told)) > 0 and time.monotonic() < until:
            number = len(told["studies"]) + 1
            chance = random.Random(f"{asked.seed}-{number}")
            story = campaign.study(
                number, chance, min(left, asked.a_study), _so_far(told, campaign.kinds)
            )
            told["studies"].append({"seed": asked.seed} | dataclasses.asdict(story))
            _write(told, asked.output)
    print(table(told))
    return int(any(study["violations"] for study in told["studies"]))


def _write(told: dict[str, Any], output: Path) -> None:
    text = json.dumps(told, indent=1) + "\n"
    (output / "faults.json").write_text(text, encoding="utf-8")
    (output / "faults.md").write_text(table(told), encoding="utf-8")


def _count(told: dict[str, Any]) -> int:
    return sum(len(study["faults"]) for study in told["studies"])


def _so_far(told: dict[str, Any], kinds: list[str]) -> dict[str, int]:
    found = dict.fromkeys(kinds, 0)
    for study in told["studies"]:
        for fault in study["faults"]:
            if fault["kind"] in found:
                found[fault["kind"]] += 1
    return found


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        sys.exit(130)
