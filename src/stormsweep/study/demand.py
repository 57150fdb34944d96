"""How many tasks workers are wanted for, where a strategy says what is to be trained."""

from __future__ import annotations

#: How long what was wanted stays wanted, in seconds: nodes are hard to get again.
_HOLD_SECONDS = 60.0


class Demand:
    """Foresees how many tasks there may be under way at a time.

    A strategy is asked for idle workers only, so what waits says nothing of what more workers would
    find to do: the trials do that it has not begun. Where some are idle all the same, it waits for
    scores and has nothing for more of them. That passes, at the end of a rung, say: for a moment's
    sake no job that waits in a queue is let go.

    Parameters
    ----------
    trials : int
        How many trials there will about be.
    folds : int
        How many runs a trial begins with.
    """

    def __init__(self, trials: int, folds: int) -> None:
        self._trials, self._folds = trials, folds
        self._held, self._until = 0, 0.0

    def tasks(self, there: int, begun: int, idle: bool, now: float) -> int:
        """Return how many tasks to want workers for.

        Parameters
        ----------
        there : int
            Tasks that wait or are under way.
        begun : int
            Trials that the strategy has proposed.
        idle : bool
            Whether there are workers that it had nothing for.
        now : float
            Seconds, of a clock that does not go back.
        """
        more = 0 if idle else max(0, self._trials - begun) * self._folds
        if there + more >= self._held or now >= self._until:
            self._held, self._until = there + more, now + _HOLD_SECONDS
        return self._held
