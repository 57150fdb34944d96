"""How far a score may be off because of the cases it was taken on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stormsweep.verification.forecasts import Forecasts
from stormsweep.verification.resampling import LEAST_BLOCKS, ranking_scores, resampled


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
        Of ``roc_auc``, ``average_precision``, ``accuracy``, ``brier_score`` and
        ``brier_skill_score``; empty for fewer than `resampling.LEAST_BLOCKS` blocks.
    """
    if forecasts.blocks < LEAST_BLOCKS:
        return {}
    weights = resampled(forecasts.blocks, resamples, seed)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums, cases = (
            weights @ np.bincount(forecasts.block, each, minlength=forecasts.blocks)
            for each in (values, np.ones(len(values)))
        )
        return np.asarray(sums / cases)

    p, event = forecasts.probability, forecasts.event.astype(np.float64)
    brier, reference = mean((p - event) ** 2), mean((forecasts.climatology - event) ** 2)
    samples = {
        **ranking_scores(forecasts, weights),
        "accuracy": mean(((p > 0.5) == forecasts.event).astype(np.float64)),
        "brier_score": brier,
        "brier_skill_score": 1 - brier / reference,
    }
    return {name: float(np.nanstd(values, ddof=1)) for name, values in samples.items()}
