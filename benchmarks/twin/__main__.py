"""Print a twin's figures beside the published ones: ``python -m benchmarks.twin --help``."""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

# Before anything numerical is imported: rates are those of one core.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from benchmarks.twin import measure, published, skill  # noqa: E402
from stormsweep.storms import twin  # noqa: E402


def main() -> None:
    """Draw, measure, print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.twin", description=__doc__)
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=2019)
    parser.add_argument("--write", action="store_true", help="time writing the files, too")
    parser.add_argument(
        "--skill",
        nargs="*",
        default=[],
        choices=["dense", "forest", "folds", "cnn", "dropout"],
        help="train these as well",
    )
    asked = parser.parse_args()
    images = bool({"cnn", "dropout"} & set(asked.skill))
    command = f"python -m benchmarks.twin --patches {asked.patches} --seed {asked.seed}"
    command += " --write" if asked.write else ""
    command += f" --skill {' '.join(asked.skill)}" if asked.skill else ""
    print(f"`{command}` (twin version {twin.VERSION})\n", flush=True)
    if asked.write:
        _write(asked.patches, asked.seed)
    sample = measure.draw(asked.patches, asked.seed, images)
    print("| figure | archive | twin | may differ by | |\n| --- | --- | --- | --- | --- |")
    for figure in measure.figures(sample):
        held = "" if figure.holds else "**differs**"
        print(
            f"| {figure.name} | {figure.published:.4g} | {figure.found:.4g} "
            f"| {figure.within:.2g} | {held} |"
        )
    if asked.skill:
        print("\n| trained | ROC AUC, archive | twin | BSS, archive | twin |")
        print("| --- | --- | --- | --- | --- |", flush=True)
    # As many updates as the archive's patches give, however few the twin's.
    more = published.PATCHES["all"] / asked.patches
    for name, score in {
        "dense": lambda: skill.dense_net(sample, round(20 * more)),
        "forest": lambda: skill.forest(sample),
        "cnn": lambda: skill.cnn(sample, round(10 * more)),
        "dropout": lambda: skill.cnn(sample, round(10 * more), (16, 32, 64), 0.2),
    }.items():
        if name in asked.skill:
            auc, bss = score()
            label, known_auc, known_bss = published.SKILL[name]
            print(
                f"| {label} | {known_auc:.3f} | {auc:.3f} | {known_bss:.3f} | {bss:.3f} |",
                flush=True,
            )
    if "folds" in asked.skill:
        print("\n| 20 nearest neighbours, five folds | ROC AUC, twin |\n| --- | --- |")
        for label, grouped in (("at random", False), ("by run date", True)):
            scores = [skill.neighbours(sample, grouped, seed) for seed in range(3)]
            print(f"| {label} | {min(scores):.3f} to {max(scores):.3f} |")


def _write(patches: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.perf_counter(), time.process_time()
        twin.synthesize(Path(folder) / "twin", patches, seed)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.*") if file.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"Written: {patches / processor:.0f} patches per second of processor time "
        f"({wall:.0f} s by the clock), {size / 2**30:.2f} GiB, peak memory {peak:.2f} GiB\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
