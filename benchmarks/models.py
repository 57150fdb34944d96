"""How far the models of scaling and of run time are off: two tables.

    python -m benchmarks.models coverage
    python -m benchmarks.models runtime runs/quickstart runs/other ...

The first fits the laws to synthetic times whose truth is known, and counts how often intervals
hold it. The second fits the run time to journals of real studies, of any layouts, and foretells
what was left out of the fit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from stormsweep.errors import UserError
from stormsweep.results.journal import read
from stormsweep.scaling import laws, runtime

LEVEL = 0.9
CASES: list[tuple[str, tuple[float, ...], list[int], int]] = [
    ("amdahl", (0.0,), [1, 2, 4, 8], 3),
    ("amdahl", (0.05,), [1, 2, 4, 8], 3),
    ("amdahl", (0.05,), [1, 2, 4], 1),
    ("gustafson", (0.1,), [1, 2, 4, 8], 3),
    ("usl", (0.0, 0.0), [1, 2, 4, 8], 3),
    ("usl", (0.05, 0.0), [1, 2, 4, 8], 3),
    ("usl", (0.0, 0.005), [1, 2, 4, 8], 3),
    ("usl", (0.05, 0.001), [1, 2, 4, 8], 3),
    ("usl", (0.05, 0.001), [1, 2, 4, 8], 1),
    ("usl", (0.05, 0.001), [1, 2, 4, 8, 16, 32], 5),
]


def coverage(sets: int, noise: float) -> None:
    """Print how often intervals of 90 % hold the truth."""
    print(f"Times with {noise:.0%} noise, {sets} sets a row, intervals of {LEVEL:.0%}:\n")
    print(
        "| law | truth | workers | repeats | parameters | speed-up of most | of 4 times as many |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, truth, counts, repeats in CASES:
        law, n = getattr(laws, name), np.repeat(counts, repeats)
        most, hits, held = max(counts), np.zeros(len(truth)), np.zeros(2)
        for seed in range(sets):
            rng = np.random.default_rng(seed)
            times = 100.0 * (n if name == "gustafson" else 1) / law(n, *truth)
            times = times * np.exp(noise * rng.standard_normal(len(n)))
            found = laws.fit(n, times, name, 500, seed, LEVEL)
            for place, (low, high) in enumerate(found.intervals.values()):
                hits[place] += low <= truth[place] <= high
            for place, workers in enumerate((most, 4 * most)):
                low, high = found.interval(workers)
                held[place] += low - 1e-9 <= law(workers, *truth) <= high + 1e-9
        shares = ", ".join(f"{hit / sets:.0%}" for hit in hits)
        said = ", ".join(f"{value:g}" for value in truth)
        print(
            f"| {name} | {said} | {', '.join(map(str, counts))} | {repeats} | {shares} "
            f"| {held[0] / sets:.0%} | {held[1] / sets:.0%} |"
        )


def foretell(folders: list[Path]) -> None:
    """Print how far off runs, batch sizes and layouts are foretold that the fit had not."""
    tables = []
    for folder in folders:
        said = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        tables.append(runtime.observations(read(folder / "journal.jsonl"), said, str(folder)))
    table = pd.concat(tables, ignore_index=True)
    found = runtime.fit(table)
    seconds = table["seconds"].sum()
    print(f"{found.runs} runs, {found.stretches} stretches, {seconds:.0f} s; {found.kind}\n")
    print("| left out together | median error | 90th percentile | of all seconds |")
    print("| --- | --- | --- | --- |")
    for words, by in (
        ("runs", ("study", "run")),
        ("a batch size", ("batch_size",)),
        ("a model", ("parameters",)),
        ("a layout", ("workers", "threads")),
    ):
        try:
            checked = runtime.check(table, by)
        except UserError:
            continue
        print(f"| {words} | {checked.median:.1%} | {checked.tail:.1%} | {checked.bias:+.1%} |")
    print("\n| fitted on (workers x threads) | tried on | median error | of all seconds |")
    print("| --- | --- | --- | --- |")
    layouts = sorted({*zip(table["workers"], table["threads"], strict=True)})
    for one in layouts:
        for other in layouts:
            known, tried = (table[_of(table, *layout)] for layout in (one, other))
            if one == other:
                continue
            model = runtime.fit(known)
            runs = tried.assign(foretold=model.foretold(tried)).groupby(["study", "run"])
            sums = runs[["seconds", "foretold"]].sum()
            errors = (sums["foretold"] / sums["seconds"] - 1).abs()
            whole = sums["foretold"].sum() / sums["seconds"].sum() - 1
            print(
                f"| {one[0]} x {one[1]} | {other[0]} x {other[1]} | {errors.median():.1%} "
                f"| {whole:+.1%} |"
            )
    print("\n| term | fitted | |\n| --- | --- | --- |")
    for name, value in found.terms.items():
        print(f"| {name} | {value:.3g} | {found.units[name]} |")
    print(f"| contention | {found.contention:.3g} | share a busy neighbour adds |")
    print(f"| scatter | {found.scatter.tasks:.3g} | between tasks |")
    print(f"| scatter | {found.scatter.workers:.3g} | between workers |")


def _of(table: pd.DataFrame, workers: int, threads: int) -> pd.Series:
    return (table["workers"] == workers) & (table["threads"] == threads)


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    which = parser.add_subparsers(dest="which", required=True)
    of_laws = which.add_parser("coverage")
    of_laws.add_argument("--sets", type=int, default=1000)
    of_laws.add_argument("--noise", type=float, default=0.05)
    of_time = which.add_parser("runtime")
    of_time.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args()
    if given.which == "coverage":
        coverage(given.sets, given.noise)
    else:
        foretell(given.folders)


if __name__ == "__main__":
    main()
