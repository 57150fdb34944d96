"""Scores of yes-or-no forecasts at probability thresholds, from contingency tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.verification.forecasts import Forecasts

#: Our name of a score to the method of `scores.categorical.BasicContingencyManager`.
SCORES = {
    "csi": "critical_success_index",
    "pod": "probability_of_detection",
    "far": "false_alarm_ratio",
    "pofd": "probability_of_false_detection",
    "hss": "heidke_skill_score",
    "peirce": "peirce_skill_score",
    "bias": "frequency_bias",
}


@dataclass(frozen=True, eq=False, slots=True)
class Tables:
    """Contingency tables; all arrays have one shape, such as (blocks, thresholds).

    The event is forecast where the probability is at least the threshold.

    Attributes
    ----------
    hits, false_alarms, misses, correct_negatives : ndarray of numbers
        How many cases of each kind.
    """

    hits: NDArray[Any]
    false_alarms: NDArray[Any]
    misses: NDArray[Any]
    correct_negatives: NDArray[Any]

    def weighted(self, weights: NDArray[Any]) -> Tables:
        """Return the tables of samples in which blocks stand several times, or not at all.

        Parameters
        ----------
        weights : ndarray of numbers, shape (samples, blocks)
            How often each block stands in each sample.

        Returns
        -------
        Tables
            Of shape (samples, thresholds).
        """
        return Tables(
            weights @ self.hits,
            weights @ self.false_alarms,
            weights @ self.misses,
            weights @ self.correct_negatives,
        )

    def total(self) -> Tables:
        """Return the tables of all blocks together, of shape (thresholds,)."""
        return Tables(
            self.hits.sum(axis=0),
            self.false_alarms.sum(axis=0),
            self.misses.sum(axis=0),
            self.correct_negatives.sum(axis=0),
        )


def tables(forecasts: Forecasts, thresholds: NDArray[Any] | list[float]) -> Tables:
    """Count hits, false alarms, misses and correct negatives, block by block.

    Parameters
    ----------
    forecasts : Forecasts
        The forecasts, n of them.
    thresholds : array of float, shape (t,)
        Probability thresholds, ascending.

    Returns
    -------
    Tables
        Of shape (blocks, t). Takes time for n log t, not for n t.
    """
    levels = np.asarray(thresholds, dtype=np.float64)
    # How many thresholds a forecast reaches: it is a yes at those, a no at the others.
    reached = np.searchsorted(levels, forecasts.probability, side="right")
    bins = len(levels) + 1
    place = forecasts.block * bins + reached

    def at_least(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        counts = np.bincount(place[chosen], minlength=forecasts.blocks * bins)
        falling = counts.reshape(forecasts.blocks, bins)[:, ::-1]
        return np.cumsum(falling, axis=1)[:, ::-1].astype(np.float64)

    yes, no = at_least(forecasts.event), at_least(~forecasts.event)
    return Tables(
        hits=yes[:, 1:],
        false_alarms=no[:, 1:],
        misses=yes[:, :1] - yes[:, 1:],
        correct_negatives=no[:, :1] - no[:, 1:],
    )


def scores(counted: Tables) -> dict[str, NDArray[np.float64]]:
    """Return the scores of contingency tables.

    ``csi`` (critical success index), ``pod`` (probability of detection), ``far`` (false alarm
    ratio: of the forecasts), ``pofd`` (probability of false detection: of the non-events), ``hss``
    (Heidke skill score), ``peirce`` (Peirce skill score, also Hanssen and Kuipers discriminant),
    ``bias`` (frequency bias: events forecast by events that happened). See Wilks, 2011, Statistical
    Methods in the Atmospheric Sciences, chapter 8. Computed by the library ``scores``.

    Parameters
    ----------
    counted : Tables
        The tables.

    Returns
    -------
    dict of str to ndarray of float64
        Each of the tables' shape; NaN where a score has no value, such as ``far`` without a
        forecast of the event.
    """
    import xarray as xr
    from scores.categorical import BasicContingencyManager

    dims = [f"axis_{place}" for place in range(np.ndim(counted.hits))]

    def array(values: NDArray[Any]) -> Any:
        return xr.DataArray(np.asarray(values, dtype=np.float64), dims=dims)

    hits, false_alarms = array(counted.hits), array(counted.false_alarms)
    misses, negatives = array(counted.misses), array(counted.correct_negatives)
    manager = BasicContingencyManager(
        {
            "tp_count": hits,
            "fp_count": false_alarms,
            "fn_count": misses,
            "tn_count": negatives,
            "total_count": hits + false_alarms + misses + negatives,
        }
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {name: getattr(manager, method)() for name, method in SCORES.items()}
    return {name: _finite(np.asarray(values)) for name, values in found.items()}


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def curve_thresholds(forecasts: Forecasts, most: int = 400) -> NDArray[np.float64]:
    """Return the thresholds at which curves are drawn, ascending.

    Every forecast value is one where there are few; else quantiles of the forecasts of events and
    of those of non-events, so that the curve has points everywhere along both axes.
    """
    values = np.unique(forecasts.probability)
    if len(values) <= most:
        return values
    shares = np.linspace(0, 1, most // 2)
    parts = [
        np.quantile(forecasts.probability[chosen], shares, method="inverted_cdf")
        for chosen in (forecasts.event, ~forecasts.event)
        if chosen.any()
    ]
    found: NDArray[np.float64] = np.unique(np.concatenate(parts))
    return found
