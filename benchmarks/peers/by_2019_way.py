"""The 2019 study's own scripts, with a local cluster for Slurm's.

One Dask task a batch size, and in it `GridSearchCV` over the rest with ``n_jobs=-1``, which in a
worker that may not have children becomes one job. Two differences: the refit that nobody used is
left out, and the folds are those of the other peers.
"""

from __future__ import annotations

from typing import Any

from dask.distributed import Client, LocalCluster
from problem import WORKERS, arguments, load, write


def search(batch_size: int, folder: str) -> list[tuple[dict[str, Any], float]]:
    """Train the grid of one batch size; the task that a worker gets."""
    from estimator import KerasClassifier
    from sklearn.model_selection import GridSearchCV

    problem = load(folder)
    grid = {name: values for name, values in problem.space.items() if name != "batch_size"}
    inner = GridSearchCV(
        KerasClassifier(batch_size=batch_size),
        grid,
        scoring="roc_auc",
        cv=problem.folds,
        n_jobs=-1,
        refit=False,
        error_score="raise",
    )
    inner.fit(problem.inputs, problem.labels)
    found = inner.cv_results_
    return [
        ({"batch_size": batch_size, **values}, float(score))
        for values, score in zip(found["params"], found["mean_test_score"], strict=True)
    ]


def main() -> None:
    folder, file = arguments()
    space = load(folder).space
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        grids = client.map(search, space["batch_size"], folder=str(folder))
        scores = [pair for grid in client.gather(grids) for pair in grid]
    write(file, "distributed", scores, space)


if __name__ == "__main__":
    main()
