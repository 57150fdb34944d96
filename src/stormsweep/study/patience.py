"""How often a run may lose its worker before it is given up, and whose fault a loss is.

A place is a node, or one of its GPUs. A run is given up for what befell it in two places, where
there are several that work: one may be at fault itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stormsweep.cluster.pool import NO_FAULT
from stormsweep.config.walltimes import STANDSTILLS
from stormsweep.work import Task

WALLTIME, NODE = "walltime", "node-failure"
#: How often a run may lose its worker, in one session, before it is given up.
_ATTEMPTS = {"killed": 3, "out-of-memory": 2}
_ADVICE = (
    "one epoch does not fit into the time that a worker has; ask for a longer walltime, or have an "
    "epoch take less (larger batches, more threads a worker)"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a task that lost its worker.

    Attributes
    ----------
    attempt : int
        Which attempt the next one is; a loss that is nobody's fault does not count.
    given_up : str
        Why its run is given up, in one line; empty: it goes on.
    elsewhere : bool
        Whether it goes on in another place.
    """

    attempt: int
    given_up: str = ""
    elsewhere: bool = False


class Patience:
    """Counts what befell each run in one session, since its last milestone."""

    def __init__(self) -> None:
        self._attempts: dict[str, Counter[str]] = {}
        #: Run to the places where that befell it, alone.
        self._places: dict[str, set[str]] = {}
        #: Run to the epoch that it stands at, and how often its worker's time was over there.
        self._standing: dict[str, tuple[int, int]] = {}

    def done(self, task: Task) -> None:
        """Forget what befell a run that reached a milestone."""
        self._attempts.pop(task.run.id, None)
        self._places.pop(task.run.id, None)

    def lost(
        self,
        task: Task,
        failure: str,
        reason: str,
        alone: bool,
        place: str = "",
        others: bool = False,
    ) -> Verdict:
        """Judge the loss of a worker.

        Parameters
        ----------
        task : Task
            What the worker was at.
        failure, reason : str, str
            As in `WorkerLost`.
        alone : bool
            Whether the task was the only one. Whose fault a loss was is known when a run loses its
            worker alone.
        place : str
            Where it was.
        others : bool
            Whether there are other places.
        """
        attempts = self._attempts.setdefault(task.run.id, Counter())
        if failure == WALLTIME:
            given_up = self._stands(task, reason, alone)
            return Verdict(1 + max(attempts.values(), default=0), given_up)
        if failure in NO_FAULT:
            return Verdict(1 + max(attempts.values(), default=0))
        most = _ATTEMPTS.get(failure, _ATTEMPTS["killed"])
        attempts[failure] += 1
        only_here = alone and self._only_in(task, place, others)
        if not alone or only_here:
            attempts[failure] = min(attempts[failure], most - 1)
        count = attempts[failure]
        if count < most:
            return Verdict(1 + count, elsewhere=only_here and count == most - 1)
        return Verdict(count, reason + (f", {count} times" if count > 1 else ""))

    def raised(self, task: Task, reason: str, place: str, others: bool) -> Verdict:
        """Judge an error that a run ended with; as of `lost`."""
        attempts = self._attempts.setdefault(task.run.id, Counter())
        count = 1 + max(attempts.values(), default=0)
        if self._only_in(task, place, others):
            return Verdict(count, elsewhere=True)
        return Verdict(count, reason)

    def _only_in(self, task: Task, place: str, others: bool) -> bool:
        """Take note of where something befell a run; say whether it was nowhere else so far."""
        places = self._places.setdefault(task.run.id, set())
        places.add(place)
        return others and places == {place}

    def paused(self, task: Task, epoch: int, alone: bool) -> str:
        """Judge a pause by a worker that had most of its job's time, and had done nothing before.

        Parameters
        ----------
        task : Task
            What the worker was at.
        epoch : int
            Where it left off.
        alone : bool
            Whether the task was the only one.

        Returns
        -------
        str
            Why the run is given up; empty: it goes on.
        """
        if epoch != task.start:
            return ""
        return self._stands(task, "a new worker had no time for an epoch", alone)

    def _stands(self, task: Task, what: str, alone: bool) -> str:
        epoch, count = self._standing.get(task.run.id, (task.start, 0))
        count = count + 1 if epoch == task.start else 1
        if not alone:
            count = min(count, STANDSTILLS - 1)
        self._standing[task.run.id] = (task.start, count)
        if count < STANDSTILLS:
            return ""
        return f"{what}, {count} times at epoch {task.start}: {_ADVICE}"
