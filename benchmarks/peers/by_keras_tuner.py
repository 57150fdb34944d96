"""Keras Tuner: `GridSearch` with `run_trial` overridden, its way to cross-validate.

One process; TensorFlow has two threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras_tuner
from problem import Problem, arguments, cross_validate, load, write


class CrossValidated(keras_tuner.GridSearch):
    """A grid search whose trial is one configuration on all folds."""

    def run_trial(self, trial: Any, problem: Problem) -> dict[str, float]:
        values = {name: trial.hyperparameters.get(name) for name in problem.space}
        return {"roc_auc": cross_validate(problem, **values)}


def main() -> None:
    folder, file = arguments()
    problem = load(folder)
    space = keras_tuner.HyperParameters()
    for name, values in problem.space.items():
        space.Choice(name, values)
    tuner = CrossValidated(
        hyperparameters=space,
        objective=keras_tuner.Objective("roc_auc", "max"),
        directory=Path.cwd(),
        project_name="peers",
    )
    tuner.search(problem)
    trials = tuner.oracle.get_best_trials(num_trials=1_000_000)
    scores = [(trial.hyperparameters.values, trial.score) for trial in trials]
    write(file, "keras-tuner", scores, problem.space)


if __name__ == "__main__":
    main()
