"""One study, run by the real driver on workers that sleep."""

from __future__ import annotations

import contextlib
import cProfile
import multiprocessing
import multiprocessing.forkserver
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil

from benchmarks.driver import asleep
from stormsweep import Study
from stormsweep.cluster import local
from stormsweep.cluster.pool import Event, WorkerReady
from stormsweep.records import SessionBegun, TaskDone
from stormsweep.results.journal import of_kind
from stormsweep.study.watching import Silent, State

_MB = 2**20


@dataclass(frozen=True)
class Case:
    """So many workers, tasks, and how long a task sleeps at least and at most, in seconds."""

    workers: int
    tasks: int
    shortest: float
    longest: float


@dataclass(frozen=True)
class Measured:
    """What came of it.

    Attributes
    ----------
    tasks : int
        Tasks on record.
    asleep : float
        Seconds that the tasks were to sleep, all together.
    wall : float
        Seconds from the first task's submission to the last result on record.
    efficiency : float
        `asleep` over `wall` times workers.
    driver_cpu, workers_cpu : float
        Processor seconds of the driver's process and of all worker processes in the meantime.
    journal_mb, memory_mb : float
        Size of the journal; peak resident memory of the driver's process.
    memory_at : list of float
        Resident memory of the driver when a tenth, two tenths and so on of the tasks were done.
    before, after : float
        Seconds from the start of the session to the first submission, of which most is the start
        of the workers, and from the last result to the driver's return.
    again : float
        Seconds that the driver takes to find that nothing is left.
    """

    tasks: int
    asleep: float
    wall: float
    efficiency: float
    driver_cpu: float
    workers_cpu: float
    journal_mb: float
    memory_mb: float
    memory_at: list[float]
    before: float
    after: float
    again: float


class SleepingPool(local.LocalPool):
    """The real pool, but for what its workers do; nobody begins before all are there."""

    latest: SleepingPool

    def __init__(self, workers: int, *arguments: Any) -> None:
        self._absent = workers
        self._early: list[Event] = []
        SleepingPool.latest = self
        super().__init__(workers, *arguments)

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        super().submit(worker, pid, token, getattr(asleep, function.__name__), argument)

    def events(self, timeout: float) -> Iterator[Event]:
        if not self._absent:
            yield from super().events(timeout)
            return
        for event in super().events(timeout):
            self._early.append(event)
            self._absent -= isinstance(event, WorkerReady)
        if not self._absent:
            yield from self._early

    @property
    def loop(self) -> Any:
        """The event loop of scheduler and client."""
        return self._client.loop


