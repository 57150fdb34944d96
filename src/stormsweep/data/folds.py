"""Folds of the cross-validation: by whole groups, or stratified by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep.errors import DataError

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
_TAG = 0xF01D


def folds(labels: ArrayLike, groups: ArrayLike | None, n_folds: int, seed: int) -> list[Fold]:
    """Split the training part for cross-validation.

    Parameters
    ----------
    labels : array_like of 0 and 1, shape (n,)
        The classes.
    groups : array_like of int, shape (n,), or None
        Codes of the groups; no group is on both sides of a fold. None: stratified by class.
    n_folds : int
        Number of folds, at least 2.
    seed : int
        Stratified folds are drawn with it; folds by groups need no chance.

    Returns
    -------
    list of (ndarray of int64, ndarray of int64)
        Indices of the training and of the validation cases of each fold, ascending. Every case is
        in the validation of exactly one fold.

    Raises
    ------
    DataError
        If there are more folds than groups (or cases), or one side of a fold has one class only.

    Notes
    -----
    Groups are dealt out by the rule of scikit-learn's ``GroupKFold``: the largest first, each to
    the fold with the fewest cases so far. Among groups of equal size the one with the lower code
    comes first; ``GroupKFold`` leaves that to an unstable sort, whose order differs between
    processors, and then workers on different nodes would not agree on the folds.
    """
    classes = np.asarray(labels).astype(np.int8)
    if n_folds < 2:
        raise DataError(f"validation.folds: given {n_folds}; must be 2 or more")
    if groups is None:
        assigned = _stratified(classes, n_folds, seed)
    else:
        codes = np.asarray(groups)
        if codes.shape != classes.shape:
            raise DataError(f"groups have shape {codes.shape}, labels {classes.shape}")
        assigned = _grouped(codes, n_folds)
    split: list[Fold] = []
    for fold in range(n_folds):
        validation = assigned == fold
        for side, mask in (("training", ~validation), ("validation", validation)):
            count, positives = int(mask.sum()), int(classes[mask].sum())
            if positives in (0, count):
                what = "no event" if positives == 0 else "events only"
                raise DataError(
                    f"validation.folds: the {side} side of fold {fold} (of 0 to {n_folds - 1}) has "
                    f"{what} ({positives} events in {count} cases); use fewer folds, another "
                    "validation.group_by or another data.threshold"
                )
        split.append((np.flatnonzero(~validation), np.flatnonzero(validation)))
    return split


def _grouped(codes: NDArray[np.generic], n_folds: int) -> NDArray[np.int64]:
    _, inverse, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    if n_folds > len(sizes):
        raise DataError(
            f"validation.folds: given {n_folds}; the training part has {len(sizes)} groups, so at "
            f"most {len(sizes)} are possible"
        )
    load = np.zeros(n_folds, np.int64)
    fold_of = np.empty(len(sizes), np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        fold = int(np.argmin(load))
        fold_of[group] = fold
        load[fold] += sizes[group]
    dealt: NDArray[np.int64] = fold_of[inverse]
    return dealt


def _stratified(classes: NDArray[np.int8], n_folds: int, seed: int) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedKFold

    positives = int(classes.sum())
    rarer = min(positives, len(classes) - positives)
    if n_folds > rarer:
        raise DataError(
            f"validation.folds: given {n_folds}; the rarer class of the training part has {rarer} "
            f"of {len(classes)} cases, so at most {rarer} are possible"
        )
    state = int(np.random.SeedSequence([seed, _TAG]).generate_state(1)[0])
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=state)
    assigned = np.empty(len(classes), np.int64)
    for fold, (_, validation) in enumerate(splitter.split(np.zeros(len(classes)), classes)):
        assigned[validation] = fold
    return assigned
