"""Trials that were stopped early, as if all had gone on: what others gained is added.

Successive halving and its kin go on with the best trials only. So those with many epochs are better
for two reasons, and taken as they are, `epochs` would explain what their choice does. What a trial
gains from one milestone to the next is known within trials, and their choice has less say in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.work import identity

#: A gain is known from so many trials on.
LEAST_BOTH = 3


@dataclass(frozen=True, slots=True)
class Levelled:
    """Configurations, each trial at the same epochs as all others.

    Attributes
    ----------
    points, scores : list of dict, array (configurations, folds)
        Those scored, then those filled in.
    trials : list of str
        What each is without ``epochs``.
    filled : int
        How many were filled in.
    """

    points: list[Mapping[str, Any]]
    scores: NDArray[np.float64]
    trials: list[str]
    filled: int


def levelled(points: Sequence[Mapping[str, Any]], scores: NDArray[np.float64]) -> Levelled:
    """Fill in scores of trials at epochs that only others reached.

    A missing score is the trial's own at the nearest earlier epoch (or the next later one), with
    what the trials that have both gained on average, fold by fold. Epochs after the first step that
    fewer than `LEAST_BOTH` trials have made are left out. Where no trial, or hardly one, has two
    epochs (a random search draws them like all else), nothing is changed.

    Parameters
    ----------
    points : list of dict
        Hyperparameters of each configuration, ``epochs`` included.
    scores : array (configurations, folds)
        All finite.
    """
    trials = [identity({k: v for k, v in p.items() if k != "epochs"}) for p in points]
    rows: dict[str, dict[int, int]] = {}
    for row, (trial, point) in enumerate(zip(trials, points, strict=True)):
        rows.setdefault(trial, {})[int(point["epochs"])] = row
    epochs = sorted({epoch for own in rows.values() for epoch in own})
    unchanged = Levelled(list(points), scores, trials, 0)
    if all(len(own) == len(epochs) for own in rows.values()):
        return unchanged
    gains: list[NDArray[np.float64]] = []
    for before, after in itertools.pairwise(epochs):
        both = [own for own in rows.values() if before in own and after in own]
        if len(both) < LEAST_BOTH:
            break
        gain = scores[[own[after] for own in both]] - scores[[own[before] for own in both]]
        gains.append(gain.mean(axis=0))
    if not gains:
        return unchanged
    known = epochs[: len(gains) + 1]
    total = np.cumsum([np.zeros(scores.shape[1]), *gains], axis=0)
    kept, made, values = [], [], []
    for own in rows.values():
        there = [at for at, epoch in enumerate(known) if epoch in own]
        kept += [own[known[at]] for at in there]
        for at in range(len(known)) if there else ():
            if at in there:
                continue
            near = max((one for one in there if one < at), default=there[0])
            source = own[known[near]]
            made.append((source, known[at]))
            values.append(scores[source] + total[at] - total[near])
    sources = [*kept, *(source for source, _ in made)]
    return Levelled(
        [points[row] for row in kept] + [{**points[row], "epochs": e} for row, e in made],
        np.concatenate([scores[kept], *([np.array(values)] if made else [])]),
        [trials[row] for row in sources],
        len(made),
    )
