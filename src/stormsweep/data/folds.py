"""Folds of the cross-validation: by whole groups, or without regard to them; once or repeatedly."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep.config.kinds import ONE_WAY_SPLITS
from stormsweep.errors import DataError

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
Split = Literal[
    "grouped", "stratified-grouped", "chronological", "stratified", "k-fold", "consecutive"
]
_TAG = 0xF01D
#: How often a round is drawn before it counts as impossible.
_DRAWS = 100


def folds(
    labels: ArrayLike,
    groups: ArrayLike | None,
    n_folds: int,
    seed: int,
    split: Split | None = None,
    rounds: int = 1,
) -> list[Fold]:
    """Split the training part for cross-validation, once or several times.

    Parameters
    ----------
    labels : array_like of 0 and 1, shape (n,)
        The classes.
    groups : array_like of int, shape (n,), or None
        Codes of the groups, which no fold has on both sides; None where folds know no groups.
    n_folds : int
        Number of folds of a round, at least 2.
    seed : int
        Folds that are drawn follow from it; ``grouped``, ``chronological`` and ``consecutive`` need
        no chance in the first round.
    split : str, optional
        ``grouped``: groups are dealt out so that folds have about the same number of cases.
        ``stratified-grouped``: and about the same share of events (scikit-learn's
        ``StratifiedGroupKFold``). ``chronological``: codes ascend in time; fold k trains on the
        first k + 1 of n_folds + 1 stretches of groups and validates on the next. ``stratified``,
        ``k-fold`` (cases at random) and ``consecutive`` (cases as they stand: plain ``KFold``) take
        no groups. By default ``grouped`` where there are groups, else ``stratified``.
    rounds : int
        How often all cases are split; each round is another partition than those before it. The
        folds of a round depend on the seed and on earlier rounds only: those of 2 rounds are the
        first of 3. ``chronological`` and ``consecutive`` have one round.

    Returns
    -------
    list of (ndarray of int64, ndarray of int64)
        Indices of the training and of the validation cases of each fold, ascending; the fold
        numbered f is split ``f % n_folds`` of round ``f // n_folds``. Every case is in the
        validation of exactly one fold of a round, but for ``chronological``, where the first
        stretch is in none.

    Raises
    ------
    DataError
        If there are more folds than groups (or cases), one side of a fold has one class only (the
        validation of a ``consecutive`` fold may: so it was in 2019), or there are no more ways to
        split than there are rounds.

    Notes
    -----
    ``grouped`` follows the rule of scikit-learn's ``GroupKFold``: the largest group first, each to
    the fold with the fewest cases so far. Among groups of equal size the one with the lower code
    comes first; ``GroupKFold`` leaves that to an unstable sort, whose order differs between
    processors, and then workers on different nodes would not agree on the folds. In later rounds
    groups come in random order, each to the fold with the fewest cases so far: two folds never
    differ by more cases than the largest group has.
    """
    classes = np.asarray(labels).astype(np.int8)
    if n_folds < 2:
        raise DataError(f"validation.folds: given {n_folds}; must be 2 or more")
    codes = None if groups is None else np.asarray(groups)
    if codes is not None and codes.shape != classes.shape:
        raise DataError(f"groups have shape {codes.shape}, labels {classes.shape}")
    split = split or ("stratified" if codes is None else "grouped")
    if rounds > 1 and split in ONE_WAY_SPLITS:
        raise DataError(
            f"validation.rounds: given {rounds}; must be 1 with validation.split = {split!r}, "
            "which splits in one way only"
        )
    if split == "chronological":
        made = _chronological(_given(codes, split), n_folds)
    else:
        assigned = _assigned(split, classes, codes, n_folds, [seed, _TAG])
        made = _of(assigned, n_folds)
    unfit = _one_class(classes, made, split)
    if unfit:
        way = 'validation.split = "stratified"' if codes is None else "another validation.group_by"
        raise DataError(
            f"validation.folds: the {unfit}", f"use fewer folds, {way} or another data.threshold"
        )
    if rounds > 1:
        drawn = [assigned]
        for number in range(1, rounds):
            drawn.append(_another(drawn, split, classes, codes, n_folds, seed))
            made += _of(drawn[number], n_folds)
    return made


def _of(assigned: NDArray[np.int64], n_folds: int) -> list[Fold]:
    return [
        (np.flatnonzero(assigned != fold), np.flatnonzero(assigned == fold))
        for fold in range(n_folds)
    ]


def _one_class(classes: NDArray[np.int8], made: list[Fold], split: Split) -> str:
    """Name the first side of a fold that has one class only; empty: none has."""
    for fold, (train, validation) in enumerate(made):
        for side, rows in (("training", train), ("validation", validation)):
            if side == "validation" and split == "consecutive":
                continue
            count, positives = len(rows), int(classes[rows].sum())
            if positives in (0, count):
                what = "no event" if positives == 0 else "events only"
                return (
                    f"{side} side of fold {fold} (of 0 to {len(made) - 1}) has {what} "
                    f"({positives} events in {count} cases)"
                )
    return ""


def _another(
    before: list[NDArray[np.int64]],
    split: Split,
    classes: NDArray[np.int8],
    codes: NDArray[Any] | None,
    n_folds: int,
    seed: int,
) -> NDArray[np.int64]:
    """Return the fold that each case is validated in, in the round after those `before`.

    Few groups can be split in few ways, and not all of them have both classes in every fold: it is
    drawn until a split is new and can be scored.
    """
    known = [_plain(assigned) for assigned in before]
    unfit = ""
    for draw in range(_DRAWS):
        entropy = [seed, _TAG, len(before), draw]
        assigned = _assigned(split, classes, codes, n_folds, entropy, dealt=True)
        unfit = _one_class(classes, _of(assigned, n_folds), split)
        plain = _plain(assigned)
        if not unfit and not any(np.array_equal(plain, one) for one in known):
            return assigned
    why = f"in the last one the {unfit}" if unfit else "the last one is a split that was there"
    raise DataError(
        f"validation.rounds: given more than {len(before)}; of {_DRAWS} other splits that were "
        f"drawn none is new with both classes in every fold ({why})",
        f"must be at most {len(before)}",
    )


def _plain(assigned: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the folds by the order in which they first occur: the same for the same partition."""
    _, first, inverse = np.unique(assigned, return_index=True, return_inverse=True)
    plain: NDArray[np.int64] = np.argsort(np.argsort(first))[inverse]
    return plain


def _given(codes: NDArray[Any] | None, split: str) -> NDArray[Any]:
    if codes is None:
        raise DataError(f"validation.split: given {split!r}, which needs groups")
    return codes


def _assigned(
    split: Split,
    classes: NDArray[np.int8],
    codes: NDArray[Any] | None,
    n_folds: int,
    entropy: list[int],
    dealt: bool = False,
) -> NDArray[np.int64]:
    """Return the fold that each case is validated in; `dealt`: chance decides in any case."""
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    sequence = np.random.SeedSequence(entropy)
    state = int(sequence.generate_state(1)[0])
    splitter: Any
    match split:
        case "grouped":
            chance = np.random.Generator(np.random.PCG64(sequence)) if dealt else None
            return _grouped(_given(codes, split), n_folds, chance)
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


def _grouped(
    codes: NDArray[Any], n_folds: int, chance: np.random.Generator | None
) -> NDArray[np.int64]:
    _, inverse, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    _enough_groups(len(sizes), n_folds)
    load = np.zeros(n_folds, np.int64)
    fold_of = np.empty(len(sizes), np.int64)
    order = np.argsort(-sizes, kind="stable")
    for group in order if chance is None else chance.permutation(order):
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
