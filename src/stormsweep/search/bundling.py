"""How many runs go into a bundle: what the study says, and what the loss of workers teaches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence

from stormsweep.config.study import EngineTable
from stormsweep.search.plan import Queue, structure
from stormsweep.work import Run, Task

#: Runs in a bundle at most, where the study file says ``auto``; a worker that has no room for so
#: many trains them in parts.
MOST = 64
#: Bundles that are out of time so often are halved: an epoch of fewer runs is shorter.
_WALLTIMES = 2
#: Bundles that lose their workers so often are taken apart, to find the run whose fault it is.
_KILLS = 2


class Bundling:
    """Decides which tasks a worker gets together.

    Parameters
    ----------
    engine : EngineTable
        Of the study file.
    """

    def __init__(self, engine: EngineTable) -> None:
        self._most = 1
        if engine.use == "jax":
            self._most = MOST if engine.bundle == "auto" else engine.bundle
        #: Runs that went down with their worker, and in how large a bundle they may go since.
        self._at_most: dict[str, int] = {}
        self._kills: Counter[str] = Counter()
        self._walltimes: Counter[str] = Counter()

    @classmethod
    def none(cls) -> Bundling:
        """Return what gives out single tasks."""
        return cls(EngineTable())

    @property
    def most(self) -> int:
        """How many runs a bundle has at most."""
        return self._most

    @property
    def structure(self) -> Callable[[Run], str] | None:
        """What runs of a bundle have in common; None where there are no bundles."""
        return structure if self._most > 1 else None

    def take(self, queue: Queue, held: Collection[str], idle: int) -> list[Task]:
        """Take the next bundle out of the queue; runs are shared out where workers are idle.

        Parameters
        ----------
        queue : Queue
            What waits.
        held : collection of str
            Runs that the worker has in memory.
        idle : int
            Workers without work, this one included.
        """
        if self._most == 1:
            return queue.take_bundle(held)
        share = math.ceil(len(queue) / max(1, idle))
        return queue.take_bundle(held, max(1, min(self._most, share)), self._at_most)

    def together(self, tasks: Sequence[Task], idle: int) -> list[Task]:
        """Return those of some tasks that go into one bundle with the first; as of `take`.

        Parameters
        ----------
        tasks : sequence of Task
            What waits; at least one.
        idle : int
            Workers without work that may get them.
        """
        if self._most == 1:
            return [tasks[0]]

        def kind(task: Task) -> tuple[Hashable, ...]:
            bound = self._at_most.get(task.run.id)
            return structure(task.run), task.from_epoch, task.to_epoch, task.start, bound

        share = math.ceil(len(tasks) / max(1, idle))
        most = min(self._most, share, self._at_most.get(tasks[0].run.id, share))
        first = kind(tasks[0])
        return [task for task in tasks if kind(task) == first][:most]

    def lost(self, bundle: Sequence[Task], failure: str) -> None:
        """Learn from a bundle that lost its worker: for memory half of it may still fit."""
        for task in bundle:
            name = task.run.id
            self._kills[name] += failure == "killed"
            self._walltimes[name] += failure == "walltime"
            out_of_time = failure == "walltime" and self._walltimes[name] >= _WALLTIMES
            if failure == "out-of-memory" or out_of_time:
                self._at_most[name] = max(1, len(bundle) // 2)
            elif self._kills[name] >= _KILLS:
                self._at_most[name] = 1
