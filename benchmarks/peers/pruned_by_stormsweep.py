"""Stormsweep: ASHA over random search, the study file of the data folder, in one precision.

    pruned_by_stormsweep.py DATA_FOLDER OUT.json float32|bfloat16

The points follow from the study's seed, PEERS_SEED; the peers are given the same ones.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pruned_search import Score, points, write

from stormsweep import Study, __version__
from stormsweep.config.load import load_study
from stormsweep.records import TaskDone
from stormsweep.results import facts


def main() -> None:
    folder, out, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    path = folder / f"pruned-{precision}.toml"
    file = load_study(path)
    seeded = file.study.model_copy(update={"seed": int(os.environ["PEERS_SEED"])})
    study = Study(file.model_copy(update={"study": seeded}), path, Path("pruned"))
    outcome = study.run()
    if outcome.failed:
        raise SystemExit(f"failed: {outcome.failed[0].reason}")
    write(out, "stormsweep", __version__, scores(study, points(folder)))


def scores(study: Study, begun: list[dict[str, object]]) -> list[Score]:
    """Return when each configuration had its last fold's score at each rung, from the journal."""
    entries = study.entries()
    plans = facts.planned_runs(entries)
    metric, folds = facts.study(entries).metric, facts.study(entries).folds
    found: dict[tuple[int, int], dict[int, tuple[float, float]]] = {}
    for entry in entries:
        if isinstance(done := entry.record, TaskDone) and done.scores:
            plan = plans[done.run]
            point = begun.index({name: plan.hyperparameters[name] for name in begun[0]})
            by_fold = found.setdefault((point, done.to_epoch), {})
            by_fold[plan.fold] = entry.time, done.scores[metric]
    return [
        Score(
            max(time for time, _ in by_fold.values()),
            point,
            epochs,
            sum(score for _, score in by_fold.values()) / folds,
        )
        for (point, epochs), by_fold in found.items()
        if len(by_fold) == folds
    ]


if __name__ == "__main__":
    main()
