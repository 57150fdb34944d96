"""The grid of the 2019 study on one GPU: bundles against one run after another, and the limit.

    python benchmarks/gpu.py [--precision bfloat16] [--output FILE]
    python benchmarks/gpu.py --patches 400 --batch-sizes 64 --epochs 1 2   # to see that it works

Trains the storm CNN on random patches (what they show does not matter for time) with the engine
"jax", as a worker does: for each batch size all learning rates and folds as one bundle, scored at
the milestones. Then each run alone for a few epochs, from which the time of the whole grid follows.
Prints a Markdown table. The limits are measured in the same process: a large matrix product in the
same precision, and a sum over memory. How many operations and bytes a step takes is what XLA counts
in the compiled step of one run; bytes are counted before caches, so that share is an upper bound.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stormsweep.training.keras_jax import JaxEngine, configure, device

RATES = (0.001, 0.005, 0.01)
FOLDS = 3


@dataclass
class Row:
    """What was measured of one batch size."""

    batch_size: int
    bundles: list[int]
    compiling: float
    training: float
    scoring: float
    alone: float
    patches: int
    flop_per_patch: float
    bytes_per_patch: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--patches", type=int, default=80_000, help="cases, as in the archive")
    parser.add_argument("--side", type=int, default=32, help="cells along a patch")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[128, 256, 512, 1024, 2048, 4096]
    )
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 10, 15], help="milestones")
    parser.add_argument("--alone-epochs", type=int, default=1, help="of each run alone, timed")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    configure(len(os.sched_getaffinity(0)))
    rates = _limits(asked.precision, small=asked.patches < 10_000)
    folds = _folds(asked.patches, asked.side)
    rows = [
        _measure(folds, size, asked.epochs, asked.alone_epochs, asked.precision)
        for size in asked.batch_sizes
    ]
    text = _table(rows, asked, *rates)
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")


def _folds(patches: int, side: int) -> list[Any]:
    from stormsweep.training.engine import FoldData

    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((patches, side, side, 3), dtype=np.float32)
    labels = (np.arange(patches) % 20 == 0).astype(np.uint8)
    folds = []
    for number in range(FOLDS):
        held = np.arange(number, patches, FOLDS)
        rest = np.setdiff1d(np.arange(patches), held)
        # Oversampled to one event for each other case; folds are not quite of one size.
        others, events = rest[labels[rest] == 0], rest[labels[rest] == 1]
        drawn = generator.choice(events, len(others) - 7 * number)
        folds.append(FoldData(inputs, labels, np.concatenate([others, drawn]), held, None, 0.05))
    return folds


def _runs(engine: JaxEngine, folds: list[Any], batch_size: int) -> list[Any]:
    from stormsweep.models import storm_cnn

    return [
        engine.start(storm_cnn, {"batch_size": batch_size, "learning_rate": rate}, 2019, f, fold)
        for rate in RATES
        for f, fold in enumerate(folds)
    ]


def _measure(
    folds: list[Any], batch_size: int, milestones: list[int], alone_epochs: int, precision: str
) -> Row:
    from stormsweep.training.scores import scores

    engine = JaxEngine(precision)
    runs = _runs(engine, folds, batch_size)
    engine.resident(folds[0], runs[0].program.cases)
    compiling = training = scoring = 0.0
    bundles: list[int] = []
    patches = 0
    for stop in milestones:
        for part in engine.train(runs, stop):
            results: list[Any] = [result for _, result in part]
            if failed := [result for result in results if isinstance(result, Exception)]:
                raise failed[0]
            compiling += results[0].compile_seconds
            training += results[0].train_seconds
            patches += sum(result.patches for result in results)
            bundles += [len(part)] * (stop == milestones[0])
            began = time.perf_counter()
            trained = [run for run, _ in part]
            predicted = engine.predict(trained, [run.data.validation for run in trained])
            for run, p in zip(trained, predicted, strict=True):
                scores(run.data.labels[run.data.validation], p, run.data.climatology)
            scoring += time.perf_counter() - began
    alone = 0.0
    for run in _runs(engine, folds, batch_size):
        run.advance(1)  # compiles, where that was not done
        result = run.advance(1 + alone_epochs)
        alone += (result.compile_seconds + result.train_seconds) / alone_epochs * milestones[-1]
    cost = _cost(runs[0])
    return Row(
        batch_size,
        bundles,
        compiling,
        training,
        scoring,
        alone,
        patches,
        cost.get("flops", float("nan")) / batch_size,
        cost.get("bytes accessed", float("nan")) / batch_size,
    )


def _cost(run: Any) -> dict[str, float]:
    """Return what XLA counts in one step of one run."""
    import jax
    import jax.numpy as jnp

    program = run.program
    state = jax.tree.map(lambda value: value[0], program.stack([run.state()]))
    rows = run.data.train[: program.batch_size]
    step = jax.jit(program._step).lower(
        state, jnp.asarray(run.data.inputs[rows]), jnp.asarray(run.data.labels[rows], jnp.float32),
        jnp.ones(2),
    )  # fmt: skip
    counted = step.compile().cost_analysis() or {}
    return dict(counted[0] if isinstance(counted, list) else counted)


def _limits(precision: str, small: bool) -> tuple[float, float]:
    """Return the best rate of a matrix product (operations/s) and of memory (bytes/s)."""
    import jax
    import jax.numpy as jnp

    size, words = (512, 1 << 20) if small else (8192, 1 << 28)
    kind = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    square = jnp.ones((size, size), kind)
    product = jax.jit(lambda a: a @ a)
    flop = 2 * size**3 / _best(lambda: product(square).block_until_ready())
    array = jnp.ones(words, jnp.float32)
    more = jax.jit(lambda a: a + 1)
    return flop, 8 * words / _best(lambda: more(array).block_until_ready())


def _best(work: Any) -> float:
    work()
    times = []
    for _ in range(10):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _table(rows: list[Row], asked: argparse.Namespace, flop: float, width: float) -> str:
    training, alone = sum(row.training for row in rows), sum(row.alone for row in rows)
    fits = len(rows) * len(RATES) * FOLDS * len(asked.epochs)
    lines = [
        f"{device()}, {asked.precision}: {fits} fits, {asked.patches:,} patches of "
        f"{asked.side} x {asked.side} x 3.",
        "",
        f"Training {training:.1f} s, one run after another {alone:.1f} s (from "
        f"{asked.alone_epochs} epochs of each): {alone / training:.2f} times; compiling "
        f"{sum(row.compiling for row in rows):.1f} s, scoring "
        f"{sum(row.scoring for row in rows):.1f} s.",
        f"Limits: {flop / 1e12:.2f} Tflop/s (matrix product), {width / 1e9:.0f} GB/s (memory).",
        "",
        "| batch size | bundles | compile s | train s | score s | alone s | ratio | patches/s "
        "| of arithmetic | of memory |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        speed = row.patches / row.training
        lines.append(
            f"| {row.batch_size} | {' + '.join(map(str, row.bundles))} | {row.compiling:.1f} "
            f"| {row.training:.2f} | {row.scoring:.2f} | {row.alone:.2f} "
            f"| {row.alone / row.training:.2f} | {speed:,.0f} "
            f"| {speed * row.flop_per_patch / flop:.0%} "
            f"| {speed * row.bytes_per_patch / width:.0%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
