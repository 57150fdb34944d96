"""What a journal says of everything but training: start-up, queue waits, the way between tasks."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stormsweep.config.sites import LOCAL
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
from stormsweep.search.plan import Plan, program, structure
from stormsweep.work import Run

#: What the driver takes for a task where no journal says it, in seconds.
_DRIVER_SECONDS = 0.001
#: A driver that is busy for such a share of its time is so with tasks.
_AT_WORK = 0.1


@dataclass(frozen=True, slots=True)
class Around:
    """What is around the tasks, as measured.

    Attributes
    ----------
    start_up : tuple of float
        Seconds until a worker was ready, from the begin of its session, or from when its node was
        granted; the first process of each worker. In the driver's own job from the job's begin,
        less what data took: they are prepared once, and then there for all jobs.
    starts : mapping of str to tuple of float
        The same, for each site where any was ready.
    waits : mapping of str to Wait
        How long nodes waited in the queue, for each site where any did.
    dispatch, driver : float
        Seconds between two tasks of a worker, without what the driver itself takes; that.
    """

    start_up: tuple[float, ...]
    starts: Mapping[str, tuple[float, ...]]
    waits: Mapping[str, Wait]
    dispatch: float
    driver: float


def around(entries: Sequence[Entry]) -> Around:
    """Read from a journal what was around its tasks."""
    driver = _driver_seconds(entries)
    gaps = _gaps(entries)
    gap = statistics.median(gaps) if gaps else driver
    starts, waits = _starts(entries)
    every = tuple(itertools.chain.from_iterable(starts.values()))
    return Around(
        every or (0.0,),
        {site: tuple(seconds) for site, seconds in starts.items()},
        {site: _waiting(seconds) for site, seconds in waits.items()},
        max(0.0, gap - driver),
        min(driver, gap),
    )


def _waiting(waits: Sequence[float]) -> Wait:
    logs = [math.log(max(1.0, seconds)) for seconds in waits]
    return Wait(statistics.median(waits), statistics.stdev(logs) if len(logs) > 1 else 0.0)


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
    """Return what a task costs the driver, its start and its looking around left out."""
    begun = {one.session: one for one in of_kind(entries, SessionBegun)}
    done = Counter(task.session for task in of_kind(entries, TaskDone))
    spent, tasks = 0.0, 0
    for entry in entries:
        ended = entry.record
        if not isinstance(ended, SessionEnded) or not ended.driver_seconds:
            continue
        start, count = begun.get(ended.session), done[ended.session]
        if start is None or not count:
            continue
        took = max(0.0, ended.driver_seconds - start.driver_seconds)
        if not start.driver_seconds or took < _AT_WORK * (entry.time - start.opened):
            # Its start is not known, or most of it is looking whether anything happened: neither
            # is the tasks'.
            took = min(took, 2 * _DRIVER_SECONDS * count)
        spent, tasks = spent + took, tasks + count
    return spent / tasks if tasks else _DRIVER_SECONDS


def _starts(entries: Sequence[Entry]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return how long workers took to be ready, and nodes waited in the queue, site by site.

    Nodes of the driver's own job are granted at once: it is that job which waited, and from its
    begin their workers are waited for. Those that took the place of others count from their grant.
    """
    begun = tried = 0.0
    inside, own = False, 0
    site = LOCAL
    asked: dict[str, float] = {}
    granted: dict[str, float] = {}
    seen: set[str] = set()
    starts: dict[str, list[float]] = defaultdict(list)
    waits: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        match entry.record:
            case SessionBegun(site=site, allotment=given):
                begun, tried = entry.time - _starting_seconds(given), 0.0
                asked, granted, seen = {}, {}, set()
                inside = bool(given.get("inside"))
                own = int(given["nodes"]) if inside else 0
                if "queued_seconds" in given:
                    waits[site].append(float(given["queued_seconds"]))
            case LayoutTried(seconds=seconds):
                tried = seconds
            case NodeEvent(event="asked", node=node):
                asked[node] = entry.time
            case NodeEvent(event="granted", node=node):
                granted[node] = begun if own else entry.time
                own = max(0, own - 1)
                if not inside:
                    waits[site].append(max(0.0, entry.time - asked.get(node, begun)))
            case WorkerEvent(event="ready", worker=worker) if worker not in seen:
                seen.add(worker)
                since = granted.get(node_of(worker), begun + tried)
                starts[site].append(max(0.0, entry.time - since))
            case _:
                pass
    return starts, waits


def _starting_seconds(given: Mapping[str, Any]) -> float:
    """Return how long the driver's own job had been starting when its session began."""
    held, prepared = given.get("held_seconds", 0.0), given.get("prepared_seconds", 0.0)
    return max(0.0, float(held) - float(prepared))


def durations(
    plan: Plan,
    patches_per_epoch: Sequence[int],
    runtime: RunTime,
    known: Around,
    *,
    threads: int,
    workers: int,
    parameters: Mapping[str, int],
    any_batch: bool,
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
    any_batch : bool
        Whether a compiled program takes batches of any size.
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
        program=[program(run, any_batch) for run in plan.runs],
        opening=float(np.median(opening)) if len(opening) else 0.0,
        scatter=runtime.scatter.tasks,
        workers=runtime.scatter.workers,
        common=common,
        ratios=runtime.scatter.ratios.tolist(),
        starting=runtime.scatter.starting,
        working=runtime.scatter.working,
        dispatch=known.dispatch,
        driver=known.driver,
        any_batch=any_batch,
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
