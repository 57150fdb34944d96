"""How near training comes to what the machine can compute, and where the rest of the time goes.

    python benchmarks/limit.py [--rounds 3] [--seconds 2] [--batch-sizes 128 512 4096]

Trains the storm CNN on random patches (what they show does not matter for time), whole epochs with
input and shuffling, in one process of all cores and in one process a core, each pinned. In the same
run, on the same cores at the same time: Keras's own `fit`, products of matrices and convolutions of
several shapes, copies of memory. All are measured in turn, `--rounds` times; bfloat16 only where
the processor has instructions for it. Prints a Markdown page and writes it to
``benchmarks/results/limit.md``, the figures to ``limit.json``.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stormsweep.cluster import machine
from stormsweep.files import write_json, write_text

RESULTS = Path(__file__).resolve().parent / "results"
PRECISIONS = ("float32", "bfloat16")
SHAPE = (32, 32, 3)
#: Sides of square matrices, and convolutions as (side, channels in, channels out), 5 x 5.
MATRICES = (1024, 2048, 4096)
CONVOLUTIONS = ((8, 16, 32), (16, 32, 32), (16, 64, 64))
PATCHES = 16384
Job = tuple[Any, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="that each job runs at least")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 512, 4096])
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        # Emulated, an epoch in bfloat16 takes minutes.
        default=PRECISIONS if machine.computes_bfloat16() else PRECISIONS[:1],
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--profile", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.profile:
        train_for_profile(asked.profile[0], int(asked.profile[1]))
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("one core: a process of all cores and one a core are the same there")
    layouts = {f"1 x {len(cores)}": [cores], f"{len(cores)} x 1": [[core] for core in cores]}
    found = measure(jobs(asked.batch_sizes, asked.precisions), layouts, asked.rounds, asked.seconds)
    profiles = {precision: profile(precision, 512, cores[0]) for precision in asked.precisions}
    text = page(found, list(layouts), asked, profiles)
    print(text)
    write_text(asked.output / "limit.md", text)
    figures = [{"layout": each[0], "job": each[1], "rates": rates} for each, rates in found.items()]
    write_json(asked.output / "limit.json", {"rates": figures, "profiles": profiles})


def jobs(batch_sizes: Sequence[int], precisions: Sequence[str]) -> list[Job]:
    found: list[Job] = [("memory",)]
    for precision in precisions:
        found += [("matrix", precision, side) for side in MATRICES]
        found += [("convolution", precision, shape) for shape in CONVOLUTIONS]
        for batch in batch_sizes:
            found += [("fit", precision, batch)]
            found += [("engine", precision, batch, packing) for packing in (False, True)]
    return found


def measure(
    wanted: Sequence[Job], layouts: dict[str, list[list[int]]], rounds: int, seconds: float
) -> dict[tuple[str, Job], list[float]]:
    """Return the rate of each layout and job in each round, summed over the layout's processes."""
    context = multiprocessing.get_context("spawn")
    staff: dict[str, list[Any]] = {}
    for layout, shares in layouts.items():
        staff[layout] = []
        for cores in shares:
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, cores), daemon=True).start()
            # Else nobody would tell that a process died, and `recv` would wait for ever.
            theirs.close()
            staff[layout].append(ours)
    found = defaultdict(list)
    for number in range(rounds):
        for job in wanted:
            for layout, workers in staff.items():
                if job[0] == "fit" and len(workers) > 1:
                    continue
                what = " ".join(map(str, (layout, *job)))
                answers(workers, job, what)
                rates = answers(workers, seconds, what)
                found[layout, job].append(sum(rates))
            print(time.strftime("%H:%M:%S"), number + 1, *job, file=sys.stderr, flush=True)
    return found


def answers(workers: Sequence[Any], step: Any, what: str) -> list[Any]:
    try:
        for worker in workers:
            worker.send(step)
        return [worker.recv() for worker in workers]
    except (EOFError, OSError):
        raise SystemExit(f"a process died at {what}; for want of memory?") from None


