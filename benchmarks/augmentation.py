"""What turning patches costs: none, on the fly, and ahead of training; interleaved repeats.

    python benchmarks/augmentation.py [--patches 8192] [--repeats 5] [--output FILE]

Trains the storm CNN, one process of one thread, whole epochs at batch 512 on random patches (what
they show does not matter for time), and prints a Markdown table. Disk is read through the memory
map, as in a study.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from stormsweep.cluster import machine
from stormsweep.data.prepared import PreparedData, PreparedWriter, Target, Variable
from stormsweep.data.turned import open_turned, write_turned
from stormsweep.models import storm_cnn
from stormsweep.training.engine import FoldData, Turning
from stormsweep.training.keras_tf import KerasEngine, configure
from stormsweep.work import Augmentation

BATCH = 512
COPIES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    configure(1)
    with tempfile.TemporaryDirectory() as folder:
        text = measure(Path(folder), asked.patches, asked.repeats)
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")


def measure(folder: Path, patches: int, repeats: int) -> str:
    data = prepared(folder, patches)
    began = time.perf_counter()
    turned = write_turned(data, Augmentation("physical", 5.0, False, COPIES), seed=0)
    making = time.perf_counter() - began
    array = open_turned(turned, data.fingerprint)
    part, inputs = data.part("train"), data.manifest["inputs"]
    mean, std = (tuple(variable[key] for variable in inputs) for key in ("mean", "std"))
    turning = Turning(5.0, False, True, ((1, 2),), mean, std)
    rows, held = np.arange(patches), np.arange(64)
    plain = FoldData(part.inputs, part.labels, rows, held, None, 0.5)
    labels = np.tile(part.labels, 1 + COPIES)
    ways = {
        "none": plain,
        "on the fly, 5 degrees": FoldData(
            part.inputs, part.labels, rows, held, None, 0.5, turning=turning
        ),
        f"ahead, {COPIES} copies": FoldData(
            array, labels, rows, held, None, 0.5, versions=range(1 + COPIES)
        ),
    }
    engine = KerasEngine()
    run = {"batch_size": BATCH, "learning_rate": 0.001}
    runs = {name: engine.start(storm_cnn, run, 0, 0, fold) for name, fold in ways.items()}
    for trajectory in runs.values():
        trajectory.advance(1)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, trajectory in runs.items():
            done = trajectory.advance(trajectory.epoch + 1)
            rates[name].append(done.patches / done.train_seconds)
    lines = [
        f"Turning patches: storm CNN, batch {BATCH}, {patches:,} patches, one thread, "
        f"{repeats} interleaved repeats, {machine.processor()}.",
        "",
        "| turned | patches/s, median (range) | time against none, median (range) |",
        "| --- | --- | --- |",
    ]
    for name, found in rates.items():
        ratios = [base / rate for base, rate in zip(rates["none"], found, strict=True)]
        lines.append(
            f"| {name} | {statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f}) "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    size = array.nbytes / 2**20
    lines += [
        "",
        f"Ahead, {COPIES * patches / making:,.0f} patches/s are turned once, and {size:,.0f} MiB "
        f"lie on disk instead of {part.inputs.nbytes / 2**20:,.0f}.",
        "",
    ]
    return "\n".join(lines)


def prepared(folder: Path, patches: int) -> PreparedData:
    random = np.random.default_rng(0)
    wind = [Variable("u", "m s-1", "wind:x"), Variable("v", "m s-1", "wind:y")]
    with PreparedWriter(
        folder / "prepared",
        source="npz",
        synthetic=True,
        inputs=[Variable("reflectivity", "dBZ"), *wind],
        target=Target("event"),
    ) as writer:
        inputs = random.standard_normal((patches, 32, 32, 3), dtype=np.float32)
        writer.append(inputs, np.arange(patches) % 2)
    return PreparedData.open(folder / "prepared")


if __name__ == "__main__":
    main()
