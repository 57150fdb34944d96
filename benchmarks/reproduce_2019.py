"""The grid of the 2019 study on the twin, as coded and honestly, beside the published figures.

    python benchmarks/reproduce_2019.py [--patches 20000] [--batch-sizes 512 2048] [--output FILE]

Runs ``studies/taki-2019-as-coded.toml`` and ``studies/taki-2019.toml`` with the twin in place of
the real storms and with some of the batch sizes, and prints a Markdown table. The studies stand
under ``runs/`` and go on where they stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from stormsweep import Study
from stormsweep.cli.watch import display
from stormsweep.scaling import published

ROOT = Path(__file__).resolve().parents[1]
KEYS = ["batch_size", "learning_rate", "epochs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    paper = published.load("umbc-2019").scores.set_index(KEYS)
    coded = scores("taki-2019-as-coded", asked.patches, asked.batch_sizes)
    honest = scores("taki-2019", asked.patches, asked.batch_sizes)
    text = table(paper, coded, honest, asked.patches)
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")


def scores(name: str, patches: int, batch_sizes: list[int]) -> pd.DataFrame:
    """Run a study of the repository on the twin; return its configurations by their keys."""
    whole = Study.from_toml(ROOT / "studies" / f"{name}.toml").file
    file = whole.model_copy(
        update={
            "study": whole.study.model_copy(update={"name": f"{name}-twin-{patches}"}),
            "data": whole.data.model_copy(
                update={"source": "twin", "path": None, "patches": patches}
            ),
            "search": whole.search.model_copy(
                update={"space": {**whole.search.space, "batch_size": batch_sizes}}
            ),
        }
    )
    study = Study(file, Path(f"{name}.toml"), Path("runs") / file.study.name)
    with display() as watcher:
        outcome = study.run(watcher)
    assert not outcome.failed, outcome.failed
    return study.results().set_index(KEYS)


def table(paper: pd.DataFrame, coded: pd.DataFrame, honest: pd.DataFrame, patches: int) -> str:
    lines = [
        f"Synthetic storms (the twin, {patches:,} patches); mean (standard deviation) over folds.",
        "",
        "| batch size | learning rate | epochs | published accuracy | as coded: accuracy "
        "| honest: accuracy | as coded: F1 | honest: F1 | honest: ROC AUC |",
        "| " + " | ".join(["---"] * 9) + " |",
    ]
    for key in sorted(coded.index):
        cells = [
            with_spread(paper, key, "accuracy"),
            with_spread(coded, key, "accuracy"),
            with_spread(honest, key, "accuracy"),
            with_spread(coded, key, "f1"),
            with_spread(honest, key, "f1"),
            with_spread(honest, key, "roc_auc"),
        ]
        lines.append("| " + " | ".join([*map(str, key), *cells]) + " |")
    return "\n".join([*lines, ""])


def with_spread(frame: pd.DataFrame, key: tuple[float, ...], score: str) -> str:
    row = frame.loc[key]
    return f"{row[f'{score}_mean']:.4f} ({row[f'{score}_sd']:.4f})"


if __name__ == "__main__":
    main()
