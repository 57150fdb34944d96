"""The agent of a node: ``python -m stormsweep.cluster.node ORDER NAME``.

It starts the node's workers, which join the driver's scheduler, and leaves when the driver is gone
or says so, when its job is told to end, and before the walltime. Nothing that it started outlives
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
from distributed import Nanny
from distributed.comm import connect
from distributed.core import send_recv

from stormsweep.cluster import machine
from stormsweep.cluster.address import own_address
from stormsweep.cluster.dask_pool import dask_settings
from stormsweep.cluster.environment import thread_environment
from stormsweep.cluster.forked import prepare_workers
from stormsweep.cluster.memory_kills import MemoryKills
from stormsweep.cluster.node_order import NodeOrder, security_of
from stormsweep.cluster.slurm import Slurm
from stormsweep.cluster.station import Station
from stormsweep.cluster.topology import pins
from stormsweep.config.walltimes import margin
from stormsweep.errors import SchedulerError
from stormsweep.files import keep_within_group, passing_folder

log = logging.getLogger("stormsweep.node")

#: The driver's operation that says whether a node is still wanted.
WANTED = "stormsweep-node-wanted"
#: How often the driver is asked, in seconds, and how long its answer may take.
_BEAT_SECONDS, _PATIENCE_SECONDS = 1.0, 60.0
#: How long a driver is looked for that may have been killed while this job waited in the queue.
_FIND_SECONDS = 10.0
#: How long the scheduler may take to say how much time is left, in seconds.
_ASK_SECONDS = 30.0
#: Of a node's memory, what its workers may take where nobody says.
_MEMORY_SHARE = 0.9
#: Worker processes that do not come up within so many seconds are given up, with their node.
_START_SECONDS = 300.0
#: Bytes that are copied at a time.
_BLOCK = 16 << 20
#: Exit codes of workers that were killed; the last where their parent cannot tell.
_KILLED = (-signal.SIGKILL, 255)
#: A loss within so many seconds of the walltime is the walltime's.
_NEAR_THE_END = 90.0


def farewell_of_node(folder: Path, name: str) -> Path:
    """Return where in a session's private folder a node's agent leaves the reason of its end."""
    return folder / f"node-{name}.farewell.json"


def node_name() -> str:
    """Return what the scheduler calls this node."""
    return os.environ.get("SLURMD_NODENAME") or platform.node().partition(".")[0]


def seconds_left() -> float | None:
    """Return how long this job may still run, as Slurm says; None: it does not say."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    with contextlib.suppress(SchedulerError):
        return Slurm(_ASK_SECONDS).time_left(job)
    return None


def worker_memory(order: NodeOrder) -> float:
    """Return the memory in GiB that a worker may take: its own, or its share of the job's."""
    job = min(machine.memory_gb(), order.job_gb or math.inf)
    return order.memory_gb or _MEMORY_SHARE * job / order.workers


