"""What a worker process does for itself: its log, its memory budget, its signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from distributed import Status, WorkerPlugin

from stormsweep.cluster import station, worker_log
from stormsweep.cluster.line import answer_the_line
from stormsweep.cluster.topology import Cores, pin_process
from stormsweep.files import keep_within_group

#: How often a worker looks at its own memory, in seconds: at most, and at least.
_LOOK_SECONDS = (0.05, 1.0)
#: No process takes memory faster than this, in bytes a second.
_FASTEST = 16 * 2**30
OUT_OF_MEMORY_EXIT = 77


def farewell_file(logs: Path, worker: str, pid: int) -> Path:
    """Return where a worker process leaves the reason of its own end."""
    return logs / f".worker-{worker}-{pid}.farewell.json"


class WorkerSetup(WorkerPlugin):  # type: ignore[misc]
    """Set up a worker process before its first task.

    What the node has for a worker (see `station`) goes before what is said here.

    Parameters
    ----------
    logs : str
        Folder of the study's logs; the process writes ``worker-<name>.log`` there.
    memory_bytes : float
        The process leaves, saying why, when it takes more than this.
    paths : list of str
        Folders in which the user's own modules are looked for.
    pins : mapping of str to tuple of int
        Logical processors that workers are kept on, by their names.
    gpus : list of str
        GPUs, of which each worker gets one by its number; none: left as they are.
    """

    name = "stormsweep-worker-setup"

    def __init__(
        self,
        logs: str,
        memory_bytes: float,
        paths: list[str],
        pins: Mapping[str, Cores],
        gpus: Sequence[str] = (),
    ) -> None:
        self.logs = logs
        self.memory_bytes = memory_bytes
        self.paths = paths
        self.pins = pins
        self.gpus = gpus

    def setup(self, worker: Any) -> None:
        """Run in the worker's main thread when it joins."""
        # Ctrl-C reaches the whole foreground group; only the driver decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        keep_within_group()
        for path in reversed(self.paths):
            if path not in sys.path:
                sys.path.insert(0, path)
        log = os.open(
            Path(self.logs) / f"worker-{worker.name}.log",
            os.O_WRONLY | os.O_CREAT | os.O_APPEND,
            0o666,
        )
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        worker_log.begin()
        here = station.take(gpu=bool(self.gpus))
        if here.memory_bytes:
            self.memory_bytes = here.memory_bytes
        # A worker that takes the place of a lost one has its name, and so its cores.
        if cores := here.cores or self.pins.get(str(worker.name)):
            try:
                pin_process(cores)
            except OSError as error:
                print(f"not pinned to {cores}: {error}", file=sys.stderr, flush=True)
        if self.gpus:
            # A worker that takes the place of a lost one has its number, and so its GPU.
            number = int(worker.name) % len(self.gpus)
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[number]
        answer_the_line(worker)
        name = str(worker.name)
        threading.Thread(
            target=self._watch_memory, args=(name,), name="memory", daemon=True
        ).start()

    def teardown(self, worker: Any) -> None:
        """Leave at once when the worker closes: what counts is in the checkpoints.

        Python would wait for a task under way and take TensorFlow apart, for about as long as Dask
        waits before it kills.
        """
        if worker.status is not Status.closing:
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)

    def _watch_memory(self, name: str) -> None:
        process = psutil.Process()
        while True:
            memory = process.memory_info()
            # Pages of mapped files (the data, libraries) are shared and given back when needed.
            used = memory.rss - getattr(memory, "shared", 0)
            if used > self.memory_bytes:
                farewell = {
                    "failure": "out-of-memory",
                    "reason": f"the worker used {used / 2**30:.2f} GiB of memory; "
                    f"allowed are {self.memory_bytes / 2**30:.2f} GiB (site.memory_gb)",
                }
                path = farewell_file(Path(self.logs), name, os.getpid())
                # On a full disk it cannot be said why; the memory is given back all the same.
                with contextlib.suppress(OSError):
                    path.write_text(json.dumps(farewell), encoding="utf-8")
                os._exit(OUT_OF_MEMORY_EXIT)
            time.sleep(_until_next_look(self.memory_bytes - used))


def _until_next_look(left: float) -> float:
    """Return how long memory of that many bytes lasts at least; a look is not free."""
    often, seldom = _LOOK_SECONDS
    return min(seldom, max(often, left / _FASTEST))
