"""How sure a score is: resampling whole blocks of cases, such as run dates.

The storms of one day share its weather, so cases of a day are not independent. Whole days are,
nearly; drawing them with replacement keeps what hangs together together (Künsch 1989; Hamill 1999,
Weather and Forecasting 14, 155-167; Wilks 2011, chapter 5.3).
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from stormsweep.verification.forecasts import Forecasts

RESAMPLES, LEVEL = 1000, 0.95
#: With fewer blocks than these an interval would only pretend to know something.
LEAST_BLOCKS = 5
#: Of the samples may have no value, such as a ratio without any forecast of the event.
_MOST_MISSING = 0.05


def resampled(blocks: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw blocks with replacement, as many as there are.

    Parameters
    ----------
    blocks, resamples : int
        How many blocks there are, and how many samples are drawn.
    seed : int
        What is drawn with.

    Returns
    -------
    ndarray of float64, shape (resamples, blocks)
        How often each block stands in each sample; every row adds up to `blocks`.
    """
    tag = zlib.crc32(b"verification")
    generator = np.random.default_rng(np.random.SeedSequence((seed, tag)))
    weights: NDArray[np.float64] = np.empty((resamples, blocks))
    for sample in weights:
        sample[:] = np.bincount(generator.integers(blocks, size=blocks), minlength=blocks)
    return weights


def totals(
    forecasts: Forecasts, weights: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the sums of a value of each case over resampled cases.

    Parameters
    ----------
    forecasts : Forecasts
        The forecasts, n of them.
    weights : ndarray of float64, shape (samples, blocks)
        How often each block stands in each sample.
    values : ndarray of float64, shape (n,)
        One of each case.

    Returns
    -------
    ndarray of float64, shape (samples,)
    """
    summed: NDArray[np.float64] = weights @ np.bincount(
        forecasts.block, values, minlength=forecasts.blocks
    )
    return summed


def interval(
    samples: NDArray[np.float64], level: float = LEVEL, blocks: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the percentile interval of resampled values.

    Parameters
    ----------
    samples : ndarray of float64, shape (resamples, ...)
        The values.
    level : float
        Such as 0.95.
    blocks : int, optional
        How many blocks were resampled; too few have no interval.

    Returns
    -------
    low, high : ndarray of float64
        NaN where blocks are too few, or more than one sample in twenty has no value.
    """
    flat = samples.reshape(len(samples), -1)
    bounds = np.full((2, flat.shape[1]), np.nan)
    sound = np.isnan(flat).mean(axis=0) <= _MOST_MISSING
    if sound.any() and (blocks is None or blocks >= LEAST_BLOCKS):
        tail = 50 * (1 - level)
        bounds[:, sound] = np.nanpercentile(flat[:, sound], (tail, 100 - tail), axis=0)
    low, high = bounds.reshape(2, *samples.shape[1:])
    return low, high


def ranking_scores(
    forecasts: Forecasts, weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return ROC AUC, average precision and the best CSI of resampled cases.

    The cases are sorted once; each sample then is a weighted sweep from the highest forecast to
    the lowest, in which equal forecasts count as one step.

    Parameters
    ----------
    forecasts : Forecasts
        The forecasts.
    weights : ndarray of float64, shape (samples, blocks)
        How often each block stands in each sample.

    Returns
    -------
    dict of str to ndarray of float64, shape (samples,)
        ``roc_auc``, ``average_precision`` and ``csi`` (the greatest over all thresholds); NaN for
        a sample of one class.
    """
    falling = np.argsort(-forecasts.probability, kind="stable")
    p, event, block = (
        values[falling] for values in (forecasts.probability, forecasts.event, forecasts.block)
    )
    last = np.append(np.flatnonzero(np.diff(p)), len(p) - 1)
    roc_auc, precision, csi = np.full((3, len(weights)), np.nan)
    for number, sample in enumerate(weights):
        weight = sample[block]
        cases = np.cumsum(weight)[last]
        hits = np.cumsum(weight * event)[last]
        false_alarms = cases - hits
        gained = np.diff(hits, prepend=0.0)
        if hits[-1] == 0:
            continue
        share = np.divide(hits, cases, out=np.zeros_like(hits), where=cases > 0)
        precision[number] = float(gained @ share) / hits[-1]
        if false_alarms[-1] == 0:
            continue
        csi[number] = np.max(hits / (hits[-1] + false_alarms))
        missed = np.diff(false_alarms, prepend=0.0)
        # Non-events below an event's forecast, and half of those beside it.
        beaten = false_alarms[-1] - false_alarms + missed / 2
        roc_auc[number] = float(gained @ beaten) / (hits[-1] * false_alarms[-1])
    return {"roc_auc": roc_auc, "average_precision": precision, "csi": csi}