class Agent:
    """A node's agent.

    Parameters
    ----------
    order : NodeOrder
        What to do.
    folder : Path
        The private folder, with the certificates.
    name : str
        The node's number in the driver's session.
    """

    def __init__(self, order: NodeOrder, folder: Path, name: str) -> None:
        self._order, self._folder, self._name = order, folder, name
        self._security = security_of(folder)
        began, left = time.monotonic(), seconds_left()
        if left is None:
            left = math.inf if order.walltime_s is None else float(order.walltime_s)
        endless = math.isinf(left)
        #: When the job ends, by the monotonic clock.
        self._end = None if endless else began + left
        whole = order.walltime_s or (0.0 if endless else left)
        self._margin = margin(whole)
        #: What the job had for work when it began.
        self._whole = None if endless else max(1.0, whole - self._margin)
        self._leave: asyncio.Future[tuple[str, str]] | None = None
        self._nannies: list[Any] = []
        self._met = asyncio.Event()
        self._memory_kills = MemoryKills(f"the job on {node_name()}")
        #: Workers that were killed for memory, and the reason: the driver does not know yet.
        self._news: dict[str, str] = {}
        self._hurry = asyncio.Event()

    async def work(self) -> int:
        """Do it; return the exit code."""
        loop = asyncio.get_running_loop()
        self._leave = loop.create_future()
        loop.add_signal_handler(signal.SIGTERM, self._told_to_end)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        with contextlib.ExitStack() as open_:
            scratch = open_.enter_context(self._scratch())
            prepare_workers(self._order.imported)
            settings = dask_settings(self._order.threads, bool(self._order.imported))
            open_.enter_context(dask.config.set(settings))
            beating = asyncio.ensure_future(self._beat())
            hiring = asyncio.ensure_future(self._hire(scratch))
            ends = asyncio.ensure_future(self._walltime())
            try:
                done, _ = await asyncio.wait(
                    (self._leave, beating, hiring, ends), return_when=asyncio.FIRST_COMPLETED
                )
                for task in done - {self._leave}:
                    if (error := task.exception()) is not None:
                        self._go("killed", f"the agent of {node_name()} cannot go on: {error!r}")
                await self._leave
            finally:
                code = self._farewell()
                for task in (beating, hiring, ends):
                    task.cancel()
                await self._close()
        return code

    def _go(self, failure: str, reason: str) -> None:
        assert self._leave is not None
        if not self._leave.done():
            self._leave.set_result((failure, reason))

    def _farewell(self) -> int:
        """Say why, where the driver looks for it; return the exit code."""
        assert self._leave is not None
        if not self._leave.done():
            return 1
        failure, reason = self._leave.result()
        log.info("leaving: %s", reason)
        if failure:
            path = farewell_of_node(self._folder, self._name)
            with contextlib.suppress(OSError):
                path.write_text(json.dumps({"failure": failure, "reason": reason}))
        return int(failure not in ("", "walltime"))

    def _told_to_end(self) -> None:
        if self._end is not None and self._end - time.monotonic() < _NEAR_THE_END:
            self._go("walltime", "its job reached its walltime")
        else:
            self._go("cancelled", "its job was told to end before its time")

    async def _walltime(self) -> None:
        if self._end is None:
            await asyncio.Event().wait()
            return
        # What does not pause by itself within the margin is ended, in time to be said so.
        await asyncio.sleep(max(0.0, self._end - self._margin / 3 - time.monotonic()))
        self._go("walltime", "its job reached its walltime")

    async def _beat(self) -> None:
        """Ask the driver, again and again, whether this node is still wanted."""
        arguments = self._security.get_connection_args("worker")
        comm = None
        try:
            comm = await connect(self._order.scheduler, timeout=_FIND_SECONDS, **arguments)
            while True:
                news, self._news = self._news, {}
                self._hurry.clear()
                wanted = await asyncio.wait_for(
                    send_recv(comm, op=WANTED, node=self._name, memory=news), _PATIENCE_SECONDS
                )
                if not wanted:
                    self._go("", "the driver needs it no more")
                    return
                self._met.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), _BEAT_SECONDS)
        except (TimeoutError, OSError) as error:
            # Said where there is still somebody to read it: a firewall, say.
            failure = "" if self._met.is_set() else "killed"
            self._go(failure, f"the driver at {self._order.scheduler} cannot be reached ({error})")
        finally:
            if comm is not None:
                comm.abort()

    def _worker_ended(self, worker: str, code: int) -> None:
        """Have the driver told why a worker was killed, before its successor joins."""
        if code in _KILLED and (reason := self._memory_kills.explains()):
            log.warning("%s: %s", worker, reason)
            self._news[worker] = reason
            self._hurry.set()

    async def _hire(self, scratch: str) -> None:
        """Start the workers, and see that they stay."""
        order = self._order
        # NVIDIA's tool may take half a minute, during which the driver must hear of this node.
        gpus = await asyncio.to_thread(machine.gpus) if order.gpus else []
        if len(gpus) < order.workers and order.gpus:
            self._go(
                "no-gpu",
                f"{node_name()} shows the job {len(gpus)} of the GPUs that {order.workers} workers "
                "need; see the site's gres, workers_per_node",
            )
            return
        await self._met.wait()
        memory = worker_memory(order)
        whole = machine.whole_cores(os.environ)
        kept_on = pins(order.pin, order.workers, order.threads, whole)
        leave_at = None if self._end is None else self._end - self._margin
        copies = await asyncio.to_thread(self._copy, scratch)
        for number in range(order.workers):
            cores = kept_on[number] if kept_on else ()
            station = Station(
                memory_bytes=memory * 2**30,
                cores=cores,
                leave_at=leave_at,
                whole=self._whole,
                copies=copies,
                node=node_name(),
                gpu=order.gpus,
            )
            environment = {**os.environ, **thread_environment(order.threads)}
            environment |= station.environment()
            if order.gpus:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[number]
            self._nannies.append(
                _Nanny(
                    self._worker_ended,
                    order.scheduler,
                    nthreads=1,
                    name=f"{node_name()}-{self._name}-{number}",
                    security=self._security,
                    host=own_address(order.interface),
                    protocol="tls",
                    local_directory=scratch,
                    memory_limit=0,
                    death_timeout=_START_SECONDS,
                    dashboard_address="127.0.0.1:0",
                    env=environment,
                )
            )
        try:
            await asyncio.gather(*self._nannies)
            log.info("%d workers on %s, %.2f GiB each", order.workers, node_name(), memory)
            missing = 0.0
            while missing < _START_SECONDS:
                await asyncio.sleep(_BEAT_SECONDS)
                missing = 0.0 if all(map(_works, self._nannies)) else missing + _BEAT_SECONDS
            self._go("killed", "a worker process cannot be started again")
        except Exception as error:
            self._go("killed", f"the workers of {node_name()} cannot be started: {error!r}")

    async def _close(self) -> None:
        for nanny in self._nannies:
            nanny.close_gracefully()
            if _works(nanny):
                # Workers hold nothing but what their checkpoints hold.
                with contextlib.suppress(OSError):
                    os.kill(nanny.pid, signal.SIGKILL)
        # One that is just starting its worker raises; its process ends with this one.
        closing = asyncio.gather(
            *(nanny.close(timeout=1) for nanny in self._nannies), return_exceptions=True
        )
        await asyncio.wait([closing], timeout=10)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[str]:
        """Make a folder on the node's own disk, and remove it in the end; sweep what is left."""
        place = os.path.expandvars(self._order.scratch) if self._order.scratch else None
        if place is not None and not Path(place).is_dir():
            log.warning("scratch: %s is no folder on %s; using TMPDIR", place, node_name())
            place = None
        # The copies of an agent that was killed would fill the disk for good.
        with passing_folder(Path(place or tempfile.gettempdir()) / "stormsweep-node") as folder:
            yield str(folder)

    def _copy(self, scratch: str) -> dict[str, str]:
        """Copy the study's folders to this node's disk, as far as they fit."""
        copies: dict[str, str] = {}
        for number, path in enumerate(self._order.copies):
            size = sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())
            if size * 1.05 > shutil.disk_usage(scratch).free:
                log.warning(
                    "%s does not fit on the disk of %s, and is read from afar", path, scratch
                )
                continue
            began = time.monotonic()
            copy = Path(scratch) / f"data-{number}"
            try:
                shutil.copytree(path, copy, copy_function=self._copy_file)
            except OSError as error:
                log.warning("%s cannot be copied to %s: %s", path, scratch, error)
                shutil.rmtree(copy, ignore_errors=True)
                continue
            log.info("copied %s in %.1f s", path, time.monotonic() - began)
            copies[path] = str(copy)
        return copies

    def _copy_file(self, source: str, target: str) -> str:
        """Copy a file, unless the agent leaves meanwhile: nobody waits for the copy then."""
        assert self._leave is not None
        with open(source, "rb") as reading, open(target, "wb") as writing:
            while block := reading.read(_BLOCK):
                if self._leave.done():
                    raise OSError("the node leaves")
                writing.write(block)
        return target


class _Nanny(Nanny):  # type: ignore[misc]
    """Dask's nanny of one worker, which tells how its process ended.

    Parameters
    ----------
    ended : callable
        Given the worker's name and its exit code, before it is started again.
    arguments, options
        Of `Nanny`.
    """

    def __init__(self, ended: Callable[[str, int], None], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._ended = ended

    async def _on_worker_exit(self, exitcode: int) -> None:
        self._ended(str(self.name), exitcode)
        await super()._on_worker_exit(exitcode)


def _works(nanny: Any) -> bool:
    return nanny.process is not None and nanny.process.is_alive()


def main(arguments: list[str]) -> int:
    """Run the agent; return its exit code."""
    # A line that finds no room on the disk is lost, without a traceback in its place.
    logging.raiseExceptions = False
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("distributed").setLevel(logging.WARNING)
    keep_within_group()
    file, name = arguments
    path = Path(file)
    try:
        order = NodeOrder.read(path)
    except FileNotFoundError:
        # Its driver was killed while this job waited in the queue.
        log.info("leaving: %s is gone, and with it the driver", path)
        return 0
    return asyncio.run(Agent(order, path.parent, name).work())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
