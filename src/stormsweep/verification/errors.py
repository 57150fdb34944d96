"""How far a score may be off because of the cases it was taken on."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from stormsweep.verification.forecasts import Forecasts
from stormsweep.verification.resampling import (
    LEAST_BLOCKS,
    ranking_scores,
    resampled,
    totals,
)
from stormsweep.verification.scores import EPSILON


def standard_errors(forecasts: Forecasts, seed: int, resamples: int = 200) -> dict[str, float]:
    """Return standard errors of scores, from resampled blocks.

    Parameters
    ----------
    forecasts : Forecasts
        The forecasts.
    seed : int
        What blocks are drawn with.
    resamples : int
        How many samples.

    Returns
    -------
    dict of str to float
        Of every score that the study file may name as its metric; empty for fewer than
        `resampling.LEAST_BLOCKS` blocks.
    """
    if forecasts.blocks < LEAST_BLOCKS:
        return {}
    weights = resampled(forecasts.blocks, resamples, seed)
    total = functools.partial(totals, forecasts, weights)
    cases = total(np.ones(len(forecasts)))

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return total(values) / cases

    p, event = forecasts.probability, forecasts.event.astype(np.float64)
    brier, reference = mean((p - event) ** 2), mean((forecasts.climatology - event) ** 2)
    forecast, inner = (p > 0.5).astype(np.float64), np.clip(p, EPSILON, 1 - EPSILON)
    # Hits count twice: forecast and happened.
    either = total(forecast) + total(event)
    samples = {
        **ranking_scores(forecasts, weights),
        "accuracy": mean((forecast == event).astype(np.float64)),
        "f1": 2 * total(forecast * event) / np.where(either > 0, either, np.nan),
        "loss": -mean(event * np.log(inner) + (1 - event) * np.log(1 - inner)),
        "brier_score": brier,
        "brier_skill_score": 1 - brier / reference,
    }
    return {name: float(np.nanstd(values, ddof=1)) for name, values in samples.items()}
