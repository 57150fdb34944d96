"""How long the report of a large study takes, how much memory, and how large it is.

    python benchmarks/report.py [--configurations 10000] [--folds 5] [--rounds 3]

Builds the journals of studies that never ran, with Stormsweep's own records and writer: a random
search with one milestone, where every configuration is trained by itself, and a grid with three,
where three configurations share a run. Then reports each in a process of its own, `--rounds` times
in turn, and prints a Markdown table, which goes to ``benchmarks/results/report.md`` too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stormsweep.cluster import machine
from stormsweep.records import (
    Entry,
    RunPlanned,
    SessionBegun,
    SessionEnded,
    StudyBegun,
    TaskDone,
    WorkerEvent,
)
from stormsweep.results.journal import JournalWriter

RESULTS = Path(__file__).resolve().parent / "results"
START = 1_780_000_000.0
#: Name, milestones of a run, and whether values are drawn from ranges.
STUDIES = {"random": ([10], True), "grid": ([5, 10, 15], False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", type=int, default=10_000)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(report(asked.one)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in STUDIES}
    with tempfile.TemporaryDirectory() as scratch:
        for name in STUDIES:
            build(Path(scratch) / name, name, asked.configurations, asked.folds, asked.workers)
        for _ in range(asked.rounds):
            for name in STUDIES:
                command = [sys.executable, __file__, "--one", str(Path(scratch) / name)]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    text = table(found, asked.configurations, asked.folds)
    print(text)
    asked.output.mkdir(parents=True, exist_ok=True)
    (asked.output / "report.md").write_text(text, encoding="utf-8")


def report(directory: Path) -> dict[str, float]:
    """Report a study in this process; say what that took, imports included in the memory."""
    load = os.getloadavg()[0]
    begun, processor = time.perf_counter(), time.process_time()
    from stormsweep.report import write_report

    page = write_report(directory)
    return {
        "seconds": time.perf_counter() - begun,
        "processor_seconds": time.process_time() - processor,
        "peak_mb": _peak_mb(),
        "page_mb": page.stat().st_size / 1e6,
        "folder_mb": sum(path.stat().st_size for path in page.parent.rglob("*")) / 1e6,
        "journal_mb": (directory / "journal.jsonl").stat().st_size / 1e6,
        "load_before": load,
    }


def _peak_mb() -> float:
    """Return this process's own peak: what getrusage says counts that of whoever started it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def table(found: dict[str, list[dict[str, float]]], configurations: int, folds: int) -> str:
    lines = [
        f"The report of a study of {configurations:,} configurations x {folds} folds, in one "
        f"process on {machine.processor()}, {os.cpu_count()} cores; median and range, rounds: "
        f"{len(next(iter(found.values())))}. Where the load before is not near 0, others "
        "had the cores too, and only the processor's seconds tell.",
        "",
        "| study | journal, MB | s | of processor, s | peak memory, MB | page, MB | folder, MB "
        "| load before |",
        "|" + " --- |" * 8,
    ]
    for name, rounds in found.items():
        cells = [name, f"{rounds[0]['journal_mb']:.0f}"]
        for key, form in (("seconds", ".1f"), ("processor_seconds", ".1f"), ("peak_mb", ".0f")):
            own = sorted(each[key] for each in rounds)
            middle = own[len(own) // 2]
            cells.append(f"{middle:{form}} ({own[0]:{form}} to {own[-1]:{form}})")
        cells += [f"{rounds[0]['page_mb']:.1f}", f"{rounds[0]['folder_mb']:.1f}"]
        cells.append(f"{max(each['load_before'] for each in rounds):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def build(directory: Path, kind: str, configurations: int, folds: int, workers: int) -> Path:
    """Write the journal of a study that never ran, as its driver would have left it.

    Parameters
    ----------
    directory : Path
        Where ``journal.jsonl`` goes.
    kind : str
        ``random`` or ``grid``.
    configurations, folds, workers : int
        About so many configurations: a grid has the next larger number that makes one.
    """
    directory.mkdir(parents=True)
    with JournalWriter(directory / "journal.jsonl") as out:
        out.write(_entries(kind, configurations, folds, workers))
    return directory


def _entries(kind: str, configurations: int, folds: int, workers: int) -> Iterator[Entry]:
    milestones, ranges = STUDIES[kind]
    points = _points(-(-configurations // len(milestones)), ranges)
    space = _space(points, milestones, ranges)
    yield Entry(START, _about(space, folds))
    draw = np.random.default_rng(2019)
    runs = []
    for point in points:
        for fold in range(folds):
            name = hashlib.sha1(json.dumps([point, fold]).encode()).hexdigest()[:10]
            runs.append(RunPlanned(name, point, fold, milestones))
            yield Entry(START, runs[-1])
    yield Entry(START, SessionBegun(1, "node17", 4001, "taki-2018", workers, 1))
    for number in range(workers):
        event = WorkerEvent(1, f"node17-{number}", "ready", "node17", 5000 + number)
        yield Entry(START + 5 + 0.1 * number, event)
    free = [START + 15.0] * workers
    for place, run in enumerate(runs):
        number = place % workers
        for before, after in zip([0, *milestones], milestones, strict=False):
            done = _task(run, before, after, free[number], f"node17-{number}", draw)
            free[number] = done.stopped + 0.02
            yield Entry(free[number], done)
    yield Entry(max(free) + 1, SessionEnded(1, "done"))


def _points(count: int, ranges: bool) -> list[dict[str, Any]]:
    draw = np.random.default_rng(count)
    if ranges:
        return [
            {
                "batch_size": int(2 ** draw.uniform(5, 12)),
                "learning_rate": float(10 ** draw.uniform(-4, -1)),
                "dropout": float(draw.uniform(0, 0.6)),
                "filters": [[8, 16, 32], [16, 32, 64]][int(draw.integers(2))],
            }
            for _ in range(count)
        ]
    side = int(np.ceil((count / 12) ** 0.5))
    return [
        {"batch_size": 2**power, "learning_rate": float(f"{rate:.4g}"), "dropout": float(drop)}
        for power in range(5, 17)
        for rate in np.geomspace(1e-4, 1e-1, side)
        for drop in np.linspace(0, 0.6, side).round(4)
    ]


def _space(points: list[dict[str, Any]], milestones: list[int], ranges: bool) -> dict[str, Any]:
    space: dict[str, Any] = {}
    for name in points[0]:
        values = [point[name] for point in points]
        if ranges and not isinstance(values[0], list):
            low, high = min(values), max(values)
            space[name] = {"low": low, "high": high, "log": low > 0, "integer": low >= 1}
        else:
            space[name] = [json.loads(text) for text in dict.fromkeys(map(json.dumps, values))]
    return {**space, "epochs": milestones}


def _about(space: dict[str, Any], folds: int) -> StudyBegun:
    sizes = {"train": 40_000, "train_positives": 1_800, "epoch_patches": 38_000}
    sizes |= {"validation": 10_000, "validation_positives": 450, "groups": 42}
    data = {"source": "twin", "synthetic": True, "fingerprint": "0" * 64, "train": 50_000}
    data |= {"train_positives": 2_250, "test": 20_000, "test_positives": 900, "inputs": ["x"]}
    return StudyBegun(
        name="large",
        seed=2019,
        version="0.1.0",
        strategy="random",
        metric="roc_auc",
        folds=folds,
        group_by="run_date",
        space=space,
        model={"build": "stormsweep.models:storm_cnn", "sha256": "0" * 64},
        data=data,
        fold_sizes=[sizes] * folds,
    )


def _task(
    run: RunPlanned, before: int, after: int, started: float, worker: str, draw: Any
) -> TaskDone:
    point, epochs = run.hyperparameters, after - before
    skill = np.exp(-((np.log10(point["learning_rate"]) + 2.3) ** 2)) * np.tanh(after / 6)
    auc = float(0.7 + 0.25 * skill - 0.05 * point["dropout"] + 0.01 * draw.normal())
    phases = {"open": 0.1, "build": 0.5, "compile": 1.5, "train": 0.4 * epochs}
    phases |= {"score": 0.3, "checkpoint": 0.1}
    return TaskDone(
        run=run.run,
        from_epoch=before,
        to_epoch=after,
        scores={"roc_auc": auc, "average_precision": auc - 0.4, "brier_score": 0.04}
        | {"brier_skill_score": auc - 0.5, "csi": auc - 0.5, "csi_threshold": 0.3}
        | {"accuracy": 0.96, "loss": 0.1},
        worker=worker,
        session=1,
        submitted=started - 0.05,
        started=started,
        stopped=started + sum(phases.values()) + 0.03,
        phases=phases,
        epoch_loss=[0.7 / (1 + epoch) for epoch in range(before, after)],
        patches=38_000 * epochs,
        updates=100 * epochs,
        memory_mb=900.0,
        parameters=17_169,
    )


if __name__ == "__main__":
    main()
