"""A simulated study as a journal: its frames and figures are those of a real one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stormsweep.records import (
    Entry,
    RunPlanned,
    SessionBegun,
    SessionEnded,
    StudyBegun,
    TaskDone,
    TaskPaused,
    TaskRetried,
    WorkerEvent,
)
from stormsweep.scaling.durations import Durations
from stormsweep.scaling.machine import Machine
from stormsweep.scaling.simulated import Simulated, Stint
from stormsweep.search.plan import Plan

#: What stands for the driver's machine.
HOST = "simulated"


def journal(
    about: StudyBegun,
    plan: Plan,
    patches_per_epoch: Sequence[int],
    durations: Durations,
    machine: Machine,
    made: Simulated,
) -> list[Entry]:
    """Return the journal that a study would have that went as simulated; it has no scores.

    Parameters
    ----------
    about : StudyBegun
        What the study is about.
    plan : Plan
        Its runs.
    patches_per_epoch, durations, machine
        What was simulated.
    made : Simulated
        What came of it, with its stints.
    """
    named = {index: name_of(index, machine) for index in range(machine.workers)}
    place = {run.id: index for index, run in enumerate(plan.runs)}
    lines = [Entry(0.0, about)]
    lines += [
        Entry(0.0, RunPlanned(run.id, run.hyperparameters, run.fold, list(run.milestones)))
        for run in made.runs or plan.runs
    ]
    layout = machine.workers, machine.threads_per_worker
    last: dict[int, float] = {}
    for job, _, _, gone in made.ready:
        last[job] = max(gone, last.get(job, 0.0))
    ended: list[Entry] = []
    before = 0.0
    for job, until in sorted(last.items()):
        begun = SessionBegun(job + 1, HOST, 1, machine.name, *layout, any_batch=durations.any_batch)
        ended.append(Entry(before, begun))
        finished = job == max(last)
        ended.append(Entry(until, SessionEnded(job + 1, "done" if finished else "walltime")))
        before = until
    for job, worker, ready, gone in made.ready:
        who = job + 1, named[worker]
        ended.append(Entry(ready, WorkerEvent(*who, "ready", HOST, worker)))
        ended.append(Entry(gone, WorkerEvent(*who, "left", HOST, worker)))
    for stint in made.stints:
        ended += [
            Entry(stint.stopped, record)
            for record in _records(stint, named, place, patches_per_epoch, durations, machine)
        ]
    order = {SessionBegun: 0, WorkerEvent: 1, SessionEnded: 3}
    ended.sort(key=lambda entry: (entry.time, order.get(type(entry.record), 2)))
    return [*lines, *_framed(ended)]


def _framed(entries: list[Entry]) -> list[Entry]:
    """Put each session's end after, and its begin before, what happened in it at the same time."""
    return sorted(
        entries,
        key=lambda entry: (
            getattr(entry.record, "session", 1),
            not isinstance(entry.record, SessionBegun),
            isinstance(entry.record, SessionEnded),
        ),
    )


def name_of(worker: int, machine: Machine) -> str:
    """Return what a worker is called."""
    if machine.nodes == 1:
        return f"worker-{worker}"
    node, number = divmod(worker, machine.workers_per_node)
    return f"node{node + 1}-{number}"


def _records(
    stint: Stint,
    named: dict[int, str],
    place: dict[str, int],
    patches_per_epoch: Sequence[int],
    durations: Durations,
    machine: Machine,
) -> list[TaskDone | TaskPaused | TaskRetried]:
    """Return what a driver would write of a stint."""
    name, session = named[stint.worker], stint.job + 1
    records: list[TaskDone | TaskPaused | TaskRetried] = []
    for task in stint.tasks:
        run = task.run
        if stint.end in ("lost", "walltime"):
            records.append(TaskRetried(run.id, task.to_epoch, 1, stint.end, name, session))
            continue
        index, epochs = place[run.id], stint.epoch - task.start
        share = (stint.stopped - stint.started) / len(stint.tasks)
        first = run is stint.tasks[0].run
        phases = {
            "open": stint.factor * durations.opening * stint.opened * first,
            "compile": stint.factor * durations.compiling[index] * stint.compiled * first,
            "build": stint.factor * durations.before[index] + stint.delay / len(stint.tasks),
            "score": stint.factor * durations.ending[index] * (stint.end == "done"),
            "checkpoint": 0.0,
        }
        phases["train"] = max(0.0, share - sum(phases.values()))
        patches = epochs * patches_per_epoch[run.fold]
        batch = int(run.hyperparameters["batch_size"])
        shared: dict[str, Any] = {
            "run": run.id,
            "to_epoch": stint.epoch,
            "worker": name,
            "session": session,
            "submitted": stint.submitted,
            "started": stint.started,
            "stopped": stint.stopped,
            "phases": phases,
            "epoch_loss": [],
            "patches": patches,
            "updates": epochs * -(-patches_per_epoch[run.fold] // batch),
            "memory_mb": 0.0,
            "parameters": 0,
            "threads": machine.threads_per_worker,
            "cores": [],
            "bundle": len(stint.tasks),
        }
        if stint.end == "paused":
            records.append(TaskPaused(from_epoch=task.start, **shared))
        else:
            records.append(
                TaskDone(from_epoch=task.from_epoch, scores={}, resumed=task.paused_at, **shared)
            )
    return records
