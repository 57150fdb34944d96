"""Train grids whole, replay strategies on them: ``python -m benchmarks.halving --help``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.halving import figure, grid, replays, table
from stormsweep.scaling.replay import Answers

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    """Train what is not on record, replay, write the table, the figures and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.halving", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="one grid each")
    parser.add_argument("--orders", type=int, default=50, help="seeds of each strategy, a grid")
    parser.add_argument("--work", type=Path, required=True, help="folder for the studies' data")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--real", action="store_true", help="train ASHA too, not only replay it")
    parser.add_argument("--note", help="what readers must know of how this was measured")
    asked = parser.parse_args()
    found: dict[str, Any] = {"orders": asked.orders, "grids": {}}
    curves: dict[str, Any] = {}
    for seed in asked.seeds:
        answers = Answers.of(grid.train(seed, asked.work))
        search = grid.file(seed, asked.work).search
        rows = replays.table(search, answers, asked.orders)
        equal = replays.equal_trials(search, answers, min(asked.orders, replays.SEEDS))
        found["grids"][str(seed)] = {"grid": replays.about(answers), "rows": rows, "equal": equal}
        curves[str(seed)] = replays.random_curves(search, answers, asked.orders)
    found["together"] = together([one["rows"] for one in found["grids"].values()])
    found["equal"] = replays.together_equal([one["equal"] for one in found["grids"].values()])
    if asked.real:
        found["real"] = [
            replays.real(
                seed,
                Answers.of(grid.train(seed, asked.work)),
                grid.search(seed, asked.work),
            )
            for seed in asked.seeds
        ]
    if asked.note:
        found["note"] = asked.note
    (asked.output / "halving.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    figure.write(found, curves, asked.output / "halving.png")
    text = table.of(found)
    (asked.output / "halving.md").write_text(text, encoding="utf-8")
    print(text)


def together(grids: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of all grids as one: means over grids, the greatest of what is most."""
    rows = []
    for same in zip(*grids, strict=True):
        row: dict[str, Any] = {"name": same[0]["name"]}
        for key, value in same[0].items():
            if isinstance(value, float):
                take = max if key.endswith("_most") else np.mean
                row[key] = float(take([one[key] for one in same]))
        row["regret"] = np.mean([one["regret"] for one in same], axis=0).tolist()
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
