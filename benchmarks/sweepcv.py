"""How long SweepSearchCV takes for what GridSearchCV does, with a directory and without.

    python benchmarks/sweepcv.py [--rounds 3] [--only "many short fits"] [--small]

Searches on scikit-learn's own data sets, with two workers and the same folds, each in a process of
its own, in turn, `--rounds` times: the time is that of the whole process, imports and the refit of
the best included. The scores of all are compared to the last bit; where any differ, the exit code
is 1. Prints a Markdown page and writes it to ``benchmarks/results/sweepcv.md``, every measurement
to ``sweepcv.json``. ``--small`` takes parts of the grids: to see it run, not to measure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stormsweep import __version__
from stormsweep.cluster import machine
from stormsweep.files import write_json, write_text

RESULTS = Path(__file__).resolve().parent / "results"
WORKERS, FOLDS = 2, 5
THEIRS, OURS, KEPT = "GridSearchCV", "SweepSearchCV", "SweepSearchCV, directory"
WAYS = (THEIRS, OURS, KEPT)
#: What is searched: the data, the estimator, the grid.
CASES: dict[str, tuple[str, str, dict[str, list[Any]]]] = {
    "many short fits": (
        "breast cancer",
        "logistic regression",
        {"C": np.geomspace(1e-4, 1e2, 400).tolist()},
    ),
    "long fits": (
        "digits",
        "random forest",
        {"max_features": [4, 8, 16, 32], "min_samples_leaf": [1, 2, 4]},
    ),
    "a pipeline": (
        "digits",
        "scaler, PCA, SVC",
        {
            "pca__n_components": [16, 32, 48],
            "svc__C": [0.1, 1.0, 10.0],
            "svc__gamma": [0.003, 0.01, 0.03],
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--small", action="store_true", help="parts of the grids, to see it run")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        case, way, directory = asked.one
        print(json.dumps(search(case, way, directory or None, asked.small)))
        return
    asked.output.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(asked.rounds):
        for case in asked.only:
            # Each way comes first in its turn.
            for way in (*WAYS[number % len(WAYS) :], *WAYS[: number % len(WAYS)]):
                found.append({"round": number} | measure(case, way, asked.output, asked.small))
                told = f"{found[-1]['seconds']:.1f} s"
                print(time.strftime("%H:%M:%S"), number + 1, case, way, told, file=sys.stderr)
    text = page(found, asked.small)
    print(text)
    write_text(asked.output / "sweepcv.md", text)
    write_json(asked.output / "sweepcv.json", found)
    if not all(map(equal, *of_all_ways(found))):
        raise SystemExit("the scores differ")


def measure(case: str, way: str, output: Path, small: bool) -> dict[str, Any]:
    """Search in a process of its own, and say how long that took."""
    load = os.getloadavg()[0]
    # Beside the results: a directory in memory would be synced for nothing.
    with tempfile.TemporaryDirectory(dir=output, prefix=".sweepcv-") as folder:
        command = [sys.executable, __file__, *(["--small"] if small else [])]
        command += ["--one", case, way, folder if way == KEPT else ""]
        began = time.perf_counter()
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        seconds = time.perf_counter() - began
    told = json.loads(done.stdout.splitlines()[-1])
    return {"case": case, "way": way, "seconds": seconds, "load_before": load} | told


def search(case: str, way: str, directory: str | None, small: bool) -> dict[str, Any]:
    """Search in this process; return the times, and what tells whether scores are the same."""
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    data, kind, grid = CASES[case]
    X, y = {"breast cancer": load_breast_cancer, "digits": load_digits}[data](return_X_y=True)
    estimator = {
        "logistic regression": LogisticRegression(max_iter=1000),
        "random forest": RandomForestClassifier(10 if small else 500, random_state=0),
        "scaler, PCA, SVC": make_pipeline(StandardScaler(), PCA(random_state=0), SVC()),
    }[kind]
    if kind == "logistic regression":
        X = StandardScaler().fit_transform(X)
    if small:
        grid = {name: values[:2] for name, values in grid.items()}
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    if way == THEIRS:
        found = GridSearchCV(estimator, grid, cv=folds, n_jobs=WORKERS)
    else:
        from stormsweep import SweepSearchCV

        found = SweepSearchCV(estimator, grid, cv=folds, n_jobs=WORKERS, directory=directory)
    found.fit(X, y)
    results = found.cv_results_
    scores = np.array([results[f"split{fold}_test_score"] for fold in range(FOLDS)])
    return {
        "fits": scores.size,
        "fit_seconds": float(FOLDS * (results["mean_fit_time"] + results["mean_score_time"]).sum()),
        "best_score": float(found.best_score_),
        "scores": hashlib.sha256(scores.tobytes()).hexdigest(),
    }


def of_all_ways(found: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return, for each way, what was measured, in the same order of cases and rounds."""
    ordered = sorted(found, key=lambda one: (list(CASES).index(one["case"]), one["round"]))
    return [[one for one in ordered if one["way"] == way] for way in WAYS]


def equal(*measured: dict[str, Any]) -> bool:
    return len({one["scores"] for one in measured}) == 1


def page(found: Sequence[dict[str, Any]], small: bool) -> str:
    rounds = len({one["round"] for one in found})
    loads = [one["load_before"] for one in found]
    lines = [
        f"GridSearchCV and SweepSearchCV with n_jobs={WORKERS}, {FOLDS} folds, "
        f"{machine.cores()} cores, {machine.processor()}, Stormsweep {__version__}; median "
        f"and range, rounds: {rounds}; load before: {min(loads):.1f} to {max(loads):.1f}.",
        *(["", "PARTS OF THE GRIDS (--small): these figures say nothing."] if small else []),
        "",
        "| search | fits | a fit, ms | way | whole process, s | of GridSearchCV's, same round "
        "| more a fit than GridSearchCV, ms | scores |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in dict.fromkeys(one["case"] for one in found):
        data, kind, _ = CASES[case]
        own = of_all_ways([one for one in found if one["case"] == case])
        theirs = [one["seconds"] for one in own[0]]
        for way, measured in zip(WAYS, own, strict=True):
            fits, took = measured[0]["fits"], [one["seconds"] for one in measured]
            pairs = list(zip(took, theirs, strict=True))
            same = all(map(equal, own[0], measured))
            each = statistics.median(1e3 * one["fit_seconds"] / fits for one in measured)
            cells = [f"{case}: {kind}, {data}", f"{fits:,}", f"{each:.1f}", way]
            cells += [spread(took, ".1f")]
            if way == THEIRS:
                cells += ["1", "0", ""]
            else:
                cells += [spread([one / other for one, other in pairs], ".2f")]
                cells += [spread([1e3 * (one - other) / fits for one, other in pairs], "+.1f")]
                cells += ["equal to the bit" if same else "**differ**"]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "A process of its own for each search, from start to end: imports, workers, and the",
        "refit of the best. A fit's time is what `cv_results_` says of fitting and scoring.",
        "SweepSearchCV begins in its own process, and has workers come where that pays; with a",
        "directory every score is synced to the disk that the results lie on.",
        "",
    ]
    return "\n".join(lines)


def spread(values: Sequence[float], form: str) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


if __name__ == "__main__":
    main()
