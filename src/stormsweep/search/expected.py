"""What a strategy that learns will about come to, before there is a score."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from stormsweep.search.plan import Plan, complete
from stormsweep.search.proposals import Strategy
from stormsweep.search.search import Search
from stormsweep.work import Hyperparameters


def expected(
    begin: Callable[[], Strategy],
    fixed: Hyperparameters,
    folds: int,
    stops: Iterable[int],
    objectives: int,
    seed: int,
) -> Plan:
    """Return the runs that a strategy asks for when scores are drawn by chance.

    Parameters
    ----------
    begin : callable
        Returns the strategy, anew.
    fixed, folds, stops
        As in `Search`.
    objectives : int
        How many merits an outcome has.
    seed : int
        Of the scores.

    Returns
    -------
    Plan
        `Plan.expected` is set.
    """
    search = Search(begin, fixed, folds, lambda _: (), stops)
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
                    merits = tuple(chance.gauss(0, 1) for _ in range(objectives))
                    search.scored(run.id, epoch, merits)
    return Plan(tuple(points.values()), folds, tuple(search.runs.values()), expected=True)
