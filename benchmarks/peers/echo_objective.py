"""What ECHO loads by its path: a class `Objective` whose `train` returns the metric."""

from __future__ import annotations

from typing import Any

from echo.src.base_objective import BaseObjective
from problem import cross_validate, load


class Objective(BaseObjective):
    """One configuration on all folds."""

    def __init__(self, config: dict[str, Any], metric: str = "roc_auc") -> None:
        BaseObjective.__init__(self, config, metric)

    def train(self, trial: Any, conf: dict[str, Any]) -> dict[str, float]:
        problem = load(conf["data"])
        values = {name: trial.params[name] for name in problem.space}
        return {"roc_auc": cross_validate(problem, **values)}