class _Looks(Silent):
    """Note memory and processor time on the way."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._children: list[psutil.Process] = []
        self.memory: list[float] = []
        self.cpu = (0.0, 0.0)

    def spent(self) -> tuple[float, float]:
        """Return processor seconds so far, of this process and of its workers."""
        own = time.process_time()
        workers = 0.0
        for child in self._children:
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                workers += times.user + times.system
        return own, workers

    def state(self, state: State) -> None:
        if not self._children:
            self._children = self._process.children(recursive=True)
            self.cpu = self.spent()
        while state.tasks_done >= (len(self.memory) + 1) * state.tasks / 10:
            self.memory.append(self._process.memory_info().rss / _MB)
            if len(self.memory) == 10:
                own, workers = self.spent()
                self.cpu = (own - self.cpu[0], workers - self.cpu[1])


def measure(case: Case, folder: Path, profile: Path | None = None) -> Measured:
    """Run a study of sleeping tasks in an empty folder."""
    _fork_workers()
    local.LocalPool = SleepingPool  # type: ignore[misc]
    study = Study.from_toml(_write(case, folder), folder / "runs")
    looks = _Looks(psutil.Process())
    with _profiled(profile):
        study.run(looks)
    ended = time.time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    entries = study.entries()
    done = of_kind(entries, TaskDone)
    found = len({(task.run, task.to_epoch) for task in done})
    if not found == len(done) == case.tasks:
        raise SystemExit(f"{found} tasks and {len(done)} results on record, not {case.tasks}")
    began = next(entry.time for entry in entries if isinstance(entry.record, SessionBegun))
    first = min(task.submitted for task in done)
    last = max(entry.time for entry in entries if isinstance(entry.record, TaskDone))
    del entries
    again = time.perf_counter()
    study.run()
    again = time.perf_counter() - again
    tasks = {(run.id, stop): run for run in study.plan().runs for stop in run.milestones}
    asleep_seconds = sum(
        asleep.seconds(asleep.Task(run, 0, stop)) for (_, stop), run in tasks.items()
    )
    return Measured(
        tasks=len(done),
        asleep=asleep_seconds,
        wall=last - first,
        efficiency=asleep_seconds / (case.workers * (last - first)),
        driver_cpu=looks.cpu[0],
        workers_cpu=looks.cpu[1],
        journal_mb=study.journal_path.stat().st_size / _MB,
        memory_mb=peak,
        memory_at=[round(look, 1) for look in looks.memory],
        before=first - began,
        after=ended - last,
        again=again,
    )


def _write(case: Case, folder: Path) -> Path:
    """Write data that nobody looks at, and a study of them with that many tasks."""
    labels = np.arange(200) % 2
    np.savez(folder / "data.npz", inputs=np.zeros((200, 4), np.float32), labels=labels)
    # Two folds and two milestones: four tasks a configuration.
    structures, rest = divmod(case.tasks, 4)
    rates, odd = divmod(structures, 20)
    if rest or odd:
        raise SystemExit("the number of tasks must be a multiple of 80")
    lists = [[32, 64, 128, 256], [round(0.8 + 0.01 * n, 2) for n in range(5)]]
    text = (
        f'[study]\nname = "asleep"\n[data]\nsource = "npz"\npath = "{folder}/data.npz"\n'
        f'target = "labels"\ncache = "{folder}/data"\n'
        f'[model]\nbuild = "builder.py:network"\n'
        f"[model.parameters]\nshortest = {case.shortest}\nlongest = {case.longest}\n"
        f"[search.space]\nbatch_size = {lists[0]}\nmomentum = {lists[1]}\n"
        f"learning_rate = {[round(1e-6 * (n + 1), 6) for n in range(rates)]}\nepochs = [5, 10]\n"
        f"[validation]\nfolds = 2\n[site]\nworkers = {case.workers}\nmemory_gb = 4.0\n"
    )
    # Nobody calls it: what it takes is read before anything runs.
    builder = "def network(shortest, longest, momentum, learning_rate):\n    ...\n"
    (folder / "builder.py").write_text(builder, encoding="utf-8")
    path = folder / "asleep.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _fork_workers() -> None:
    """Have worker processes forked from one that has imported what they need.

    Hundreds of them that import Dask each for itself take minutes and many gigabytes.
    """
    os.environ["DASK_LOGGING__DISTRIBUTED"] = "warning"
    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    preload = ["distributed", "cryptography", asleep.__name__, "stormsweep.cluster.worker"]
    multiprocessing.set_forkserver_preload(preload)
    multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def _profiled(folder: Path | None) -> Iterator[None]:
    """Profile the driver's thread and the event loop's, each into a file of its own."""
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    main, loop = cProfile.Profile(), cProfile.Profile()
    plain = _Looks.state

    def first(self: _Looks, state: State) -> None:
        _Looks.state = plain  # type: ignore[method-assign]
        SleepingPool.latest.loop.add_callback(loop.enable)
        main.enable()
        plain(self, state)

    _Looks.state = first  # type: ignore[method-assign]
    try:
        yield
    finally:
        main.disable()
        main.dump_stats(folder / "driver.prof")
        loop.dump_stats(folder / "loop.prof")
