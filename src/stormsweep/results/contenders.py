"""Which configurations cannot be told from the best, and which of them is the cheapest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import polygamma, psi, stdtr, stdtrit

from stormsweep.errors import UserError
from stormsweep.records import Entry
from stormsweep.results import facts, frames
from stormsweep.results.grid_variance import widening
from stormsweep.results.views import view

LEVEL = 0.05
#: From so many configurations on, what is usual among them says something about each.
LEAST_FOR_USUAL = 10


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Others against one, paired over folds.

    Attributes
    ----------
    difference : array
        Mean over folds of the one's score less that of each other.
    half : array
        Half the width of the 95 % interval of each difference.
    chance : array
        Two-sided p-value of each.
    adjusted : array
        The same, adjusted for their number after Holm (1979).
    freedom : float
        Degrees of freedom of the t distribution.
    """

    difference: NDArray[np.float64]
    half: NDArray[np.float64]
    chance: NDArray[np.float64]
    adjusted: NDArray[np.float64]
    freedom: float


def against(best: int, scores: NDArray[np.float64], rounds: int = 1) -> Comparisons:
    """Test all others against one configuration: a corrected paired t-test over folds.

    The folds are blocks. The variance of a mean difference is taken as ``1/n + 1/(k - 1)`` of that
    of a fold, as the training sets of `n` folds overlap, `k` a round (Nadeau and Bengio 2003,
    Inference for the generalization error, Machine Learning 52, 239-281). So few folds know their
    own variance badly; where there are `LEAST_FOR_USUAL` configurations or more, it is drawn
    towards what is usual among them, the more so the more alike they are (Smyth 2004, Linear models
    and empirical Bayes methods, Statistical Applications in Genetics and Molecular Biology 3, 3).
    The p-values are adjusted for the number of comparisons (Holm 1979, Scandinavian Journal of
    Statistics 6, 65-70).

    Parameters
    ----------
    best : int
        Row of the one.
    scores : array (configurations, folds)
        All finite; two folds or more.
    rounds : int
        How often all cases were split.

    Returns
    -------
    Comparisons
        In the order of the rows, without the one.
    """
    count, folds = scores.shape
    gaps = scores[best] - np.delete(scores, best, axis=0)
    mean, variance = gaps.mean(axis=1), gaps.var(axis=1, ddof=1)
    freedom = float(folds - 1)
    if count >= LEAST_FOR_USUAL:
        usual, weight = _usual(scores)
        variance = (weight * 2 * usual + freedom * variance) / (weight + freedom)
        # No more is known than all configurations together tell.
        freedom = min(freedom + weight, float((count - 1) * (folds - 1)))
    error = np.sqrt(variance * widening(folds, rounds) / folds)
    # Differences that are rounding are none.
    nothing = np.abs(mean) <= 1e-12 * np.abs(scores).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(nothing, 0.0, np.abs(mean) / error)
    chance = 2 * stdtr(freedom, -t)
    half = stdtrit(freedom, 1 - LEVEL / 2) * error
    return Comparisons(mean, half, chance, holm(chance), freedom)


