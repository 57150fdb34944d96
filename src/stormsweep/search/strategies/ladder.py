"""The rungs that trials climb, and how many get how far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from stormsweep.search.proposals import Setting


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs, lowest first, and how many trials go on from one to another.

    Attributes
    ----------
    rungs : tuple of tuple of int and int
        Epochs and folds of each.
    reduction : int
        One of so many trials goes on from each milestone.
    steps : int
        Rungs of a milestone: 1, or 2 where trials are scored on some folds before all.
    """

    rungs: tuple[tuple[int, int], ...]
    reduction: int
    steps: int

    @classmethod
    def of(cls, setting: Setting, reduction: int = 3, first_folds: int | None = None) -> Ladder:
        """Make the ladder of a setting.

        Parameters
        ----------
        setting : Setting
            Its epochs are the milestones.
        reduction : int
            One of so many trials goes on from each milestone, from 2.
        first_folds : int, optional
            Folds on which trials are scored at each milestone before the best of them are on all.

        Raises
        ------
        ValueError
            If the epochs do not ascend, or a number is out of its range.

        Examples
        --------
        >>> Ladder.of(Setting(epochs=(1, 4), folds=3, trials=9, seed=0), 3, 1).rungs
        ((1, 1), (1, 3), (4, 1), (4, 3))
        """
        if not setting.epochs or any(low >= high for low, high in pairwise(setting.epochs)):
            raise ValueError(f"epochs: given {setting.epochs}; must ascend, at least one")
        if reduction < 2:
            raise ValueError(f"reduction: given {reduction}; must be a whole number from 2")
        if first_folds is not None and not 1 <= first_folds <= setting.folds:
            raise ValueError(f"first_folds: given {first_folds}; must be 1 to {setting.folds}")
        folds = sorted({first_folds or setting.folds, setting.folds})
        rungs = tuple((epochs, count) for epochs in setting.epochs for count in folds)
        return cls(rungs, reduction, len(folds))

    @property
    def top(self) -> int:
        """The number of the last rung: all epochs, all folds."""
        return len(self.rungs) - 1

    def share(self, trials: int, rungs: int = 1) -> int:
        """Return how many of some trials are left so many rungs further up, rounded down.

        Where a milestone has two rungs, each takes its half of the reduction (its square root).

        Examples
        --------
        >>> ladder = Ladder(((1, 1), (1, 3), (4, 1), (4, 3)), reduction=3, steps=2)
        >>> [ladder.share(27, rungs) for rungs in range(4)]
        [27, 15, 9, 5]
        """
        if self.steps == 1:
            return trials // int(self.reduction**rungs)
        return math.isqrt(trials**2 // self.reduction**rungs)


def bracket_sizes(trials: int, milestones: int, reduction: int) -> list[int]:
    """Divide trials among the brackets of Hyperband.

    Parameters
    ----------
    trials, milestones, reduction : int, int, int
        How many there are, and one of how many goes on from each milestone.

    Returns
    -------
    list of int
        Trials of each bracket, first of the one that chooses from the first milestone on. Too few
        trials leave the last ones empty.

    Examples
    --------
    >>> bracket_sizes(49, milestones=4, reduction=3)  # as published
    [27, 12, 6, 4]
    >>> bracket_sizes(20, milestones=4, reduction=3)
    [11, 5, 2, 2]
    """
    last = range(milestones - 1, -1, -1)
    published = [-(-milestones * reduction**further // (further + 1)) for further in last]
    total = sum(published)
    sizes = [trials * size // total for size in published]
    # The largest remainders first; of equal ones those of earlier brackets.
    order = sorted(
        range(milestones), key=lambda bracket: (-(trials * published[bracket] % total), bracket)
    )
    for bracket in order[: trials - sum(sizes)]:
        sizes[bracket] += 1
    return sizes
