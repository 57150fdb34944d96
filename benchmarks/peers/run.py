"""The same small search by each peer and by Stormsweep: time, memory and scores, in one run.

    python benchmarks/peers/run.py [--rounds 3] [--only NAME ...] [--patches N] [--epochs 2 4 8]

Every tool is a process of its own, in an environment of its own (`make -C benchmarks peers-env`
makes them), on the same two cores, data, grid and folds. In a round each tool runs once, in random
order. Finished repeats are kept in ``benchmarks/results/peers.json`` and not run again; the table
goes to ``benchmarks/results/peers.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import data
from measure import Measured, measure
from problem import WORKERS
from table import Repeat, key_of, summary, table
from tools import OURS, OURS_BFLOAT16, TOOLS, Tool

import stormsweep
from stormsweep.cluster import machine
from stormsweep.files import write_json, write_text

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
ENVIRONMENTS = HERE / ".venvs"
WORK = HERE / ".work"
TIMEOUT_SECONDS = 3600.0
BOTH = (OURS, OURS_BFLOAT16)


def main() -> None:
    asked = arguments()
    space = {
        "batch_size": asked.batch_sizes,
        "learning_rate": asked.learning_rates,
        "epochs": asked.epochs,
    }
    settings = {"patches": asked.patches, "space": space, "folds": asked.folds}
    cores = chosen(asked.cores)
    state = load(asked.output / "peers.json", settings) | where(cores)
    name = f"{asked.patches}-" + "-".join(
        "_".join(map(str, values)) for values in [*space.values(), [asked.folds]]
    )
    folder = WORK / name
    tell(f"data: {folder}")
    state["data"] = data.make(folder, asked.patches, space, asked.folds)
    todo = order(asked.rounds, asked.only, state["repeats"])
    for count, (number, tool) in enumerate(todo, 1):
        tell(f"[{count}/{len(todo)}] round {number}: {tool.name} ...")
        record = repeat(tool, number, folder, cores)
        state["repeats"] = [*without(state["repeats"], tool.name, number), record]
        save(asked.output, state)
        tell(f"    {record['problem'] or said(record)}")
    save(asked.output, state)
    print((asked.output / "peers.md").read_text(encoding="utf-8"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [tool.name for tool in TOOLS]
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--patches", type=int, default=9500, help="of the twin, test part included")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[0.001, 0.005, 0.01])
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="+", help="two of this machine's cores")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def chosen(cores: Sequence[int] | None) -> list[int]:
    """Return the cores that every tool is bound to: those asked for, or the first there are."""
    cores = list(cores or sorted(os.sched_getaffinity(0))[:WORKERS])
    if len(cores) != WORKERS:
        raise SystemExit(f"--cores: given {cores}; must be {WORKERS} cores")
    return cores


def where(cores: Sequence[int]) -> dict[str, Any]:
    """Return the machine, and the packages that all tools share."""
    shared = ("tensorflow-cpu", "keras", "scikit-learn")
    return {
        "machine": f"{machine.processor()}, cores {', '.join(map(str, cores))}",
        "packages": [
            f"Python {platform.python_version()}",
            *(f"{name} {version(name)}" for name in shared),
        ],
    }


def without(kept: Sequence[dict[str, Any]], tool: str, number: int) -> list[dict[str, Any]]:
    """Return what is kept but a tool's repeat of a round: a failure gives way to a new try."""
    return [one for one in kept if (one["tool"], one["round"]) != (tool, number)]