def holm(chances: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted for their number, so that one by chance is seen at most so often.

    After Holm (1979), Scandinavian Journal of Statistics 6, 65-70. NaN stays NaN, and is not
    counted.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    given = np.asarray(chances, dtype=float)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    left = np.arange(len(order), 0, -1)
    adjusted = np.full(given.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(left * given[order]), 1.0)
    return adjusted


def _usual(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Return the usual variance of a configuration over folds, and as how many folds it counts.

    What a fold adds to all alike is left out. The variances are taken to be usual ones times a
    chi-squared's inverse (Smyth 2004, section 6.2, moments of the logarithm).
    """
    count, folds = scores.shape
    left = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    own = (left**2).sum(axis=1) / (folds - 1) * count / (count - 1)
    most, freedom = float(own.max()), folds - 1
    if most <= 0:
        return 0.0, 0.0
    logs = np.log(np.maximum(own, 1e-9 * most)) - psi(freedom / 2) + np.log(freedom / 2)
    excess = float(logs.var(ddof=1) - polygamma(1, freedom / 2))
    if excess <= 0:
        return float(own.mean()), float((count - 1) * freedom)
    weight = 2 * _trigamma_inverse(excess)
    usual = float(np.exp(logs.mean() + psi(weight / 2) - np.log(weight / 2)))
    return usual, weight


def _trigamma_inverse(given: float) -> float:
    """Return where the trigamma function has a value (Newton's method on its inverse)."""
    if given > 1e7:
        return float(1 / np.sqrt(given))
    if given < 1e-6:
        return 1 / given
    at = 0.5 + 1 / given
    for _ in range(50):
        value = float(polygamma(1, at))
        step = value * (1 - value / given) / float(polygamma(2, at))
        at += step
        if -step / at < 1e-8:
            break
    return at


@view
def contest(entries: Sequence[Entry]) -> pd.DataFrame:
    """Compare every complete configuration with the best, fold by fold.

    Returns
    -------
    DataFrame
        What `contenders` returns, of all complete configurations: ``contender`` tells whether one
        cannot be told from the best at 5 % when all comparisons are counted (see `against`). Empty
        where no configuration is complete.
    """
    about, table = facts.study(entries), frames.configurations(entries)
    metric = about.metric
    sound = table["complete"] & np.isfinite(table[f"{metric}_mean"].to_numpy(dtype=float))
    columns = list(facts.hyperparameter_columns(entries).values())
    kept = ["rank", "configuration", *columns, f"{metric}_mean", "seconds"]
    found: pd.DataFrame = table.loc[sound, kept].reset_index(drop=True)
    paired = frames.fits(entries).pivot_table(index="configuration", columns="fold", values=metric)
    scores = paired.reindex(found["configuration"].tolist()).to_numpy(dtype=float)
    whole = np.isfinite(scores).all(axis=1)
    found, scores = found[whole].reset_index(drop=True), scores[whole]
    nothing = np.full(len(found), np.nan)
    parts = {name: nothing.copy() for name in ("difference", "low", "high", "p", "p_adjusted")}
    if len(found) > 1 and scores.shape[1] > 1:
        sign = 1.0 if facts.higher_is_better(entries) else -1.0
        tests = against(0, sign * scores, about.rounds)
        parts["difference"][1:] = tests.difference
        parts["low"][1:] = tests.difference - tests.half
        parts["high"][1:] = tests.difference + tests.half
        parts["p"][1:], parts["p_adjusted"][1:] = tests.chance, tests.adjusted
    parts["difference"][:1] = 0.0
    seconds = found.pop("seconds")
    found = found.assign(**parts)
    found["contender"] = ~(found["p_adjusted"] < LEVEL)
    found["seconds"] = seconds
    spent = seconds.where(found["contender"])
    found["cheapest"] = found.index == (spent.idxmin() if len(found) else -1)
    return found


def contenders(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return the best configuration and those that cannot be told from it, by folds.

    Parameters
    ----------
    entries : list of Entry
        The journal.

    Returns
    -------
    DataFrame
        In the order of the ranks, the best first.

        - ``rank``, ``configuration``, and one column for each hyperparameter.
        - ``<metric>_mean``: mean over folds of the score that configurations are ranked by.
        - ``difference``: by how much the best is better; positive in either direction of the
          metric.
        - ``low``, ``high``: 95 % interval of the difference, each comparison by itself.
        - ``p``, ``p_adjusted``: p-value, and the same adjusted for the number of comparisons; NaN
          of the best.
        - ``contender``: true in every row here.
        - ``seconds``: the time of all its folds' tasks.
        - ``cheapest``: whether it took the least time of those here.

    Raises
    ------
    UserError
        If fewer than two configurations are complete: there is nothing to compare.
    """
    found = contest(entries)
    if len(found) < 2:
        raise UserError(
            "contenders: needs two or more configurations scored on all folds; there "
            f"{'is' if len(found) == 1 else 'are'} {len(found)}"
        )
    return found[found["contender"]].reset_index(drop=True)
