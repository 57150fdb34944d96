"""The front of a search for several scores: the configurations that no other beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep.config.study import METRICS


def front(scores: ArrayLike, objectives: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which configurations no other beats: none is as good in all scores and better in one.

    Parameters
    ----------
    scores : array_like of float, shape (configurations, objectives)
        One that is not a number keeps its configuration out.
    objectives : sequence of str
        Names of the scores.

    Returns
    -------
    ndarray of bool, shape (configurations,)

    Examples
    --------
    >>> front([[0.9, 0.3], [0.8, 0.2], [0.8, 0.3]], ["roc_auc", "loss"]).tolist()
    [True, True, False]
    """
    signs = [-1.0 if METRICS[name] == "minimize" else 1.0 for name in objectives]
    merits = np.asarray(scores, dtype=float).reshape(-1, len(signs)) * signs
    found = np.zeros(len(merits), dtype=bool)
    sound = np.flatnonzero(~np.isnan(merits).any(axis=1))
    # In this order nobody is beaten by one that comes later.
    for row in sound[np.lexsort(-merits[sound].T[::-1])]:
        others, own = merits[found], merits[row]
        found[row] = not ((others >= own).all(axis=1) & (others > own).any(axis=1)).any()
    return found
