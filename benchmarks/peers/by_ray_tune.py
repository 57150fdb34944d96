"""Ray Tune: `grid_search` over each hyperparameter, one core a trial, two cores.

A trial is one configuration on all folds; the arrays lie once in Ray's object store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from problem import WORKERS, Problem, arguments, cross_validate, load, write
from ray import tune


def train(config: dict[str, Any], problem: Problem) -> None:
    """Train one configuration; what a trial does."""
    tune.report({"roc_auc": cross_validate(problem, **config)})


def main() -> None:
    folder, file = arguments()
    problem = load(folder)
    ray.init(num_cpus=WORKERS, include_dashboard=False)
    tuner = tune.Tuner(
        tune.with_parameters(train, problem=problem),
        param_space={name: tune.grid_search(values) for name, values in problem.space.items()},
        tune_config=tune.TuneConfig(metric="roc_auc", mode="max"),
        run_config=tune.RunConfig(name="peers", storage_path=str(Path.cwd() / "results")),
    )
    results = tuner.fit()
    scores = [(result.config, result.metrics["roc_auc"]) for result in results]
    ray.shutdown()
    write(file, "ray", scores, problem.space)


if __name__ == "__main__":
    main()
