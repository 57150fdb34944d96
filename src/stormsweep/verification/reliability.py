"""Reliability: how often the event happens where it is forecast with a probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.verification.forecasts import Forecasts

#: Bins of equal width.
BINS = 10


@dataclass(frozen=True, eq=False, slots=True)
class Bins:
    """Sums over bins of the forecast probability; arrays of shape (blocks or samples, bins).

    Attributes
    ----------
    edges : ndarray of float64, shape (bins + 1,)
        A forecast of an inner edge belongs to the bin above it.
    cases, events : ndarray
        Number of forecasts in the bin, and of events among them.
    forecast, squared, joint : ndarray
        Sums of the forecasts, of their squares, and of the forecasts of events.
    """

    edges: NDArray[np.float64]
    cases: NDArray[np.float64]
    events: NDArray[np.float64]
    forecast: NDArray[np.float64]
    squared: NDArray[np.float64]
    joint: NDArray[np.float64]

    def weighted(self, weights: NDArray[Any]) -> Bins:
        """Return the sums of samples, where `weights` of shape (samples, blocks) count blocks."""
        return Bins(
            self.edges,
            weights @ self.cases,
            weights @ self.events,
            weights @ self.forecast,
            weights @ self.squared,
            weights @ self.joint,
        )

    @property
    def mean_forecast(self) -> NDArray[np.float64]:
        """Mean forecast of each bin; NaN where it is empty."""
        return _ratio(self.forecast, self.cases)

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Observed frequency of the event in each bin; NaN where it is empty."""
        return _ratio(self.events, self.cases)


def bins(forecasts: Forecasts, edges: NDArray[np.float64] | None = None) -> Bins:
    """Sum the forecasts up in bins, block by block.

    Parameters
    ----------
    forecasts : Forecasts
        The forecasts.
    edges : ndarray of float64, optional
        From 0 to 1, ascending; default: ten bins of equal width.
    """
    limits = np.linspace(0, 1, BINS + 1) if edges is None else np.asarray(edges, np.float64)
    count = len(limits) - 1
    number = np.searchsorted(limits[1:-1], forecasts.probability, side="right")
    place = forecasts.block * count + number

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        summed = np.bincount(place, values, minlength=forecasts.blocks * count)
        return summed.astype(np.float64).reshape(forecasts.blocks, count)

    p, event = forecasts.probability, forecasts.event.astype(np.float64)
    return Bins(
        limits, total(np.ones(len(p))), total(event), total(p), total(p * p), total(p * event)
    )


def decomposition(binned: Bins) -> dict[str, NDArray[np.float64]]:
    """Split the Brier score into parts that add up to it.

    ::

        brier_score = reliability - resolution + uncertainty
                      + within_bin_variance - within_bin_covariance

    The first three are those of Murphy (1973, Journal of Applied Meteorology 12, 595-600). They
    add up only if all forecasts of a bin are the same; the last two make it exact for any forecasts
    (Stephenson, Coelho and Jolliffe, 2008, Weather and Forecasting 23, 752-757). Uncertainty is
    that of the cases scored, with their own event frequency.

    Parameters
    ----------
    binned : Bins
        Sums, of shape (..., bins).

    Returns
    -------
    dict of str to ndarray of float64
        One value for each sample. A low reliability term is a good one.
    """
    n = binned.cases.sum(axis=-1)
    base = binned.events.sum(axis=-1) / n
    # Empty bins have no mean; they count nothing.
    mean, frequency = np.nan_to_num(binned.mean_forecast), np.nan_to_num(binned.frequency)

    def share(values: NDArray[np.float64]) -> NDArray[np.float64]:
        summed: NDArray[np.float64] = values.sum(axis=-1) / n
        return summed

    return {
        "reliability": share(binned.cases * (mean - frequency) ** 2),
        "resolution": share(binned.cases * (frequency - base[..., np.newaxis]) ** 2),
        "uncertainty": base * (1 - base),
        "within_bin_variance": share(binned.squared - binned.forecast * mean),
        "within_bin_covariance": 2 * share(binned.joint - binned.forecast * frequency),
    }


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found
