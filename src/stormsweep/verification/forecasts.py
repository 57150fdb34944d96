"""Probability forecasts beside what happened, and the blocks in which they are resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import DataError

#: What resampled blocks are called where each case is one of its own.
CASE = "case"
#: More groups than these (or single cases) are thrown together at random into as many blocks: what
#: is independent stays so, and time and memory stay bounded.
MOST_BLOCKS = 1000
_TAG = 0xB10C


@dataclass(frozen=True, eq=False, slots=True)
class Forecasts:
    """Probability forecasts of one event, on cases that took no part in training.

    Made by `forecasts`, which checks them.

    Attributes
    ----------
    probability : ndarray of float64, shape (n,)
        Forecast probability of the event, 0 to 1.
    event : ndarray of bool, shape (n,)
        Whether it happened.
    climatology : float
        Event frequency of the training part: the constant forecast to be better than.
    block : ndarray of int64, shape (n,)
        Number of the block that a case belongs to, from 0 without gaps.
    blocks : int
        How many blocks there are, `MOST_BLOCKS` at most.
    block_name : str
        What is kept whole in a block: ``run_date``, another group, or ``case``.
    groups : int
        How many of these there are: the number of blocks, unless they were too many.
    """

    probability: NDArray[np.float64]
    event: NDArray[np.bool_]
    climatology: float
    block: NDArray[np.int64]
    blocks: int
    block_name: str
    groups: int

    def __len__(self) -> int:
        return len(self.event)

    @property
    def events(self) -> int:
        """How often the event happened."""
        return int(np.count_nonzero(self.event))

    def of(self, chosen: NDArray[np.bool_]) -> Forecasts:
        """Return the chosen cases; `chosen` is of shape (n,). One class may be missing in them."""
        codes, block = np.unique(self.block[chosen], return_inverse=True)
        return Forecasts(
            self.probability[chosen],
            self.event[chosen],
            self.climatology,
            block.astype(np.int64),
            len(codes),
            self.block_name,
            len(codes),
        )


def forecasts(
    probabilities: NDArray[Any],
    labels: NDArray[Any],
    climatology: float,
    blocks: NDArray[Any] | Sequence[Any] | None = None,
    block_name: str = CASE,
) -> Forecasts:
    """Check forecasts and put them beside what happened.

    Parameters
    ----------
    probabilities : ndarray, shape (n,)
        Forecast probability of the event, 0 to 1.
    labels : ndarray, shape (n,)
        1 where the event happened, else 0; both must occur.
    climatology : float
        Event frequency of the training part.
    blocks : array of labels, shape (n,), optional
        What is resampled as a whole, such as run dates; none: every case by itself.
    block_name : str
        What a block is.

    Raises
    ------
    DataError
        If lengths differ, a probability is no number from 0 to 1, or all labels are the same.
    """
    p = np.asarray(probabilities, dtype=np.float64).ravel()
    event = np.asarray(labels).ravel() != 0
    if p.size != event.size or (blocks is not None and len(blocks) != event.size):
        known = event.size if blocks is None else (event.size, len(blocks))
        raise DataError(f"forecasts: {p.size} probabilities, but labels or blocks of {known} cases")
    bad = int(np.count_nonzero(~((p >= 0) & (p <= 1))))
    if bad:
        raise DataError(f"forecasts: {bad} of {p.size} are no probabilities from 0 to 1")
    if p.size == 0 or event.all() or not event.any():
        raise DataError(
            f"forecasts: the event happened in {np.count_nonzero(event)} of {p.size} cases; "
            "nothing can be verified on one class alone"
        )
    if blocks is None:
        groups, code = p.size, np.arange(p.size)
    else:
        names, code = np.unique(np.asarray(blocks), return_inverse=True)
        groups = len(names)
    block, count = code.astype(np.int64), min(groups, MOST_BLOCKS)
    if groups > count:
        block = (np.random.default_rng(_TAG).permutation(groups) % count)[block]
    name = CASE if blocks is None else block_name
    return Forecasts(p, event, float(climatology), block, count, name, groups)
