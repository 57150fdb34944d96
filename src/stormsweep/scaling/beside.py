"""What a journal says of everything but training: start-up, queue waits, the way between tasks."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stormsweep.records import (
    Entry,
    LayoutTried,
    NodeEvent,
    SessionBegun,
    SessionEnded,
    TaskDone,
    WorkerEvent,
    node_of,
)
from stormsweep.results import facts
from stormsweep.results.journal import of_kind
from stormsweep.scaling.durations import Durations
from stormsweep.scaling.machine import Wait
from stormsweep.scaling.runtime import RunTime
from stormsweep.search.plan import Plan, structure
from stormsweep.work import Run

#: What the driver takes for a task where no journal says it, in seconds.
_DRIVER_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Around:
    """What is around the tasks, as measured.

    Attributes
    ----------
    start_up : tuple of float
        Seconds until a worker was ready, from the begin of its session, or from when its node was
        granted; the first process of each worker.
    wait : Wait or None
        How long nodes waited in the queue; None where none did.
    dispatch, driver : float
        Seconds between two tasks of a worker, without what the driver itself takes; that.
    """

    start_up: tuple[float, ...]
    wait: Wait | None
    dispatch: float
    driver: float


def around(entries: Sequence[Entry]) -> Around:
    """Read from a journal what was around its tasks."""
    driver = _driver_seconds(entries)
    gaps = _gaps(entries)
    gap = statistics.median(gaps) if gaps else driver
    starts, waits = _starts(entries)
    wait = None
    if waits:
        logs = [math.log(max(1.0, seconds)) for seconds in waits]
        spread = statistics.stdev(logs) if len(logs) > 1 else 0.0
        wait = Wait(statistics.median(waits), spread)
    return Around(tuple(starts) or (0.0,), wait, max(0.0, gap - driver), min(driver, gap))


def _gaps(entries: Sequence[Entry]) -> list[float]:
    """Return the seconds between two tasks of a worker, of one session."""
    by_worker: dict[tuple[int, str], dict[float, float]] = defaultdict(dict)
    for task in facts.stretches(entries):
        # Runs of a bundle have their times in common.
        by_worker[task.session, task.worker][task.started] = task.stopped
    gaps: list[float] = []
    for spans in by_worker.values():
        own = sorted(spans.items())
        gaps += [max(0.0, after[0] - before[1]) for before, after in itertools.pairwise(own)]
    return gaps


def _driver_seconds(entries: Sequence[Entry]) -> float:
    spent = [float(getattr(one, "driver_seconds", 0.0)) for one in of_kind(entries, SessionEnded)]
    tasks = len(of_kind(entries, TaskDone))
    # Of a short study most is the driver's own start, which is no task's.
    return min(sum(spent) / tasks, 2 * _DRIVER_SECONDS) if tasks and any(spent) else _DRIVER_SECONDS


def _starts(entries: Sequence[Entry]) -> tuple[list[float], list[float]]:
    """Return how long workers took to be ready, and how long nodes waited in the queue."""
    begun = tried = 0.0
    asked: dict[str, float] = {}
    granted: dict[str, float] = {}
    seen: set[str] = set()
    starts: list[float] = []
    waits: list[float] = []
    for entry in entries:
        match entry.record:
            case SessionBegun():
                begun, tried = entry.time, 0.0
                asked, granted, seen = {}, {}, set()
            case LayoutTried(seconds=seconds):
                tried = seconds
            case NodeEvent(event="asked", node=node):
                asked[node] = entry.time
            case NodeEvent(event="granted", node=node):
                granted[node] = entry.time
                waits.append(max(0.0, entry.time - asked.get(node, begun)))
            case WorkerEvent(event="ready", worker=worker) if worker not in seen:
                seen.add(worker)
                since = granted.get(node_of(worker), begun + tried)
                starts.append(max(0.0, entry.time - since))
            case _:
                pass
    return starts, waits


def durations(
    plan: Plan,
    patches_per_epoch: Sequence[int],
    runtime: RunTime,
    known: Around,
    *,
    threads: int,
    workers: int,
    parameters: Mapping[str, int],
    bundle: int = 1,
    common: float = 0.0,
    speed: float = 1.0,
) -> Durations:
    """Return what the tasks of a plan take by a fitted model.

    Parameters
    ----------
    plan : Plan
        Its runs.
    patches_per_epoch : sequence of int
        Patches of the balanced training fold, for each fold.
    runtime : RunTime
        See `stormsweep.scaling.runtime`.
    known : Around
        What is around the tasks.
    threads, workers : int
        Threads of a worker; workers of a node, which get in each other's way.
    parameters : mapping of str to int
        Trainable parameters by structure of a run; for structures that are not there, the median.
    bundle : int
        Runs that are trained together, about.
    common : float
        How sure the fit is: standard deviation of the logarithm.
    speed : float
        How fast the machine's cores are, over those that the model was fitted on.
    """
    structures = [structure(run) for run in plan.runs]
    usual = int(statistics.median(parameters.values())) if parameters else 0
    patches = np.array([patches_per_epoch[run.fold] for run in plan.runs], float)
    batches = np.array([run.hyperparameters["batch_size"] for run in plan.runs], float)
    updates = np.ceil(patches / batches)
    sizes = np.array([parameters.get(name, usual) for name in structures], float)

    def seconds(
        epochs: int, compiles: bool = False, opens: bool = False, scores: bool = True
    ) -> Any:
        found = runtime.seconds(
            patches=epochs * patches,
            updates=epochs * updates,
            batch_size=batches,
            parameters=sizes,
            threads=threads,
            workers=workers,
            compiles=compiles,
            opens=opens,
            scores=scores,
            epochs=epochs,
            bundle=bundle,
        )
        return np.broadcast_to(np.asarray(found, float), patches.shape) / speed

    one = seconds(1)
    epoch = np.maximum(seconds(2) - one, 1e-6)
    beside = np.maximum(one - epoch, 0.0)
    ending = np.minimum(np.maximum(one - seconds(1, scores=False), 0.0), beside)
    # Seconds are the share of one run; a bundle compiles and opens once.
    compiling = bundle * np.maximum(seconds(1, compiles=True) - one, 0.0)
    opening = bundle * np.maximum(seconds(1, opens=True) - one, 0.0)
    return Durations(
        epoch=epoch.tolist(),
        before=(beside - ending).tolist(),
        ending=ending.tolist(),
        compiling=compiling.tolist(),
        program=structures,
        opening=float(np.median(opening)) if len(opening) else 0.0,
        scatter=float(runtime.scatter),
        workers=float(runtime.scatter_workers),
        common=common,
        dispatch=known.dispatch,
        driver=known.driver,
    )


def parameters_of(entries: Sequence[Entry]) -> dict[str, int]:
    """Return the trainable parameters of each structure that was trained."""
    runs = facts.planned_runs(entries)
    found: dict[str, int] = {}
    for task in of_kind(entries, TaskDone):
        if task.run in runs:
            planned = runs[task.run]
            run = Run(task.run, planned.hyperparameters, planned.fold, ())
            found[structure(run)] = task.parameters
    return found
