"""What a strategy that learns will about come to, from its beginning or from where it stands."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from stormsweep.search.plan import Plan, complete
from stormsweep.search.search import Search
from stormsweep.work import Hyperparameters, Run


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
                    search.scored(run.id, epoch, _chance(search, chance))
    return Plan(tuple(points.values()), folds, tuple(search.runs.values()), expected=True)


def further(
    search: Search, reached: Mapping[str, int], failed: Collection[str], seed: int
) -> list[Run]:
    """Return the runs that a strategy comes to when scores are drawn from those that there are.

    A configuration that is scored already goes on to be as good as it was: who is ahead stays
    ahead. Others are as good as any that was scored at that epoch.

    Parameters
    ----------
    search : Search
        It has taken in what is on record; it is used up.
    reached : mapping of str to int
        Run to its last milestone on record.
    failed : collection of str
        Runs that are not gone on with.
    seed : int
        Of the draws.

    Returns
    -------
    list of Run
        Each with all its milestones, those on record among them.
    """
    chance = random.Random(seed)
    known = search.scores
    scored = {
        (run.id, epoch)
        for run in search.runs.values()
        for epoch in run.milestones
        if epoch <= reached.get(run.id, 0)
    }
    runs = search.wanted(reached)
    while True:
        for run in runs:
            for epoch in run.milestones:
                if run.id not in failed and (run.id, epoch) not in scored:
                    scored.add((run.id, epoch))
                    merits = search.like(run, epoch) or _drawn(known.get(epoch), search, chance)
                    search.scored(run.id, epoch, merits)
        proposed, runs = search.more()
        if not proposed:
            return search.wanted(reached)


def _drawn(
    known: Sequence[tuple[float, ...]] | None, search: Search, chance: random.Random
) -> tuple[float, ...]:
    """Draw one of the scores that are known, or from a bell curve where none is."""
    return chance.choice(known) if known else _chance(search, chance)


def _chance(search: Search, chance: random.Random) -> tuple[float, ...]:
    return tuple(chance.gauss(0, 1) for _ in range(search.objectives))
