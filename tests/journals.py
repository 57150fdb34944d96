"""Journals of simulated studies, as inputs of tests: by the real writer, with a clock of its own.

Nothing is trained. Scores and times follow simple formulas, so that tests know what a frame or a
report must say of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from stormsweep import Study
from stormsweep.config.study import StudyFile
from stormsweep.records import (
    Entry,
    PlanCut,
    Record,
    RunFailed,
    RunPlanned,
    SearchEnded,
    SessionBegun,
    SessionEnded,
    StudyBegun,
    TaskDone,
    TaskPaused,
    TaskRetried,
    WorkerEvent,
)
from stormsweep.results import journal
from stormsweep.study.remaining import remaining

START = 1_780_000_000.0
GRID_2019: dict[str, Any] = {
    "batch_size": [128, 256, 512, 1024, 2048, 4096],
    "learning_rate": [0.001, 0.005, 0.01],
    "epochs": [5, 10, 15],
}
Scores = Callable[[dict[str, Any], int], dict[str, float]]


def chance(*key: Any) -> float:
    """Return a number in [0, 1) that depends on the key alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def bell(*key: Any) -> float:
    """Return a number around 0 with standard deviation 1 that depends on the key alone."""
    return sum(chance(*key, n) for n in range(12)) - 6


def plausible_scores(point: dict[str, Any], fold: int) -> dict[str, float]:
    """Scores that behave like those of 2019: better with more updates, worse at extreme rates."""
    rate, batch = point.get("learning_rate", 0.003), point.get("batch_size", 512)
    updates = point["epochs"] * 80_000 / batch
    skill = 1 / (1 + math.exp(-(math.log(updates * rate**0.8) - 1.2)))
    skill -= 0.05 * max(0.0, math.log10(rate / 0.005)) ** 2 * (1 + 512 / batch)
    noise = bell("fold", fold) * 0.006 + bell(sorted(point.items(), key=str), fold) * 0.006
    auc = min(0.72 + 0.25 * skill + noise, 0.999)
    brier = 0.0487 - 0.02 * skill + 0.0006 * bell("brier", sorted(point.items(), key=str), fold)
    return {
        "roc_auc": auc,
        "average_precision": max(0.05, 1.6 * auc - 1.0),
        "brier_score": brier,
        "brier_skill_score": 1 - brier / 0.0487,
        "csi": max(0.04, auc - 0.57),
        "csi_threshold": 0.3 + 0.1 * chance("threshold", fold),
        "accuracy": 0.95 + 0.02 * skill,
        "loss": 0.19 - 0.09 * skill,
    }


def about(space: dict[str, Any], folds: int, **changes: Any) -> StudyBegun:
    cases, events = 61_101, 2_780
    known = {
        "name": "taki-2019",
        "seed": 2019,
        "version": "0.1.0",
        "strategy": "grid",
        "metric": "roc_auc",
        "folds": folds,
        "group_by": "run_date",
        "model": {"build": "stormsweep.models:storm_cnn", "sha256": "0" * 64},
        "space": space,
        "data": {
            "source": "twin",
            "synthetic": True,
            "fingerprint": "9f2c" * 16,
            "train": cases + cases // 4,
            "train_positives": events + events // 4,
            "test": 44_760,
            "test_positives": 2_037,
            "groups": 211,
            "inputs": ["REFL_COM_curr", "U10_curr", "V10_curr"],
            "target": "RVORT1_MAX_future",
            "threshold": 0.005,
            "units": "s-1",
        },
        "fold_sizes": [
            {
                "train": cases * (folds - 1) // folds,
                "train_positives": events * (folds - 1) // folds,
                "epoch_patches": 2 * (cases - events) * (folds - 1) // folds,
                "validation": cases // folds + 13 * fold,
                "validation_positives": events // folds - 4 * fold,
                "groups": 211 // folds,
            }
            for fold in range(folds)
        ],
    }
    return StudyBegun(**(known | changes))


