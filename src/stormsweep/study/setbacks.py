"""What becomes of tasks that came to nothing where they were, and which places are at fault."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from stormsweep.cluster.pool import WorkerLost
from stormsweep.records import RunFailed, TaskDone, TaskPaused, TaskRetried
from stormsweep.study.patience import WALLTIME, Patience, Verdict
from stormsweep.study.suspicion import Suspicion
from stormsweep.work import Task, TaskOrder, identity

log = logging.getLogger(__name__)

#: How a run may end by a fault of the place where it was.
_FAULTS = frozenset({"error", "out-of-memory"})


@dataclass(frozen=True, slots=True)
class Setback:
    """A task that came to nothing, and what becomes of it.

    Attributes
    ----------
    task : Task
        The task.
    record : TaskRetried or RunFailed
        For the journal: it is tried again, or its run is given up.
    here : bool
        Whether any worker may try it again; else `Setbacks` keeps it for one elsewhere, or it is
        not tried again.
    told : str
        Of one that is tried again, in one line; empty: enough was told of such.
    """

    task: Task
    record: TaskRetried | RunFailed
    here: bool = False
    told: str = ""


class Setbacks:
    """Judges what came to nothing; keeps what is to be tried elsewhere, and finds bad places.

    A place is a node, or one of its GPUs.

    Parameters
    ----------
    others : callable
        Says of a place whether there is another one, or soon will be.
    """

    def __init__(self, others: Callable[[str], bool]) -> None:
        self._others = others
        self._patience, self._suspicion = Patience(), Suspicion()
        #: Tasks that wait for a worker elsewhere, by run, and where they came to nothing.
        self._elsewhere: dict[str, tuple[Task, str]] = {}
        #: What runs failed with, and where; the first two are told of.
        self._alike: Counter[tuple[str, str]] = Counter()

    @property
    def elsewhere(self) -> Collection[str]:
        """The runs that have a task which waits for a worker in another place."""
        return self._elsewhere.keys()

    @property
    def avoided(self) -> set[str]:
        """The places where those came to nothing."""
        return {avoided for _, avoided in self._elsewhere.values()}

    @property
    def to_judge(self) -> bool:
        """Whether there is anything to `judge`; as a rule there is not."""
        return bool(self._elsewhere) or self._suspicion.of_any

    @property
    def doubted(self) -> set[str]:
        """Places that may be at fault: they lose one run after the other; as a rule none does."""
        return self._suspicion.doubted

    def returned(
        self,
        orders: Sequence[TaskOrder],
        results: Sequence[TaskDone | TaskPaused | RunFailed],
        place: str,
        when: float,
    ) -> dict[str, Setback]:
        """Take in what a worker returned of what it was sent.

        Parameters
        ----------
        orders, results : sequences
            What it was sent, and what came of each.
        place : str
            Where it is.
        when : float
            When it returned them.

        Returns
        -------
        dict of str to Setback
            What becomes of the runs that failed.
        """
        failed = [one for one in results if isinstance(one, RunFailed)]
        # Where others of the bundle get on, it is no fault of the place.
        doubtful = len(failed) == len(results) and all(one.failure in _FAULTS for one in failed)
        others = doubtful and self._others(place)
        if doubtful:
            self._suspect(place, orders[0], when, failed[0].reason)
        found: dict[str, Setback] = {}
        for order, result in zip(orders, results, strict=True):
            if isinstance(result, RunFailed):
                failure = replace(result, seconds=_share(order, when, len(orders)))
                again = self._raised(order, failure, place, others) if doubtful else None
                found[result.run] = again or self._given_up(order, failure)
                continue
            if result.submitted == order.submitted and result.to_epoch > order.task.start:
                self._suspicion.done(place, result.run)
            if isinstance(result, TaskDone):
                self._patience.done(order.task)
        return found

    def _suspect(self, place: str, order: TaskOrder, when: float, reason: str) -> None:
        run = order.task.run
        configuration = identity(run.hyperparameters)
        self._suspicion.lost(place, run.id, when - order.submitted, reason, configuration)

    def _raised(
        self, order: TaskOrder, failure: RunFailed, place: str, others: bool
    ) -> Setback | None:
        """Have a run that raised tried elsewhere first, where there is another place."""
        task, reason = order.task, failure.reason
        verdict = self._patience.raised(task, reason, place, others)
        if verdict.given_up:
            return None
        self._elsewhere[task.run.id] = task, place
        said = f"failed on {place} ({reason})"
        log.info("run %s %s; it is tried elsewhere", task.run.id, said)
        self._alike[place, reason] += 1
        told = {
            1: f"run {task.run.id} {said}; it is tried elsewhere from epoch {task.start}",
            2: f"another run {said}; all that do are tried elsewhere",
        }.get(self._alike[place, reason], "")
        return Setback(task, _retried(order, verdict, reason, failure.seconds), False, told)

    def paused(self, order: TaskOrder, epoch: int, alone: bool) -> Setback | None:
        """Judge a pause by a new worker that had most of its job's time.

        Parameters
        ----------
        order : TaskOrder
            What it was sent.
        epoch : int
            Where it left off.
        alone : bool
            Whether it was sent nothing else.

        Returns
        -------
        Setback or None
            None: the run goes on from there.
        """
        given_up = self._patience.paused(order.task, epoch, alone)
        if not given_up:
            return None
        return self._given_up(order, RunFailed.of(order, WALLTIME, given_up))

    def lost(self, orders: Sequence[TaskOrder], loss: WorkerLost, place: str) -> list[Setback]:
        """Take in that a worker is lost.

        Parameters
        ----------
        orders : sequence of TaskOrder
            What it was at.
        loss : WorkerLost
            How it was lost.
        place : str
            Where it was.
        """
        if not orders:
            return []
        if loss.failure == "killed":
            self._suspect(place, orders[0], loss.when, loss.reason)
        others, alone = self._others(place), len(orders) == 1
        seconds = _share(orders[0], loss.when, len(orders))
        found = []
        for order in orders:
            task = order.task
            verdict = self._patience.lost(task, loss.failure, loss.reason, alone, place, others)
            if verdict.given_up:
                failure = RunFailed.of(order, loss.failure, verdict.given_up, seconds=seconds)
                found.append(self._given_up(order, failure))
                continue
            if verdict.elsewhere:
                self._elsewhere[task.run.id] = task, place
            told = f"worker {loss.worker} was lost ({loss.reason}); run {task.run.id} goes on"
            record = _retried(order, verdict, loss.reason, seconds)
            here = not verdict.elsewhere
            found.append(Setback(task, record, here, f"{told} from epoch {task.start}"))
        return found

    def _given_up(self, order: TaskOrder, failure: RunFailed) -> Setback:
        self._suspicion.given_up(failure.run)
        return Setback(order.task, failure)

    def take(self, place: str, together: Callable[[Sequence[Task]], list[Task]]) -> list[Task]:
        """Take out tasks that came to nothing in another place than this one; empty: there is none.

        Parameters
        ----------
        place : str
            Where they are to be tried.
        together : callable
            Chooses among several.
        """
        waiting = [task for task, avoided in self._elsewhere.values() if avoided != place]
        chosen = together(waiting) if waiting else []
        for task in chosen:
            del self._elsewhere[task.run.id]
        return chosen

    def judge(
        self, there: Mapping[str, float], expected: bool = False
    ) -> tuple[dict[str, str], list[Task]]:
        """Find places that are to get no more work, and tasks that wait in vain.

        Parameters
        ----------
        there : mapping of str to float
            The places that have workers, and for how many seconds the eldest task of each is under
            way; 0: none is.
        expected : bool
            Whether another place will soon have workers.

        Returns
        -------
        tuple of dict of str to str and list of Task
            Places at fault, and why; and tasks, taken out, that no other place is left for.
        """
        unfit = {place: self._suspicion.why(place) for place in self._suspicion.unfit(there)}
        left = there.keys() - unfit.keys()
        waiting: Iterable[tuple[Task, str]] = () if expected else self._elsewhere.values()
        stranded = [task for task, avoided in waiting if not left - {avoided}]
        for task in stranded:
            del self._elsewhere[task.run.id]
        return unfit, stranded


def _retried(order: TaskOrder, verdict: Verdict, reason: str, seconds: float) -> TaskRetried:
    task, who = order.task, (order.worker, order.session)
    return TaskRetried(task.run.id, task.to_epoch, verdict.attempt, reason, *who, seconds)


def _share(order: TaskOrder, when: float, bundle: int) -> float:
    """Return one run's share of the seconds since a worker was sent a bundle."""
    return round(max(0.0, when - order.submitted) / bundle, 6)