def serve(wire: Any, cores: list[int]) -> None:
    """Do jobs in a process of its own on cores of its own, for as long as there are any."""
    os.sched_setaffinity(0, cores)
    from stormsweep.training.keras_tf import configure

    configure(len(cores))
    import keras

    keras.utils.set_random_seed(1)
    kinds = {
        "memory": memory,
        "matrix": matrix,
        "convolution": convolution,
        "fit": fit,
        "engine": engine,
    }
    while True:
        try:
            job = wire.recv()
        except EOFError:
            return
        turn = kinds[job[0]](*job[1:])
        turn()
        wire.send("ready")
        seconds = wire.recv()
        began, done = time.perf_counter(), 0.0
        while (taken := time.perf_counter() - began) < seconds:
            done += turn()
        wire.send(done / taken)


def memory() -> Callable[[], float]:
    source, target = np.ones(1 << 25, np.float32), np.zeros(1 << 25, np.float32)

    def turn() -> float:
        np.copyto(target, source)
        return 2 * source.nbytes / 1e9

    return turn


def matrix(precision: str, side: int) -> Callable[[], float]:
    import tensorflow as tf

    one = tf.cast(tf.random.normal([side, side]), precision)
    product = tf.function(lambda: tf.reduce_max(tf.matmul(one, one)), autograph=False)

    def turn() -> float:
        product().numpy()
        return float(2 * side**3 / 1e9)

    return turn


def convolution(precision: str, shape: tuple[int, int, int]) -> Callable[[], float]:
    import tensorflow as tf

    side, ins, outs = shape
    images = tf.cast(tf.random.normal([256, side, side, ins]), precision)
    kernel = tf.cast(tf.random.normal([5, 5, ins, outs]), precision)
    convolved = tf.function(
        lambda: tf.reduce_max(tf.nn.conv2d(images, kernel, 1, "SAME")), autograph=False
    )

    def turn() -> float:
        convolved().numpy()
        return 256 * side * side * 2 * 25 * ins * outs / 1e9

    return turn


def patches() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((PATCHES, *SHAPE), dtype=np.float32)
    return inputs, (generator.random(PATCHES) < 0.3).astype(np.float32)


def fit(precision: str, batch: int) -> Callable[[], float]:
    from stormsweep.models import storm_cnn
    from stormsweep.training.keras_tf import precision_of_layers

    inputs, labels = patches()
    with precision_of_layers(precision):
        model = storm_cnn(SHAPE)

    def turn() -> float:
        model.fit(inputs, labels, batch_size=batch, epochs=1, verbose=0)
        return PATCHES

    return turn


def engine(precision: str, batch: int, packing: bool) -> Callable[[], float]:
    from stormsweep.models import storm_cnn
    from stormsweep.training.engine import FoldData
    from stormsweep.training.keras_tf import KerasEngine

    rows = np.arange(PATCHES)
    data = FoldData(*patches(), rows, rows[:512], None, 0.3)
    run = KerasEngine(precision, packing).start(storm_cnn, {"batch_size": batch}, 1, 0, data)

    def turn() -> float:
        return run.advance(run.epoch + 1).patches

    return turn


def operations() -> float:
    """Return the multiplications and additions of a step, for each patch.

    Forward, gradients of the weights, and gradients of each layer's input but the first's.
    """
    side, ins, forward, first = SHAPE[0], SHAPE[2], [], 0.0
    for outs in (8, 16, 32):
        forward.append(2.0 * side * side * 25 * ins * outs)
        first, side, ins = first or forward[0], side // 2, outs
    return 3 * (sum(forward) + 2.0 * side * side * ins) - first


def profile(precision: str, batch: int, core: int) -> dict[str, float]:
    """Return the shares of training time that oneDNN's primitives take, by kind; on one core."""
    command = [sys.executable, __file__, "--profile", precision, str(batch)]
    verbose = {"ONEDNN_VERBOSE": "profile_exec", "ONEDNN_VERBOSE_TIMESTAMP": "0"}
    said = subprocess.run(
        command,
        env=os.environ | verbose,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, [core]),
    ).stdout
    _, _, after = said.partition("training begins\n")
    training, _, end = after.partition("training took ")
    wall = float(end.split()[0])
    shares: dict[str, float] = defaultdict(float)
    for line in training.splitlines():
        fields = line.split(",")
        if "exec" not in fields:
            continue
        kind = fields[fields.index("exec") + 2]
        if kind == "convolution":
            kind += " " + fields[fields.index("exec") + 4].replace("forward_training", "forward")
        shares[kind] += float(fields[-1]) / 1e3 / wall
    shares["all else"] = 1 - sum(shares.values())
    return {kind: round(share, 4) for kind, share in shares.items()}


