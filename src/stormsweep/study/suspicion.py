"""Whether a place loses whatever it is given: then the place is at fault, and no run of those."""

from __future__ import annotations

import math
from collections.abc import Mapping

#: So many runs in a row must come to nothing in a place, each for the first time.
_RUNS = 3
#: A task has outlived those that a place lost if it goes on for so many times as long, and for so
#: many seconds more.
_OUTLIVED, _SPARE = 3.0, 10.0


class Suspicion:
    """Finds places (nodes, or GPUs) that lose all they are given, while others get on.

    A run that came to nothing in two places is at fault itself, and says nothing of either.
    """

    def __init__(self) -> None:
        #: Place to the runs that were lost there since anything was done there, and how long they
        #: had gone on; and since when, by the driver's clock.
        self._blamed: dict[str, dict[str, float]] = {}
        self._since: dict[str, float] = {}
        #: Where a run was lost first; empty: in two places.
        self._first: dict[str, str] = {}
        self._done: dict[str, float] = {}

    def lost(self, place: str, run: str, seconds: float, when: float) -> None:
        """Take note that a run came to nothing in a place, by a fault that may be the place's.

        Parameters
        ----------
        place, run : str, str
            Which; of a bundle, one run.
        seconds : float
            How long it had gone on there.
        when : float
            By the driver's clock.
        """
        first = self._first.setdefault(run, place)
        if first != place:
            self._first[run] = ""
            self._blamed.get(first, {}).pop(run, None)
            return
        self._since.setdefault(place, when)
        blamed = self._blamed.setdefault(place, {})
        blamed[run] = max(seconds, blamed.get(run, 0.0))

    def done(self, place: str, run: str, when: float) -> None:
        """Take note that a run got on in a place; as of `lost`."""
        self._done[place] = when
        self._first.pop(run, None)
        self._blamed.pop(place, None)
        self._since.pop(place, None)

    @property
    def of_any(self) -> bool:
        """Whether enough came to nothing anywhere for a place to be at fault."""
        return any(len(runs) >= _RUNS for runs in self._blamed.values())

    def unfit(self, there: Mapping[str, float]) -> list[str]:
        """Return the places at fault.

        Parameters
        ----------
        there : mapping of str to float
            The places that have workers, and for how many seconds the eldest task of each is under
            way; 0: none is.
        """
        return [
            place
            for place, runs in self._blamed.items()
            if place in there and len(runs) >= _RUNS and self._is_unfit(place, there)
        ]

    def _is_unfit(self, place: str, there: Mapping[str, float]) -> bool:
        longest, since = max(self._blamed[place].values()), self._since[place]
        if there[place] > longest:
            # Something gets on there, as it seems, or will be lost too.
            return False
        return any(
            self._done.get(other, -math.inf) > since or age > _OUTLIVED * longest + _SPARE
            for other, age in there.items()
            if other != place
        )
