"""What a strategy that learns will about come to, before there is a score."""

from __future__ import annotations

import random

from stormsweep.search.plan import Plan, complete
from stormsweep.search.search import Search
from stormsweep.work import Hyperparameters


def expected(search: Search, fixed: Hyperparameters, folds: int, seed: int) -> Plan:
    """Return the runs that a strategy asks for when scores are drawn by chance.

    Parameters
    ----------
    search : Search
        At its beginning; it is used up.
    fixed, folds
        Of the search.
    seed : int
        Of the scores.

    Returns
    -------
    Plan
        `Plan.expected` is set.
    """
    chance = random.Random(seed)
    points: dict[int, Hyperparameters] = {}
    scored: set[tuple[str, int]] = set()
    while True:
        proposed, runs = search.more()
        if not proposed:
            break
        for one in proposed:
            values = {**complete(fixed), **one.hyperparameters}
            points[one.trial] = {**values, "epochs": one.epochs}
        for run in runs:
            for epoch in run.milestones:
                if (run.id, epoch) not in scored:
                    scored.add((run.id, epoch))
                    merits = tuple(chance.gauss(0, 1) for _ in range(search.objectives))
                    search.scored(run.id, epoch, merits)
    return Plan(tuple(points.values()), folds, tuple(search.runs.values()), expected=True)
