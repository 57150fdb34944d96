"""Workers on this machine: Dask's LocalCluster, one process a worker."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, SchedulerPlugin

from stormsweep.cluster.machine import host
from stormsweep.cluster.pool import Broken, Event, Finished, WorkerLost, WorkerReady
from stormsweep.cluster.worker import WorkerSetup, farewell_file

#: Variables in which OpenMP, BLAS libraries and TensorFlow look for their number of threads.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
_START_SECONDS = 120.0


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
    """

    def __init__(
        self,
        workers: int,
        threads_per_worker: int,
        memory_gb: float,
        logs: Path,
        paths: list[str],
    ) -> None:
        self._logs = logs
        self._events: queue.Queue[Event] = queue.Queue()
        self._busy: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._processes: dict[str, tuple[str, str, int]] = {}
        self._closing = False
        logs.mkdir(parents=True, exist_ok=True)
        self._scratch = tempfile.TemporaryDirectory(
            prefix="stormsweep-", ignore_cleanup_errors=True
        )
        threads = dict.fromkeys(_THREAD_VARIABLES, str(threads_per_worker))
        settings = {
            # Dask's nanny would set OpenMP's count to 1 whatever the layout.
            "distributed.nanny.pre-spawn-environ": threads
            | {"TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"},
            # A lost worker is the driver's business, which knows the checkpoints.
            "distributed.scheduler.allowed-failures": 0,
            "distributed.worker.memory.terminate": False,
            "distributed.comm.timeouts.connect": "60s",
            "distributed.admin.tick.limit": "60s",
        }
        with dask.config.set(settings):
            self._cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,
                host="127.0.0.1",
                dashboard_address=None,
                worker_dashboard_address=None,
                local_directory=self._scratch.name,
                silence_logs=logging.CRITICAL,
            )
            self._cluster.scheduler.add_plugin(_Reporter(self))
            self._client = Client(self._cluster, set_as_default=False)
            self._client.register_plugin(WorkerSetup(str(logs), memory_gb * 2**30, paths))
            self._cluster.scale(workers)
            self._client.wait_for_workers(workers, timeout=_START_SECONDS)

    def submit(
        self, worker: str, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        """Give a worker, which must be idle, a task."""
        if worker in self._busy:
            raise ValueError(f"worker {worker} is busy with {self._busy[worker]}")
        self._busy[worker] = token
        future = self._client.submit(
            function,
            argument,
            key=f"{token}-{time.time_ns()}",
            workers=[self._addresses[worker]],
            pure=False,
        )
        future.add_done_callback(lambda done: self._finished(worker, token, done))

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield what has happened; wait up to `timeout` seconds for the first event."""
        with contextlib.suppress(queue.Empty):
            yield self._events.get(timeout=timeout)
            while True:
                yield self._events.get_nowait()

    def close(self) -> None:
        """Stop all workers and wait until their processes are gone."""
        self._closing = True
        # Workers hold nothing but what their checkpoints hold: there is nothing to wait for.
        with contextlib.suppress(Exception):
            self._client.close(timeout=5)
        with contextlib.suppress(Exception):
            self._cluster.close(timeout=10)
        self._scratch.cleanup()

    def _finished(self, worker: str, token: str, future: Any) -> None:
        if self._closing or self._busy.get(worker) != token:
            return
        try:
            result = future.result()
        except KilledWorker:
            return  # told by the scheduler's plugin, with the reason
        except BaseException as error:
            if self._closing or self._busy.get(worker) != token:
                return
            del self._busy[worker]
            self._events.put(Broken(worker, token, error))
        else:
            self._busy.pop(worker, None)
            self._events.put(Finished(worker, token, result))

    def _joined(self, address: str, name: str, pid: int) -> None:
        self._addresses[name] = address
        self._processes[address] = (name, host(), pid)
        self._events.put(WorkerReady(name, host(), pid))

    def _left(self, address: str) -> None:
        if self._closing or address not in self._processes:
            return
        name, machine, pid = self._processes.pop(address)
        failure, reason = "killed", "its worker process died without a word"
        farewell = farewell_file(self._logs, pid)
        with contextlib.suppress(OSError, ValueError, KeyError):
            told = json.loads(farewell.read_text(encoding="utf-8"))
            failure, reason = told["failure"], told["reason"]
            farewell.unlink()
        self._events.put(
            WorkerLost(name, machine, pid, failure, reason, self._busy.pop(name, None))
        )


class _Reporter(SchedulerPlugin):  # type: ignore[misc]
    """Tell the pool which workers come and go."""

    def __init__(self, pool: LocalPool) -> None:
        self._pool = pool

    def add_worker(self, scheduler: Any, worker: str) -> None:
        state = scheduler.workers[worker]
        self._pool._joined(worker, str(state.name), state.pid)

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        self._pool._left(worker)
