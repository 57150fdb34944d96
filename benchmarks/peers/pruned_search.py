"""The pruned search: its space, its points and rungs, and what each tool writes down of it.

Knows nothing of Stormsweep nor of any peer.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REDUCTION = 3
RUNGS = (1, 3, 9)
LEARNING_RATES = (0.0003, 0.03)
BATCH_SIZES = (128, 512)
FILTERS = ((4, 8, 16), (8, 16, 32))


@dataclass(frozen=True)
class Score:
    """A configuration was scored on all folds.

    Attributes
    ----------
    time : float
        When, seconds since 1970.
    point : int
        Number of the configuration.
    epochs : int
        The rung.
    roc_auc : float
        Mean over the folds.
    """

    time: float
    point: int
    epochs: int
    roc_auc: float


def points(folder: Path) -> list[dict[str, Any]]:
    """Return the configurations of PEERS_SEED, in the order in which all tools begin them."""
    seeds = json.loads((folder / "points.json").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = seeds[os.environ["PEERS_SEED"]]
    return found


def note(file: Path, point: int, epochs: int, roc_auc: float) -> None:
    """Add a score to what a peer has found so far; whole lines, from any number of processes."""
    line = json.dumps([time.time(), point, epochs, roc_auc]) + "\n"
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def write(file: Path, package: str, version: str, scores: list[Score]) -> None:
    """Write all that a tool found."""
    rows = [[one.time, one.point, one.epochs, one.roc_auc] for one in sorted_by_time(scores)]
    file.write_text(
        json.dumps({"version": f"{package} {version}", "scores": rows}), encoding="utf-8"
    )


def noted(file: Path) -> list[Score]:
    """Return what was noted."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [Score(*json.loads(line)) for line in lines]


def sorted_by_time(scores: list[Score]) -> list[Score]:
    """Return them in the order in which they were found."""
    return sorted(scores, key=lambda score: score.time)
