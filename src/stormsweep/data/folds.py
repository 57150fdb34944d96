"""Folds of the cross-validation: by whole groups, or without regard to them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep.errors import DataError

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
Split = Literal[
    "grouped", "stratified-grouped", "chronological", "stratified", "k-fold", "consecutive"
]
_TAG = 0xF01D


def folds(
    labels: ArrayLike,
    groups: ArrayLike | None,
    n_folds: int,
    seed: int,
    split: Split | None = None,
) -> list[Fold]:
    """Split the training part for cross-validation.

    Parameters
    ----------
    labels : array_like of 0 and 1, shape (n,)
        The classes.
    groups : array_like of int, shape (n,), or None
        Codes of the groups, which no fold has on both sides; None where folds know no groups.
    n_folds : int
        Number of folds, at least 2.
    seed : int
        Folds that are drawn follow from it; ``grouped``, ``chronological`` and ``consecutive`` need
        no chance.
    split : str, optional
        ``grouped``: groups are dealt out so that folds have about the same number of cases.
        ``stratified-grouped``: and about the same share of events (scikit-learn's
        ``StratifiedGroupKFold``). ``chronological``: codes ascend in time; fold k trains on the
        first k + 1 of n_folds + 1 stretches of groups and validates on the next. ``stratified``,
        ``k-fold`` (cases at random) and ``consecutive`` (cases as they stand: plain ``KFold``) take
        no groups. By default ``grouped`` where there are groups, else ``stratified``.

    Returns
    -------
    list of (ndarray of int64, ndarray of int64)
        Indices of the training and of the validation cases of each fold, ascending. Every case is
        in the validation of exactly one fold, but for ``chronological``, where the first stretch
        is in none.

    Raises
    ------
    DataError
        If there are more folds than groups (or cases), or one side of a fold has one class only.
        The validation of a ``consecutive`` fold may: so it was in 2019.

    Notes
    -----
    ``grouped`` follows the rule of scikit-learn's ``GroupKFold``: the largest group first, each to
    the fold with the fewest cases so far. Among groups of equal size the one with the lower code
    comes first; ``GroupKFold`` leaves that to an unstable sort, whose order differs between
    processors, and then workers on different nodes would not agree on the folds.
    """
    classes = np.asarray(labels).astype(np.int8)
    if n_folds < 2:
        raise DataError(f"validation.folds: given {n_folds}; must be 2 or more")
    codes = None if groups is None else np.asarray(groups)
    if codes is not None and codes.shape != classes.shape:
        raise DataError(f"groups have shape {codes.shape}, labels {classes.shape}")
    split = split or ("stratified" if codes is None else "grouped")
    if split == "chronological":
        made = _chronological(_given(codes, split), n_folds)
    else:
        assigned = _assigned(split, classes, codes, n_folds, seed)
        made = [
            (np.flatnonzero(assigned != fold), np.flatnonzero(assigned == fold))
            for fold in range(n_folds)
        ]
    for fold, (train, validation) in enumerate(made):
        for side, rows in (("training", train), ("validation", validation)):
            if side == "validation" and split == "consecutive":
                continue
            count, positives = len(rows), int(classes[rows].sum())
            if positives in (0, count):
                what = "no event" if positives == 0 else "events only"
                raise DataError(
                    f"validation.folds: the {side} side of fold {fold} (of 0 to {n_folds - 1}) has "
                    f"{what} ({positives} events in {count} cases); use fewer folds, another "
                    "validation.group_by or another data.threshold"
                )
    return made


def _given(codes: NDArray[Any] | None, split: str) -> NDArray[Any]:
    if codes is None:
        raise DataError(f"validation.split: given {split!r}, which needs groups")
    return codes


def _assigned(
    split: Split, classes: NDArray[np.int8], codes: NDArray[Any] | None, n_folds: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold that each case is validated in."""
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    state = int(np.random.SeedSequence([seed, _TAG]).generate_state(1)[0])
    splitter: Any
    match split:
        case "grouped":
            return _grouped(_given(codes, split), n_folds)
        case "stratified-grouped":
            _enough_groups(len(np.unique(_given(codes, split))), n_folds)
            _enough_of_both(classes, n_folds)
            splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=state)
        case "stratified":
            _enough_of_both(classes, n_folds)
            splitter = StratifiedKFold(n_folds, shuffle=True, random_state=state)
        case _:
            if n_folds > len(classes):
                raise DataError(
                    f"validation.folds: given {n_folds}; there are {len(classes)} cases"
                )
            splitter = KFold(n_folds, shuffle=True, random_state=state)
            if split == "consecutive":
                splitter = KFold(n_folds)
    assigned = np.empty(len(classes), np.int64)
    cases = splitter.split(np.zeros(len(classes)), classes, codes)
    for fold, (_, validation) in enumerate(cases):
        assigned[validation] = fold
    return assigned


def _grouped(codes: NDArray[Any], n_folds: int) -> NDArray[np.int64]:
    _, inverse, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    _enough_groups(len(sizes), n_folds)
    load = np.zeros(n_folds, np.int64)
    fold_of = np.empty(len(sizes), np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        fold = int(np.argmin(load))
        fold_of[group] = fold
        load[fold] += sizes[group]
    dealt: NDArray[np.int64] = fold_of[inverse]
    return dealt


def _chronological(codes: NDArray[Any], n_folds: int) -> list[Fold]:
    """Cut the groups, in their order, into stretches of about the same number of cases."""
    _, inverse, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    # The first stretch of groups only trains.
    _enough_groups(len(sizes) - 1, n_folds)
    middle = np.cumsum(sizes) - sizes / 2
    stretch = np.minimum(middle * (n_folds + 1) // len(codes), n_folds).astype(np.int64)
    if len(np.unique(stretch)) <= n_folds:
        # One group outweighs whole stretches: count groups instead of cases.
        stretch = np.arange(len(sizes)) * (n_folds + 1) // len(sizes)
    of_case = stretch[inverse]
    return [
        (np.flatnonzero(of_case <= fold), np.flatnonzero(of_case == fold + 1))
        for fold in range(n_folds)
    ]


def _enough_groups(most: int, n_folds: int) -> None:
    if n_folds > most:
        raise DataError(
            f"validation.folds: given {n_folds}; the groups of the training part allow at most "
            f"{most}"
        )


def _enough_of_both(classes: NDArray[np.int8], n_folds: int) -> None:
    positives = int(classes.sum())
    rarer = min(positives, len(classes) - positives)
    if n_folds > rarer:
        raise DataError(
            f"validation.folds: given {n_folds}; the rarer class of the training part has {rarer} "
            f"of {len(classes)} cases, so at most {rarer} are possible"
        )
