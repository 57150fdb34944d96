"""How long the runs of a study take: found out in seconds, before layouts are measured."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stormsweep.cluster.pool import WorkerReady
from stormsweep.data.prepared import PreparedData
from stormsweep.scaling.design import Estimate
from stormsweep.search.plan import Plan, cost, program, structure
from stormsweep.study.environment import takes_any_batch
from stormsweep.study.layout import Layout
from stormsweep.study.problem import turned_folder
from stormsweep.study.protocol import folds_of
from stormsweep.study.trial import WARM_SECONDS, Crew
from stormsweep.work import Run, Sampled

if TYPE_CHECKING:
    from stormsweep.study.study import Study
    from stormsweep.study.watching import Watcher

#: How many kinds of runs are tried at most, and for how long each.
_MOST_TRIED, _SECONDS = 8, 1.5


def rehearse(study: Study, plan: Plan, data: PreparedData, watcher: Watcher) -> Estimate:
    """Have one worker train a run of each batch size for a moment.

    Parameters
    ----------
    study : Study
        With one worker of one thread, and a directory of its own, which is removed in the end.
    plan : Plan
        The runs.
    data : PreparedData
        The prepared arrays.
    watcher : Watcher
        Shown what goes on.

    Raises
    ------
    RunError
        If a run cannot be trained.
    """
    tried = kinds(plan.runs)
    patches = [len(one.train) for one in folds_of(data.part("train"), study.file)]
    layout = study.layout() or Layout(1, 1)
    turned = turned_folder(study.file, data)
    any_batch = takes_any_batch(study.file)
    #: Of each program, what its first run took beside training: later ones compile nothing.
    beside: dict[str, float] = {}
    speeds: dict[int, float] = {}
    began = time.monotonic()
    watcher.stage("trying how long runs take", 0.0)
    study.directory.mkdir(parents=True, exist_ok=True)
    try:
        with study.workers(plan, layout, data) as pool:
            crew = Crew(study.file, data, turned, tried[0], pool)
            crew.gather()
            starting = time.monotonic() - began
            for number, run in enumerate(tried, start=1):
                began = time.monotonic()
                (first,) = crew.sample(WARM_SECONDS, run)
                more = max(0.0, time.monotonic() - began - first.seconds)
                beside.setdefault(program(run, any_batch), more)
                (second,) = crew.sample(_SECONDS, run)
                speeds[batch_size(run)] = _cost_a_second(second, run)
                watcher.stage("trying how long runs take", number / len(tried))
    finally:
        shutil.rmtree(study.directory, ignore_errors=True)
    epochs = {
        run.id: cost(1, patches[run.fold], batch_size(run)) / _nearest(speeds, batch_size(run))
        for run in plan.runs
    }
    return Estimate(epochs, statistics.fmean(beside.values()), starting, any_batch)


def warm_up(study: Study, plan: Plan, data: PreparedData, watcher: Watcher) -> None:
    """Start a worker and let it go: what is imported once is, and no measurement waits for it."""
    watcher.stage("warming up", 0.0)
    study.directory.mkdir(parents=True, exist_ok=True)
    try:
        with study.workers(plan, study.layout() or Layout(1, 1), data) as pool:
            end = time.monotonic() + pool.patience
            while time.monotonic() < end:
                if any(isinstance(event, WorkerReady) for event in pool.events(0.25)):
                    break
    finally:
        shutil.rmtree(study.directory, ignore_errors=True)
    watcher.stage("warming up", 1.0)


def batch_size(run: Run) -> int:
    """Return the batch size of a run."""
    return int(run.hyperparameters["batch_size"])


def kinds(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that are tried: one of each batch size, of the most common structure there.

    Where there are more batch sizes than can be tried, those that lie evenly among them.
    """
    sizes = sorted({batch_size(run) for run in runs})
    count = min(len(sizes), _MOST_TRIED)
    step = (len(sizes) - 1) / max(1, count - 1)
    found = []
    for place in range(count):
        own = [run for run in runs if batch_size(run) == sizes[round(place * step)]]
        shapes = [structure(run) for run in own]
        found.append(max(own, key=lambda run: shapes.count(structure(run))))
    return found


def _cost_a_second(sampled: Sampled, run: Run) -> float:
    batch = batch_size(run)
    rate = sampled.patches / sampled.seconds if sampled.seconds > 0 else math.inf
    return rate * cost(1, batch, batch) / batch


def _nearest(speeds: Mapping[int, float], size: int) -> float:
    return speeds[min(speeds, key=lambda other: abs(math.log(other / size)))]
