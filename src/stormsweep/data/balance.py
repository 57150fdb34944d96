"""Balancing the classes of a training fold, by index or by weights in the loss."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep.errors import DataError

Method = Literal["none", "oversample", "undersample", "class-weight", "repeat"]
METHODS: tuple[Method, ...] = ("none", "oversample", "undersample", "class-weight", "repeat")
_TAG = 0xBA1A


def balance(
    indices: ArrayLike,
    labels: ArrayLike,
    method: str,
    ratio: float,
    seed: int,
    fold: int,
    repeats: int = 18,
) -> tuple[NDArray[np.int64], tuple[float, float] | None]:
    """Balance the classes among the training cases of one fold.

    Only `indices` are drawn from, so no copy of a validation case can come in. Where the natural
    ratio already is `ratio` or above, nothing changes, except by ``repeat``.

    Parameters
    ----------
    indices : array_like of int, shape (m,)
        The training cases of the fold.
    labels : array_like of 0 and 1, shape (n,)
        The classes of all cases of the training part, folds or not.
    method : {"none", "oversample", "undersample", "class-weight", "repeat"}
        Draw copies of the rarer class, leave out cases of the other one (imbalanced-learn's
        ``RandomOverSampler`` and ``RandomUnderSampler``), weight the loss, or append all cases of
        the rarer class several times, in their order.
    ratio : float
        Rarer class to the other one after balancing, above 0 and at most 1.
    seed, fold : int
        The draw depends on them alone.
    repeats : int
        How often ``repeat`` appends the rarer class: 18 in the scripts of the 2019 study.

    Returns
    -------
    indices : ndarray of int64
        With copies, or fewer.
    class_weight : (float, float) or None
        Weights of class 0 and 1: their weighted numbers have the ratio, and the mean weight over
        the fold is 1, so that a learning rate means the same with and without. None: no weights.

    Raises
    ------
    DataError
        If the method or the ratio is not allowed, or the fold has one class only.
    """
    cases = np.asarray(indices, dtype=np.int64)
    if method not in METHODS:
        raise DataError(f"balance.method: given {method!r}; must be one of {', '.join(METHODS)}")
    if method == "none":
        return cases, None
    if not 0 < ratio <= 1:
        raise DataError(f"balance.ratio: given {ratio!r}; must be above 0 and at most 1")
    classes = np.asarray(labels)[cases]
    positives = int(np.count_nonzero(classes))
    counts = (len(cases) - positives, positives)
    rare, common = min(counts), max(counts)
    if rare == 0:
        raise DataError(
            f"balance.method: fold {fold} has one class only ({positives} events in {len(cases)} "
            "training cases)"
        )
    rare_class = int(positives == rare)
    if method == "repeat":
        return np.concatenate([cases, np.tile(cases[classes == rare_class], repeats)]), None
    if rare >= ratio * common:
        return cases, None
    if method == "class-weight":
        common_weight = len(cases) / ((1 + ratio) * common)
        rare_weight = ratio * len(cases) / ((1 + ratio) * rare)
        weights = (common_weight, rare_weight) if rare_class else (rare_weight, common_weight)
        return cases, weights

    from imblearn.over_sampling import RandomOverSampler
    from imblearn.under_sampling import RandomUnderSampler

    # Numbers instead of the ratio: the samplers cut its result off where it should be rounded.
    if method == "oversample":
        sampler, wanted = RandomOverSampler, {rare_class: round(ratio * common)}
    else:
        sampler, wanted = RandomUnderSampler, {1 - rare_class: round(rare / ratio)}
    state = int(np.random.SeedSequence([seed, fold, _TAG]).generate_state(1)[0])
    drawn, _ = sampler(sampling_strategy=wanted, random_state=state).fit_resample(
        cases.reshape(-1, 1), classes
    )
    return np.asarray(drawn, dtype=np.int64).ravel(), None
