"""Optuna: a study of trials, each a configuration, in an SQLite file that its dashboard opens.

Of a strategy that halves, a trial is one of its own: all its milestones together.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stormsweep import __version__
from stormsweep.config.strategies import HALVING
from stormsweep.neighbours.owned import own_database
from stormsweep.neighbours.told import Configuration, State, Told
from stormsweep.results.facts import shown
from stormsweep.work import identity

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_JOURNAL = "stormsweep.journal"
_OWNERS = (
    "SELECT a.value_json FROM studies s LEFT JOIN study_user_attributes a "
    f"ON a.study_id = s.study_id AND a.key = '{_JOURNAL}'"
)


def write_optuna(told: Told, path: Path) -> None:
    """Write a study as one of Optuna's.

    Parameters
    ----------
    told : Told
        The study.
    path : Path
        An SQLite file, which is made anew.

    Raises
    ------
    UserError
        If the file is not ours.
    """
    import optuna
    from optuna.storages import RDBStorage

    about = told.about
    with quiet(), own_database(path, told.journal, _OWNERS) as beside:
        storage = RDBStorage(f"sqlite:///{beside}")
        study = optuna.create_study(
            storage=storage,
            study_name=about.name,
            directions=["maximize" if told.maximized(s) else "minimize" for s in told.objectives],
        )
        study.set_metric_names(list(told.objectives))
        said = {
            _JOURNAL: told.journal,
            "stormsweep": __version__,
            "seed": about.seed,
            "strategy": about.strategy,
            "folds": about.folds,
            "model": about.model.get("build", ""),
            "data": about.data.get("source", ""),
            "synthetic": bool(about.data.get("synthetic", False)),
        }
        for key, value in said.items():
            study.set_user_attr(key, value)
        study.add_trials(trials(told))
        storage.remove_session()
        storage.engine.dispose()


def trials(told: Told) -> list[FrozenTrial]:
    """Return the configurations as Optuna's trials, in the order of the plan.

    What varies are parameters; what the study fixes are user attributes, with the scores of the
    folds, the seconds and why a trial failed. A configuration whose score is not a number is a
    failed trial: Optuna has no other place for it.

    Where the strategy halves, the configurations of a trial are its milestones: one trial, with an
    intermediate value at each, and what else is said of it as of the last. It is pruned where the
    study is finished and the trial is not scored at the last epochs on all folds.
    """
    import optuna
    from optuna.trial import TrialState

    known = distributions(told)
    state = {
        State.complete: TrialState.COMPLETE,
        State.failed: TrialState.FAIL,
        State.open: TrialState.RUNNING,
        State.stopped: TrialState.PRUNED,
    }
    halved = told.about.strategy in HALVING
    top = _last_epochs(told)
    found: list[FrozenTrial] = []
    for milestones in _climbed(told) if halved else [[one] for one in told.configurations]:
        one = milestones[-1]
        values = [one.means.get(score, math.nan) for score in told.objectives]
        sound = one.state is State.complete and all(map(math.isfinite, values))
        ended = state[one.state]
        if one.state is State.complete and not sound:
            ended = TrialState.FAIL
        elif halved and one.state is State.complete and one.epochs < top:
            ended = TrialState.PRUNED if one.over else TrialState.RUNNING
            sound = False
        params = {name: shown(one.hyperparameters[name]) for name in known if _has(one, name)}
        attributes = _attributes(told, one) | ({"epochs": one.epochs} if halved else {})
        if ended is TrialState.FAIL and not one.failure:
            attributes["failure"] = "a score is not a number"
        curve: dict[int, dict[str, float]] = {}
        if len(told.objectives) == 1:
            # Each milestone is scored on folds of its own: the next one's may be fewer.
            curve = one.curve()
            for own in milestones if halved else ():
                curve |= {at: means for at, means in own.curve().items() if at == own.epochs}
        reported = {
            epoch: value
            for epoch, scores in curve.items()
            if (value := scores.get(told.objectives[0])) is not None
        }
        if ended is TrialState.PRUNED and reported and math.isfinite(reported[max(reported)]):
            # As Optuna does where it prunes.
            values, sound = [reported[max(reported)]], True
        start = datetime.fromtimestamp(one.started)
        trial = optuna.trial.create_trial(
            state=ended,
            values=values if sound else None,
            params=params,
            distributions={name: known[name] for name in params},
            user_attrs=attributes,
            intermediate_values=reported,
        )
        trial.datetime_start = start
        over = ended is not TrialState.RUNNING
        trial.datetime_complete = datetime.fromtimestamp(one.stopped) if over else None
        found.append(trial)
    return found


def _climbed(told: Told) -> list[list[Configuration]]:
    """Return the configurations of each trial of a strategy that halves, by epochs."""
    found: dict[str, list[Configuration]] = {}
    for one in told.configurations:
        point = {name: value for name, value in one.hyperparameters.items() if name != "epochs"}
        found.setdefault(identity(point), []).append(one)
    return [sorted(each, key=lambda one: one.epochs) for each in found.values()]


def _last_epochs(told: Told) -> int:
    """Return the last milestone; of epochs that are no list the last that any trial came to."""
    listed = told.about.space.get("epochs")
    seen = [one.epochs for one in told.configurations]
    return max(listed if isinstance(listed, list) else seen, default=0)


def distributions(told: Told) -> dict[str, BaseDistribution]:
    """Return what each hyperparameter that varies was drawn from.

    Lists are choices; ranges are ranges, widened where a value lies outside: a space may have
    grown since.
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    found: dict[str, BaseDistribution] = {}
    for name, space in told.about.space.items():
        if name == "epochs" and told.about.strategy in HALVING:
            # Steps of a trial, not a choice of it.
            continue
        seen = [one.hyperparameters[name] for one in told.configurations if _has(one, name)]
        if isinstance(space, dict) and "low" in space:
            numbers = [v for v in seen if isinstance(v, int | float)]
            low, high = min([space["low"], *numbers]), max([space["high"], *numbers])
            log = bool(space.get("log"))
            if space.get("integer"):
                found[name] = IntDistribution(int(low), int(high), log=log)
            else:
                found[name] = FloatDistribution(float(low), float(high), log=log)
            continue
        listed = space.get("values", []) if isinstance(space, dict) else space
        choices: list[Any] = []
        for value in [shown(value) for value in (*listed, *seen)]:
            if not any(value == other and type(value) is type(other) for other in choices):
                choices.append(value)
        if choices:
            found[name] = CategoricalDistribution(choices)
    return found


def _has(one: Configuration, name: str) -> bool:
    return name in one.hyperparameters


def _attributes(told: Told, one: Configuration) -> dict[str, Any]:
    fixed = {
        name: shown(value)
        for name, value in one.hyperparameters.items()
        if name not in told.about.space
    }
    folds = {
        f"{score}_folds": {
            str(fit.fold): _plain(fit.scores[one.epochs].get(score, math.nan))
            for fit in one.fits
            if one.epochs in fit.scores
        }
        for score in told.objectives
    }
    others = {name: _plain(v) for name, v in one.means.items() if name not in told.objectives}
    said: dict[str, Any] = {
        "configuration": one.id,
        "rank": one.rank or None,
        "seconds": one.seconds,
        "folds": sum(one.epochs in fit.scores for fit in one.fits),
        **folds,
    }
    said |= {"scores": others} if others else {}
    said |= {"fixed": fixed} if fixed else {}
    return said | ({"failure": one.failure} if one.failure else {})


def _plain(value: float) -> float | None:
    """JSON has no word for what is not a number."""
    return value if math.isfinite(value) else None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from telling of every study, and of what is experimental in it."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