def train_for_profile(precision: str, batch: int) -> None:
    from stormsweep.training.keras_tf import configure

    configure(1)
    turn = engine(precision, batch, True)
    turn()
    # By the C library, as oneDNN does: Python's own output would overtake it.
    say = ctypes.CDLL(None).puts
    say(b"training begins")
    began = time.perf_counter()
    turn()
    say(f"training took {time.perf_counter() - began:.4f} s".encode())


def page(
    found: dict[tuple[str, Job], list[float]],
    layouts: list[str],
    asked: argparse.Namespace,
    profiles: dict[str, dict[str, float]],
) -> str:
    one, many = layouts
    work = operations()

    def said(layout: str, job: Job, unit: float = 1.0) -> str:
        rates = [rate / unit for rate in found[layout, job]]
        form = "{:,.0f}" if unit == 1 else "{:.2f}"
        spread = f"{form.format(min(rates))} to {form.format(max(rates))}"
        return f"{form.format(statistics.median(rates))} ({spread})"

    def ratio(job: Job, against: list[float]) -> str:
        ratios = [a / b for a, b in zip(found[many, job], against, strict=True)]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    lines = [
        "# How near training comes to the machine's limit",
        "",
        f"{machine.processor()}, {' '.join(machine.instruction_sets())}; storm CNN on random "
        f"patches, {work / 1e6:.2f} million operations a patch and step; {asked.rounds} rounds, "
        "median (least to greatest). Layouts are processes x threads; every process is pinned.",
        "",
        f"Memory: {said(many, ('memory',))} GB/s copied by all processes together.",
    ]
    for precision in asked.precisions:
        shapes = [job for layout, job in found if layout == many and job[1:2] == (precision,)]
        roofs = {job: found[many, job] for job in shapes if job[0] in ("matrix", "convolution")}
        roof = max(roofs, key=lambda job: statistics.median(roofs[job]))
        lines += [
            "",
            f"## {precision}",
            "",
            f"Best arithmetic found: {said(many, roof)} GFLOP/s, {roof[0]} {roof[2]}.",
            "",
            f"| batch | Keras `fit`, {one} | ours, {one} | ours, {many}, not packed | ours, {many} "
            "| against `fit` | against `fit` in float32 | of the best arithmetic |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for batch in asked.batch_sizes:
            plain, packed = (("engine", precision, batch, each) for each in (False, True))
            kept = ("fit", precision, batch)
            share = [rate * work / 1e9 for rate in found[many, packed]]
            best = statistics.median(roofs[roof])
            lines.append(
                f"| {batch} | {said(one, kept)} | {said(one, packed)} | {said(many, plain)} | "
                f"{said(many, packed)} | {ratio(packed, found[one, kept])} | "
                f"{ratio(packed, found[one, ('fit', 'float32', batch)])} | "
                f"{statistics.median(share) / best:.0%} |"
            )
        parts = sorted(profiles[precision].items(), key=lambda part: -part[1])
        parts = [part for part in parts if part[1] >= 0.005]
        lines += [
            "",
            "Where the time of training goes, batch 512, one process of one thread: "
            + ", ".join(f"{kind.replace('_', ' ')} {share:.0%}" for kind, share in parts)
            + ".",
        ]
    lines += [
        "",
        "Rates are patches/s of all processes together. *Not packed*: `engine.packing = false`, "
        "every convolution as Keras computes it. *All else* is what TensorFlow computes itself: "
        "gathering the patches of a batch, gradients of biases and activations, the optimizer, and "
        "calling the operations one after the other.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
