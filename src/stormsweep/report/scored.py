"""The configurations that have a score, as figures take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stormsweep.report.material import Material


def sound(material: Material) -> pd.DataFrame:
    """Return the configurations whose score is a number, the best first."""
    table = material.configurations
    finite = np.isfinite(table[f"{material.metric}_mean"].to_numpy(dtype=float))
    return table.iloc[np.flatnonzero(finite)]


def drawn(material: Material, table: pd.DataFrame) -> pd.DataFrame:
    """Return of these configurations what figures of the metric show."""
    scores = [f"{material.metric}_{part}" for part in ("mean", "sd", "low", "high")]
    columns = ["rank", "configuration", *material.columns.values(), *scores]
    return table[[*columns, "folds", "complete"]]


def limits(values: pd.Series[Any]) -> tuple[float, float]:
    """Return the limits of an axis that shows these values."""
    finite = values[np.isfinite(values.to_numpy(dtype=float))].astype(float)
    low, high = float(finite.min()), float(finite.max())
    margin = 0.06 * (high - low) or 0.02 * abs(high) or 0.02
    return low - margin, high + margin
