"""The driver's loop: tasks to idle workers, results to the journal, until nothing is left."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stormsweep.cluster.pool import Broken, Event, Finished, Pool, WorkerLost, WorkerReady
from stormsweep.config.study import METRICS, StudyFile
from stormsweep.data.prepared import PreparedData
from stormsweep.records import (
    Entry,
    Record,
    RunFailed,
    Task,
    TaskDone,
    TaskRetried,
    WorkerEvent,
)
from stormsweep.results.journal import JournalWriter
from stormsweep.results.progress import Progress
from stormsweep.results.standing import Leader, Standing
from stormsweep.search.plan import Plan, Queue, cost
from stormsweep.study import worker
from stormsweep.study.bundle import train_bundle
from stormsweep.study.bundling import Bundling
from stormsweep.study.orders import Orders, Reception

log = logging.getLogger(__name__)

#: How often a run may lose its worker, in one session, before it is given up.
_ATTEMPTS = {"killed": 3, "out-of-memory": 2}
#: How often those who watch are shown how far the study is, in seconds.
_WATCH_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class State:
    """How far a study is, for those who watch it.

    Attributes
    ----------
    tasks, tasks_done : int
        Of the whole study, earlier sessions included.
    share : float
        Work done, 0 to 1, by the estimated cost of tasks.
    failed : int
        Failed runs.
    workers : int
        Workers ready.
    busy : int or None
        Those with a task; None: not known.
    patches_per_second : float
        Patches trained in this session per second.
    seconds, seconds_left : float
        Since the first task of this session, and the estimate of what is left (NaN before the
        first task is done).
    metric : str
        The score that ranks configurations.
    leader : Leader or None
        The best configuration so far.
    """

    tasks: int
    tasks_done: int
    share: float
    failed: int
    workers: int
    busy: int | None
    patches_per_second: float
    seconds: float
    seconds_left: float
    metric: str
    leader: Leader | None


class Watcher(Protocol):
    """Whoever shows the user what goes on."""

    def stage(self, what: str, share: float) -> None:
        """Something before or after training is being done, `share` of it so far."""

    def state(self, state: State) -> None:
        """Look again: called a few times a second."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""


