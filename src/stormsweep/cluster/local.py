"""Workers on this machine: Dask's LocalCluster, one process a worker."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster, SchedulerPlugin, Security

from stormsweep.cluster import forked
from stormsweep.cluster.line import Lines
from stormsweep.cluster.machine import allow_open_files, host
from stormsweep.cluster.pool import Broken, Event, Finished, WorkerLost, WorkerReady
from stormsweep.cluster.quiet import QUIET, beat_rarely
from stormsweep.cluster.topology import Cores
from stormsweep.cluster.worker import WorkerSetup, farewell_file

#: Variables in which OpenMP, BLAS libraries and TensorFlow look for their number of threads.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
#: What every worker needs, whatever it trains with.
_OWN_MODULES = ("distributed.nanny", "cryptography.x509", "stormsweep.cluster.worker")
_DASK_LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application")


def thread_environment(threads_per_worker: int) -> dict[str, str]:
    """Return the variables that worker processes must begin with."""
    threads = dict.fromkeys(_THREAD_VARIABLES, str(threads_per_worker))
    return threads | {
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # Until a worker has its log file, what it says goes to the user's terminal.
        "DASK_LOGGING__DISTRIBUTED": "warning",
    }


def prepare_workers(imported: Sequence[str]) -> None:
    """Begin to import, in a process of its own, what the workers of pools to come need.

    Parameters
    ----------
    imported : sequence of str
        Modules; none: workers are not forked, and there is nothing to do.
    """
    if imported:
        forked.prepare([*imported, *_OWN_MODULES], thread_environment(1))


@contextlib.contextmanager
def dask_logs(handler: logging.Handler) -> Iterator[None]:
    """Send what Dask has to say to a handler instead of the terminal."""
    loggers = [logging.getLogger(name) for name in _DASK_LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = [handler]
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers
            logger.propagate = propagate


class LocalPool:
    """A pool of worker processes on this machine, on loopback only.

    Parameters
    ----------
    workers : int
        Number of processes.
    threads_per_worker : int
        Compute threads of each; set where numerical libraries look for it before they start.
    memory_gb : float
        Memory in GiB that one worker may take.
    logs : Path
        Folder for the workers' logs.
    paths : list of str
        Folders in which the user's own modules are looked for.
    pins : sequence of tuple of int
        Logical processors that each worker is kept on; empty: left to the system.
    gpus : sequence of str
        GPUs, one for each worker; none: left as they are.
    imported : sequence of str
        Modules that workers need: they are forked from a process that has imported them (see
        `forked`); none: each worker begins with nothing imported.
    """

    def __init__(
        self,
        workers: int,
        threads_per_worker: int,
        memory_gb: float,
        logs: Path,
        paths: list[str],
        pins: Sequence[Cores] = (),
        gpus: Sequence[str] = (),
        imported: Sequence[str] = (),
    ) -> None:
        self._logs = logs
        self._events: queue.Queue[Event] = queue.Queue()
        #: Name of a worker to its address and process, while it lives.
        self._current: dict[str, tuple[str, int]] = {}
        self._names: dict[str, tuple[str, int]] = {}
        #: Worker and process to the token of the task it has.
        self._busy: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._open = contextlib.ExitStack()
        try:
            self._start(workers, threads_per_worker, memory_gb, paths, pins, tuple(gpus), imported)
        except BaseException:
            self.close()
            raise

    def _start(
        self,
        workers: int,
        threads_per_worker: int,
        memory_gb: float,
        paths: list[str],
        pins: Sequence[Cores],
        gpus: Sequence[str],
        imported: Sequence[str],
    ) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        # A worker takes eleven: connections of its nanny, the scheduler and its line, its process.
        allow_open_files(512 + 16 * workers)
        scratch = self._open.enter_context(
            tempfile.TemporaryDirectory(prefix="stormsweep-", ignore_cleanup_errors=True)
        )
        environment = thread_environment(threads_per_worker)
        settings: dict[str, Any] = QUIET | {
            # Dask's nanny would set OpenMP's count to 1 whatever the layout.
            "distributed.nanny.pre-spawn-environ": environment,
            # A worker that is lost twice within this time would not be replaced.
            "distributed.deploy.lost-worker-timeout": "1000 days",
            "distributed.worker.memory.terminate": False,
            "distributed.comm.timeouts.connect": "60s",
        }
        if imported:
            prepare_workers(imported)
            settings["distributed.worker.multiprocessing-method"] = forked.METHOD
        self._open.enter_context(dask.config.set(settings))
        # Loopback is open to every user of the machine: certificates keep them out.
        security = Security.temporary()
        cluster = LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            host="127.0.0.1",
            protocol="tls://",
            security=security,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
            local_directory=scratch,
            silence_logs=False,
            # Else a forked worker would have the environment of when the import began.
            env={**os.environ, **environment},
        )
        self._open.callback(_quietly, cluster.close, timeout=10)
        cluster.scheduler.add_plugin(_Reporter(self))
        beat_rarely(cluster.scheduler)
        self._client = Client(cluster, security=security, set_as_default=False)
        self._open.callback(_quietly, self._client.close, timeout=5)
        self._lines = Lines(self._client, self._names.__contains__)
        self._open.callback(self._lines.close)
        # Dask names the workers of a machine by their number, lost ones' successors too.
        named = {str(number): cores for number, cores in enumerate(pins)}
        setup = WorkerSetup(str(self._logs), memory_gb * 2**30, paths, named, gpus)
        self._client.register_plugin(setup)
        cluster.scale(workers)

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

    def dismiss(self, worker: str, pid: int) -> None:
        """Let a worker process go; see `Pool.dismiss`. Those of this machine have no deadline."""

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield what has happened; wait up to `timeout` seconds for the first event."""
        with contextlib.suppress(queue.Empty):
            yield self._events.get(timeout=timeout)
            while True:
                yield self._events.get_nowait()

    def close(self) -> None:
        """Stop all workers and wait until their processes are gone."""
        # Workers hold nothing but what their checkpoints hold: there is nothing to wait for.
        self._closing = True
        self._open.close()

    def _finished(self, worker: str, pid: int, result: Any, error: BaseException | None) -> None:
        with self._lock:
            # Either this or the worker's loss is told, never both.
            token = self._busy.pop((worker, pid), None)
            if token is None or self._closing:
                return
            if error is None:
                self._events.put(Finished(worker, token, result))
            else:
                self._events.put(Broken(worker, token, error))

    def _joined(self, address: str, name: str, pid: int) -> None:
        with self._lock:
            self._current[name] = (address, pid)
            self._names[address] = (name, pid)
            self._events.put(WorkerReady(name, host(), pid))

    def _left(self, address: str) -> None:
        self._lines.hang_up(address)
        with self._lock:
            name, pid = self._names.pop(address, ("", -1))
            if self._closing or not name:
                return
            if self._current.get(name) == (address, pid):
                del self._current[name]
            token = self._busy.pop((name, pid), None)
            failure, reason = "killed", "its worker process died without a word"
            farewell = farewell_file(self._logs, pid)
            with contextlib.suppress(OSError, ValueError, KeyError):
                told = json.loads(farewell.read_text(encoding="utf-8"))
                failure, reason = told["failure"], told["reason"]
                farewell.unlink()
            self._events.put(WorkerLost(name, host(), pid, failure, reason, token))


def _quietly(function: Callable[..., Any], **arguments: Any) -> None:
    with contextlib.suppress(Exception):
        function(**arguments)


class _Reporter(SchedulerPlugin):  # type: ignore[misc]
    """Tell the pool which workers come and go."""

    def __init__(self, pool: LocalPool) -> None:
        self._pool = pool

    def add_worker(self, scheduler: Any, worker: str) -> None:
        state = scheduler.workers[worker]
        self._pool._joined(worker, str(state.name), state.pid)

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        self._pool._left(worker)
