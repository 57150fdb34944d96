"""Dask-ML: its `GridSearchCV` on a local cluster of two workers."""

from __future__ import annotations

from dask.distributed import Client, LocalCluster
from dask_ml.model_selection import GridSearchCV
from estimator import KerasClassifier
from problem import WORKERS, arguments, load, write


def main() -> None:
    folder, file = arguments()
    problem = load(folder)
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        search = GridSearchCV(
            KerasClassifier(), problem.space, scoring="roc_auc", cv=problem.folds, refit=False
        )
        search.fit(problem.inputs, problem.labels)
        found = search.cv_results_
    scores = zip(found["params"], found["mean_test_score"], strict=True)
    write(file, "dask-ml", scores, problem.space)


if __name__ == "__main__":
    main()
