"""Whether another epoch fits into the time that a worker has left."""

from __future__ import annotations

import math

from stormsweep.cluster import deadline
from stormsweep.config.walltimes import UNMEASURED, needed
from stormsweep.training.engine import GoOn

_beside = math.nan


def took(seconds: float) -> None:
    """Take note of how long scoring and writing checkpoints took in this process."""
    global _beside
    _beside = seconds


def allowance(foreseen: float) -> GoOn | None:
    """Return what says whether there is time for another epoch.

    Parameters
    ----------
    foreseen : float
        About how many seconds an epoch takes; 0: unknown, then the first is tried.

    Returns
    -------
    callable or None
        See `training.engine.GoOn`; None where this process has no deadline.
    """
    if deadline.left() == math.inf:
        return None
    epoch = foreseen

    def go_on(took: float | None, ahead: float = 0.0) -> bool:
        nonlocal epoch
        epoch = epoch if took is None else took
        beside = UNMEASURED * epoch if math.isnan(_beside) else _beside
        return deadline.left() > needed(ahead + epoch, beside)

    return go_on
