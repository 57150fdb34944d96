"""Workers on this machine: Dask's LocalCluster, one process a worker."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from distributed import Security

from stormsweep.cluster.dask_pool import KILLED, DaskPool, dask_settings
from stormsweep.cluster.environment import thread_environment
from stormsweep.cluster.forked import prepare_workers
from stormsweep.cluster.memory_kills import OUT_OF_MEMORY, MemoryKills
from stormsweep.cluster.pool import Event, WorkerLost
from stormsweep.cluster.topology import Cores
from stormsweep.cluster.worker import WorkerSetup

#: Dask would go by the clock in restarting workers that gave no sign of life for five minutes: all
#: of them, once a laptop has slept or its clock was set. One that dies breaks its connection.
_SLEEPS = {"distributed.scheduler.worker-ttl": None}


class LocalPool(DaskPool):
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
        super().__init__(logs, workers)
        self._memory_kills = MemoryKills("this machine")
        try:
            prepare_workers(imported)
            # Dask names the workers of a machine by their number, lost ones' successors too.
            named = {str(number): cores for number, cores in enumerate(pins)}
            self._listen(
                # Loopback is open to every user of the machine: certificates keep them out.
                "127.0.0.1",
                Security.temporary(),
                dask_settings(threads_per_worker, bool(imported)) | _SLEEPS,
                WorkerSetup(str(logs), memory_gb * 2**30, paths, named, tuple(gpus)),
                # Else a forked worker would have the environment of when the import began.
                {**os.environ, **thread_environment(threads_per_worker)},
            )
            self._cluster.scale(workers)
        except BaseException:
            self.close()
            raise

    def _tell(self, event: Event) -> None:
        """Pass an event on; a worker that the system killed for memory could not say so itself."""
        if (
            isinstance(event, WorkerLost)
            and (event.failure, event.reason) == KILLED
            and (reason := self._memory_kills.explains())
        ):
            event = dataclasses.replace(event, failure=OUT_OF_MEMORY, reason=reason)
        super()._tell(event)
