"""What mattered: how much of the spread of the scores belongs to each hyperparameter.

Functional analysis of variance (Hutter, Hoos and Leyton-Brown 2014): exact where the configurations
are a whole grid (`stormsweep.results.grid_variance`), else of a forest's function over the space
(`stormsweep.results.forest`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stormsweep.errors import UserError
from stormsweep.records import Entry
from stormsweep.results import facts, frames, grid_variance
from stormsweep.results.dimensions import dimensions
from stormsweep.results.grid_variance import Effect
from stormsweep.results.stopped import levelled
from stormsweep.results.views import view

#: A forest is not asked with fewer configurations than these, and these for each hyperparameter.
LEAST, LEAST_EACH = 12, 4
#: What the part of the variance is called that no one and no two explain.
MORE = "three and more together"
_COLUMNS = ["effect", "first", "second", "share", "low", "high", "noise", "beyond_noise"]


@dataclass(frozen=True, slots=True)
class Importance:
    """How much of the variance of the configurations' mean scores belongs to what.

    Attributes
    ----------
    effects : DataFrame
        As `importance_frame` says; empty where `needed` says why.
    method : str
        ``grid`` or ``forest``; empty: neither could be.
    configurations, planned, folds : int, int, int
        How many are complete and have scores that are numbers, how many are planned, and the folds.
    fold_noise : float
        Share of the variance of the mean scores that is chance of the folds, about: what the mean
        over so few would have were all configurations alike. NaN where it is not known.
    fit : float
        ``forest``: share of the variance that it foretells of configurations it has not seen; NaN
        of a grid.
    filled : int
        ``forest``: scores of trials stopped early that were filled in with what others gained
        (`stormsweep.results.stopped`).
    needed : str
        What is missing, in words; empty where nothing is.
    """

    effects: pd.DataFrame
    method: str
    configurations: int
    planned: int
    folds: int
    fold_noise: float = float("nan")
    fit: float = float("nan")
    filled: int = 0
    needed: str = ""


@view
def importance(entries: Sequence[Entry]) -> Importance:
    """Return what mattered in a study, finished or not.

    Only complete configurations count: the mean over some of the folds is another number.

    Parameters
    ----------
    entries : list of Entry
        The journal.
    """
    points, scores = scored_points(entries)
    about, planned = facts.study(entries), len(facts.planned_configurations(entries))
    return importance_of(points, scores, about.space, planned, about.rounds)


def scored_points(
    entries: Sequence[Entry],
) -> tuple[list[Mapping[str, Any]], NDArray[np.float64]]:
    """Return the complete configurations with finite scores, and those scores on each fold.

    Returns
    -------
    list of dict, array (configurations, folds)
        Of the study's metric, in the order of the ranks.
    """
    metric, table = facts.study(entries).metric, frames.configurations(entries)
    sound = table["complete"] & np.isfinite(table[f"{metric}_mean"].to_numpy(dtype=float))
    names = table.loc[sound, "configuration"].tolist()
    paired = frames.fits(entries).pivot_table(index="configuration", columns="fold", values=metric)
    known = facts.planned_configurations(entries)
    scores = paired.reindex(names).to_numpy(dtype=float)
    whole = np.isfinite(scores).all(axis=1)
    return [known[name] for name, own in zip(names, whole, strict=True) if own], scores[whole]


def importance_of(
    points: Sequence[Mapping[str, Any]],
    scores: NDArray[np.float64],
    space: Mapping[str, Any],
    planned: int | None = None,
    rounds: int = 1,
) -> Importance:
    """Split the variance of the mean scores of configurations.

    Parameters
    ----------
    points : list of dict
        Hyperparameters of each configuration, ``epochs`` included.
    scores : array (configurations, folds)
        All finite.
    space : dict
        As the journal has it: where ranges lie, and which are logarithmic.
    planned : int, optional
        How many configurations there are to be.
    rounds : int
        How often all cases were split.

    Returns
    -------
    Importance
        Its frame is that of `importance_frame`.
    """
    count, folds = scores.shape if scores.ndim == 2 else (0, 0)
    planned = count if planned is None else planned

    def lacking(needed: str) -> Importance:
        return Importance(_frame([], []), "", count, planned, folds, needed=needed)

    if count < 2:
        return lacking(f"needs two or more configurations scored on all folds; there are {count}")
    if folds < 2:
        return lacking("needs two or more folds, or chance cannot be told from importance")
    if float(scores.mean(axis=1).var()) <= 1e-24 * max(1.0, float((scores**2).max())):
        return lacking("needs scores that differ; all configurations score the same")
    exact = dimensions(points, space, exact=True)
    noise = fold_noise(scores, rounds)
    cube = grid_variance.cube_of(exact, scores)
    if cube is not None:
        names = [dimension.name for dimension in exact]
        effects = _frame(names, grid_variance.decompose(cube, rounds))
        return Importance(effects, "grid", count, planned, folds, noise)
    cut = dimensions(points, space, exact=False)
    least = max(LEAST, LEAST_EACH * len(cut))
    if count < least:
        return lacking(
            f"needs a whole grid, or {least} configurations scored on all folds for "
            f"{len(cut)} hyperparameters; there are {count}"
        )
    from stormsweep.results.forest import explain

    level = levelled(points, scores)
    trials = len(set(level.trials))
    if trials < LEAST:
        return lacking(
            f"needs a whole grid, or {LEAST} trials that differ in more than epochs; there are "
            f"{trials}"
        )
    cut = dimensions(level.points, space, exact=False)
    if len(cut) < 2:
        return lacking("needs hyperparameters that differ among configurations")
    found = explain(cut, level.scores, level.trials, rounds=rounds)
    effects = _frame([dimension.name for dimension in cut], found.effects)
    return Importance(effects, "forest", count, planned, folds, noise, found.fit, level.filled)


def importance_frame(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return what mattered, with how that was found in the frame's ``attrs``.

    Parameters
    ----------
    entries : list of Entry
        The journal.

    Returns
    -------
    DataFrame
        One row an effect, the greatest first. The frame's ``attrs`` are the other attributes of
        `Importance`.

        - ``effect``: such as ``batch_size``, ``batch_size with epochs``, or, in the last row,
          ``three and more together``.
        - ``first``, ``second``: the hyperparameters.
        - ``share``: of the variance of the mean scores; all shares add up to one.
        - ``low``, ``high``: 95 % interval of the share.
        - ``noise``: what the share would be by chance alone, on average.
        - ``beyond_noise``: whether chance would hardly do it: one time in twenty, each effect by
          itself. Of the last row a forest says neither: that share is also the forest's own error.

    Raises
    ------
    UserError
        If there is too little to say anything: it says what is needed.
    """
    found = importance(entries)
    if found.needed:
        raise UserError(f"importance: {found.needed}")
    frame = found.effects.copy()
    names = ("method", "configurations", "planned", "folds", "fold_noise", "fit", "filled")
    frame.attrs = {name: getattr(found, name) for name in names}
    return frame


