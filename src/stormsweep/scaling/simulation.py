"""A study in simulated time: the driver's own queue gives tasks to workers that only have clocks.

What is simulated is what the product does: which task a worker gets, bundles, what it keeps in
memory and has compiled, pauses where no epoch fits before a walltime, jobs after jobs, workers lost
with what they did since their last checkpoint. What it goes by is measured: `Durations` for the
tasks, `Machine` for the rest.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from stormsweep.config.walltimes import MOST_IDLE, MUCH, STANDSTILLS, UNMEASURED, needed
from stormsweep.errors import UserError
from stormsweep.scaling.durations import Durations, Lost
from stormsweep.scaling.machine import Machine
from stormsweep.scaling.simulated import Parts, Simulated, Stint
from stormsweep.search.bundling import Bundling
from stormsweep.search.plan import Plan, Queue
from stormsweep.search.search import Search, ahead
from stormsweep.training.kept import PROGRAMS_KEPT
from stormsweep.work import Task

#: A task that lost its worker so often is never done.
_MOST_LOSSES = 500
#: What the scores that a strategy is told are drawn from, beside the seed.
_SCORES = 0x5C04E5
#: What a worker takes to find that no epoch fits.
_LOOK = 0.05


def simulate(
    plan: Plan,
    patches_per_epoch: Sequence[int],
    durations: Durations,
    machine: Machine,
    seed: int | Sequence[int] = 0,
    *,
    reached: Mapping[str, int] | None = None,
    paused: Mapping[str, int] | None = None,
    closed: Iterable[str] = (),
    bundling: Callable[[], Bundling] = Bundling.none,
    trace: bool = False,
    common: float | None = None,
    search: Callable[[], Search] | None = None,
) -> Simulated:
    """Simulate a study.

    Parameters
    ----------
    plan : Plan
        Its runs.
    patches_per_epoch : sequence of int
        Patches of the balanced training fold, for each fold; what the queue orders runs by.
    durations : Durations
        What tasks take.
    machine : Machine
        What they run on.
    seed : int or sequence of int
        The same seed gives the same result.
    reached, paused, closed : mapping, mapping, iterable
        What is on record already; see `search.plan.Queue`.
    bundling : callable
        Makes what decides which tasks go together.
    trace : bool
        Whether to keep what every worker did, for a timeline.
    common : float, optional
        By how many standard deviations everything together is off what is foreseen
        (`Durations.common`); drawn at random unless given.
    search : callable, optional
        Begins the search, where a strategy says what is trained: `plan` has all runs that it may
        ask for. Its scores are drawn by chance.

    Raises
    ------
    UserError
        If workers fail so often that a task is never done.
    """
    together = bundling()
    runs = plan.runs if search is None else ()
    queue = Queue(runs, reached or {}, closed, patches_per_epoch, together.structure, paused or {})
    asked = None if search is None else search()
    simulation = _Simulation(plan, queue, together, durations, machine, seed, trace, common, asked)
    with _uncollected():
        return simulation.run()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python from looking for cycles: there are none, among millions of objects."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


#: What a worker's next event is.
_READY, _DONE, _PAUSED, _LOST, _OVER = range(5)
_ENDS = {_DONE: "done", _PAUSED: "paused", _LOST: "lost", _OVER: "walltime"}


class _Simulation:
    """The state of a simulated study; every worker that lives and is not idle has one event."""

    def __init__(
        self,
        plan: Plan,
        queue: Queue,
        bundling: Bundling,
        durations: Durations,
        machine: Machine,
        seed: int | Sequence[int],
        trace: bool,
        common: float | None,
        search: Search | None,
    ) -> None:
        self._queue, self._bundling, self._search = queue, bundling, search
        self._durations, self._machine = durations, machine
        rng = np.random.default_rng(seed)
        self._rng = rng
        #: Scores are drawn apart from all else, so that times are the same with and without them.
        self._chance = np.random.default_rng([_SCORES, *np.atleast_1d(seed).tolist()])
        self._reached: dict[str, int] = {}
        self._place = {run.id: index for index, run in enumerate(plan.runs)}
        count, drawn = machine.workers, float(rng.standard_normal())
        common = drawn if common is None else common
        own = rng.standard_normal(count) * durations.workers + common * durations.common
        self._pace: list[float] = np.exp(own).tolist()
        self._scatter = _factors(rng, durations)
        self._starting = _losses(rng, durations.starting)
        self._working = _losses(rng, durations.working)
        failing = machine.failures_per_worker_hour / 3600
        self._failing = _exponentials(rng, failing) if failing else None
        self._events: list[tuple[float, int]] = []
        self._next = [_READY] * count
        self._running: dict[int, tuple[list[Task], list[int], int, float]] = {}
        self._held: list[Sequence[str]] = [()] * count
        self._programs: list[dict[object, None]] = [{} for _ in range(count)]
        self._fresh, self._opened = [True] * count, [False] * count
        self._idle: deque[int] = deque()
        self._driver_free = 0.0
        # By node: when it was granted, until when it has time, how many of its workers are there.
        self._granted = [0.0] * machine.nodes
        self._alive = [0] * machine.nodes
        self._until = [math.inf] * machine.nodes
        self._leave = math.inf
        self._ending = not math.isinf(machine.walltime)
        # By worker, for what the makespan went to.
        self._waited, self._started = [0.0] * count, [0.0] * count
        self._busy, self._unused = [0.0] * count, [0.0] * count
        self._since: list[float] = [math.nan] * count
        self._ready_at: list[float] = [math.nan] * count
        self._chain = [0.0] * len(plan.runs)
        #: Of this session: how often a run's worker had no time for its next epoch.
        self._standing: Counter[tuple[str, int]] = Counter()
        #: Whether the job got on, and how many before it did not.
        self._got_on, self._idle_jobs = False, 0
        self._losses: Counter[tuple[str, int]] = Counter()
        self._given_up: list[str] = []
        self._node_seconds = self._available = self._wasted = self._driver_busy = 0.0
        self._done = self._lost = self._jobs = 0
        self._job = -1
        self._last = 0.0, 0
        self._ends = trace
        self._stints: list[Stint] = []
        self._begun: list[tuple[int, int, float, float]] = []

    def run(self) -> Simulated:
        """Go through all events in their order."""
        machine, queue = self._machine, self._queue
        now, unfinished = 0.0, bool(queue) or self._search is not None
        if unfinished:
            self._begin_job(0.0, range(machine.nodes))
        while unfinished:
            while self._events and (queue or self._running or self._more()):
                now, worker = heapq.heappop(self._events)
                self._handle(now, worker)
                if now < self._leave:
                    self._feed(max(now, self._driver_free))
                elif not self._running:
                    break
            now = max(now, self._driver_free if self._done else now)
            unfinished = bool(queue) or self._more()
            self._idle_jobs = 0 if self._got_on else self._idle_jobs + 1
            if unfinished and self._idle_jobs > MOST_IDLE:
                self._given_up += dict.fromkeys(run for run, _ in self._standing)
            if unfinished and not self._goes_on():
                break
            if unfinished:
                self._end_job(now)
                self._begin_job(now, range(machine.nodes))
        self._end_job(now)
        return self._result()

    def _goes_on(self) -> bool:
        """Whether another job follows."""
        left = self._job + 1 < self._machine.max_jobs
        return self._machine.chain and left and self._idle_jobs <= MOST_IDLE

    def _more(self) -> bool:
        """Whether a strategy may still ask for something."""
        return self._search is not None and not self._search.over

    def _seek(self) -> None:
        """Ask the strategy for what idle workers could do."""
        search, queue = self._search, self._queue
        if search is None:
            return
        at_work = {task.run.id for tasks, *_ in self._running.values() for task in tasks}
        while len(queue) < ahead(len(self._idle), self._bundling.most):
            proposed, runs = search.more()
            if not proposed:
                return
            for run in runs:
                queue.add(run, self._reached.get(run.id, 0), run.id in at_work)

    def _scored(self, task: Task) -> None:
        """Tell the strategy a score: it is as good as another."""
        if self._search is not None:
            self._reached[task.run.id] = task.to_epoch
            chance = tuple(self._chance.standard_normal(self._search.objectives).tolist())
            self._search.scored(task.run.id, task.to_epoch, chance)

    def _begin_job(self, asked: float, nodes: Iterable[int]) -> None:
        """Ask for nodes; their workers come when they have waited and started."""
        machine = self._machine
        per_node, draw = machine.workers_per_node, self._rng
        together = self._wait() if machine.chain else 0.0
        self._job += machine.chain or self._job < 0
        self._jobs += machine.chain
        if machine.chain:
            # Each job is a session of its own, which knows nothing of what was tried before.
            self._standing.clear()
            self._got_on = False
        for node in nodes:
            wait = together if machine.chain else self._wait()
            self._jobs += not machine.chain
            self._granted[node] = granted = asked + wait
            self._until[node] = granted + machine.walltime - machine.margin
            self._alive[node] = per_node
            starts = draw.choice(machine.start_up, per_node).tolist()
            for worker, start in enumerate(starts, node * per_node):
                self._next[worker], self._fresh[worker] = _READY, True
                self._waited[worker] += wait
                self._come(worker, granted, start)
        self._leave = self._until[0] if machine.chain else math.inf

    def _wait(self) -> float:
        wait = self._machine.wait
        if wait.median <= 0 or wait.spread <= 0:
            return max(0.0, wait.median)
        return wait.median * math.exp(wait.spread * float(self._rng.standard_normal()))

    def _come(self, worker: int, now: float, start: float) -> None:
        """Have a new process of a worker be ready some time from now, with nothing in memory."""
        self._started[worker] += start
        self._held[worker], self._opened[worker] = (), False
        self._programs[worker].clear()
        heapq.heappush(self._events, (now + start, worker))

    def _end_job(self, now: float) -> None:
        """Give back the nodes that are there."""
        machine = self._machine
        for node, alive in enumerate(self._alive):
            # Where its workers left early, a job has its nodes until it ends all the same.
            if alive or (machine.chain and self._jobs):
                self._node_seconds += max(0.0, now - self._granted[node])
            self._alive[node] = 0
        for worker, ready in enumerate(self._ready_at):
            if not math.isnan(ready):
                self._gone(worker, now)
        for worker in self._idle:
            self._rest(worker, now)
        self._idle.clear()
        self._events.clear()

    def _gone(self, worker: int, now: float) -> None:
        self._available += now - self._ready_at[worker]
        if self._ends:
            self._begun.append((self._job, worker, self._ready_at[worker], now))
        self._ready_at[worker] = math.nan

    def _handle(self, now: float, worker: int) -> None:
        what = self._next[worker]
        if what == _READY:
            self._ready_at[worker] = now
            self._idle.append(worker)
            return
        tasks, places, epoch, started = self._running.pop(worker)
        spent = now - started
        self._busy[worker] += spent
        self._last = now, worker
        fresh, self._fresh[worker] = self._fresh[worker], False
        share, queue = spent / len(tasks), self._queue
        for place in places:
            self._chain[place] += share
        if what != _LOST:
            took = self._durations.driver * len(tasks)
            self._driver_free = max(now, self._driver_free) + took
            self._driver_busy += took
        if what == _DONE:
            for task in tasks:
                queue.done(task)
                self._scored(task)
            self._done += len(tasks)
            self._got_on = True
            self._idle.append(worker)
            return
        if what == _PAUSED:
            for task in tasks:
                judged = fresh and epoch == task.start and self._had_much(started, worker)
                if not (judged and self._stands(task, len(tasks) == 1)):
                    queue.paused(task, epoch)
            self._got_on = self._got_on or epoch > tasks[0].start
            self._dismiss(now, worker)
            return
        self._wasted += spent
        self._bundling.lost(tasks, "walltime" if what == _OVER else "node-failure")
        for task in tasks:
            if not (what == _OVER and self._stands(task, len(tasks) == 1)):
                queue.put_back(task)
        if what == _OVER:
            self._dismiss(now, worker)
            return
        self._lost += 1
        first = tasks[0]
        self._losses[first.run.id, first.start] += 1
        if self._losses[first.run.id, first.start] >= _MOST_LOSSES:
            raise UserError(
                f"with {self._machine.failures_per_worker_hour:g} failures an hour the study never "
                f"ends: run {first.run.id} lost its worker {_MOST_LOSSES} times before epoch "
                f"{first.to_epoch}"
            )
        self._gone(worker, now)
        self._next[worker], self._fresh[worker] = _READY, True
        start = float(self._rng.choice(self._machine.start_up))
        self._come(worker, now, start)

    def _had_much(self, began: float, worker: int) -> bool:
        """Whether a worker had most of its job's time left at an instant."""
        node = worker // self._machine.workers_per_node
        whole = self._machine.walltime - self._machine.margin
        return whole <= 0 or (self._until[node] - began) / whole >= MUCH

    def _stands(self, task: Task, alone: bool) -> bool:
        """Give a run up for which too often not even an epoch fitted."""
        self._standing[task.run.id, task.start] += 1
        if self._standing[task.run.id, task.start] < STANDSTILLS or not alone:
            return False
        self._given_up.append(task.run.id)
        if self._search is not None:
            self._search.given_up(task.run.id)
        return True

    def _dismiss(self, now: float, worker: int) -> None:
        """Let a worker go whose time is over; its node goes with the last, and another may come."""
        node = worker // self._machine.workers_per_node
        self._gone(worker, now)
        self._alive[node] -= 1
        if self._alive[node] or self._machine.chain:
            return
        self._node_seconds += now - self._granted[node]
        if self._queue or self._more():
            self._begin_job(now, [node])

    def _rest(self, worker: int, now: float) -> None:
        if not math.isnan(self._since[worker]):
            self._unused[worker] += max(0.0, now - self._since[worker])
            self._since[worker] = math.nan

    def _feed(self, now: float) -> None:
        """Give idle workers tasks, those first that have been idle for longest."""
        self._seek()
        idle, queue, held = self._idle, self._queue, self._held
        while idle and queue:
            worker = idle[0]
            tasks = self._bundling.take(queue, held[worker], len(idle))
            idle.popleft()
            self._rest(worker, now)
            held[worker] = [task.run.id for task in tasks]
            self._start(worker, tasks, now)
        if idle and math.isnan(self._since[idle[-1]]):
            # Whoever is idle now has nothing to do; what it waited before was the driver's.
            self._since[idle[-1]] = now

    def _start(self, worker: int, tasks: list[Task], now: float) -> None:
        """Reckon how long a worker takes, and how that ends."""
        known, place = self._durations, self._place
        places = [place[task.run.id] for task in tasks]
        first = places[0]
        factor, delay = next(self._scatter) * self._pace[worker], next(self._working)
        compiles = self._compiles(worker, known.program[first])
        opens = not self._opened[worker]
        self._opened[worker] = True
        before = known.compiling[first] if compiles else 0.0
        if opens:
            before += known.opening
            delay += next(self._starting)
        epoch, ending = known.epoch[first], known.ending[first]
        before += known.before[first]
        for index in places[1:]:
            epoch += known.epoch[index]
            ending += known.ending[index]
            before += known.before[index]
        task = tasks[0]
        epochs = task.to_epoch - task.start
        seconds = factor * (before + epochs * epoch + ending) + delay
        started = now + known.dispatch
        end, what, reached = started + seconds, _DONE, task.to_epoch
        if self._ending:
            left = self._until[worker // self._machine.workers_per_node] - started
            if left <= 2 * needed(seconds, ending):
                parts = factor * before + delay, factor * epoch, factor * ending
                seconds, what, reached = self._cut(worker, task, left, epoch, parts)
                end = started + seconds
        if self._failing is not None and (lost := next(self._failing)) < seconds:
            end, what, reached = started + lost, _LOST, task.start
        self._next[worker] = what
        self._running[worker] = tasks, places, reached, started
        if self._ends:
            self._stints.append(
                Stint(
                    worker,
                    self._job,
                    tasks,
                    now,
                    started,
                    end,
                    reached,
                    _ENDS[what],
                    factor,
                    compiles,
                    opens,
                    delay,
                )
            )
        heapq.heappush(self._events, (end, worker))

    def _compiles(self, worker: int, program: object) -> bool:
        """Whether a worker must compile; it keeps the programs that it needed last."""
        kept = self._programs[worker]
        if program in kept:
            if len(kept) > 1:
                del kept[program]
                kept[program] = None
            return False
        kept[program] = None
        if len(kept) > PROGRAMS_KEPT:
            del kept[next(iter(kept))]
        return True

    def _cut(
        self,
        worker: int,
        task: Task,
        left: float,
        foreseen: float,
        parts: tuple[float, float, float],
    ) -> tuple[float, int, int]:
        """Say how long a task lasts before a walltime, how it ends, and at which epoch.

        Parameters
        ----------
        left : float
            Seconds until work must be over.
        foreseen : float
            What the driver says that an epoch takes.
        parts : tuple of float
            What is before the epochs, an epoch, and what is after them.
        """
        before, epoch, ending = parts
        fresh = self._fresh[worker]
        expected = 0.0 if fresh else foreseen
        beside = UNMEASURED * expected if fresh else ending
        if left <= needed(expected, beside):
            return _LOOK, _PAUSED, task.start
        epochs = task.to_epoch - task.start
        at, what = before + epoch, _DONE
        done = 1
        while done < epochs:
            beside = UNMEASURED * epoch if fresh else ending
            if left - at <= needed(epoch, beside):
                what = _PAUSED
                break
            at, done = at + epoch, done + 1
        at += ending
        # What does not end by itself within the margin is ended.
        hard = left + self._machine.margin * 2 / 3
        if at > hard:
            return max(0.0, hard), _OVER, task.start
        return at, what, task.start + done

    def _result(self) -> Simulated:
        machine, (end, worker) = self._machine, self._last
        hours = self._node_seconds / 3600
        core_hours, gpu_hours = hours * machine.cores_per_node, hours * machine.gpus_per_node
        waiting, starting = self._waited[worker], self._started[worker]
        busy, idle = self._busy[worker], self._unused[worker]
        overhead = max(0.0, end - waiting - starting - busy - idle)
        return Simulated(
            makespan=end,
            core_hours=core_hours,
            gpu_hours=gpu_hours,
            cost=machine.price(core_hours, gpu_hours),
            busy=sum(self._busy),
            available=self._available,
            wasted=self._wasted,
            parts=Parts(waiting, starting, busy, idle, overhead),
            longest_chain=max(self._chain, default=0.0),
            driver_busy=self._driver_busy,
            tasks=self._done,
            jobs=self._jobs,
            lost=self._lost,
            given_up=tuple(self._given_up),
            finished=not self._queue and not self._more(),
            stints=self._stints,
            ready=self._begun,
            runs=() if self._search is None else tuple(self._search.runs.values()),
        )


def _factors(rng: np.random.Generator, known: Durations, block: int = 4096) -> Iterator[float]:
    """Yield factors of mean 1: of the ratios that are known, or lognormal ones."""
    ratios, spread = np.asarray(known.ratios, float), known.scatter
    while True:
        if len(ratios):
            yield from rng.choice(ratios, block).tolist()
        elif spread <= 0:
            yield from [1.0] * block
        else:
            draws = spread * rng.standard_normal(block) - spread**2 / 2
            yield from np.exp(draws).tolist()


def _losses(rng: np.random.Generator, lost: Lost, block: int = 4096) -> Iterator[float]:
    """Yield what is lost on each occasion: mostly nothing."""
    if not lost.share:
        yield from itertools.repeat(0.0)
    while True:
        found = rng.random(block) < lost.share
        yield from np.where(found, rng.choice(lost.seconds, block), 0.0).tolist()


def _exponentials(rng: np.random.Generator, rate: float, block: int = 4096) -> Iterator[float]:
    """Yield times until a failure."""
    while True:
        yield from (rng.exponential(1.0, block) / rate).tolist()
