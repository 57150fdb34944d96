"""Which layout is the fastest: a short trial of each, with the study's own model, in real workers.

Each layout's workers train one run of the study side by side for a few seconds; nothing of it is
kept but the rate. The first layout is the one that a study would have without a trial. If that rate
says that the study is too short for a trial of the others to pay, its workers go on with the study.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stormsweep.cluster.pool import Broken, Event, Finished, Pool, WorkerLost, WorkerReady
from stormsweep.config.study import StudyFile
from stormsweep.data.prepared import PreparedData
from stormsweep.errors import RunError, StormsweepError, UserError
from stormsweep.records import LayoutTried, RunFailed
from stormsweep.search.plan import Plan, cost
from stormsweep.study import worker
from stormsweep.study.layout import (
    MEMORY_SHARE,
    Layout,
    Room,
    Tried,
    candidates,
    choose,
    worth_trying,
)
from stormsweep.study.orders import Orders, Reception
from stormsweep.work import Run, Sample, Sampled, Task

log = logging.getLogger(__name__)

#: How long all workers of a layout train together, and before that each to warm up.
SECONDS, WARM_SECONDS = 3.0, 0.5
#: How long a layout's trial may take at most beyond that.
_PATIENCE = 600.0
_TOKEN = "trial"


class UntrainableError(RunError):
    """The run that is tried cannot be trained: no other layout would do better."""


class Rejoined:
    """A pool whose workers joined before: tells so once more, to who takes them over.

    Parameters
    ----------
    pool : Pool
        The workers.
    joined : sequence of WorkerReady
        Those that live.
    """

    def __init__(self, pool: Pool, joined: Sequence[WorkerReady]) -> None:
        self._pool, self._joined = pool, list(joined)
        self.close = pool.close

    @property
    def patience(self) -> float:
        """Seconds within which a first worker must be ready; see `Pool.patience`."""
        return self._pool.patience

    @property
    def dashboard(self) -> int:
        """Port of the dashboard; see `Pool.dashboard`."""
        return self._pool.dashboard

    def want(self, tasks: int) -> None:
        """Say how many tasks there are; see `Pool.want`."""
        self._pool.want(tasks)

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        """Give an idle worker process a task; see `Pool.submit`."""
        self._pool.submit(worker, pid, token, function, argument)

    def dismiss(self, worker: str, pid: int) -> None:
        """Let a worker process go; see `Pool.dismiss`."""
        self._pool.dismiss(worker, pid)

    def refuse(self, worker: str, pid: int, why: str, for_good: bool = False) -> None:
        """Let a worker process go that cannot work; see `Pool.refuse`."""
        self._pool.refuse(worker, pid, why, for_good)

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield what has happened; see `Pool.events`."""
        while self._joined:
            yield self._joined.pop(0)
        yield from self._pool.events(timeout)


class Crew:
    """All workers of one layout, training the same run side by side.

    Parameters
    ----------
    study : StudyFile
        The study, with the layout in numbers.
    data : PreparedData
        The prepared arrays.
    turned : Path or None
        Folder of the patches turned ahead of training.
    run : Run
        What they train.
    pool : Pool
        The workers.
    """

    def __init__(
        self, study: StudyFile, data: PreparedData, turned: Path | None, run: Run, pool: Pool
    ) -> None:
        self._workers, self._run, self._pool = study.site.layout[0], run, pool
        self._orders = Orders(study, data, Path(), turned)
        self._reception = Reception(pool, self._orders, [*run.hyperparameters], self._workers)
        self._ready: set[str] = set()

    @property
    def joined(self) -> list[WorkerReady]:
        """The workers."""
        return list(self._reception.joined.values())

    def gather(self) -> None:
        """Wait until all workers are set up.

        Raises
        ------
        ModelError
            If the model's builder is no good.
        RunError
            If a worker is lost, or cannot be set up.
        """

        def poll() -> None:
            for event in self._pool.events(0.25):
                if (found := self._take(event)) is not None:
                    self._ready.add(found)

        self._reception.wait(lambda: len(self._ready) == self._workers, poll)

    def sample(self, seconds: float, run: Run | None = None) -> list[Sampled]:
        """Have all workers train at once, each for so many seconds.

        Parameters
        ----------
        seconds : float
            How long.
        run : Run, optional
            What, instead of the crew's own run.

        Raises
        ------
        UntrainableError
            If the run cannot be trained.
        RunError
            If a worker is lost, or has too little memory.
        """
        found: list[Sampled] = []
        failed: list[RunFailed] = []
        for who in self.joined:
            task = Task(run or self._run, 0, 1)
            order = self._orders.order(task, self._reception.model, who.worker, 0)
            self._pool.submit(
                who.worker, who.pid, _TOKEN, worker.sample_task, Sample(order, seconds)
            )
        deadline = time.monotonic() + seconds + _PATIENCE
        # All answers are waited for: who takes the workers over knows nothing of this.
        while len(found) + len(failed) < self._workers:
            if time.monotonic() > deadline:
                raise RunError(f"no rate within {_PATIENCE:.0f} s")
            for event in self._pool.events(0.25):
                match event:
                    case Finished(_, _, RunFailed(failure="out-of-memory") as failure):
                        raise RunError(failure.reason)
                    case Finished(_, _, RunFailed() as failure):
                        failed.append(failure)
                    case Finished(_, _, Sampled() as sampled):
                        found.append(sampled)
                    case Broken(_, _, error):
                        raise RunError(f"the trial could not be carried out: {error!r}")
                    case _:
                        self._take(event)
        if failed:
            raise UntrainableError(failed[0].reason)
        return found

    def _take(self, event: Event) -> str | None:
        if isinstance(event, WorkerLost):
            raise RunError(event.reason)
        found = self._reception.take(event)
        if self._ready and (refused := self._reception.refused):
            # No other takes its place on one machine.
            raise RunError(next(iter(refused.values())))
        return None if found is None else found[0].worker


