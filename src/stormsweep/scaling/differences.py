"""Differences of scores between studies, and whether they are more than noise.

Scores of one configuration on the n folds of a cross-validation are no independent sample: the
training sets of the folds overlap. So the variance of a mean over folds is taken as
``(1/n + 1/(k - 1)) s^2`` in place of ``s^2 / n``, with k folds a round (the corrected resampled
t-test: Nadeau and Bengio, 2003, Inference for the generalization error, Machine Learning 52,
239-281), as in `stormsweep.results.summary.differences`. Where two studies were scored on the same
folds, the differences are taken fold by fold (paired); else each study has a variance of its own
(Welch).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

LEVEL = 0.95


class Estimate(NamedTuple):
    """A difference, its standard error, and the degrees of freedom that this is known with."""

    difference: float
    error: float
    freedom: float

    def interval(self, comparisons: int = 1) -> tuple[float, float]:
        """Return the 95 % interval; of that many differences at once (Bonferroni), if asked."""
        if not self.freedom >= 1 or not np.isfinite(self.error):
            return float("nan"), float("nan")
        share = 1 - (1 - LEVEL) / (2 * max(comparisons, 1))
        half = float(stdtrit(self.freedom, share)) * self.error
        return self.difference - half, self.difference + half

    @property
    def p(self) -> float:
        """Probability of a difference as large as this if there is none (two-sided)."""
        if not self.freedom >= 1 or not np.isfinite(self.error):
            return float("nan")
        if self.error == 0:
            return 1.0 if self.difference == 0 else 0.0
        return float(2 * stdtr(self.freedom, -abs(self.difference) / self.error))


def paired(baseline: ArrayLike, other: ArrayLike, rounds: int = 1) -> Estimate:
    """Return the difference of two studies scored on the same folds.

    Parameters
    ----------
    baseline, other : array_like, shape (n,)
        Scores on the folds of all rounds, in the same order.
    rounds : int
        How often all cases were split.

    Examples
    --------
    >>> found = paired([0.90, 0.92, 0.91], [0.92, 0.94, 0.93])
    >>> round(found.difference, 4), found.freedom
    (0.02, 2.0)
    """
    gaps = np.asarray(other, dtype=float) - np.asarray(baseline, dtype=float)
    count = len(gaps)
    if count < 2:
        return Estimate(float(gaps.mean()) if count else np.nan, np.nan, 0.0)
    # Equal gaps differ in their last digits, which is no scatter.
    sd = float(gaps.std(ddof=1))
    sd = 0.0 if sd < 1e-12 else sd
    return Estimate(float(gaps.mean()), sd * np.sqrt(_share(count, rounds)), count - 1.0)


def unpaired(
    baseline: tuple[float, float, int],
    other: tuple[float, float, int],
    rounds: tuple[int, int] = (1, 1),
) -> Estimate:
    """Return the difference of two studies whose folds have nothing to do with each other.

    Parameters
    ----------
    baseline, other : tuple of float, float and int
        Mean, standard deviation (n - 1 in the denominator) and number of folds.
    rounds : tuple of int and int
        How often all cases of each were split.

    Examples
    --------
    >>> found = unpaired((0.90, 0.01, 3), (0.92, 0.01, 3))
    >>> round(found.difference, 4), round(found.freedom, 4)
    (0.02, 4.0)
    """
    difference = other[0] - baseline[0]
    counts = [baseline[2], other[2]]
    if min(counts) < 2:
        return Estimate(difference, np.nan, 0.0)
    parts = np.array(
        [
            sd**2 * _share(count, times)
            for (_, sd, count), times in zip((baseline, other), rounds, strict=True)
        ]
    )
    total = float(parts.sum())
    if not np.isfinite(total):
        return Estimate(difference, np.nan, 0.0)
    below = float((parts**2 / (np.array(counts) - 1.0)).sum())
    freedom = total**2 / below if below > 0 else float(sum(counts) - 2)
    return Estimate(difference, float(np.sqrt(total)), freedom)


def _share(folds: int, rounds: int) -> float:
    return 1 / folds + 1 / (folds // rounds - 1)