def fold_noise(scores: NDArray[np.float64], rounds: int = 1) -> float:
    """Return the share of the variance of the means over folds that is chance of the folds.

    What a fold adds to all configurations alike tells none of them apart, and is left out. Rounds
    validate the same cases again, so the mean is taken to vary as that of one round's folds.
    """
    count, folds = scores.shape
    if count < 2 or folds < 2:
        return float("nan")
    left = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    noise = float((left**2).sum() / ((count - 1) * (folds - rounds)) / (folds // rounds))
    return min(noise / float(scores.mean(axis=1).var(ddof=1)), 1.0)


def _frame(names: Sequence[str], effects: Sequence[Effect]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for effect in sorted(effects, key=lambda effect: (not effect.of, -effect.share)):
        own = [names[at] for at in effect.of]
        rows.append(
            {
                "effect": " with ".join(own) or MORE,
                "first": own[0] if own else "",
                "second": own[1] if len(own) > 1 else "",
                "share": effect.share,
                "low": effect.low,
                "high": effect.high,
                "noise": effect.noise,
                "beyond_noise": effect.beyond_noise,
            }
        )
    words, numbers = _COLUMNS[:3], _COLUMNS[3:7]
    types = dict.fromkeys(words, "str") | dict.fromkeys(numbers, "float64")
    return pd.DataFrame(rows, columns=_COLUMNS).astype(types | {"beyond_noise": "bool"})
