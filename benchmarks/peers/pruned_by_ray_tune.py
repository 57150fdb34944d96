"""Ray Tune: random search and `ASHAScheduler`, one core a trial, two cores.

The points are those that all tools begin, as `points_to_evaluate`; the arrays lie once in Ray's
object store.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from problem import WORKERS, Problem, arguments, climb, load
from pruned_search import (
    BATCH_SIZES,
    FILTERS,
    LEARNING_RATES,
    REDUCTION,
    RUNGS,
    note,
    noted,
    points,
    write,
)
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator


def train(config: dict[str, Any], problem: Problem, notes: str) -> None:
    """Train one configuration until the scheduler ends it; what a trial does."""
    filters = json.loads(config["filters"])
    for epochs, score in climb(
        problem, RUNGS, config["batch_size"], config["learning_rate"], filters
    ):
        note(Path(notes), config["point"], epochs, score)
        tune.report({"roc_auc": score, "epochs": epochs})


def main() -> None:
    folder, file = arguments()
    begun = [
        {**point, "filters": json.dumps(point["filters"]), "point": number}
        for number, point in enumerate(points(folder))
    ]
    notes = Path.cwd() / "notes.jsonl"
    ray.init(num_cpus=WORKERS, include_dashboard=False)
    tuner = tune.Tuner(
        tune.with_parameters(train, problem=load(folder), notes=str(notes)),
        param_space={
            "batch_size": tune.choice(BATCH_SIZES),
            "learning_rate": tune.loguniform(*LEARNING_RATES),
            "filters": tune.choice([json.dumps(filters) for filters in FILTERS]),
            "point": -1,
        },
        tune_config=tune.TuneConfig(
            metric="roc_auc",
            mode="max",
            num_samples=len(begun),
            search_alg=BasicVariantGenerator(points_to_evaluate=begun),
            scheduler=ASHAScheduler(
                time_attr="epochs",
                max_t=RUNGS[-1],
                grace_period=RUNGS[0],
                reduction_factor=REDUCTION,
            ),
        ),
        run_config=tune.RunConfig(name="pruned", storage_path=str(Path.cwd() / "results")),
    )
    tuner.fit()
    ray.shutdown()
    write(file, "ray", version("ray"), noted(notes))


if __name__ == "__main__":
    main()
