"""Curves over all thresholds, with bands from resampled blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stormsweep.verification import contingency, reliability
from stormsweep.verification.forecasts import Forecasts
from stormsweep.verification.resampling import LEVEL, interval

#: Where bands are given along a curve.
_GRID = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False, slots=True)
class Band:
    """An interval at places along a curve.

    Attributes
    ----------
    at, low, high : ndarray of float64, shape (m,)
        NaN where there is no interval.
    """

    at: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Curve:
    """A curve over the thresholds.

    Attributes
    ----------
    x, y : ndarray of float64, shape (t,)
        Its points.
    threshold : ndarray of float64, shape (t,)
        The threshold of each; infinite where the event is never forecast.
    band : Band
        How sure it is.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    threshold: NDArray[np.float64]
    band: Band


@dataclass(frozen=True, eq=False, slots=True)
class Reliability:
    """A reliability curve.

    Attributes
    ----------
    edges : ndarray of float64, shape (bins + 1,)
    cases : ndarray of int64, shape (bins,)
        Forecasts in each bin.
    forecast, frequency, low, high : ndarray of float64, shape (bins,)
        Mean forecast, observed frequency and its interval; NaN for empty bins.
    base_rate : float
        Event frequency of the cases.
    """

    edges: NDArray[np.float64]
    cases: NDArray[np.int64]
    forecast: NDArray[np.float64]
    frequency: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    base_rate: float


def roc(forecasts: Forecasts, weights: NDArray[np.float64], level: float = LEVEL) -> Curve:
    """Return the ROC curve: probability of detection against probability of false detection.

    The band is that of the detection at equal false detection (Fawcett, 2006, Pattern Recognition
    Letters 27, 861-874).

    Parameters
    ----------
    forecasts : Forecasts
        The forecasts.
    weights : ndarray of float64, shape (samples, blocks)
        From `resampling.resampled`.
    level : float
        Of the band.
    """
    thresholds = contingency.curve_thresholds(forecasts)
    counted = contingency.tables(forecasts, thresholds)
    pod, pofd = _rates(counted.total())
    rows = zip(*_rates(counted.weighted(weights)), strict=True)
    samples = np.array([_at(_GRID, x, y) for y, x in rows])
    low, high = interval(samples, level, forecasts.blocks)
    return Curve(pofd, pod, np.append(thresholds, np.inf), Band(_GRID, low, high))


def performance(forecasts: Forecasts, weights: NDArray[np.float64], level: float = LEVEL) -> Curve:
    """Return the performance diagram's curve: probability of detection against success ratio.

    The success ratio is 1 - false alarm ratio; lines of equal critical success index and of equal
    bias belong to it (Roebber, 2009, Weather and Forecasting 24, 601-608). The band is that of the
    success ratio (``low`` and ``high``) at equal detection (``at``).
    """
    thresholds = contingency.curve_thresholds(forecasts)
    counted = contingency.tables(forecasts, thresholds)
    pod, success = _success(counted.total())
    rows = zip(*_success(counted.weighted(weights)), strict=True)
    samples = np.array([_at(_GRID, detected, ratio) for detected, ratio in rows])
    low, high = interval(samples, level, forecasts.blocks)
    return Curve(success, pod, thresholds, Band(_GRID, low, high))


def reliability_curve(
    forecasts: Forecasts,
    weights: NDArray[np.float64],
    edges: NDArray[np.float64] | None = None,
    level: float = LEVEL,
) -> Reliability:
    """Return how often the event happened where it was forecast with a probability.

    For the reliability or attributes diagram (Hsu and Murphy, 1986, International Journal of
    Forecasting 2, 285-293).
    """
    binned = reliability.bins(forecasts, edges)
    low, high = interval(binned.weighted(weights).frequency, level, forecasts.blocks)
    whole = binned.weighted(np.ones((1, forecasts.blocks)))
    return Reliability(
        edges=whole.edges,
        cases=whole.cases[0].astype(np.int64),
        forecast=whole.mean_forecast[0],
        frequency=whole.frequency[0],
        low=low,
        high=high,
        base_rate=forecasts.events / len(forecasts),
    )


def _rates(counted: contingency.Tables) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return detection and false detection, from forecasting always to forecasting never."""
    with np.errstate(invalid="ignore"):
        pod = counted.hits / (counted.hits + counted.misses)
        pofd = counted.false_alarms / (counted.false_alarms + counted.correct_negatives)
    never = [(0, 0)] * (pod.ndim - 1) + [(0, 1)]
    return np.pad(pod, never), np.pad(pofd, never)


def _success(counted: contingency.Tables) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with np.errstate(invalid="ignore", divide="ignore"):
        pod = counted.hits / (counted.hits + counted.misses)
        return pod, counted.hits / (counted.hits + counted.false_alarms)


def _at(
    places: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return y at places of x, which falls along the curve; NaN beyond its ends."""
    sound = np.isfinite(x) & np.isfinite(y)
    if not sound.any():
        return np.full(len(places), np.nan)
    return np.interp(places, x[sound][::-1], y[sound][::-1], left=np.nan, right=np.nan)
