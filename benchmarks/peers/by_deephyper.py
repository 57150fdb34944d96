"""DeepHyper: the process evaluator with two workers, the grid given as initial points.

Its own grid design spaces points evenly in a box and knows no lists of values, so the points are
handed to its experimental-design search. A job is one configuration on all folds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deephyper.evaluator import Evaluator
from deephyper.hpo import ExperimentalDesignSearch, HpProblem
from problem import WORKERS, arguments, configurations, cross_validate, load, write


def run(job: Any, folder: str) -> float:
    """Train one configuration; what a job does."""
    problem = load(folder)
    values = {name: job.parameters[name] for name in problem.space}
    return cross_validate(problem, **values)


def main() -> None:
    folder, file = arguments()
    space = load(folder).space
    hyperparameters = HpProblem()
    for name, values in space.items():
        hyperparameters.add_hyperparameter(values, name)
    evaluator = Evaluator.create(
        run,
        method="process",
        method_kwargs={"num_workers": WORKERS, "run_function_kwargs": {"folder": str(folder)}},
    )
    points = configurations(space)
    search = ExperimentalDesignSearch(
        hyperparameters,
        log_dir=str(Path.cwd()),
        n_points=len(points),
        initial_points=points,
    )
    done = search.search(evaluator, max_evals=len(points))
    scores = [
        ({name: row[f"p:{name}"] for name in space}, row["objective"])
        for row in done.to_dict("records")
    ]
    write(file, "deephyper", scores, space)


if __name__ == "__main__":
    main()
