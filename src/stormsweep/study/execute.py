"""The driver's loop: tasks to idle workers, results to the journal, until nothing is left."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
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
    WorkerEvent,
)
from stormsweep.results.journal import JournalWriter
from stormsweep.results.progress import Progress
from stormsweep.search.bundling import Bundling
from stormsweep.search.plan import Plan, Queue
from stormsweep.search.search import Search, ahead
from stormsweep.study import interruption, worker
from stormsweep.study.bundle import train_bundle
from stormsweep.study.checkpoints import Checkpoints
from stormsweep.study.demand import Demand
from stormsweep.study.orders import Orders, Reception
from stormsweep.study.patience import NODE
from stormsweep.study.remaining import names_of
from stormsweep.study.setbacks import Setback, Setbacks
from stormsweep.study.tally import Tally
from stormsweep.study.watching import State, Watcher
from stormsweep.study.workers import Workers
from stormsweep.work import Run, Task, TaskOrder

log = logging.getLogger(__name__)

#: How often those who watch are shown how far the study is, in seconds.
_WATCH_SECONDS = 0.2
#: How often is told what the workers are at, in seconds, and of how many workers at most.
_TELL_SECONDS, _TOLD = 1.0, 100
#: What becomes of a task.
Result = TaskDone | TaskPaused | RunFailed


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
        checkpoints = directory / "checkpoints"
        self._checkpoints = Checkpoints(study, checkpoints)
        self._orders = Orders(study, data, checkpoints, turned, score_test)
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
        self._workers = Workers(self._reception)
        self._setbacks = Setbacks(self._workers.others)
        self._bundling = Bundling(study.engine)
        #: Whether the pool's nodes have no time left, and no others will come.
        self._over = False
        self._early: list[tuple[WorkerReady, float]] = []
        self._early_nodes: list[NodeChanged] = []
        self._early_refused: list[tuple[str, str]] = []
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
        return bool(self._queue or self._setbacks.elsewhere) or not self._search_over()

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
            ready = len(self._workers.idle)
            if ready:
                until = min(until, time.monotonic() + within)
            if time.monotonic() > until and ready < count:
                raise StormsweepError(
                    f"{ready} of {count} workers were ready {within / 60:.0f} min after "
                    "the first, whose nodes wait no longer; ask for fewer nodes, or for a longer "
                    "walltime; see logs/driver.log"
                )

        self._reception.wait(lambda: len(self._workers.idle) >= count, poll)

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
        self._checkpoints.sweep(self.progress, self._tally.runs)
        self._tally.begin(session)
        leaves = False
        try:
            while self._workers.running or (not leaves and self.unfinished):
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
            self._checkpoints.sweep(self.progress, self._tally.runs)
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
        return self._tally.state(self._workers.there, len(self._workers.running))

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
            for name, orders in list(self._workers.running.items())[:_TOLD]
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
        there = len(self._queue) + len(self._workers.running) + len(self._setbacks.elsewhere)
        if self._setbacks.elsewhere:
            # Who is idle may not have those: a node that is still to come is not let go.
            there += len(self._workers.idle)
        if self._search is None or self._search.over:
            return there
        now = time.monotonic()
        return self._demand.tasks(there, self._search.trials, self._asking() > 0, now)

    def _asking(self) -> int:
        """Return how many idle workers the strategy is to propose something for.

        Those of a place that may be at fault are left out, while others work or are just starting:
        until that is known, they would be given, and lose, one trial after the other, and the
        strategy learn nothing.
        """
        return self._workers.idle_outside(self._setbacks.doubted)

    def _seek(self) -> None:
        """Ask the strategy for more, before a worker has nothing to do; what it says is recorded.

        It is asked as late as can be: with each score that came in it knows better.
        """
        if self._search is None:
            return
        assert self._queue is not None
        while len(self._queue) < ahead(self._asking(), self._bundling.most):
            # Or it would be asked before the score that made the worker idle counts.
            self._commit()
            proposed, runs = self._search.more()
            if not proposed:
                break
            running = self._workers.running.values()
            at_work = {order.task.run.id for orders in running for order in orders}
            at_work.update(self._setbacks.elsewhere)
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
        for name in list(self._workers.idle):
            bundle = self._take(name)
            if not bundle and self._setbacks.elsewhere:
                continue
            if not bundle:
                return
            for task in bundle:
                log.info(
                    "%s epochs %d-%d to worker %s", task.run.id, task.start, task.to_epoch, name
                )
            # What an epoch really takes is worth knowing: a new worker tries it.
            seconds = 0.0 if self._workers.is_fresh(name) else self._tally.foreseen(bundle)
            orders = [
                self._orders.order(task, self.model, name, self._session, seconds)
                for task in bundle
            ]
            self._workers.busy(name, orders)
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
        workers = self._workers
        if self._setbacks.elsewhere:
            idle = workers.idle_outside(self._setbacks.avoided)
            together = partial(self._bundling.together, idle=idle)
            if bundle := self._setbacks.take(workers.place(name), together):
                return bundle
        return self._bundling.take(self._queue, workers.holds(name), len(workers.idle))

    def _judge(self) -> None:
        """Give places at fault no more work; what waits for places that are gone waits no more."""
        assert self._queue is not None
        # As a rule: with hundreds of workers, a look at each of them would cost every task.
        if not self._setbacks.to_judge:
            return
        under_way = self._workers.under_way(time.time())
        unfit, stranded = self._setbacks.judge(under_way, self._reception.expected)
        for place, why in unfit.items():
            self._workers.shut(place, why)
        for task in stranded:
            self._queue.put_back(task)

    def _handle(self, event: Event) -> None:
        if (found := self._reception.take(event)) is not None:
            self._welcomed(*found)
            return
        match event:
            case Finished(name, _, result) if name in self._workers.running:
                results = result if isinstance(result, list) else [result]
                self._returned(name, results, event.when)
            case Broken(name, token, DataAwayError() as error) if name in self._workers.running:
                self._without_data(name, token, error, event.when)
            case Broken(name, _, error) if name in self._workers.running:
                reason = f"the task could not be carried out: {error!r}"
                orders = self._workers.running[name]
                failed = [RunFailed.of(order, "error", reason) for order in orders]
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
        self._workers.welcome(ready.worker)
        if self._journal is None:
            self._early.append((ready, when))
        else:
            self._record_worker(ready, "ready", when=when)

    def _returned(self, name: str, results: Sequence[Result], when: float) -> None:
        assert self._queue is not None
        workers = self._workers
        fresh, leaves = workers.is_fresh(name), False
        orders = workers.back(name)
        setbacks = self._setbacks.returned(orders, results, workers.place(name), when)
        for order, result in zip(orders, results, strict=True):
            task = order.task
            if isinstance(result, RunFailed):
                workers.drop(name, result.run)
                self._befell(setbacks[result.run], when)
                continue
            self._write(result, when)
            self._unsettled.append((task, result))
            self._tally.measured(result)
            if isinstance(result, TaskDone):
                # The rest of the run may be given out at once: its checkpoint is on the disk.
                self._queue.done(task)
                continue
            # One that was found in a checkpoint says nothing of the time of this worker.
            now = result.submitted == order.submitted
            leaves = leaves or now
            workers.drop(name, result.run)
            judged = now and fresh and result.had >= MUCH
            self._paused(order, result, judged, alone=len(orders) == 1)
        if leaves:
            self._pool.dismiss(name, workers.dismiss(name))
        else:
            workers.rest(name)

    def _paused(self, order: TaskOrder, pause: TaskPaused, judged: bool, alone: bool) -> None:
        assert self._queue is not None
        log.info("%s paused at epoch %d by worker %s", pause.run, pause.to_epoch, pause.worker)
        setback = self._setbacks.paused(order, pause.to_epoch, alone) if judged else None
        if setback is None:
            self._queue.paused(order.task, pause.to_epoch)
        else:
            self._befell(setback)

    def _befell(self, setback: Setback, when: float | None = None) -> None:
        """Record what becomes of a task that came to nothing, and see to it."""
        assert self._queue is not None
        task, record = setback.task, setback.record
        self._write(record, when)
        if isinstance(record, RunFailed):
            self._unsettled.append((task, record))
            return
        if setback.here:
            self._queue.put_back(task)
        if setback.told:
            self._watcher.note(setback.told)

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
        self._checkpoints.replace(task, done)
        if isinstance(done, TaskDone):
            metric = self._study.search.metric
            log.debug("%s epoch %d: %s %.4f", done.run, done.to_epoch, metric, done.scores[metric])

    def _lost(self, event: WorkerLost) -> None:
        gone = (event.worker, event.pid)
        self._early = [one for one in self._early if (one[0].worker, one[0].pid) != gone]
        orders, expected = self._workers.lost(event)
        self._record_worker(event, "left" if expected else "lost", event.reason, event.when)
        level = logging.INFO if expected else logging.WARNING
        log.log(level, "worker %s (process %d) lost: %s", event.worker, event.pid, event.reason)
        self._reception.lost(event, excused=expected or bool(orders))
        self._lost_tasks(orders, event)

    def _without_data(self, name: str, token: str, error: DataAwayError, when: float) -> None:
        """Give what a worker that cannot open the data was at to others, and the worker nothing."""
        who, orders = self._reception.joined[name], self._workers.forget(name)
        loss = WorkerLost(name, who.host, who.pid, NODE, str(error), token, when=when)
        self._lost_tasks(orders, loss)
        self._reception.let_go(name, error)

    def _lost_tasks(self, orders: Sequence[TaskOrder], event: WorkerLost) -> None:
        self._bundling.lost([order.task for order in orders], event.failure)
        for setback in self._setbacks.lost(orders, event, self._reception.place(event)):
            self._befell(setback, event.when)

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
