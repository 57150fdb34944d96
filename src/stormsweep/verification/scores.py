"""The scores of probability forecasts, each with an interval from resampled blocks."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stormsweep.verification import contingency, reliability
from stormsweep.verification.forecasts import Forecasts
from stormsweep.verification.resampling import (
    LEVEL,
    RESAMPLES,
    interval,
    ranking_scores,
    resampled,
    totals,
)

#: Probabilities are kept this far from 0 and 1 in the cross-entropy, as in training.
EPSILON = 1e-7
#: Scores of the probabilities themselves, and the parts of the Brier score.
PROBABILITY_SCORES = (
    "roc_auc",
    "average_precision",
    "brier_score",
    "brier_skill_score",
    "log_loss",
)
BRIER_PARTS = (
    "reliability",
    "resolution",
    "uncertainty",
    "within_bin_variance",
    "within_bin_covariance",
)
#: Scores of the yes-or-no forecast at the decision threshold.
DECISION_SCORES = tuple(contingency.SCORES)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and its interval; NaN where there is none."""

    value: float
    low: float
    high: float


def point_scores(forecasts: Forecasts, threshold: float) -> dict[str, float]:
    """Score forecasts, once and without intervals.

    Parameters
    ----------
    forecasts : Forecasts
        The forecasts.
    threshold : float
        The event counts as forecast where the probability is at least this. Choose it on other
        cases than these.

    Returns
    -------
    dict of str to float
        ``roc_auc``, ``average_precision``, ``brier_score``, ``brier_skill_score`` (against the
        constant forecast of the training part's event frequency), ``log_loss`` (nats), the parts
        of `reliability.decomposition` and the scores of `contingency.scores`. NaN where a score
        has no value.
    """
    from scores.probability import brier_score
    from sklearn import metrics
    from xarray import DataArray

    p, event = forecasts.probability, forecasts.event
    both = bool(event.any() and not event.all())
    brier = float(brier_score(DataArray(p), DataArray(event.astype(np.float64))))
    reference = float(np.mean((forecasts.climatology - event) ** 2))
    parts = reliability.decomposition(reliability.bins(forecasts).weighted(_all(forecasts)))
    decided = contingency.scores(contingency.tables(forecasts, [threshold]).total())
    inner = np.clip(p, EPSILON, 1 - EPSILON)
    return {
        "roc_auc": float(metrics.roc_auc_score(event, p)) if both else np.nan,
        "average_precision": float(metrics.average_precision_score(event, p))
        if event.any()
        else np.nan,
        "brier_score": brier,
        "brier_skill_score": 1 - brier / reference if reference > 0 else np.nan,
        "log_loss": float(metrics.log_loss(event, inner, labels=[False, True])),
        **{name: float(values[0]) for name, values in parts.items()},
        **{name: float(values[0]) for name, values in decided.items()},
    }


def resampled_scores(
    forecasts: Forecasts, threshold: float, weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return the scores of `point_scores` for resampled blocks.

    All but the ranking scores come from sums over blocks, so their time does not grow with the
    number of samples times the number of cases.

    Parameters
    ----------
    forecasts : Forecasts
        The forecasts.
    threshold : float
        Of the yes-or-no forecast.
    weights : ndarray of float64, shape (samples, blocks)
        How often each block stands in each sample.

    Returns
    -------
    dict of str to ndarray of float64, shape (samples,)
    """
    p, event = forecasts.probability, forecasts.event.astype(np.float64)
    inner = np.clip(p, EPSILON, 1 - EPSILON)
    total = functools.partial(totals, forecasts, weights)
    cases = total(np.ones(len(p)))
    brier = total((p - event) ** 2)
    reference = total((forecasts.climatology - event) ** 2)
    entropy = total(-np.log(np.where(forecasts.event, inner, 1 - inner)))
    decided = contingency.scores(contingency.tables(forecasts, [threshold]).weighted(weights))
    ranked = ranking_scores(forecasts, weights)
    return {
        **{name: ranked[name] for name in ("roc_auc", "average_precision")},
        "brier_score": brier / cases,
        "brier_skill_score": 1
        - np.divide(brier, reference, out=np.full(len(weights), np.nan), where=reference > 0),
        "log_loss": entropy / cases,
        **reliability.decomposition(reliability.bins(forecasts).weighted(weights)),
        **{name: values[:, 0] for name, values in decided.items()},
    }


def estimate(
    forecasts: Forecasts,
    threshold: float,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Estimate]:
    """Score forecasts, each score with a percentile interval from resampled blocks.

    Parameters
    ----------
    forecasts : Forecasts
        The forecasts.
    threshold : float
        Of the yes-or-no forecast.
    seed : int
        What blocks are drawn with.
    resamples : int
        How many samples.
    level : float
        Of the intervals.

    Returns
    -------
    dict of str to Estimate
        By the names of `point_scores`; intervals are NaN for fewer than
        `resampling.LEAST_BLOCKS` blocks.
    """
    weights = resampled(forecasts.blocks, resamples, seed)
    samples = resampled_scores(forecasts, threshold, weights)
    found = {}
    for name, value in point_scores(forecasts, threshold).items():
        low, high = interval(samples[name], level, forecasts.blocks)
        found[name] = Estimate(value, float(low), float(high))
    return found


def _all(forecasts: Forecasts) -> NDArray[np.float64]:
    return np.ones((1, forecasts.blocks))
