"""How long the rest of a study takes, and how sure that is, from how it has gone so far."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable

#: Factors of the two-sided 90 % t-interval, by degrees of freedom.
_T90 = (math.inf, 6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833)
#: The time so far is cut into so many pieces at most; in each every worker ends so many tasks.
_PIECES, _TASKS = 10, 2
#: Results that are kept: of the others the sum is.
_KEPT = 1024


class Pace:
    """How fast a session works.

    What is gained comes in lumps, when a task ends. So the time so far is cut into equal pieces, in
    each of which every worker ends some tasks; the rates in them scatter, and their scatter says
    how well the mean is known. Near the end fewer workers have work: the longest run that is left
    bounds the time from below.

    Parameters
    ----------
    began : float
        When the first task was given out, by any clock that `gained` goes by.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._sum, self._count = 0.0, 0
        self._gained: list[tuple[float, float]] = []
        self._speeds: deque[float] = deque(maxlen=64)

    def take(self, when: float, gained: float, seconds: float) -> None:
        """Take in a result.

        Parameters
        ----------
        when : float
            When it came.
        gained : float
            How much work it was, by `search.plan.cost`.
        seconds : float
            How long a worker was at it.
        """
        self._sum += gained
        self._count += 1
        self._gained.append((when, gained))
        if len(self._gained) > _KEPT:
            # Two neighbours become one: cheaper, and the pieces are as they were. One is left over.
            kept = self._gained
            self._gained = [
                (b[0], a[1] + b[1]) for a, b in zip(kept[::2], kept[1::2], strict=False)
            ]
            self._gained += kept[len(kept) // 2 * 2 :]
        if gained > 0 and seconds > 0:
            self._speeds.append(gained / seconds)

    def left(
        self, now: float, work: float, workers: int, chains: Iterable[float] = ()
    ) -> tuple[float, float, float]:
        """Return the seconds that are left: the estimate, and the ends of its 90 % interval.

        Parameters
        ----------
        now : float
            By the same clock.
        work : float
            What is left.
        workers : int
            How many there are.
        chains : iterable of float
            What is left of each run.

        Returns
        -------
        tuple of float
            NaN where nothing is known yet; the upper end is infinite where the rate is hardly
            known.
        """
        seconds = now - self._began
        if work <= 0:
            return 0.0, 0.0, 0.0
        if self._sum <= 0 or seconds <= 0 or not self._speeds:
            return math.nan, math.nan, math.nan
        rate = self._sum / seconds
        longest = max(chains, default=0.0) / statistics.median(self._speeds)
        middle, low, high = work / rate, math.nan, math.nan
        pieces = min(_PIECES, self._count // (_TASKS * max(1, workers)))
        if pieces >= 2:
            sums = [0.0] * pieces
            for when, gained in self._gained:
                at = (when - self._began) / seconds * pieces
                sums[min(pieces - 1, max(0, int(at)))] += gained
            half = _T90[pieces - 1] * statistics.stdev(sums) / math.sqrt(pieces)
            mean = statistics.fmean(sums)
            low = middle * mean / (mean + half)
            high = middle * mean / (mean - half) if mean > half else math.inf
        return max(middle, longest), max(low, longest), max(high, longest)