def points_of(space: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the grid of a space, ``epochs`` left out."""
    axes = {name: values for name, values in space.items() if name != "epochs"}
    grid = itertools.product(*axes.values())
    return [dict(zip(axes, values, strict=True)) for values in grid]


def plan(points: list[dict[str, Any]], folds: int, milestones: list[int]) -> list[RunPlanned]:
    """Return the runs of points on all folds, smallest batches (the longest runs) first."""
    runs = [
        RunPlanned(
            hashlib.sha1(json.dumps([point, fold]).encode()).hexdigest()[:10],
            point,
            fold,
            list(milestones),
        )
        for point in points
        for fold in range(folds)
    ]
    return sorted(runs, key=lambda run: run.hyperparameters.get("batch_size", 0))


def task(
    run: RunPlanned,
    from_epoch: int,
    to_epoch: int,
    started: float = START,
    worker: str = "worker-0",
    session: int = 1,
    scores: Scores = plausible_scores,
    pace: float = 1.0,
) -> TaskDone:
    """Return a task of a run, with times and a training loss that fit its batch size."""
    batch = run.hyperparameters.get("batch_size", 512)
    epochs, patches = to_epoch - from_epoch, 38_000 * (to_epoch - from_epoch)
    speed = 9_000 * batch / (batch + 90) * (1 + 0.04 * bell("speed", run.run, to_epoch))
    phases = {
        "open": 0.12,
        "build": 0.5,
        "compile": 2.4 if from_epoch == 0 else 0.9,
        "train": pace * patches / speed,
        "score": 0.9 * pace,
        "checkpoint": 0.1,
    }
    point = {**run.hyperparameters, "epochs": to_epoch}
    loss = [
        0.35 + 0.33 / (1 + 0.4 * epoch * (512 / batch) ** 0.5) + 0.004 * bell(run.run, epoch)
        for epoch in range(from_epoch, to_epoch)
    ]
    return TaskDone(
        run=run.run,
        from_epoch=from_epoch,
        to_epoch=to_epoch,
        scores=scores(point, run.fold),
        worker=worker,
        session=session,
        submitted=started - 0.05,
        started=started,
        stopped=started + sum(phases.values()) + 0.03,
        phases=phases,
        epoch_loss=loss,
        patches=patches,
        updates=epochs * math.ceil(38_000 / batch),
        memory_mb=900.0 + 2 * to_epoch,
        parameters=17_169,
    )


@contextmanager
def writer(path: Path) -> Iterator[Callable[[float, Record], None]]:
    """Give a function that appends a record to a journal as if it were written at an instant."""
    now = SimpleNamespace(value=START)
    clock = SimpleNamespace(time=lambda: now.value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        mock.patch.object(journal, "time", clock),
        mock.patch.object(journal.os, "fsync"),
        journal.JournalWriter(path) as out,
    ):

        def append(instant: float, record: Record) -> None:
            now.value = instant
            out.append(record)

        yield append


def simulate(
    directory: Path,
    space: dict[str, Any] | None = None,
    *,
    points: list[dict[str, Any]] | None = None,
    folds: int = 3,
    milestones: list[int] | None = None,
    workers: int = 2,
    stops: tuple[float, ...] = (),
    go_on: bool = True,
    fail: dict[int, tuple[str, str, str]] | None = None,
    lose: tuple[int, ...] = (),
    scores: Scores = plausible_scores,
    pace: float = 1.0,
    **changes: Any,
) -> Path:
    """Write the directory of a study as a driver with so many workers would leave it.

    Parameters
    ----------
    directory : Path
        Where ``journal.jsonl``, ``study.toml`` and ``environment.json`` go.
    space : dict
        Lists of values; the grid of 2019 unless given. `points` replaces its grid.
    stops : tuple of float
        Seconds after the begin of a session at which its driver is stopped; the study goes on an
        hour later, after the last one only if `go_on`.
    fail : dict
        Failure, reason and detail of runs, by their place in the plan.
    lose : tuple of int
        Numbers of tasks (in the order of their start) whose worker is lost once.
    changes
        Fields of `StudyBegun` that are to be different.
    """
    space = GRID_2019 if space is None else space
    milestones = milestones or space.get("epochs", [10])
    runs = plan(points_of(space) if points is None else points, folds, milestones)
    fail, begun = fail or {}, about(space, folds, **changes)
    place = {run.run: number for number, run in enumerate(runs)}
    stretches = list(itertools.pairwise([0, *milestones]))
    todo = [(run, a, b) for run in runs[::-1] for a, b in stretches[::-1]]
    lines: list[tuple[float, Record]] = [(START, begun)]
    lines += [(START, run) for run in runs]
    now, started = START, 0
    for session in range(1, len(stops) + 2):
        end = now + stops[session - 1] if session <= len(stops) else math.inf
        lines.append((now, SessionBegun(session, "node17", 4000 + session, "local", workers, 1)))
        pids = {f"worker-{n}": 4100 + session for n in range(workers)}
        free = {f"worker-{n}": now + 6.5 + 0.8 * n for n in range(workers)}
        for name, ready in free.items():
            lines.append((ready, WorkerEvent(session, name, "ready", "node17", 4100 + session)))
        broken: set[str] = set()
        unfinished = []
        while todo:
            run, a, b = todo.pop()
            if run.run in broken:
                continue
            name = min(free, key=lambda worker: (free[worker], worker))
            done = task(run, a, b, free[name] + 0.05, name, session, scores, pace)
            started += 1
            if done.started >= end or done.stopped > end:
                unfinished.append((run, a, b))
                free[name] = math.inf
                if min(free.values()) == math.inf:
                    break
                continue
            if place[run.run] in fail and b == milestones[-1]:
                kind, reason, detail = fail[place[run.run]]
                when = done.started + 0.4 * (done.stopped - done.started)
                failed = RunFailed(run.run, a, b, kind, reason, name, session, detail)
                lines.append((when, failed))
                broken.add(run.run)
                free[name] = when
                continue
            if started in lose:
                when = done.started + 0.5 * (done.stopped - done.started)
                reason = "worker was lost: killed by signal 9"
                lines.append(
                    (when, WorkerEvent(session, name, "lost", "node17", pids[name], "signal 9"))
                )
                lines.append((when, TaskRetried(run.run, b, 2, reason, name, session)))
                pids[name] += 100
                lines.append((when + 7, WorkerEvent(session, name, "ready", "node17", pids[name])))
                todo.append((run, a, b))
                free[name] = when + 7
                continue
            lines.append((done.stopped + 0.02, done))
            free[name] = done.stopped + 0.02
        todo = [*todo, *unfinished[::-1]]
        if end < math.inf:
            now = end
            lines.append((now, SessionEnded(session, "interrupted")))
            now += 3600.0
            if session == len(stops) and not go_on:
                break
        else:
            now = max((when for when, _ in lines), default=now) + 0.5
            lines.append((now, SessionEnded(session, "failed" if fail else "done")))
    with writer(directory / "journal.jsonl") as append:
        for when, record in sorted(lines, key=lambda line: line[0]):
            append(when, record)
    study = f'[study]\nname = "{begun.name}"\nseed = {begun.seed}\n\n[data]\nsource = "twin"\n'
    (directory / "study.toml").write_text(study + "test_from = 2015-01-01\n", encoding="utf-8")
    facts = {
        "stormsweep": "0.1.0",
        "python": "3.11.7",
        "packages": {"keras": "3.15.1", "tensorflow": "2.21.0", "numpy": "2.4.6"},
        "processor": "Intel(R) Xeon(R) Platinum, 2 cores",
        "memory_gb": 24.0,
        "host": "node17",
        "git_commit": "c739661",
    }
    (directory / "environment.json").write_text(json.dumps(facts), encoding="utf-8")
    return directory


def with_pauses(entries: list[Entry]) -> list[Entry]:
    """Return a journal as if every task of more than an epoch had been paused in its middle."""
    paused: list[Entry] = []
    for entry in entries:
        done = entry.record
        if not isinstance(done, TaskDone) or done.to_epoch - done.from_epoch < 2:
            paused.append(entry)
            continue
        middle = (done.from_epoch + done.to_epoch) // 2
        share = (middle - done.from_epoch) / (done.to_epoch - done.from_epoch)
        then = done.started + share * (done.stopped - done.started)
        patches, updates = round(share * done.patches), round(share * done.updates)
        pause = TaskPaused(
            run=done.run,
            from_epoch=done.from_epoch,
            to_epoch=middle,
            worker=done.worker,
            session=done.session,
            submitted=done.submitted,
            started=done.started,
            stopped=then,
            phases={phase: share * seconds for phase, seconds in done.phases.items()},
            epoch_loss=done.epoch_loss[: middle - done.from_epoch],
            patches=patches,
            updates=updates,
            memory_mb=done.memory_mb,
            parameters=done.parameters,
            threads=done.threads,
            cores=done.cores,
            bundle=done.bundle,
        )
        rest = dataclasses.replace(
            done,
            resumed=middle,
            submitted=then,
            started=then,
            phases={phase: (1 - share) * seconds for phase, seconds in done.phases.items()},
            patches=done.patches - patches,
            updates=done.updates - updates,
        )
        paused += [Entry(round(then, 6), pause), Entry(entry.time, rest)]
    return paused


def with_space(directory: Path, space: dict[str, Any], more: str = "") -> Path:
    """Complete the study file that `simulate` wrote, so that the study can be foretold.

    Its runs are called in the journal what the study calls them.
    """
    path = directory / "study.toml"
    lines = "".join(f"{name} = {json.dumps(values)}\n" for name, values in space.items())
    path.write_text(f"{path.read_text()}\n[search.space]\n{lines}{more}", encoding="utf-8")

    def point(run: Any) -> str:
        names = sorted(set(space) - {"epochs"})
        return json.dumps([run.fold, *(run.hyperparameters[name] for name in names)])

    ids = {point(run): run.id for run in Study.from_toml(directory).plan().runs}
    journal_path = directory / "journal.jsonl"
    entries = journal.read(journal_path)
    called = {
        one.record.run: ids[point(one.record)]
        for one in entries
        if isinstance(one.record, RunPlanned)
    }
    journal_path.unlink()
    with journal.JournalWriter(journal_path) as out:
        out.write(
            dataclasses.replace(one, record=dataclasses.replace(one.record, run=called[name]))
            if (name := getattr(one.record, "run", None))
            else one
            for one in entries
        )
    return directory


def starve(directory: Path, lost: dict[int, dict[str, float]]) -> Path:
    """Have tasks of a study have taken so many seconds more in some phases.

    Tasks go by their place in the journal.
    """
    path = directory / "journal.jsonl"
    entries = journal.read(path)
    done = [n for n, one in enumerate(entries) if isinstance(one.record, TaskDone)]
    for place, more in lost.items():
        entry = entries[done[place]]
        task: Any = entry.record
        phases = {phase: task.phases[phase] + more.get(phase, 0.0) for phase in task.phases}
        stopped = task.stopped + sum(more.values())
        slow = dataclasses.replace(task, phases=phases, stopped=stopped)
        entries[done[place]] = dataclasses.replace(entry, record=slow)
    path.unlink()
    with journal.JournalWriter(path) as out:
        out.write(entries)
    return directory


def carried_out(file: StudyFile, entries: Sequence[Entry] = (), **changes: Any) -> list[Entry]:
    """Return the journal of a study after all that is left of it was trained, by one worker.

    What a strategy asks for is trained and scored until it asks for nothing more; `changes` are for
    `about`. Trained are also runs that nobody asks for any more, if they are planned.
    """
    found = remaining(file, entries)
    search, reached, session = found.search, dict(found.progress.reached), found.progress.session
    session, now = session + 1, (entries[-1].time + 3600.0) if entries else START
    folds = file.validation.total
    known = {"name": file.study.name, "strategy": file.search.strategy, "rounds": 1}
    known |= {"fold_sizes": [{"epoch_patches": 38_000, "validation": 9_000}] * folds}
    begun = about(file.search.model_dump(mode="json")["space"], folds, **(known | changes))
    records: list[Record] = [begun, *([PlanCut(dict(found.dropped))] if found.dropped else [])]
    for record in records if search is not None else ():
        search.take(record)
    asked = found.plan.runs if search is None else tuple(search.runs.values())
    records += [RunPlanned(r.id, r.hyperparameters, r.fold, [*r.milestones]) for r in asked]
    records += [SessionBegun(session, "node17", 4000 + session, "local", 1, 1)]
    records += [WorkerEvent(session, "worker-0", "ready", "node17", 4100 + session)]
    journal = [*entries, *(Entry(now, record) for record in records)]
    runs = list(asked) if search is None else search.wanted(reached)
    now += 6.0
    while True:
        for run in runs:
            planned = RunPlanned(run.id, run.hyperparameters, run.fold, [*run.milestones])
            for stop in run.milestones:
                if stop > reached.get(run.id, 0):
                    done = task(planned, reached.get(run.id, 0), stop, now + 0.05, session=session)
                    reached[run.id], now = stop, done.stopped + 0.02
                    journal.append(Entry(now, done))
                    if search is not None:
                        search.take(done)
        proposed, runs = ([], []) if search is None else search.more()
        if not proposed:
            break
        journal += [Entry(now, one) for one in proposed]
        journal += [
            Entry(now, RunPlanned(run.id, run.hyperparameters, run.fold, [*run.milestones]))
            for run in runs
        ]
    if search is not None:
        journal.append(Entry(now, SearchEnded(search.trials)))
    return [*journal, Entry(now, SessionEnded(session, "done"))]
