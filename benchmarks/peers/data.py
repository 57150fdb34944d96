"""The data folder that all peers read: prepared arrays, folds, the grid, Stormsweep's studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stormsweep import Study
from stormsweep.files import replacing_folder
from stormsweep.storms.twin import synthesize
from stormsweep.study.protocol import fold_rows, protocol_of

PRECISIONS = ("float32", "bfloat16")
SEED = 2019
# The quickstart's study, unbalanced: balancing by index would only lengthen each epoch alike. The
# twin's files stand there for themselves, so that the study's seed, which a round changes, leaves
# the data as they are.
STUDY = """\
[study]
name = "peers"

[data]
source = "ncar-storms"
path = {storms}
cache = {cache}

{search}

[validation]
folds = {folds}
group_by = "run_date"

[engine]
precision = "{precision}"

[site]
workers = 2
threads_per_worker = 1
"""


def make(folder: Path, patches: int, space: dict[str, list[Any]], folds: int) -> dict[str, Any]:
    """Write the data folder where it is missing; return its size for the table.

    Parameters
    ----------
    folder : Path
        One folder for each choice of the other three.
    patches : int
        Patches of the twin, the test part included.
    space : dict of str to list
        The grid.
    folds : int
        Number of folds.
    """
    if not folder.exists():
        with replacing_folder(folder) as part:
            _write(part, folder, patches, space, folds)
    rows = np.load(folder / "folds.npz")
    return {
        "patches": int(np.load(folder / "labels.npy", mmap_mode="r").shape[0]),
        "events": int(np.load(folder / "labels.npy").sum()),
        "per_fold": [len(rows[f"train_{fold}"]) for fold in range(folds)],
    }


def study(folder: Path, patches: int, search: str, folds: int, precision: str) -> str:
    """Return a study file on the twin that a data folder was made from, with `search` in it."""
    return STUDY.format(
        storms=json.dumps(str(_storms(folder, patches))),
        cache=json.dumps(str(folder.with_name("cache"))),
        search=search,
        folds=folds,
        precision=precision,
    )


def _storms(folder: Path, patches: int) -> Path:
    return folder.with_name(f"storms-{patches}")


def _write(part: Path, folder: Path, patches: int, space: dict[str, list[Any]], folds: int) -> None:
    storms = _storms(folder, patches)
    if not storms.exists():
        synthesize(storms, patches, SEED)
    lines = "\n".join(f"{name} = {json.dumps(values)}" for name, values in space.items())
    for precision in PRECISIONS:
        text = study(folder, patches, f"[search.space]\n{lines}", folds, precision)
        (part / f"{precision}.toml").write_text(text, encoding="utf-8")
    first = Study.from_toml(part / f"{PRECISIONS[0]}.toml")
    prepared = first.prepare().part("train")
    np.save(part / "inputs.npy", prepared.inputs)
    np.save(part / "labels.npy", prepared.labels)
    rows = {}
    for number, fold in enumerate(fold_rows(prepared, protocol_of(first.file))):
        rows[f"train_{number}"], rows[f"validation_{number}"] = fold.train, fold.validation
    np.savez(part / "folds.npz", **rows)
    (part / "space.json").write_text(json.dumps(space), encoding="utf-8")
