"""One pruned search by Optuna, Ray Tune and Stormsweep: how long until all are at the same score.

    python benchmarks/peers/pruned.py [--rounds 3] [--only NAME ...] [--points N] [--patches N]

Random search with asynchronous successive halving: the same points in the same order, reduction,
rungs, data, folds, network and two cores. A round has points of its own, and each tool runs once in
it, in random order. Finished repeats are kept in ``benchmarks/results/pruned.json`` and not run
again; the table goes to ``benchmarks/results/pruned.md``. Environments as for `run.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import data
from pruned_search import BATCH_SIZES, FILTERS, LEARNING_RATES, REDUCTION, RUNGS
from pruned_table import Search, page
from run import RESULTS, WORK, chosen, load, order, run, stop, tell, where, without
from tools import OURS, OURS_BFLOAT16, Tool

from stormsweep.files import write_json, write_text
from stormsweep.search.space import Interval
from stormsweep.search.strategies.fixed import propose

FOLDS = 3
TOOLS = (
    Tool("optuna", "pruned_by_optuna.py", "Optuna, SuccessiveHalvingPruner", "optuna"),
    Tool("ray-tune", "pruned_by_ray_tune.py", "Ray Tune, ASHAScheduler", "ray-tune"),
    Tool(OURS, "pruned_by_stormsweep.py", "Stormsweep, asha", arguments=("float32",)),
    Tool(
        OURS_BFLOAT16,
        "pruned_by_stormsweep.py",
        "Stormsweep, asha, bfloat16",
        arguments=("bfloat16",),
    ),
)
SEARCH = """\
[search]
strategy = "asha"
sampler = "random"
trials = {trials}
reduction = {reduction}

[search.space]
batch_size = {batch_sizes}
learning_rate = {{low = {low}, high = {high}, log = true}}
filters = {filters}
epochs = {rungs}"""


def main() -> None:
    asked = arguments()
    settings = {"patches": asked.patches, "points": asked.points, "rungs": list(RUNGS)}
    cores = chosen(asked.cores)
    state = load(asked.output / "pruned.json", settings) | where(cores)
    folder = WORK / f"pruned-{asked.patches}-{asked.points}"
    state["data"] = make(folder, asked.patches, asked.points, asked.rounds)
    todo = order(asked.rounds, asked.only, state["repeats"], TOOLS)
    for count, (number, tool) in enumerate(todo, 1):
        tell(f"[{count}/{len(todo)}] round {number}: {tool.name} ...")
        load_before, began = round(os.getloadavg()[0], 2), time.time()
        took, found = run(tool, number, folder, cores)
        record = {"tool": tool.name, "round": number, "began": began, "load": load_before}
        record |= {"problem": "", "scores": [], "version": "", **took, **(found or {})}
        state["repeats"] = [*without(state["repeats"], tool.name, number), record]
        save(asked.output, state)
        tell(f"    {record['problem'] or said(record)}")
    save(asked.output, state)
    print((asked.output / "pruned.md").read_text(encoding="utf-8"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [tool.name for tool in TOOLS]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--points", type=int, default=27, help="configurations that are begun")
    parser.add_argument("--patches", type=int, default=9500, help="of the twin, test part included")
    parser.add_argument("--cores", type=int, nargs="+", help="two of this machine's cores")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def make(folder: Path, patches: int, points: int, rounds: int) -> dict[str, Any]:
    """Write the data folder where it is missing, and into it our studies and the rounds' points."""
    size = data.make(folder, patches, {"epochs": list(RUNGS)}, FOLDS)
    search = SEARCH.format(
        trials=points,
        reduction=REDUCTION,
        batch_sizes=json.dumps(BATCH_SIZES),
        low=LEARNING_RATES[0],
        high=LEARNING_RATES[1],
        filters=json.dumps(FILTERS),
        rungs=json.dumps(RUNGS),
    )
    for precision in data.PRECISIONS:
        text = data.study(folder, patches, search, FOLDS, precision)
        write_text(folder / f"pruned-{precision}.toml", text)
    space = {
        "batch_size": list(BATCH_SIZES),
        "learning_rate": Interval(*LEARNING_RATES, log=True),
        "filters": [list(filters) for filters in FILTERS],
    }
    # What the study's own sampler proposes: our script fails if it ever begins another point.
    drawn = {str(seed): propose("random", space, points, seed) for seed in range(1, rounds + 1)}
    write_json(folder / "points.json", drawn)
    return size


def said(record: dict[str, Any]) -> str:
    search = Search.of(record)
    return f"{record['seconds']:.1f} s, {search.training} epochs, best ROC AUC {search.best:.4f}"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the results and the table, whole."""
    write_json(folder / "pruned.json", state)
    labels = {tool.name: tool.label for tool in TOOLS}
    write_text(folder / "pruned.md", page(state, labels, (OURS, OURS_BFLOAT16)))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("stopped; finished repeats are kept, the same command goes on") from None
