"""The driver's loop: tasks to idle workers, results to the journal, until nothing is left."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stormsweep.cluster.pool import (
    Broken,
    Event,
    Finished,
    NodeChanged,
    NodesOver,
    Pool,
    WorkerLost,
    WorkerReady,
)
from stormsweep.config.strategies import KNOWN_AHEAD, LEARNING
from stormsweep.config.study import StudyFile, cases_of
from stormsweep.config.walltimes import MUCH
from stormsweep.data.prepared import PreparedData
from stormsweep.errors import DataAwayError, StormsweepError
from stormsweep.records import (
    Entry,
    NodeEvent,
    PlaceRefused,
    Record,
    RunFailed,
    RunPlanned,
    SearchEnded,
    TaskDone,
    TaskPaused,
    TaskRetried,
    WorkerEvent,
)
from stormsweep.results.journal import JournalWriter
from stormsweep.results.progress import Progress
from stormsweep.search.bundling import Bundling
from stormsweep.search.plan import Plan, Queue
from stormsweep.search.search import Search, ahead
from stormsweep.study import interruption, worker
from stormsweep.study.bundle import train_bundle
from stormsweep.study.demand import Demand
from stormsweep.study.orders import Orders, Reception
from stormsweep.study.patience import NODE, WALLTIME, Patience, Verdict
from stormsweep.study.remaining import names_of
from stormsweep.study.suspicion import Suspicion
from stormsweep.study.tally import Tally
from stormsweep.study.watching import State, Watcher
from stormsweep.work import Run, Task, TaskOrder

log = logging.getLogger(__name__)

#: How often those who watch are shown how far the study is, in seconds.
_WATCH_SECONDS = 0.2
#: How often is told what the workers are at, in seconds, and of how many workers at most.
_TELL_SECONDS, _TOLD = 1.0, 100
#: What becomes of a task.
Result = TaskDone | TaskPaused | RunFailed
#: How a run may end by a fault of the place where it was.
_FAULTS = frozenset({"error", "out-of-memory"})


def never() -> bool:
    """Say that the driver may stay."""
    return False


def planned(run: Run) -> RunPlanned:
    """Return the record of a run that is to be trained."""
    return RunPlanned(run.id, run.hyperparameters, run.fold, list(run.milestones))


class Execution:
    """One session of a driver.

    It goes round: take what has happened, give idle workers tasks, record what happened with one
    sync of the disk, and only then count it and remove the checkpoints that it replaces. A crash
    between costs nothing: what was not recorded lies in the checkpoints.

    Parameters
    ----------
    study : StudyFile
        The study.
    plan : Plan
        Its runs.
    directory : Path
        The study's directory.
    data : PreparedData
        The prepared arrays.
    patches_per_epoch : list of int
        Patches of the balanced training fold, for each fold.
    pool : Pool
        The workers.
    watcher : Watcher
        Who shows what goes on.
    turned : Path, optional
        Folder of the patches turned ahead of training.
    score_test : bool, optional
        Whether the test part is scored too: for an audit only.
    search : Search, optional
        Says what else is to be trained, as scores come in; the plan is then what to expect. It has
        taken in what is on record.
    reached : mapping of str to int, optional
        Beside `search`: run to its last milestone on record.
    """

    def __init__(
        self,
        study: StudyFile,
        plan: Plan,
        directory: Path,
        data: PreparedData,
        patches_per_epoch: list[int],
        pool: Pool,
        watcher: Watcher,
        turned: Path | None = None,
        score_test: bool = False,
        search: Search | None = None,
        reached: Mapping[str, int] | None = None,
    ) -> None:
        self._study, self._pool, self._watcher = study, pool, watcher
        self._search = search
        #: Whether runs keep their last checkpoint, to go on from should the study grow, or the
        #: strategy want more of them.
        climbs = study.search.strategy not in (*KNOWN_AHEAD, *LEARNING)
        self._keeps = study.study.keep_checkpoints or climbs
        self._checkpoints = directory / "checkpoints"
        self._orders = Orders(study, data, self._checkpoints, turned, score_test)
        workers = study.site.layout[0]
        told = watcher.note, self._record_refused
        self._reception = Reception(pool, self._orders, names_of(study), workers, *told)
        self._patches = patches_per_epoch
        self._tally = Tally(
            plan if search is None else replace(plan, runs=tuple(search.wanted(reached or {}))),
            study.search.metric,
            patches_per_epoch,
            threads=study.site.layout[1],
            expected=None if search is None else plan,
            cases=cases_of(study.data.source),
        )
        first_folds = study.search.first_folds or plan.folds
        self._demand = Demand(len(plan.configurations), first_folds)
        self._idle: dict[str, None] = {}
        self._bundling = Bundling(study.engine)
        #: What each worker has in memory, and what it is at: one run, or those of a bundle.
        self._held: dict[str, list[str]] = {}
        self._running: dict[str, list[TaskOrder]] = {}
        #: Workers that have not done anything yet, and processes that were let go.
        self._fresh: set[str] = set()
        self._dismissed: set[tuple[str, int]] = set()
        #: Whether the pool's nodes have no time left, and no others will come.
        self._over = False
        self._patience, self._suspicion = Patience(), Suspicion()
        #: Tasks that wait for a worker elsewhere, by run: they came to nothing in a place.
        self._elsewhere: dict[str, tuple[Task, str]] = {}
        self._early: list[tuple[WorkerReady, float]] = []
        self._early_nodes: list[NodeChanged] = []
        self._early_refused: list[tuple[str, str]] = []
        #: What befell runs where, which is told of the first two only.
        self._alike: Counter[tuple[str, str]] = Counter()
        self._journal: JournalWriter | None = None
        #: What happened in this round, not on the disk yet, and what of it is to be counted then.
        self._round: list[Entry] = []
        self._unsettled: list[tuple[Task, Result]] = []
        self._queue: Queue | None = None
        self._watched = time.monotonic()
        self._told = 0.0
        self._tell: Callable[[dict[str, Any]], None] = lambda _: None
        self._session = 0

    @property
    def progress(self) -> Progress:
        """How far the study is, by the entries given to `recall` and those of this session."""
        return self._tally.progress

    @property
    def trained(self) -> int:
        """Tasks done in this session."""
        return self._tally.trained

    @property
    def epochs(self) -> int:
        """Epochs trained in this session, those of paused tasks included."""
        return self._tally.epochs

    @property
    def unfinished(self) -> bool:
        """Whether work is left that this session did not give out or get back."""
        return bool(self._queue or self._elsewhere) or not self._search_over()

    @property
    def model(self) -> str:
        """SHA-256 of the builder's code, as the first worker found it."""
        return self._reception.model

    @property
    def devices(self) -> set[str]:
        """What the workers compute on, where that is not simply the processor."""
        return self._reception.devices

    def await_first_worker(self) -> None:
        """Wait until a worker is set up and has found the model; see `await_workers`."""
        self.await_workers(1)

    def await_workers(
        self,
        count: int,
        still_ours: Callable[[], None] = lambda: None,
        within: float = math.inf,
    ) -> None:
        """Wait until so many workers are set up; the first of them finds the model.

        Parameters
        ----------
        count : int
            How many.
        still_ours : callable
            Raises if another driver took the study over: jobs may wait for days.
        within : float
            For how many seconds those that are ready wait for the others: their nodes are paid for.

        Raises
        ------
        ModelError
            If the model's builder cannot be imported or does not take the hyperparameters.
        StormsweepError
            If workers die before they are set up, or do not all come in time.
        """
        until = math.inf

        def poll() -> None:
            nonlocal until
            still_ours()
            self._poll(0.5)
            if self._idle:
                until = min(until, time.monotonic() + within)
            if time.monotonic() > until and len(self._idle) < count:
                raise StormsweepError(
                    f"{len(self._idle)} of {count} workers were ready {within / 60:.0f} min after "
                    "the first, whose nodes wait no longer; ask for fewer nodes, or for a longer "
                    "walltime; see logs/driver.log"
                )

        self._reception.wait(lambda: len(self._idle) >= count, poll)

    def _poll(self, seconds: float) -> None:
        interruption.check()
        for event in self._pool.events(seconds):
            self._handle(event)

    def train(
        self,
        journal: JournalWriter,
        session: int,
        retry_failed: bool,
        still_ours: Callable[[], None] = lambda: None,
        leaving: Callable[[], bool] = never,
        tell: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        """Train what the journal does not have yet.

        Parameters
        ----------
        journal : JournalWriter
            Where results go, and what says how far the study is.
        session : int
            Number of this session.
        retry_failed : bool
            Whether runs that failed earlier are tried again.
        still_ours : callable
            Raises if another driver took the study over.
        leaving : callable
            Whether this driver's time is over: once it says so, nothing more is given out, and the
            session ends when the workers are done with what they have. See `unfinished`.
        tell : callable
            Given what the workers are at, every few seconds: see `at_work`.
        """
        self._tell = tell
        self._journal, self._session = journal, session
        failed = {} if retry_failed else dict(self.progress.failed)
        self._queue = Queue(
            list(self._tally.runs.values()),
            self.progress.reached,
            failed,
            self._patches,
            self._bundling.structure,
            self.progress.paused,
        )
        for name in failed:
            if name in self._tally.runs:
                self._tally.give_up(self._tally.runs[name])
        for node in self._early_nodes:
            self._record_node(node)
        for place, why in self._early_refused:
            self._record_refused(place, why)
        for ready, when in self._early:
            self._record_worker(ready, "ready", when=when)
        self._sweep()
        self._tally.begin(session)
        leaves = False
        try:
            while self._running or (not leaves and self.unfinished):
                still_ours()
                leaves = leaves or self._over or leaving()
                if not leaves:
                    self._seek()
                    self._feed()
                    self._pool.want(self._wanted())
                self._commit()
                self._show()
                self._poll(0.25)
            still_ours()
            self._commit()
            self._close_search()
            # Nobody writes now.
            self._sweep()
        except BaseException:
            still_ours()
            self._commit()
            raise
        self._watcher.state(self.state())

    def recall(self, entry: Entry) -> None:
        """Take in what earlier sessions recorded, entry by entry, before training goes on."""
        self._tally.take(entry, now=False)

    def state(self) -> State:
        """Return how far the study is."""
        joined = {(who.worker, who.pid) for who in self._reception.joined.values()}
        there = joined - self._dismissed - self._reception.refused.keys()
        return self._tally.state(len(there), len(self._running))

    def at_work(self) -> dict[str, Any]:
        """Return what workers are at: plain values, for whoever follows from elsewhere.

        Returns
        -------
        dict
            ``clock``: now, by the driver's clock; ``tasks``: worker, run, from which epoch, to
            which, runs in the bundle, and when it was sent; a hundred at most.
        """
        tasks = [
            (name, one.task.run.id, one.task.start, one.task.to_epoch, len(orders), one.submitted)
            for name, orders in list(self._running.items())[:_TOLD]
            if (one := orders[0])
        ]
        return {"clock": time.time(), "tasks": tasks}

    def _show(self) -> None:
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._told = time.monotonic()
            self._tell(self.at_work())
        if time.monotonic() - self._watched >= _WATCH_SECONDS:
            self._watched = time.monotonic()
            self._watcher.state(self.state())

    def _close_search(self) -> None:
        """Say that nothing more will be proposed, so that the study counts as finished."""
        search = self._search
        if search is not None and search.over and not search.ended:
            self._write(SearchEnded(search.trials))
            self._commit()

    def _search_over(self) -> bool:
        return self._search is None or self._search.over

    def _wanted(self) -> int:
        """Return how many tasks there are, with those that a strategy has for more workers."""
        assert self._queue is not None
        there = len(self._queue) + len(self._running) + len(self._elsewhere)
        if self._elsewhere:
            # Who is idle may not have those: a node that is still to come is not let go.
            there += len(self._idle)
        if self._search is None or self._search.over:
            return there
        now = time.monotonic()
        return self._demand.tasks(there, self._search.trials, bool(self._idle), now)

    def _seek(self) -> None:
        """Ask the strategy for more, before a worker has nothing to do; what it says is recorded.

        It is asked as late as can be: with each score that came in it knows better.
        """
        if self._search is None:
            return
        assert self._queue is not None
        while len(self._queue) < ahead(len(self._idle), self._bundling.most):
            # Or it would be asked before the score that made the worker idle counts.
            self._commit()
            proposed, runs = self._search.more()
            if not proposed:
                break
            at_work = {order.task.run.id for orders in self._running.values() for order in orders}
            at_work |= self._elsewhere.keys()
            for run in runs:
                self._tally.add(run)
                reached = self.progress.reached.get(run.id, 0)
                self._queue.add(run, reached, at_work=run.id in at_work)
            records: list[Record] = [*proposed, *map(planned, runs)]
            for record in records:
                self._write(record)
            self._commit()
        if self._search.over:
            self._tally.over()

    def _feed(self) -> None:
        self._judge()
        for name in list(self._idle):
            bundle = self._take(name)
            if not bundle and self._elsewhere:
                continue
            if not bundle:
                return
            del self._idle[name]
            self._held[name] = [task.run.id for task in bundle]
            for task in bundle:
                log.info(
                    "%s epochs %d-%d to worker %s", task.run.id, task.start, task.to_epoch, name
                )
            # What an epoch really takes is worth knowing: a new worker tries it.
            seconds = 0.0 if name in self._fresh else self._tally.foreseen(bundle)
            orders = [
                self._orders.order(task, self.model, name, self._session, seconds)
                for task in bundle
            ]
            self._running[name] = orders
            alone = len(orders) == 1
            self._pool.submit(
                name,
                self._reception.joined[name].pid,
                f"{bundle[0].run.id}-e{bundle[0].to_epoch}",
                worker.train_task if alone else train_bundle,
                orders[0] if alone else orders,
            )

    def _take(self, name: str) -> list[Task]:
        """Take what a worker is to do: first what came to nothing where it is not."""
        assert self._queue is not None
        if self._elsewhere:
            place = self._reception.place(self._reception.joined[name])
            for run, (task, avoided) in self._elsewhere.items():
                if avoided != place:
                    del self._elsewhere[run]
                    return [task]
        return self._bundling.take(self._queue, self._held.get(name, ()), len(self._idle))

    def _judge(self) -> None:
        """Give places at fault no more work; what waits for places that are gone waits no more."""
        assert self._queue is not None
        # As a rule: with hundreds of workers, a look at each of them would cost every task.
        if not (self._elsewhere or self._suspicion.of_any):
            return
        now, joined = time.time(), self._reception.joined
        there = dict.fromkeys(self._places(), 0.0)
        for name, orders in self._running.items():
            place = self._reception.place(joined[name])
            if place in there:
                there[place] = max(there[place], now - orders[0].submitted)
        for place in self._suspicion.unfit(there):
            self._reception.shut(place, self._suspicion.why(place))
            there.pop(place)
            for name in list(self._idle):
                if self._reception.place(joined[name]) == place:
                    del self._idle[name]
        for run, (task, avoided) in list(self._elsewhere.items()):
            if not (self._reception.expected or there.keys() - {avoided}):
                del self._elsewhere[run]
                self._queue.put_back(task)

    def _places(self) -> set[str]:
        return self._reception.places(self._dismissed)

    def _others(self, place: str) -> bool:
        return self._reception.others(place, self._dismissed)

    def _handle(self, event: Event) -> None:
        if (found := self._reception.take(event)) is not None:
            self._welcomed(*found)
            return
        match event:
            case Finished(name, _, result) if name in self._running:
                results = result if isinstance(result, list) else [result]
                self._returned(name, results, event.when)
            case Broken(name, token, DataAwayError() as error) if name in self._running:
                self._without_data(name, token, error, event.when)
            case Broken(name, _, error) if name in self._running:
                reason = f"the task could not be carried out: {error!r}"
                failed = [
                    self._failure(order.task, "error", reason, name)
                    for order in self._running[name]
                ]
                self._returned(name, failed, event.when)
            case WorkerLost():
                self._lost(event)
            case NodesOver():
                log.info("the time of all nodes is over")
                self._over = True
            case NodeChanged():
                log.info("node %s %s %s", event.node, event.event, event.detail)
                if event.failure:
                    self._watcher.note(f"a node is lost ({event.failure}): {event.detail}")
                if self._journal is None:
                    self._early_nodes.append(event)
                else:
                    self._record_node(event)

    def _welcomed(self, ready: WorkerReady, when: float) -> None:
        self._idle[ready.worker] = None
        self._fresh.add(ready.worker)
        if self._journal is None:
            self._early.append((ready, when))
        else:
            self._record_worker(ready, "ready", when=when)

    def _sweep(self) -> None:
        """Remove what workers and sessions left: half-written files, checkpoints nobody needs."""
        from stormsweep.training import checkpoint

        checkpoint.remove_unfinished(self._checkpoints)
        progress, runs = self.progress, self._tally.runs
        reached = {
            name: (
                progress.epoch(name),
                not self._keeps and progress.epoch(name) == runs[name].milestones[-1],
            )
            for name in progress.reached.keys() | progress.paused.keys()
            if name in runs
        }
        checkpoint.remove_passed(self._checkpoints, reached)

    def _returned(self, name: str, results: Sequence[Result], when: float) -> None:
        assert self._queue is not None
        orders = self._running.pop(name)
        fresh, leaves = name in self._fresh, False
        self._fresh.discard(name)
        who = self._reception.joined[name]
        place = self._reception.place(who)
        # Where others of the bundle get on, it is no fault of the place.
        faults = [one for one in results if isinstance(one, RunFailed) and one.failure in _FAULTS]
        doubtful = len(faults) == len(results)
        if doubtful:
            first, gone_on = faults[0], when - orders[0].submitted
            self._suspicion.lost(place, first.run, gone_on, first.reason)
        for order, result in zip(orders, results, strict=True):
            task = order.task
            if isinstance(result, RunFailed):
                result = replace(result, seconds=_share(order, when, len(orders)))
                others = doubtful and self._others(place)
                if doubtful and self._goes_elsewhere(task, result, place, others, when):
                    self._held[name].remove(result.run)
                    continue
            elif result.submitted == order.submitted and result.to_epoch > task.start:
                self._suspicion.done(place, result.run)
            self._write(result, when)
            self._unsettled.append((task, result))
            if not isinstance(result, RunFailed):
                self._tally.measured(result)
            if isinstance(result, TaskDone):
                # The rest of the run may be given out at once: its checkpoint is on the disk.
                self._queue.done(task)
                self._patience.done(task)
                continue
            self._held[name].remove(result.run)
            if isinstance(result, TaskPaused):
                # One that was found in a checkpoint says nothing of the time of this worker.
                now = result.submitted == order.submitted
                leaves = leaves or now
                judged = now and fresh and result.had >= MUCH
                self._paused(task, result, judged, alone=len(orders) == 1)
        if leaves:
            self._dismissed.add((name, who.pid))
            self._pool.dismiss(name, who.pid)
        elif (name, who.pid) not in self._reception.refused:
            self._idle[name] = None

    def _paused(self, task: Task, pause: TaskPaused, judged: bool, alone: bool) -> None:
        assert self._queue is not None
        log.info("%s paused at epoch %d by worker %s", pause.run, pause.to_epoch, pause.worker)
        given_up = self._patience.paused(task, pause.to_epoch, alone) if judged else ""
        if not given_up:
            self._queue.paused(task, pause.to_epoch)
            return
        failure = self._failure(task, WALLTIME, given_up, pause.worker)
        self._write(failure)
        self._unsettled.append((task, failure))

    def _commit(self) -> None:
        """Record the round with one sync, then act on it."""
        # Taken away first: whatever interrupts this, nothing is ever recorded twice.
        entries, self._round = self._round, []
        settled, self._unsettled = self._unsettled, []
        if not entries:
            return
        assert self._journal is not None
        self._journal.write(entries)
        for entry in entries:
            self._tally.take(entry, now=True)
            if self._search is not None:
                self._search.take(entry.record)
        for task, result in settled:
            if isinstance(result, RunFailed):
                self._failed(task, result)
            else:
                self._settle(task, result)

    def _settle(self, task: Task, done: TaskDone | TaskPaused) -> None:
        from stormsweep.training import checkpoint

        passed = {task.start} - {done.to_epoch}
        last = isinstance(done, TaskDone) and task.to_epoch == task.run.milestones[-1]
        if last and not self._keeps:
            passed.add(task.to_epoch)
        elif not checkpoint.path_of(self._checkpoints, task.run.id, done.to_epoch).exists():
            # It could not be written: the run goes on from the one before.
            passed = set()
        checkpoint.discard(self._checkpoints, task.run.id, passed)
        if isinstance(done, TaskPaused):
            return
        metric = self._study.search.metric
        log.debug("%s epoch %d: %s %.4f", done.run, done.to_epoch, metric, done.scores[metric])

    def _lost(self, event: WorkerLost) -> None:
        gone = (event.worker, event.pid)
        self._early = [one for one in self._early if (one[0].worker, one[0].pid) != gone]
        now = self._reception.joined.get(event.worker)
        orders: list[TaskOrder] = []
        if now is None or now.pid == event.pid:
            # Else another process has the name by now, and is not the one that was lost.
            self._held.pop(event.worker, None)
            self._fresh.discard(event.worker)
            self._idle.pop(event.worker, None)
            orders = self._running.pop(event.worker, [])
        expected = gone in self._dismissed | self._reception.refused.keys() or event.let_go
        self._dismissed.discard(gone)
        self._record_worker(event, "left" if expected else "lost", event.reason, event.when)
        level = logging.INFO if expected else logging.WARNING
        log.log(level, "worker %s (process %d) lost: %s", event.worker, event.pid, event.reason)
        self._reception.lost(event, excused=expected or bool(orders))
        self._lost_tasks(orders, event)

    def _without_data(self, name: str, token: str, error: DataAwayError, when: float) -> None:
        """Give what a worker that cannot open the data was at to others, and the worker nothing."""
        who, orders = self._reception.joined[name], self._running.pop(name)
        self._held.pop(name, None)
        self._fresh.discard(name)
        loss = WorkerLost(name, who.host, who.pid, NODE, str(error), token, when=when)
        self._lost_tasks(orders, loss)
        self._reception.let_go(name, error)

    def _goes_elsewhere(
        self, task: Task, failed: RunFailed, place: str, others: bool, when: float
    ) -> bool:
        """Have a run that raised tried in another place first; return whether there is one."""
        verdict = self._patience.raised(task, failed.reason, place, others)
        if verdict.given_up:
            return False
        self._put_back(task, verdict, place)
        self._retried(task, verdict, failed.reason, failed.worker, failed.seconds, when)
        said = f"failed on {place} ({failed.reason})"
        log.info("run %s %s; it is tried elsewhere", task.run.id, said)
        self._alike[place, failed.reason] += 1
        match self._alike[place, failed.reason]:
            case 1:
                where = f"it is tried elsewhere from epoch {task.start}"
                self._watcher.note(f"run {task.run.id} {said}; {where}")
            case 2:
                self._watcher.note(f"another run {said}; all that do are tried elsewhere")
        return True

    def _put_back(self, task: Task, verdict: Verdict, place: str) -> None:
        assert self._queue is not None
        if verdict.elsewhere:
            self._elsewhere[task.run.id] = task, place
        else:
            self._queue.put_back(task)

    def _lost_tasks(self, orders: Sequence[TaskOrder], event: WorkerLost) -> None:
        bundle = [order.task for order in orders]
        seconds = _share(orders[0], event.when, len(orders)) if orders else 0.0
        self._bundling.lost(bundle, event.failure)
        if orders and event.failure == "killed":
            place, gone_on = self._reception.place(event), event.when - orders[0].submitted
            self._suspicion.lost(place, bundle[0].run.id, gone_on, event.reason)
        for task in bundle:
            self._lost_task(task, event, seconds, alone=len(bundle) == 1)

    def _lost_task(self, task: Task, event: WorkerLost, seconds: float, alone: bool) -> None:
        place = self._reception.place(event)
        others = self._others(place)
        verdict = self._patience.lost(task, event.failure, event.reason, alone, place, others)
        if verdict.given_up:
            failure = self._failure(task, event.failure, verdict.given_up, event.worker, seconds)
            self._write(failure, event.when)
            self._unsettled.append((task, failure))
            return
        self._put_back(task, verdict, place)
        self._retried(task, verdict, event.reason, event.worker, seconds, event.when)
        self._watcher.note(
            f"worker {event.worker} was lost ({event.reason}); "
            f"run {task.run.id} goes on from epoch {task.start}"
        )

    def _retried(
        self, task: Task, verdict: Verdict, reason: str, name: str, seconds: float, when: float
    ) -> None:
        span = task.run.id, task.to_epoch, verdict.attempt
        self._write(TaskRetried(*span, reason, name, self._session, seconds), when)

    def _failure(
        self, task: Task, failure: str, reason: str, name: str, seconds: float = 0.0
    ) -> RunFailed:
        span = task.run.id, task.from_epoch, task.to_epoch
        return RunFailed(*span, failure, reason, name, self._session, seconds=seconds)

    def _failed(self, task: Task, failure: RunFailed) -> None:
        self._tally.give_up(task.run)
        log.error("run %s failed: %s\n%s", failure.run, failure.reason, failure.detail)
        self._watcher.note(f"run {failure.run} failed ({failure.failure}): {failure.reason}")

    def _record_worker(
        self,
        who: WorkerReady | WorkerLost,
        event: str,
        detail: str = "",
        when: float | None = None,
    ) -> None:
        why = who.failure if isinstance(who, WorkerLost) else ""
        on = who.processor if isinstance(who, WorkerReady) else ""
        record = WorkerEvent(self._session, who.worker, event, who.host, who.pid, detail, why, on)
        self._write(record, when)

    def _record_refused(self, place: str, why: str) -> None:
        if self._journal is None:
            self._early_refused.append((place, why))
        self._write(PlaceRefused(self._session, place, why))

    def _record_node(self, changed: NodeChanged) -> None:
        told = (changed.node, changed.event, changed.failure, changed.detail, changed.seconds)
        self._write(NodeEvent(self._session, *told), changed.when)

    def _write(self, record: Record, when: float | None = None) -> None:
        if self._journal is not None:
            self._round.append(Entry(time.time() if when is None else when, record))


def _share(order: TaskOrder, when: float, bundle: int) -> float:
    """Return one run's share of the seconds since a worker was sent a bundle."""
    return round(max(0.0, when - order.submitted) / bundle, 6)
