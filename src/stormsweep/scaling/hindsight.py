"""What dropping trials early would have saved a finished study, and what it would have missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stormsweep.records import Entry, SessionBegun
from stormsweep.results import facts
from stormsweep.results.journal import of_kind
from stormsweep.scaling.replay import Answers, Replay, replay
from stormsweep.search.proposals import Setting
from stormsweep.search.space import Space
from stormsweep.search.strategies.fixed import Fixed
from stormsweep.search.strategies.halving import Asha

#: One of so many goes on, as a study file has it where it says nothing.
REDUCTION = 3
#: Orders of the points at most; and how many points all orders have together.
ORDERS, EFFORT = 20, 2_000
#: Of more points a replay takes too long for a report.
MOST_POINTS = 400
COLUMNS = [
    *("epochs", "trials", "kept", "dropped"),
    *("dropped_falsely", "beyond_noise", "best_dropped"),
]


@dataclass(frozen=True)
class Hindsight:
    """ASHA, replayed on the scores of a study that trained everything.

    Attributes
    ----------
    orders, points, folds : int
        In how many orders of how many configurations (without their epochs), on how many folds.
    reduction, workers : int
        One of so many goes on; with so many workers, which decides who is compared with whom.
    training, seconds : float
        Medians over the orders: shares of the study's epochs and of its training time.
    within_noise, reached_best : float
        In which share of the orders the search ends within the fold noise of the best, and with
        the best itself.
    behind, most_behind : float
        By how much it ends behind the best: median and greatest.
    fold_noise : float
        The standard error over folds of the best mean.
    rungs : DataFrame
        One row a milestone but the last: ``epochs``, ``trials``, ``kept``, ``dropped``,
        ``dropped_falsely`` (better after all epochs than one that was kept), ``beyond_noise`` (by
        more than the fold noise), means over the orders; ``best_dropped``, the share of the orders
        in which the best after all epochs, of those that came so far, was dropped there.
    """

    orders: int
    points: int
    folds: int
    reduction: int
    workers: int
    training: float
    seconds: float
    within_noise: float
    reached_best: float
    behind: float
    most_behind: float
    fold_noise: float
    rungs: pd.DataFrame


def hindsight(
    entries: Sequence[Entry], reduction: int = REDUCTION, orders: int | None = None
) -> Hindsight | None:
    """Replay ASHA on a study that trained all its configurations at all their epochs.

    Parameters
    ----------
    entries : sequence of Entry
        The journal.
    reduction : int
        One of so many trials goes on from each milestone.
    orders : int, optional
        In how many orders the configurations are begun; None: `ORDERS`, fewer where there are many.

    Returns
    -------
    Hindsight or None
        None where the study does not tell: it is not done, has one number of epochs or one fold
        only, fewer than 2 `reduction` or more than `MOST_POINTS` configurations, or dropped trials
        itself.
    """
    runs = facts.planned_runs(entries)
    if not runs or facts.finished_runs(entries) != runs.keys():
        return None
    try:
        answers = Answers.of(entries)
    except ValueError:
        return None
    count = len(answers.points)
    if len(answers.epochs) < 2 or not 2 * reduction <= count <= MOST_POINTS:
        return None
    if answers.folds < 2 or not answers.training_seconds > 0:
        return None
    orders = orders or max(5, min(ORDERS, EFFORT // count))
    workers = max((one.workers for one in of_kind(entries, SessionBegun)), default=1)
    found = [
        replay(_asha(answers, reduction, seed), answers, max(1, workers)) for seed in range(orders)
    ]
    regrets = [one.regret for one in found]
    return Hindsight(
        orders=orders,
        points=count,
        folds=answers.folds,
        reduction=reduction,
        workers=max(1, workers),
        training=float(np.median([one.training for one in found])) / answers.training,
        seconds=float(np.median([one.seconds for one in found])) / answers.training_seconds,
        within_noise=float(np.mean([one.within_noise for one in found])),
        reached_best=float(np.mean([regret == 0 for regret in regrets])),
        behind=float(np.median(regrets)),
        most_behind=float(np.max(regrets)),
        fold_noise=answers.noise,
        rungs=_rungs(found),
    )


def _asha(answers: Answers, reduction: int, seed: int) -> Asha:
    """Return a search of the study's own points in an order of the seed's."""
    order = np.random.default_rng(seed).permutation(len(answers.points))
    points = [answers.points[number] for number in order]
    names = dict.fromkeys(name for point in points for name in point)
    # Nothing is looked up in the space but its names: the points are listed.
    space = Space({name: [] for name in names})
    setting = Setting(answers.epochs, answers.folds, len(points), seed)
    sampler = Fixed(points, space, answers.epochs[0], answers.folds, None)
    return Asha(sampler, setting, reduction)


def _rungs(found: Sequence[Replay]) -> pd.DataFrame:
    rows = [
        {
            "epochs": rung.epochs,
            "trials": rung.trials,
            "kept": rung.kept,
            "dropped": rung.trials - rung.kept,
            "dropped_falsely": rung.eliminated_falsely,
            "beyond_noise": rung.beyond_noise,
            "best_dropped": float(rung.best_dropped),
        }
        for one in found
        for rung in one.rungs[:-1]
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.groupby("epochs", as_index=False).mean()
