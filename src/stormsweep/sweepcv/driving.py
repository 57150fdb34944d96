"""The work of a search, from first to last: by this process alone, or with workers.

Workers take seconds to start. This process begins by itself, and has workers come when what is left
would take it longer than with them; while they start it goes on with tasks that are short.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

from stormsweep.cluster.line import pack
from stormsweep.cluster.pool import (
    NO_FAULT,
    Broken,
    Event,
    Finished,
    NodesOver,
    Pool,
    PoolBroken,
    WorkerLost,
    WorkerReady,
)
from stormsweep.errors import RunError, StormsweepError, UserError
from stormsweep.files import readable
from stormsweep.records import SplitScored
from stormsweep.sweepcv.callbacks import Callbacks
from stormsweep.sweepcv.crew import Crew
from stormsweep.sweepcv.searching import Search
from stormsweep.sweepcv.tasks import (
    TOGETHER_SECONDS,
    Materials,
    Part,
    Reply,
    SplitTask,
    hold,
    score,
    work,
)

#: What it takes to start workers on this machine and bring them the data, in seconds.
START_SECONDS = 4.0
#: Tasks that take less are done here while workers start: a worker never waits longer for one.
_SHORT_SECONDS = 0.5
#: Bytes of one message to a worker.
PART_BYTES = 128 * 2**20
#: How often a task may lose its worker before it counts as failed.
_ATTEMPTS = {"killed": 3, "out-of-memory": 2, "walltime": 3}
#: How many workers, for each that there may be, may die of the data while none holds all of them.
_LOSSES = 3


def drive(
    search: Search,
    materials: Materials,
    crew: Crew,
    check: Callable[[], None],
    callbacks: Callbacks,
) -> None:
    """Do all that is to be done.

    Parameters
    ----------
    search : Search
        Gives tasks, takes results.
    materials : Materials
        What they have in common.
    crew : Crew
        Who works.
    check : callable
        Called between tasks; raises where the search must stop.
    callbacks : Callbacks
        Told of every task.

    Raises
    ------
    Exception
        What a fit raised, with ``error_score="raise"``.
    UserError
        If the estimator or the data cannot be brought to a worker.
    StormsweepError
        If no workers come any more.
    """
    task = search.next()
    began = time.perf_counter()
    while task is not None and crew.here and not search.deadly(task):
        with search.trying(task):
            scored = score(materials, task, **callbacks.here())
        search.take(scored)
        check()
        spent = time.perf_counter() - began
        if hire(spent, search.done, search.left, crew.workers):
            break
        task = search.next()
    else:
        if task is None:
            return
        search.again(task)
    if search.left:
        mean = spent / search.done if search.done else float("inf")
        needed = crew.at_most(search.left)
        with needed.pool() as pool:
            hand = mean < _SHORT_SECONDS
            _Shift(search, materials, pool, needed.workers, hand, check, callbacks).run()


def hire(spent: float, done: int, left: int, workers: int) -> bool:
    """Decide whether workers would be done sooner than this process alone.

    Parameters
    ----------
    spent : float
        Seconds for what is done.
    done, left : int
        Tasks.
    workers : int
        How many there would be.

    Examples
    --------
    >>> hire(0.1, done=10, left=90, workers=2), hire(2.0, done=1, left=9, workers=2)
    (False, True)

    One task cannot be shared:

    >>> hire(600.0, done=1, left=1, workers=2)
    False
    """
    alone = spent / done * left
    return START_SECONDS + alone / max(1, min(workers, left)) < alone


class _Shift:
    """Workers at work, until nothing is left."""

    def __init__(
        self,
        search: Search,
        materials: Materials,
        pool: Pool,
        workers: int,
        lend_a_hand: bool,
        check: Callable[[], None],
        callbacks: Callbacks,
    ) -> None:
        self._callbacks = callbacks
        self._search, self._materials, self._pool = search, materials, pool
        self._hand, self._check = lend_a_hand, check
        packed = pack(materials)
        #: How many tasks may be under way: the nodes of a site may hold some workers more.
        self._most = workers
        self._parts = [packed[at : at + PART_BYTES] for at in range(0, len(packed), PART_BYTES)]
        self._pid: dict[str, int] = {}
        #: Worker to the number of parts that it holds.
        self._holding: dict[str, int] = {}
        self._idle: set[str] = set()
        #: Tasks under way, by the token of the first of those given out together.
        self._at: dict[str, list[SplitTask]] = {}
        #: Worker to the token of what it was given last.
        self._given: dict[str, str] = {}
        #: Tokens of tasks that are given out alone: one of those given with them lost its worker.
        self._alone: set[str] = set()
        #: Tasks that workers did, and the seconds those took.
        self._done, self._spent = 0, 0.0
        self._losses: dict[str, Counter[str]] = {}
        #: Workers that died of the data since one last held all of them.
        self._of_data, self._allowed = 0, _LOSSES * workers
        self._seen: dict[str | tuple[str, type[Warning], int], int] = {}
        #: Since when nobody is there to work, if so.
        self._alone_since = time.monotonic()

    def run(self) -> None:
        """Give out tasks and take in results until nothing is left."""
        while True:
            done: list[SplitScored] = []
            try:
                for event in self._pool.events(0.0 if self._hand else 1.0):
                    done += self._happened(event)
            finally:
                # Also where one of the events ends the search.
                self._search.take(*done)
            self._check()
            self._give_out()
            if not self._at and not self._search.waiting and self._nothing_to_come():
                return
            self._pool.want(self._search.left)
            self._pass_the_time()

    def _nothing_to_come(self) -> bool:
        """Say whether the strategy has nothing more; what it has goes to the queue."""
        task = self._search.next()
        if task is not None:
            self._search.again(task)
        return task is None

    def _pass_the_time(self) -> None:
        """Do a short task here while no worker is ready; see that one comes at all."""
        if self._pid:
            self._hand = False
        elif time.monotonic() - self._alone_since > self._pool.patience:
            raise StormsweepError(
                f"no worker was ready within {self._pool.patience:.0f} s; with a directory, its "
                "logs say more"
            )
        if self._hand and (task := self._search.next()) is not None:
            if self._search.deadly(task):
                self._search.again(task)
                self._hand = False
                return
            began = time.perf_counter()
            with self._search.trying(task):
                scored = score(self._materials, task, **self._callbacks.here())
            self._search.take(scored)
            self._hand = time.perf_counter() - began < _SHORT_SECONDS

    def _give_out(self) -> None:
        for worker in sorted(self._idle):
            if len(self._at) >= self._most or (task := self._search.next()) is None:
                return
            self._idle.discard(worker)
            tasks = self._with_more(task)
            self._at[task.token] = tasks
            self._given[worker] = task.token
            for each in tasks:
                self._callbacks.began(each)
            self._pool.submit(worker, self._pid[worker], task.token, work, tasks)

    def _with_more(self, first: SplitTask) -> list[SplitTask]:
        """Return a task with those of the queue that a worker does best together with it.

        Only what waits already: for more, a strategy that learns would be asked too early.
        """
        tasks = [first]
        if self._done and not self._is_alone(first):
            fair = math.ceil((1 + self._search.waiting) / (2 * self._most))
            wanted = min(fair, int(TOGETHER_SECONDS * self._done / max(self._spent, 1e-9)))
            while len(tasks) < wanted and self._search.waiting:
                task = self._search.next()
                assert task is not None
                if self._is_alone(task):
                    self._search.again(task)
                    break
                tasks.append(task)
        return tasks

    def _is_alone(self, task: SplitTask) -> bool:
        return task.token in self._alone or self._search.deadly(task)

    def _put_back(self, tasks: Sequence[SplitTask]) -> None:
        """Have tasks that came to nothing be the next."""
        for task in reversed(tasks):
            self._search.again(task)

    def _happened(self, event: Event) -> list[SplitScored]:
        match event:
            case WorkerReady(worker, _, pid):
                self._pid[worker], self._holding[worker] = pid, 0
                self._idle.discard(worker)
                self._hand_over(worker)
            case Finished(worker, token, [*replies]):
                tasks = self._at.pop(token)
                self._put_back(tasks[len(replies) :])
                for task in tasks[: len(replies)]:
                    self._callbacks.ended(task)
                self._idle.add(worker)
                scored = [self._told(reply, worker) for reply in replies]
                self._done += len(scored)
                self._spent += sum(one.fit_seconds + one.score_seconds for one in scored)
                return scored
            case Finished(worker, _, _):
                self._holding[worker] += 1
                self._hand_over(worker)
            case Broken(_, token, error):
                if token in self._at:
                    raise error
                raise UserError(
                    "the estimator, scorer or data cannot be taken up by a worker, which may lack "
                    f"a module that they need: {type(error).__name__}: {error}"
                ) from error
            case WorkerLost():
                # A pool knows nothing of a task that came when its worker was gone already.
                known = self._pid.get(event.worker) == event.pid
                token = self._given.pop(event.worker, "") if known else event.token or ""
                had_task = token in self._at
                self._gone(event, had_task)
                if had_task:
                    return self._lost(self._at.pop(token), event)
            case PoolBroken(reason):
                raise StormsweepError(f"no workers will come any more: {reason}")
            case NodesOver():
                raise StormsweepError(
                    "the time of all nodes is over; what was scored is on record, and the same fit "
                    "goes on from there"
                )
            case _:
                pass
        return []

    def _hand_over(self, worker: str) -> None:
        number = self._holding[worker]
        if number == len(self._parts):
            self._idle.add(worker)
            self._of_data = 0
            return
        part = Part(number, len(self._parts), self._parts[number])
        self._pool.submit(worker, self._pid[worker], f"part-{number}", hold, part)

    def _gone(self, event: WorkerLost, had_task: bool) -> None:
        """Take note that a worker is gone; refuse to go on where one after the other is."""
        whole = False
        if self._pid.get(event.worker) == event.pid:
            del self._pid[event.worker]
            whole = self._holding[event.worker] == len(self._parts)
            # One that dies of the data, before it has all of them, was no help.
            if not self._pid and whole:
                self._alone_since = time.monotonic()
        self._idle.discard(event.worker)
        if whole or had_task or event.failure in NO_FAULT:
            return
        if any(self._holding[worker] == len(self._parts) for worker in self._pid):
            return  # The search goes on without it.
        self._of_data += 1
        if self._of_data >= self._allowed:
            size = readable(sum(map(len, self._parts)))
            raise StormsweepError(
                f"workers die before they hold the data ({size}): {event.reason}; with a "
                "directory, its logs say more"
            )

    def _told(self, reply: Reply, worker: str) -> SplitScored:
        """Pass on what a worker would have said on this terminal."""
        if reply.printed:
            print(reply.printed, end="", flush=True)
        for text, category, file, line in reply.said:
            with contextlib.suppress(TypeError):
                warnings.warn_explicit(text, category, file, line, registry=self._seen)
        return dataclasses.replace(reply.scored, worker=worker)

    def _lost(self, tasks: list[SplitTask], event: WorkerLost) -> list[SplitScored]:
        """Try tasks that lost their worker again, or give the one that did up."""
        if len(tasks) > 1:
            # Nobody knows which of them it was.
            self._alone |= {task.token for task in tasks}
            self._put_back(tasks)
            return []
        (task,) = tasks
        losses = self._losses.setdefault(task.token, Counter())
        losses[event.failure] += 1
        counts = event.failure not in NO_FAULT or event.failure in _ATTEMPTS
        if not counts or losses[event.failure] < _ATTEMPTS.get(event.failure, 3):
            self._search.again(task)
            return []
        reason = f"{event.reason}, {losses[event.failure]} times"
        if self._materials.error_score == "raise":
            raise RunError(f"{task.parameters} on split {task.split}: {reason}")
        self._callbacks.ended(task)
        return [self._materials.failed(task, reason)]
