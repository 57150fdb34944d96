"""Optuna: `GridSampler`, two processes on one study in a journal file.

A trial is one configuration on all folds. As its documentation says, the last configuration may be
trained by both processes.
"""

from __future__ import annotations

import multiprocessing

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from problem import WORKERS, arguments, cross_validate, load, write

JOURNAL = "journal.log"
NAME = "peers"


def storage() -> JournalStorage:
    return JournalStorage(JournalFileBackend(JOURNAL))


def optimize(folder: str) -> None:
    """Work on the shared study until its grid is done."""
    problem = load(folder)

    def objective(trial: optuna.Trial) -> float:
        values = {
            name: trial.suggest_categorical(name, choices)
            for name, choices in problem.space.items()
        }
        return cross_validate(problem, **values)

    study = optuna.load_study(
        study_name=NAME, storage=storage(), sampler=optuna.samplers.GridSampler(problem.space)
    )
    study.optimize(objective)


def main() -> None:
    folder, file = arguments()
    study = optuna.create_study(study_name=NAME, storage=storage(), direction="maximize")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=optimize, args=(str(folder),)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    write(file, "optuna", [(trial.params, trial.value) for trial in done], load(folder).space)


if __name__ == "__main__":
    main()
