"""scikit-learn: `GridSearchCV` with two jobs, which are processes; without the refit at the end."""

from __future__ import annotations

from estimator import KerasClassifier
from problem import WORKERS, arguments, load, write
from sklearn.model_selection import GridSearchCV


def main() -> None:
    folder, file = arguments()
    problem = load(folder)
    search = GridSearchCV(
        KerasClassifier(),
        problem.space,
        scoring="roc_auc",
        cv=problem.folds,
        n_jobs=WORKERS,
        refit=False,
        error_score="raise",
    )
    search.fit(problem.inputs, problem.labels)
    found = search.cv_results_
    scores = zip(found["params"], found["mean_test_score"], strict=True)
    write(file, "scikit-learn", scores, problem.space)


if __name__ == "__main__":
    main()
