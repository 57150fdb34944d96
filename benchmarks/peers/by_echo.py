"""ECHO (NCAR's echo-opt): two `echo-run` on one study, as its job scripts start them on a node.

The objective stands in `echo_objective.py`, as ECHO asks. A trial is one configuration on all
folds; as with Optuna, which it wraps, the last configuration may be trained twice.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import optuna
from problem import WORKERS, arguments, load, write

HERE = Path(__file__).resolve().parent


def main() -> None:
    folder, file = arguments()
    space = load(folder).space
    trials = 1
    for values in space.values():
        trials *= len(values)
    hyperparameters = {
        "log": True,
        "save_path": str(Path.cwd()),
        "optuna": {
            "study_name": "peers",
            "storage": "peers.db",
            "storage_type": "sqlite",
            "objective": str(HERE / "echo_objective.py"),
            "direction": "maximize",
            "metric": "roc_auc",
            "n_trials": trials,
            "gpu": False,
            "sampler": {"type": "GridSampler", "search_space": space},
            "parameters": {
                name: {"type": "categorical", "settings": {"name": name, "choices": values}}
                for name, values in space.items()
            },
        },
    }
    model = {"data": str(folder), **{name: values[0] for name, values in space.items()}}
    # JSON is YAML.
    Path("hyperparameter.yml").write_text(json.dumps(hyperparameters), encoding="utf-8")
    Path("model.yml").write_text(json.dumps(model), encoding="utf-8")
    storage = "sqlite:///peers.db"
    # Made once before the two begin: both at once would make the tables, and one of them fail.
    study = optuna.create_study(study_name="peers", storage=storage, direction="maximize")
    command = [str(Path(sys.executable).parent / "echo-run"), "hyperparameter.yml", "model.yml"]
    workers = [subprocess.Popen([*command, "-n", str(number)]) for number in range(WORKERS)]
    for worker in workers:
        worker.wait()
    done = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    write(file, "echo-opt", [(trial.params, trial.value) for trial in done], space)


if __name__ == "__main__":
    main()
