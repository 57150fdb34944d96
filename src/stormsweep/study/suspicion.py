"""Whether a place loses whatever it is given: then the place is at fault, and no run of those."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

#: So many runs must come to nothing in a place, with nothing done there between.
_RUNS = 3


class Suspicion:
    """Finds places (nodes, or GPUs) that lose one run after the other, where one gets on elsewhere.

    Until one does, the runs may be at fault themselves, as all folds of one configuration are. One
    that came to nothing in two places is, and says nothing of either.
    """

    def __init__(self) -> None:
        #: Run to where it was lost first (empty: in two places), and the seconds it had gone on.
        self._lost: dict[str, tuple[str, float]] = {}
        #: Run that was ever lost to its configuration.
        self._configurations: dict[str, str] = {}
        #: Place to the runs that were lost there and got on elsewhere, and those seconds.
        self._blamed: dict[str, dict[str, float]] = {}
        #: Place to what befell the last run that was lost there.
        self._reasons: dict[str, str] = {}

    def lost(
        self, place: str, run: str, seconds: float, reason: str = "", configuration: str = ""
    ) -> None:
        """Take note that a run came to nothing in a place, by a fault that may be the place's.

        Parameters
        ----------
        place, run : str, str
            Which; of a bundle, one run.
        seconds : float
            How long it had gone on there.
        reason : str
            What befell it, in one line.
        configuration : str
            What all its folds have in common; empty: it is the only one.
        """
        self._configurations[run] = configuration or run
        self._reasons[place] = reason
        first, longest = self._lost.get(run, (place, 0.0))
        self._lost[run] = (place if first == place else "", max(seconds, longest))

    def done(self, place: str, run: str) -> None:
        """Take note that a run got on in a place: what came to nothing there says no more of it."""
        self._blamed.pop(place, None)
        first, seconds = self._lost.pop(run, ("", 0.0))
        if first not in ("", place):
            self._blamed.setdefault(first, {})[run] = seconds
        if self._lost:
            self._lost = {one: lost for one, lost in self._lost.items() if lost[0] != place}

    def given_up(self, run: str) -> None:
        """Take note that a run is not tried again: it will say nothing more of any place."""
        self._lost.pop(run, None)

    @property
    def doubted(self) -> set[str]:
        """Places that lost as many runs as say that one is at fault, with nothing done there since.

        Whose fault it was shows once one of the runs gets on elsewhere, or does not. Of one
        configuration alone it is likely not the place's.
        """
        if not (self._lost or self._blamed):
            # As a rule; it is asked for with every task.
            return set()
        lost: defaultdict[str, list[str]] = defaultdict(list)
        for run, (where, _) in self._lost.items():
            lost[where].append(run)
        for place, blamed in self._blamed.items():
            lost[place] += blamed
        return {
            place
            for place, runs in lost.items()
            if place and len(runs) >= _RUNS and len({*map(self._configurations.get, runs)}) > 1
        }

    @property
    def of_any(self) -> bool:
        """Whether there may be a place at fault."""
        return bool(self._blamed)

    def why(self, place: str) -> str:
        """Say in one line what is wrong with a place at fault."""
        return (
            f"{place}: one run after the other comes to nothing there, while others get on; the "
            f"last one: {self._reasons[place]}"
        )

    def unfit(self, there: Mapping[str, float]) -> list[str]:
        """Return the places at fault; never the last.

        Parameters
        ----------
        there : mapping of str to float
            The places that have workers, and for how many seconds the eldest task of each is under
            way; 0: none is.
        """
        found = []
        for place in self._blamed.keys() & there if len(there) > 1 else ():
            waiting = [seconds for where, seconds in self._lost.values() if where == place]
            all_lost = [*self._blamed[place].values(), *waiting]
            # A task that outlives those that were lost seems to get on there.
            if len(all_lost) >= _RUNS and there[place] <= max(all_lost):
                found.append(place)
        return found