class Silent:
    """A watcher that shows nothing."""

    def stage(self, what: str, share: float) -> None:
        """Show nothing."""

    def state(self, state: State) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""


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
    ) -> None:
        self._study, self._plan, self._pool, self._watcher = study, plan, pool, watcher
        self._checkpoints = directory / "checkpoints"
        self._orders = Orders(study, data, self._checkpoints, turned, score_test)
        names = {name for values in plan.configurations for name in values}
        self._reception = Reception(pool, self._orders, names, study.site.layout[0])
        self._patches = patches_per_epoch
        self._idle: dict[str, None] = {}
        self._bundling = Bundling(study.engine)
        #: What each worker has in memory, and what it is at: one run, or those of a bundle.
        self._held: dict[str, list[str]] = {}
        self._running: dict[str, list[Task]] = {}
        self._attempts: Counter[str] = Counter()
        self._early: list[tuple[WorkerReady, float]] = []
        self._journal: JournalWriter | None = None
        #: What happened in this round, not on the disk yet, and what of it is to be counted then.
        self._round: list[Entry] = []
        self._unsettled: list[tuple[Task, TaskDone | RunFailed]] = []
        self._queue: Queue | None = None
        self._standing = Standing(METRICS[study.search.metric] == "maximize")
        self._runs = {run.id: run for run in plan.runs}
        self._tasks, self._tasks_done, self._failures = plan.tasks, 0, 0
        self._cost_done = self._cost_session = 0.0
        self._patches_session = 0
        self._cost_all = sum(self._cost(Task(run, 0, run.milestones[-1])) for run in plan.runs)
        self._began = self._watched = time.monotonic()
        self._session = 0
        #: How far the study is, by the entries that `recall` was given and those of this session.
        self.progress = Progress()
        #: Tasks done in this session.
        self.trained = 0

    @property
    def model(self) -> str:
        """SHA-256 of the file that the builder stands in, as the first worker found it."""
        return self._reception.model

    @property
    def devices(self) -> set[str]:
        """What the workers compute on, where that is not simply the processor."""
        return self._reception.devices

    def await_first_worker(self) -> None:
        """Wait until a worker is set up and has found the model.

        Raises
        ------
        ModelError
            If the model's builder cannot be imported or does not take the hyperparameters.
        StormsweepError
            If workers die before they are set up.
        """
        self._reception.wait(lambda: bool(self._idle), lambda: self._poll(0.5))

    def _poll(self, seconds: float) -> None:
        for event in self._pool.events(seconds):
            self._handle(event)

    def train(
        self,
        journal: JournalWriter,
        session: int,
        retry_failed: bool,
        still_ours: Callable[[], None] = lambda: None,
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
        """
        self._journal, self._session = journal, session
        failed = {} if retry_failed else dict(self.progress.failed)
        self._queue = Queue(
            self._plan.runs,
            self.progress.reached,
            failed,
            self._patches,
            self._bundling.structure,
        )
        for name in failed:
            if name in self._runs:
                self._give_up(Task(self._runs[name], self.progress.reached.get(name, 0), 0))
        for ready, when in self._early:
            self._record_worker(ready, "ready", when=when)
        self._sweep()
        self._began = time.monotonic()
        try:
            while self._queue or self._running:
                still_ours()
                self._feed()
                self._commit()
                self._show()
                self._poll(0.25)
            still_ours()
            self._commit()
        except BaseException:
            still_ours()
            self._commit()
            raise
        self._watcher.state(self.state())

    def recall(self, entry: Entry) -> None:
        """Take in what earlier sessions recorded, entry by entry, before training goes on."""
        self.progress.take(entry)
        record = entry.record
        if isinstance(record, TaskDone) and record.run in self._runs:
            self._count(Task(self._runs[record.run], record.from_epoch, record.to_epoch), record)

    def state(self) -> State:
        """Return how far the study is."""
        seconds = time.monotonic() - self._began
        left = float("nan")
        if self._cost_session:
            left = seconds * (self._cost_all - self._cost_done) / self._cost_session
        return State(
            tasks=self._tasks,
            tasks_done=self._tasks_done,
            share=min(1.0, self._cost_done / self._cost_all) if self._cost_all else 1.0,
            failed=self._failures,
            workers=len(self._reception.joined),
            busy=len(self._running),
            patches_per_second=self._patches_session / seconds if seconds > 0 else 0.0,
            seconds=seconds,
            seconds_left=left,
            metric=self._study.search.metric,
            leader=self._standing.leader,
        )

    def _show(self) -> None:
        if time.monotonic() - self._watched >= _WATCH_SECONDS:
            self._watched = time.monotonic()
            self._watcher.state(self.state())

    def _feed(self) -> None:
        assert self._queue is not None
        for name in list(self._idle):
            bundle = self._bundling.take(self._queue, self._held.get(name, ()), len(self._idle))
            if not bundle:
                return
            del self._idle[name]
            self._running[name] = bundle
            self._held[name] = [task.run.id for task in bundle]
            for task in bundle:
                log.info("%s epochs %d-%d to worker %s", task.run.id, *_stretch(task), name)
            orders = [self._orders.order(t, self.model, name, self._session) for t in bundle]
            alone = len(orders) == 1
            self._pool.submit(
                name,
                self._reception.joined[name].pid,
                f"{bundle[0].run.id}-e{bundle[0].to_epoch}",
                worker.train_task if alone else train_bundle,
                orders[0] if alone else orders,
            )

    def _handle(self, event: Event) -> None:
        if (found := self._reception.take(event)) is not None:
            self._welcomed(*found)
            return
        match event:
            case Finished(name, _, result):
                self._returned(name, result if isinstance(result, list) else [result])
            case Broken(name, _, error):
                reason = f"the task could not be carried out: {error!r}"
                failed = [
                    RunFailed(task.run.id, *_stretch(task), "error", reason, name, self._session)
                    for task in self._running[name]
                ]
                self._returned(name, failed)
            case WorkerLost():
                self._lost(event)

    def _welcomed(self, ready: WorkerReady, when: float) -> None:
        self._idle[ready.worker] = None
        if self._journal is None:
            self._early.append((ready, when))
        else:
            self._record_worker(ready, "ready", when=when)

    def _sweep(self) -> None:
        """Remove what earlier sessions left: half-written files, checkpoints nobody needs."""
        from stormsweep.training import checkpoint

        checkpoint.remove_unfinished(self._checkpoints)
        reached = {
            name: (epoch, epoch == self._runs[name].milestones[-1])
            for name, epoch in self.progress.reached.items()
            if name in self._runs
        }
        checkpoint.remove_passed(self._checkpoints, reached)

    def _returned(self, name: str, results: Sequence[TaskDone | RunFailed]) -> None:
        assert self._queue is not None
        bundle = self._running.pop(name)
        self._idle[name] = None
        for task, result in zip(bundle, results, strict=True):
            self._write(result)
            self._unsettled.append((task, result))
            if isinstance(result, RunFailed):
                self._held[name].remove(result.run)
            else:
                # The rest of the run may be given out at once: its checkpoint is on the disk.
                self._queue.done(task)

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
            self.progress.take(entry)
        for task, result in settled:
            if isinstance(result, RunFailed):
                self._failed(task, result)
            else:
                self._settle(task, result)

    def _settle(self, task: Task, done: TaskDone) -> None:
        from stormsweep.training import checkpoint

        self.trained += 1
        self._count(task, done)
        self._cost_session += self._cost(task)
        self._patches_session += done.patches
        ended = task.to_epoch == task.run.milestones[-1]
        passed = (task.from_epoch, task.to_epoch) if ended else (task.from_epoch,)
        checkpoint.discard(self._checkpoints, task.run.id, passed)
        metric = self._study.search.metric
        log.debug("%s epoch %d: %s %.4f", done.run, done.to_epoch, metric, done.scores[metric])

    def _lost(self, event: WorkerLost) -> None:
        self._held.pop(event.worker, None)
        self._early = [(who, when) for who, when in self._early if who.pid != event.pid]
        self._idle.pop(event.worker, None)
        self._record_worker(event, "lost", event.reason)
        log.warning("worker %s (process %d) lost: %s", event.worker, event.pid, event.reason)
        bundle = self._running.pop(event.worker, [])
        self._reception.lost(event, at_work=bool(bundle))
        self._bundling.lost(bundle, event.failure)
        for task in bundle:
            self._lost_task(task, event, alone=len(bundle) == 1)

    def _lost_task(self, task: Task, event: WorkerLost, alone: bool) -> None:
        assert self._queue is not None
        key = f"{event.failure} {task.run.id}"
        self._attempts[key] += 1
        if not alone:
            # Whose fault it was is known when a run loses its worker alone.
            self._attempts[key] = min(self._attempts[key], _ATTEMPTS[event.failure] - 1)
        if self._attempts[key] < _ATTEMPTS[event.failure]:
            self._queue.put_back(task)
            self._write(
                TaskRetried(
                    task.run.id,
                    task.to_epoch,
                    self._attempts[key] + 1,
                    event.reason,
                    event.worker,
                    self._session,
                )
            )
            self._watcher.note(
                f"worker {event.worker} was lost ({event.reason}); "
                f"run {task.run.id} goes on from epoch {task.from_epoch}"
            )
            return
        times = f", {self._attempts[key]} times" if self._attempts[key] > 1 else ""
        failure = RunFailed(
            task.run.id,
            *_stretch(task),
            event.failure,
            f"{event.reason}{times}",
            event.worker,
            self._session,
        )
        self._write(failure)
        self._unsettled.append((task, failure))

    def _failed(self, task: Task, failure: RunFailed) -> None:
        self._give_up(task)
        log.error("run %s failed: %s\n%s", failure.run, failure.reason, failure.detail)
        self._watcher.note(f"run {failure.run} failed ({failure.failure}): {failure.reason}")

    def _give_up(self, task: Task) -> None:
        """Count what is left of a failed run as done: nobody will wait for it."""
        self._failures += 1
        rest = [stop for stop in task.run.milestones if stop > task.from_epoch]
        self._tasks_done += len(rest)
        lost = self._cost(Task(task.run, task.from_epoch, task.run.milestones[-1]))
        self._cost_all -= lost

    def _count(self, task: Task, done: TaskDone) -> None:
        self._tasks_done += 1
        self._cost_done += self._cost(task)
        values = {**task.run.hyperparameters, "epochs": task.to_epoch}
        self._standing.add(values, task.run.fold, done.scores[self._study.search.metric])

    def _cost(self, task: Task) -> float:
        run = task.run
        return cost(
            task.to_epoch - task.from_epoch,
            self._patches[run.fold],
            run.hyperparameters["batch_size"],
        )

    def _record_worker(
        self,
        who: WorkerReady | WorkerLost,
        event: str,
        detail: str = "",
        when: float | None = None,
    ) -> None:
        record = WorkerEvent(self._session, who.worker, event, who.host, who.pid, detail)
        self._write(record, when)

    def _write(self, record: Record, when: float | None = None) -> None:
        if self._journal is not None:
            self._round.append(Entry(time.time() if when is None else when, record))


def _stretch(task: Task) -> tuple[int, int]:
    return task.from_epoch, task.to_epoch
