"""What every pool of Dask workers shares: the scheduler, the lines, who lives and what is lost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, SchedulerPlugin, Security, Status

from stormsweep.cluster import forked, worker_log
from stormsweep.cluster.dashboard import offer
from stormsweep.cluster.environment import thread_environment
from stormsweep.cluster.line import Lines
from stormsweep.cluster.machine import allow_open_files, host
from stormsweep.cluster.pool import (
    END_SECONDS,
    Broken,
    Event,
    Finished,
    PoolBroken,
    WorkerLost,
    WorkerReady,
)
from stormsweep.cluster.quiet import QUIET, beat_rarely
from stormsweep.cluster.worker import WorkerSetup, farewell_file
from stormsweep.errors import StudyInterrupted

log = logging.getLogger(__name__)

#: To each of these Dask gives a handler of its own, for the terminal, when it is imported.
_DASK_LOGGERS = (
    *("bokeh", "distributed", "distributed.client", "distributed.gc"),
    *("tornado", "tornado.application"),
)
#: Settings of Dask's in the driver and wherever workers are started.
_SETTINGS: dict[str, Any] = QUIET | {
    "distributed.worker.memory.terminate": False,
    "distributed.comm.timeouts.connect": "60s",
    # A worker that is lost twice within this time would not be replaced.
    "distributed.deploy.lost-worker-timeout": "1000 days",
}
#: How long a worker may take to leave before it is killed, in seconds.
_LEAVE_SECONDS = 4.0
#: By which share of the time that a pool has for its end its nodes, Dask's client and the workers
#: of this machine have to be gone; what is left is the scheduler's. Each has what those before it
#: did not need, and some that they cannot take.
NODES_BY, _CLIENT_BY, _WORKERS_BY = 0.6, 0.7, 0.9
#: Set where something of Dask's did not end: it may speak for as long as this process lives.
_left_behind = threading.Event()


def dask_settings(threads_per_worker: int, fork: bool) -> dict[str, Any]:
    """Return Dask's settings for a process that starts workers.

    Parameters
    ----------
    threads_per_worker : int
        Compute threads of each.
    fork : bool
        Whether they are forked from a process that `forked.prepare_workers` started.
    """
    # Dask's nanny would set OpenMP's count to 1 whatever the layout.
    environment = {"distributed.nanny.pre-spawn-environ": thread_environment(threads_per_worker)}
    method = {"distributed.worker.multiprocessing-method": forked.METHOD} if fork else {}
    return _SETTINGS | environment | method


@contextlib.contextmanager
def dask_logs(handler: logging.Handler) -> Iterator[None]:
    """Send what Dask has to say to a handler instead of the terminal."""
    loggers = [logging.getLogger(name) for name in _DASK_LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = [handler]
        logger.propagate = False
    interrupted = False
    try:
        yield
    except (KeyboardInterrupt, StudyInterrupted):
        # A thread of Dask's may still start what is not wanted any more, and would tell all of it.
        interrupted = True
        raise
    finally:
        if interrupted or _left_behind.is_set():
            before = [([logging.NullHandler()], False)] * len(loggers)
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers
            logger.propagate = propagate


class DaskPool:
    """A pool of Dask workers, wherever they are started.

    Parameters
    ----------
    logs : Path
        Folder for the workers' logs; made if missing.
    workers : int
        How many there may be.
    """

    #: Seconds within which a first worker must be ready, or another where the last was lost; a slow
    #: file system needs minutes.
    patience = 600.0

    def __init__(self, logs: Path, workers: int) -> None:
        self._logs, self._workers = logs, workers
        self._events: queue.Queue[Event] = queue.Queue()
        #: Name of a worker to its address and process, while it lives.
        self._current: dict[str, tuple[str, int]] = {}
        self._names: dict[str, tuple[str, int]] = {}
        #: Worker and process to the token of the task it has.
        self._busy: dict[tuple[str, int], str] = {}
        #: Worker processes that cannot work, and since when there is no other, by the clock.
        self._refused: set[tuple[str, int]] = set()
        self._alone_since: float | None = None
        self._lock = threading.RLock()
        self._closing = False
        #: When closing began, by the clock, and the seconds for it.
        self._closed_at, self._within = 0.0, END_SECONDS
        self._open = contextlib.ExitStack()
        logs.mkdir(parents=True, exist_ok=True)
        # A worker takes eleven: connections of its nanny, the scheduler and its line, its process.
        allow_open_files(512 + 16 * workers)

    @property
    def dashboard(self) -> int:
        """Port of Dask's dashboard, on loopback."""
        port: int = self._cluster.scheduler.http_server.port
        return port

    def _listen(
        self,
        where: str,
        security: Security,
        settings: Mapping[str, Any],
        setup: WorkerSetup,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the scheduler, which workers join.

        Parameters
        ----------
        where : str
            Address of this machine that it listens on.
        security : Security
            Its certificates.
        settings : mapping
            Dask's, until the pool is closed.
        setup : WorkerSetup
            What every worker does when it joins.
        environment : mapping of str to str, optional
            That of workers which Dask starts here.
        """
        scratch = self._open.enter_context(
            tempfile.TemporaryDirectory(prefix="stormsweep-", ignore_cleanup_errors=True)
        )
        self._open.enter_context(dask.config.set(settings))
        # Workers are started by its thread.
        with forked.deaf_to_ctrl_c():
            self._cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                host=where,
                protocol="tls://",
                security=security,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                worker_dashboard_address=None,
                local_directory=scratch,
                silence_logs=False,
                env=None if environment is None else dict(environment),
            )
        # Each looks at the clock when its turn has come.
        self._open.callback(lambda: _end(self._cluster.close, timeout=self._remains(1.0)))
        self._open.callback(
            lambda: _end(
                self._cluster.sync, self._end_workers, callback_timeout=self._remains(_WORKERS_BY)
            )
        )
        self._cluster.scheduler.add_plugin(_Reporter(self))
        beat_rarely(self._cluster.scheduler)
        offer(self._cluster.scheduler)
        self._client = Client(self._cluster, security=security, set_as_default=False)
        self._open.callback(lambda: _end(self._client.close, timeout=self._remains(_CLIENT_BY)))
        self._lines = Lines(self._client, self._names.__contains__)
        self._open.callback(self._lines.close)
        self._client.register_plugin(setup)

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        """Give an idle worker process a task; if it is gone by now, its `WorkerLost` follows."""
        with self._lock:
            address, current = self._current.get(worker, ("", -1))
            if current != pid:
                return
            if (worker, pid) in self._busy:
                raise ValueError(f"worker {worker} is busy with {self._busy[worker, pid]}")
            self._busy[worker, pid] = token
        self._lines.ask(address, function, argument, partial(self._finished, worker, pid))

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield what has happened; wait up to `timeout` seconds for the first event."""
        with contextlib.suppress(queue.Empty):
            yield self._events.get(timeout=timeout)
            while True:
                yield self._events.get_nowait()
        # Dask tries once to start a worker again: where the system refuses that, none ever comes.
        alone = self._alone_since
        if alone is not None and time.monotonic() - alone > self.patience:
            yield PoolBroken(
                f"the last one that could work was lost, and none took its place within "
                f"{self.patience:.0f} s; see logs/driver.log"
            )

    def dismiss(self, worker: str, pid: int) -> None:
        """Do nothing: workers of one machine stay."""

    def refuse(self, worker: str, pid: int, why: str, for_good: bool = False) -> None:
        """Leave a worker aside: those of one machine stay, and another would be no better."""
        with self._lock:
            self._refused.add((worker, pid))
            self._look_who_is_left()
            if self._alone_since is not None and len(self._current) == self._workers:
                self._tell(PoolBroken(why))

    def want(self, tasks: int) -> None:
        """Do nothing: workers of one machine stay."""

    def close(self, within: float = END_SECONDS) -> None:
        """Stop all workers and wait until their processes are gone, at most `within` seconds."""
        # Workers hold nothing but what their checkpoints hold: there is nothing to wait for.
        self._closing = True
        self._closed_at, self._within = time.monotonic(), within
        self._open.close()

    def _remains(self, share: float) -> float:
        """Return the seconds until a share of the time for closing is over."""
        return max(0.0, self._closed_at + share * self._within - time.monotonic())

    async def _end_workers(self) -> None:
        """End the workers of this machine, those that are just starting too.

        Dask would wait until these have started. Where it is not given the time, it leaves all of
        them behind, and starts those again that end later.
        """
        within = self._remains(_WORKERS_BY)
        patience = min(_LEAVE_SECONDS, within / 2)
        self._cluster.worker_spec.clear()
        nannies = list(self._cluster._created)
        closing = asyncio.gather(
            *(nanny.close(timeout=within) for nanny in nannies), return_exceptions=True
        )
        asked, killed = time.monotonic(), set[int]()
        while not closing.done():
            late = time.monotonic() - asked > patience
            for nanny in nannies:
                process, pid = nanny.process, nanny.pid
                # Until it has started, a worker does not hear that it is to leave.
                starts = process is not None and process.status is Status.starting
                if pid is None or pid in killed or not (late or starts):
                    continue
                why = "is just starting" if starts else "does not leave"
                log.info("worker %s (process %d) %s, and is killed", nanny.name, pid, why)
                killed.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.wait([closing], timeout=0.05)
        for error in closing.result():
            if isinstance(error, BaseException):
                raise error

    def _tell(self, event: Event) -> None:
        if isinstance(event, WorkerLost) and (event.failure, event.reason) == KILLED:
            event = dataclasses.replace(event, reason=self._killed(event.worker, event.pid))
        self._events.put(event)

    def _host_of(self, worker: str) -> str:
        """Return the machine of a worker."""
        return host()

    def _finished(self, worker: str, pid: int, result: Any, error: BaseException | None) -> None:
        with self._lock:
            # Either this or the worker's loss is told, never both.
            token = self._busy.pop((worker, pid), None)
            if token is None or self._closing:
                return
            if error is None:
                self._tell(Finished(worker, token, result))
            else:
                self._tell(Broken(worker, token, error))

    def _joined(self, address: str, name: str, pid: int) -> None:
        with self._lock:
            self._current[name] = (address, pid)
            self._names[address] = (name, pid)
            self._look_who_is_left()
            self._tell(WorkerReady(name, self._host_of(name), pid))

    def _left(self, address: str) -> None:
        self._lines.hang_up(address)
        with self._lock:
            name, pid = self._names.pop(address, ("", -1))
            if self._closing or not name:
                return
            if self._current.get(name) == (address, pid):
                del self._current[name]
            self._look_who_is_left()
            token = self._busy.pop((name, pid), None)
            said = farewell(farewell_file(self._logs, name, pid))
            self._tell(WorkerLost(name, self._host_of(name), pid, *said, token))

    def _look_who_is_left(self) -> None:
        """Note since when there is no worker that can work."""
        if {(name, pid) for name, (_, pid) in self._current.items()} - self._refused:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()

    def _killed(self, worker: str, pid: int) -> str:
        """Return what is said of a worker process that said nothing itself."""
        return KILLED[1] + worker_log.last_words(self._logs / f"worker-{worker}.log", pid)


#: What is said of a worker that said nothing itself.
KILLED = "killed", "its worker process died without a word"


def farewell(path: Path) -> tuple[str, str]:
    """Take what a worker process left to say of its end: in one word, and in a line."""
    failure, reason = KILLED
    with contextlib.suppress(OSError, ValueError, KeyError):
        told = json.loads(path.read_text(encoding="utf-8"))
        failure, reason = told["failure"], told["reason"]
        path.unlink()
    return failure, reason


def _end(function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """End something of Dask's; what does not end is not heard of any more."""
    try:
        function(*arguments, **options)
    except Exception as error:
        log.info("Dask does not end as it should: %r", error)
        _left_behind.set()


class _Reporter(SchedulerPlugin):  # type: ignore[misc]
    """Tell the pool which workers come and go."""

    def __init__(self, pool: DaskPool) -> None:
        self._pool = pool

    def add_worker(self, scheduler: Any, worker: str) -> None:
        state = scheduler.workers[worker]
        self._pool._joined(worker, str(state.name), state.pid)

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        self._pool._left(worker)