@dataclass(frozen=True, slots=True)
class Hired:
    """Workers in the layout of a session.

    Attributes
    ----------
    layout : Layout
        And why.
    pool : Pool
        They may have joined before: they tell so once more.
    record : LayoutTried or None
        For the journal, where a trial found the layout.
    """

    layout: Layout
    pool: Pool
    record: LayoutTried | None = None


def find_layout(
    plan: Plan,
    patches_per_epoch: Sequence[int],
    room: Room,
    hire: Callable[[Layout], AbstractContextManager[Pool]],
    crew_of: Callable[[Layout, Run, Pool], Crew],
    told: Callable[[str, float], None],
    open_: ExitStack,
    cases: str,
) -> Hired:
    """Try layouts, and return workers in the best one.

    Parameters
    ----------
    plan : Plan
        The study's runs.
    patches_per_epoch : sequence of int
        Patches of the balanced training fold, for each fold.
    room : Room
        What there is to run in.
    hire : callable
        Starts the workers of a layout.
    crew_of : callable
        Makes their `Crew`.
    told : callable
        Told what is being done, and how much of it.
    open_ : ExitStack
        Closes the workers that are returned.
    cases : str
        What the cases are called.

    Raises
    ------
    UserError
        If the model's builder is no good.
    """
    began = time.monotonic()
    listed, run = candidates(room), typical_run(plan)
    tried: list[Tried] = []
    chosen: Layout | None = None
    last: tuple[Layout, Pool] | None = None
    for layout in listed:
        told(f"trying {layout}", 0.0)
        with ExitStack() as holding:
            started = time.monotonic()
            pool = holding.enter_context(hire(layout))
            crew = crew_of(layout, run, pool)
            try:
                crew.gather()
                rate = _rate(crew.sample(WARM_SECONDS))
                if layout is listed[0]:
                    others = (len(listed) - 1) * (time.monotonic() - started + SECONDS)
                    chosen = _as_it_is(
                        layout, _estimate(plan, patches_per_epoch, run, rate), others
                    )
                if chosen is None:
                    found = crew.sample(SECONDS)
                    memory = max(one.memory_mb for one in found)
                    tried.append(Tried(layout, _rate(found), memory))
            except UserError:
                raise
            except UntrainableError as error:
                chosen = Layout(listed[0].workers, listed[0].threads, f"a trial fails ({error})")
            except StormsweepError as error:
                tried.append(Tried(layout, 0.0, failure=str(error)))
                continue
            told(f"trying {layout}", 1.0)
            if chosen is not None or layout is listed[-1]:
                last = layout, Rejoined(pool, crew.joined)
                open_.push(holding.pop_all())
                break
    chosen = chosen or choose(tried, MEMORY_SHARE * room.memory_gb, cases)
    if chosen is None:
        why = f"no layout could be tried ({tried[0].failure})"
        chosen = Layout(listed[0].workers, listed[0].threads, why)
    record = LayoutTried(
        host=room.host,
        cores=room.cores,
        workers=chosen.workers,
        threads=chosen.threads,
        why=chosen.why,
        tried=[one.plain() for one in tried],
        seconds=round(time.monotonic() - began, 3),
    )
    if last is not None and (last[0].workers, last[0].threads) == (chosen.workers, chosen.threads):
        return Hired(chosen, last[1], record)
    open_.close()
    return Hired(chosen, open_.enter_context(hire(chosen)), record)


def typical_run(plan: Plan) -> Run:
    """Return the run that a trial trains: of the batch sizes' median."""
    ordered = sorted(plan.runs, key=lambda run: int(run.hyperparameters["batch_size"]))
    return ordered[(len(ordered) - 1) // 2]


def _as_it_is(layout: Layout, seconds: float, others: float) -> Layout | None:
    """Return the first layout, with a reason, where a trial of others would not pay."""
    if worth_trying(seconds, others):
        return None
    log.info("%s: the study takes about %.0f s", layout, seconds)
    why = f"a trial of others would take {others:.0f} s, more than it could win"
    return Layout(layout.workers, layout.threads, why)


def _rate(sampled: Sequence[Sampled]) -> float:
    return sum(one.patches / one.seconds for one in sampled if one.seconds > 0)


def _estimate(plan: Plan, patches_per_epoch: Sequence[int], run: Run, rate: float) -> float:
    """Return about how long a study takes whose workers together train at a rate."""
    whole = sum(
        cost(
            each.milestones[-1],
            patches_per_epoch[each.fold],
            int(each.hyperparameters["batch_size"]),
        )
        for each in plan.runs
    )
    batch = int(run.hyperparameters["batch_size"])
    return whole / (rate * cost(1, batch, batch) / batch) if rate > 0 else 0.0
