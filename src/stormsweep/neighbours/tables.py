"""The frames of a study as files, for spreadsheets, R, or another program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from stormsweep.neighbours.owned import own_folder
from stormsweep.neighbours.told import Told
from stormsweep.records import Entry
from stormsweep.results import frames
from stormsweep.scaling import timings
from stormsweep.scaling.accounts import account

#: The frames, by the names of their files; README of each is its docstring.
FRAMES: dict[str, Callable[[Sequence[Entry]], pd.DataFrame]] = {
    "configurations": frames.configurations,
    "fits": frames.fits,
    "tasks": timings.tasks,
    "workers": timings.workers,
    "sessions": frames.sessions,
    "failures": frames.failures,
    "retries": frames.retries,
}


def write_tables(entries: Sequence[Entry], told: Told, folder: Path, kind: str) -> None:
    """Write every frame, and the account in one row, as ``<name>.csv`` or ``<name>.parquet``.

    Parameters
    ----------
    entries : sequence of Entry
        The journal.
    told : Told
        The same, for its name.
    folder : Path
        Where to; see `own_folder`.
    kind : str
        ``csv`` or ``parquet``.
    """
    made = {name: make(entries) for name, make in FRAMES.items()}
    made["account"] = pd.DataFrame([dataclasses.asdict(account(entries))])
    with own_folder(folder, told.journal) as beside:
        for name, frame in made.items():
            if kind == "csv":
                frame.to_csv(beside / f"{name}.csv", index=False)
            else:
                frame.to_parquet(beside / f"{name}.parquet", index=False)
