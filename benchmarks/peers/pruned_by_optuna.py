"""Optuna: `RandomSampler` and `SuccessiveHalvingPruner`; two processes, one study in a journal.

The points are those that all tools begin: they are enqueued, as Optuna's documentation does it.
"""

from __future__ import annotations

import json
import multiprocessing
from importlib.metadata import version
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from problem import WORKERS, arguments, climb, load
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

NAME = "pruned"
NOTES = Path("notes.jsonl")


def storage() -> JournalStorage:
    return JournalStorage(JournalFileBackend("journal.log"))


def optimize(folder: str) -> None:
    """Work on the shared study until no point waits."""
    problem = load(folder)

    def objective(trial: optuna.Trial) -> float:
        batch_size = trial.suggest_categorical("batch_size", BATCH_SIZES)
        learning_rate = trial.suggest_float("learning_rate", *LEARNING_RATES, log=True)
        filters = json.loads(trial.suggest_categorical("filters", [*map(json.dumps, FILTERS)]))
        score = float("nan")
        for epochs, score in climb(problem, RUNGS, batch_size, learning_rate, filters):
            note(NOTES, trial.number, epochs, score)
            trial.report(score, epochs)
            if epochs < RUNGS[-1] and trial.should_prune():
                raise optuna.TrialPruned
        return score

    study = optuna.load_study(
        study_name=NAME,
        storage=storage(),
        sampler=optuna.samplers.RandomSampler(),
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=RUNGS[0], reduction_factor=REDUCTION
        ),
    )
    while study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
        study.optimize(objective, n_trials=1)


def main() -> None:
    folder, file = arguments()
    study = optuna.create_study(study_name=NAME, storage=storage(), direction="maximize")
    for point in points(folder):
        study.enqueue_trial({**point, "filters": json.dumps(point["filters"])})
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=optimize, args=(str(folder),)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    write(file, "optuna", version("optuna"), noted(NOTES))


if __name__ == "__main__":
    main()
