"""What a task takes, from patches and updates: fitted to the tasks of a journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from stormsweep.errors import UserError
from stormsweep.records import Entry
from stormsweep.results import facts, frames

#: Normal quantile of 3/4: from a median of absolute errors to a standard deviation.
_MEDIAN_TO_SD = 0.6745


@dataclass(frozen=True, slots=True)
class RunTime:
    """Seconds of a task, as a sum of terms.

    Attributes
    ----------
    per_patch, per_update : float
        Seconds of training.
    opening, compiling, before, ending : float
        Seconds of opening the data, compiling, building, scoring and checkpoint.
    scatter : float
        Standard deviation of the logarithm between tasks that should take the same.
    """

    per_patch: float
    per_update: float
    opening: float
    compiling: float
    before: float
    ending: float
    scatter: float

    def seconds(
        self,
        *,
        patches: Any,
        updates: Any,
        batch_size: Any,
        parameters: Any,
        threads: int,
        workers: int,
        compiles: bool,
        opens: bool,
        scores: bool = True,
    ) -> Any:
        """Return the seconds of a task."""
        train = self.per_patch * np.asarray(patches, float) + self.per_update * np.asarray(updates)
        fixed = self.before + self.opening * opens + self.compiling * compiles
        return train + fixed + self.ending * scores


def observations(entries: Sequence[Entry], environment: Any = None) -> pd.DataFrame:
    """Return one row a stretch of training."""
    return frames.tasks(entries)


def fit(table: pd.DataFrame) -> RunTime:
    """Fit the terms.

    Raises
    ------
    UserError
        If no run is finished.
    """
    table = table[(table["train_seconds"] > 0) & ~table["paused"]]
    if table.empty:
        raise UserError("the journal has no finished run to reckon with; run a pilot first")
    train = table["train_seconds"].to_numpy()
    terms = table[["patches", "updates"]].to_numpy(float)
    (per_patch, per_update), _ = nnls(terms / train[:, None], np.ones(len(train)))
    model = per_patch * terms[:, 0] + per_update * terms[:, 1]
    errors = np.abs(np.log(train / model))
    whole = table["seconds"].to_numpy()
    parts = {name: table[f"{name}_seconds"] for name in facts.PHASES}
    other = whole - sum(part.to_numpy() for part in parts.values())
    first = ~table.duplicated(["session", "worker"])
    compiled = parts["compile"][parts["compile"] > 0.05]
    return RunTime(
        float(per_patch),
        float(per_update),
        float(max(0.0, parts["open"][first].median())),
        float(compiled.median()) if len(compiled) else 0.0,
        float(parts["build"].median() + np.median(np.maximum(other, 0.0))),
        float((parts["score"] + parts["checkpoint"]).median()),
        float(np.median(errors) / _MEDIAN_TO_SD),
    )