def tell(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def load(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what earlier calls found, or an empty state."""
    if not file.exists():
        return {"settings": settings, "repeats": []}
    state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if state["settings"] != settings:
        raise SystemExit(
            f"{file}: holds repeats of another search ({state['settings']}); "
            "move it away, or name another folder with --output"
        )
    return state


def order(
    rounds: int,
    only: Sequence[str],
    done: Sequence[dict[str, Any]],
    tools: Sequence[Tool] = TOOLS,
) -> list[tuple[int, Tool]]:
    """Return what is left to run: every round all tools once, in an order of its own."""
    finished = {(kept["tool"], kept["round"]) for kept in done if not kept["problem"]}
    left = []
    for number in range(1, rounds + 1):
        shuffled = random.Random(number).sample(tools, len(tools))
        left += [
            (number, tool)
            for tool in shuffled
            if tool.name in only and (tool.name, number) not in finished
        ]
    return left


def repeat(tool: Tool, number: int, folder: Path, cores: Sequence[int]) -> dict[str, Any]:
    """Run a tool once; return its record."""
    record = asdict(Repeat(tool.name, number, 0.0, 0, {}))
    record |= {"began": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "load": round(os.getloadavg()[0], 2)}
    facts, found = run(tool, number, folder, cores)
    record |= facts
    if found is None:
        return record
    scores = {}
    for row in found["scores"]:
        score = row.pop("roc_auc")
        scores[key_of(row)] = round(score, 6)
    return record | {"scores": scores, "version": found["version"]}


def run(
    tool: Tool, number: int, folder: Path, cores: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Run a tool's script once; return what it took, or its ``problem``, and what it wrote."""
    python, reason = interpreter(tool)
    if reason:
        return {"problem": reason}, None
    logs = WORK / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{Path(tool.script).stem}-{tool.name}-{number}.log"
    # Short, because Ray's sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        out = Path(scratch) / "out.json"
        measured = measure(
            [python, str(HERE / tool.script), str(folder), str(out), *tool.arguments],
            environment(tool, number, scratch),
            Path(scratch),
            log,
            cores,
            TIMEOUT_SECONDS,
        )
        found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else None
    took = {
        "seconds": round(measured.seconds, 2),
        "peak_bytes": measured.peak_bytes,
        "processes": measured.processes,
        "exact_looks": measured.exact_looks,
    }
    if measured.returncode or measured.timed_out or found is None:
        return took | {"problem": failure(measured, log)}, None
    return took, found


def interpreter(tool: Tool) -> tuple[str, str]:
    """Return the Python of a tool's environment, and why there is none."""
    if not tool.environment:
        return sys.executable, ""
    home = ENVIRONMENTS / tool.environment
    failed = home.with_name(f"{tool.environment}.failed")
    if failed.exists():
        return "", f"could not be installed: {failed.read_text(encoding='utf-8').strip()}"
    if not (home / ".ready").exists():
        return "", "not installed; run `make -C benchmarks peers-env`"
    return str(home / "bin" / "python"), ""


def environment(tool: Tool, number: int, scratch: str) -> dict[str, str]:
    """Return the environment of a tool: two workers of one thread, or one of two."""
    threads = str(tool.threads)
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
    path = [str(HERE)]
    if tool.name in BOTH:
        path.append(str(Path(stormsweep.__file__).resolve().parents[1]))
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path),
        "PEERS_SEED": str(number),
        "TMPDIR": scratch,
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_BACKEND": "tensorflow",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def failure(measured: Measured, log: Path) -> str:
    """Say in one line why a repeat has no scores."""
    if measured.timed_out:
        return f"stopped after {TIMEOUT_SECONDS:.0f} s"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].strip()[:200].replace("|", "/") if lines else "it said nothing"
    return f"failed (exit code {measured.returncode}): {last}"


def said(record: dict[str, Any]) -> str:
    best = max(record["scores"].values())
    return (
        f"{record['seconds']:.1f} s, {record['peak_bytes'] / 2**20:,.0f} MiB in "
        f"{record['processes']} processes, best ROC AUC {best:.4f}, load before {record['load']}"
    )


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the results and the table, whole."""
    write_json(folder / "peers.json", state)
    write_text(folder / "peers.md", page(state))


def page(state: dict[str, Any]) -> str:
    """Return the Markdown page of what is known."""
    fields = set(Repeat.__dataclass_fields__)
    repeats = [
        Repeat(**{name: value for name, value in kept.items() if name in fields})
        for kept in state["repeats"]
    ]
    labels = {tool.name: tool.label for tool in TOOLS}
    pairs = [tool.name for tool in TOOLS if tool.two_processes]
    space, sizes = state["settings"]["space"], state["data"]
    fits = state["settings"]["folds"]
    for values in space.values():
        fits *= len(values)
    rounds = len({kept["round"] for kept in state["repeats"] if not kept["problem"]})
    loads = [kept["load"] for kept in state["repeats"]]
    per_fold = f"{min(sizes['per_fold']):,} to {max(sizes['per_fold']):,}"
    grid = ", ".join(f"{name} {values}" for name, values in space.items())
    return "\n".join(
        [
            "# The same small search by each peer",
            "",
            f"Storm CNN on synthetic storms (the twin): {sizes['patches']:,} patches with "
            f"{sizes['events']:,} events, {state['settings']['folds']} folds by run date "
            f"({per_fold} patches to train on), {fits} fits: {grid}.",
            f"{state['machine']}; {', '.join(state['packages'])}. Rounds: {rounds}, each tool "
            "once in each, in random order; load of the machine before a repeat "
            f"{min(loads, default=0):.1f} to {max(loads, default=0):.1f}.",
            "",
            table(list(labels.items()), repeats, BOTH),
            summary(labels, pairs, repeats, BOTH),
            "Median (least to greatest). Wall time is that of the whole process, imports included; "
            "ratios are taken within each round. Peak memory: sum of the proportional set sizes of "
            "all processes. Scores: mean ROC AUC over the folds, each configuration's mean over "
            "the rounds against the mean over all repeats of the other tools that train with "
            "Keras's `fit`; p: how often chance alone (initial weights, batch order) makes so "
            "striking a difference in one of the configurations, judged by the scatter of those "
            "repeats. Every repeat: `peers.json`. How each tool is used: `benchmarks/README.md`.",
            "",
        ]
    )


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("stopped; finished repeats are kept, the same command goes on") from None
