"""The workers of a driver: who is idle, what the others are at, and where they are."""

from __future__ import annotations

from collections.abc import Collection

from stormsweep.cluster.pool import WorkerLost
from stormsweep.study.orders import Reception
from stormsweep.work import TaskOrder


class Workers:
    """Keeps what each worker is at; none has a task before the reception has set it up.

    Parameters
    ----------
    reception : Reception
        Knows who joined, where, and who gets no work.
    """

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        #: Those without work, the one that waits longest first.
        self.idle: dict[str, None] = {}
        #: What each of the others is at: one task, or those of a bundle.
        self.running: dict[str, list[TaskOrder]] = {}
        #: What each has in memory.
        self._held: dict[str, list[str]] = {}
        #: Those that have not done anything yet, and processes that were let go.
        self._fresh: set[str] = set()
        self._dismissed: set[tuple[str, int]] = set()

    @property
    def there(self) -> int:
        """How many there are that get work."""
        joined = {(who.worker, who.pid) for who in self._reception.joined.values()}
        return len(joined - self._dismissed - self._reception.refused.keys())

    def places(self) -> set[str]:
        """Return the places that have workers that get work."""
        return self._reception.places(self._dismissed)

    def others(self, place: str) -> bool:
        """Whether another place has workers that get work, or soon will have."""
        return self._reception.others(place, self._dismissed)

    def place(self, name: str) -> str:
        """Return the place of a worker."""
        return self._reception.place(self._reception.joined[name])

    def under_way(self, now: float) -> dict[str, float]:
        """Return for how many seconds the eldest task of each place is under way; 0: none is."""
        there = dict.fromkeys(self.places(), 0.0)
        for name, orders in self.running.items():
            place = self.place(name)
            if place in there:
                there[place] = max(there[place], now - orders[0].submitted)
        return there

    def idle_outside(self, places: Collection[str]) -> int:
        """Return how many are idle elsewhere; of all workers, where there is no other place."""
        if not places:
            return len(self.idle)
        others = [name for name in (*self.idle, *self.running) if self.place(name) not in places]
        # Those that are just starting are neither idle nor running yet.
        if others or self._reception.expected or self.places() - set(places):
            return sum(name in self.idle for name in others)
        return len(self.idle)

    def holds(self, name: str) -> Collection[str]:
        """Return the runs that a worker has in memory."""
        return self._held.get(name, ())

    def is_fresh(self, name: str) -> bool:
        """Tell whether a worker has not done anything yet."""
        return name in self._fresh

    def welcome(self, name: str) -> None:
        """Take in a worker that was set up."""
        self.idle[name] = None
        self._fresh.add(name)

    def busy(self, name: str, orders: list[TaskOrder]) -> None:
        """Take note of what a worker is sent."""
        del self.idle[name]
        self.running[name] = orders
        self._held[name] = [order.task.run.id for order in orders]

    def back(self, name: str) -> list[TaskOrder]:
        """Take note that a worker returned what it was at, and return that; it is not idle yet."""
        self._fresh.discard(name)
        return self.running.pop(name)

    def drop(self, name: str, run: str) -> None:
        """Take note that a worker has a run in memory no more, or is not to go on with it."""
        self._held[name].remove(run)

    def rest(self, name: str) -> None:
        """Have a worker wait for work, if it gets any."""
        if (name, self._reception.joined[name].pid) not in self._reception.refused:
            self.idle[name] = None

    def dismiss(self, name: str) -> int:
        """Let a worker go; return its process."""
        pid = self._reception.joined[name].pid
        self._dismissed.add((name, pid))
        return pid

    def shut(self, place: str, why: str) -> None:
        """Give the workers of a place no more work."""
        self._reception.shut(place, why)
        for name in list(self.idle):
            if self.place(name) == place:
                del self.idle[name]

    def forget(self, name: str) -> list[TaskOrder]:
        """Take note that a worker is lost, or does nothing more; return what it was at."""
        self._held.pop(name, None)
        self._fresh.discard(name)
        self.idle.pop(name, None)
        return self.running.pop(name, [])

    def lost(self, event: WorkerLost) -> tuple[list[TaskOrder], bool]:
        """Take note that a worker is lost.

        Returns
        -------
        tuple of list of TaskOrder and bool
            What it was at, and whether it was to go.
        """
        gone = (event.worker, event.pid)
        now = self._reception.joined.get(event.worker)
        # Else another process has the name by now, and is not the one that was lost.
        own = now is None or now.pid == event.pid
        orders = self.forget(event.worker) if own else []
        expected = gone in self._dismissed | self._reception.refused.keys() or event.let_go
        self._dismissed.discard(gone)
        return orders, expected
