"""The problem of a study: its data, from whatever source, as prepared arrays and folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.config.study import STORM_SOURCES, StudyFile
from stormsweep.data.balance import balance
from stormsweep.data.export import Format
from stormsweep.data.export import export as write_files
from stormsweep.data.folds import folds
from stormsweep.data.prepared import Part, PreparedData
from stormsweep.data.provenance import sources_changed
from stormsweep.data.source import destination, request
from stormsweep.errors import DataError, nearest

#: Told what is being done and how much of it, from 0 to 1.
Progress = Callable[[str, float], None]


def prepared_folder(study: StudyFile) -> Path:
    """Return where the prepared arrays of a study lie, one folder for each ``[data]``."""
    config = study.data
    return destination(config.cache, request(config, study.study.seed, study.validation.group_by))


def prepare(
    study: StudyFile, progress: Progress | None = None, again: bool = False
) -> PreparedData:
    """Open the prepared arrays of a study; make them first where they are missing.

    Parameters
    ----------
    study : StudyFile
        The study.
    progress : callable, optional
        Told what is being done.
    again : bool
        Prepare anew even if prepared arrays are there.

    Returns
    -------
    PreparedData
        Checked against its checksums.

    Raises
    ------
    DataError
        If data are missing, unfit, or were changed since they were prepared.
    """
    folder = prepared_folder(study)
    if folder.exists() and not again:
        data = PreparedData.open(folder)
        data.verify()
        if changed := sources_changed(data.manifest):
            raise DataError(
                f"{changed}; put it back, or prepare anew: `stormsweep data prepare --again STUDY`"
            )
        return data
    _prepare(study, folder, progress or (lambda _what, _share: None))
    return PreparedData.open(folder)


def _prepare(study: StudyFile, folder: Path, progress: Progress) -> None:
    config, seed, group_by = study.data, study.study.seed, study.validation.group_by
    told = _shares("preparing data", progress)
    match config.source:
        case "csv":
            from stormsweep.data.tables import prepare_csv

            prepare_csv(config, seed, folder, group_by=group_by, progress=told)
        case "npz":
            from stormsweep.data.tables import prepare_npz

            prepare_npz(config, seed, folder, group_by=group_by, progress=told)
        case source if source in STORM_SOURCES:
            from stormsweep.cluster import machine
            from stormsweep.storms.problem import prepare_storms

            prepare_storms(config, seed, folder, progress=told, cores=machine.cores())
        case _:
            from stormsweep.data.functions import prepare_function

            prepare_function(config, seed, folder, group_by=group_by, progress=told)


def export(
    study: StudyFile, folder: Path, format: Format, progress: Progress | None = None
) -> list[Path]:
    """Write a study's data, prepared first where missing, as files for other tools.

    Raises
    ------
    DataError
        If data are missing, unfit or changed, or the folder exists or has no room.
    """
    data = prepare(study, progress)
    balanced = None
    table, labels = study.balance, data.part("train").labels
    if table.method in ("oversample", "undersample"):
        # The folds of the validation have the numbers below this one.
        everything = study.validation.folds
        rows = np.arange(len(labels))
        seed = study.study.seed
        balanced, _ = balance(rows, labels, table.method, table.ratio, seed, everything)
    told = _shares("exporting", progress) if progress else None
    return write_files(data, folder, format, balanced, told)


def _shares(what: str, progress: Progress) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done / total if total else 1.0)


@dataclass(frozen=True, slots=True)
class FoldRows:
    """One fold, as row numbers of the training part.

    Attributes
    ----------
    train : ndarray of int64, shape (m,)
        After balancing: rows may stand there several times.
    validation : ndarray of int64, shape (v,)
        In their natural balance.
    class_weight : tuple of float or None
        Weights of the classes 0 and 1 in the loss.
    climatology : float
        Event frequency of the training side before balancing.
    natural : int
        Rows of the training side before balancing.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    class_weight: tuple[float, float] | None
    climatology: float
    natural: int


def fold_rows(
    part: Part, n_folds: int, group_by: str, method: str, ratio: float, seed: int
) -> list[FoldRows]:
    """Split and balance the training part; the same numbers in every process.

    Raises
    ------
    DataError
        If the groups do not exist or are too few, or a fold has one class only.
    """
    groups = None
    if group_by != "none":
        if group_by not in part.groups:
            known = [*part.groups, "none"]
            raise DataError(
                f"validation.group_by: given {group_by!r}{nearest(group_by, known)}; "
                f"the data have {', '.join(known)}"
            )
        groups = part.groups[group_by]
    rows = []
    for number, (train, validation) in enumerate(folds(part.labels, groups, n_folds, seed)):
        balanced, weight = balance(train, part.labels, method, ratio, seed, number)
        climatology = float(np.mean(part.labels[train]))
        rows.append(FoldRows(balanced, validation, weight, climatology, len(train)))
    return rows


def fold_sizes(part: Part, rows: list[FoldRows], group_by: str) -> list[dict[str, Any]]:
    """Return what the journal says of the folds (`records.StudyBegun.fold_sizes`)."""
    return [
        {
            "train": fold.natural,
            "train_positives": round(fold.climatology * fold.natural),
            "epoch_patches": len(fold.train),
            "validation": len(fold.validation),
            "validation_positives": int(part.labels[fold.validation].sum()),
            "groups": len(np.unique(part.groups[group_by][fold.validation]))
            if group_by != "none"
            else 0,
        }
        for fold in rows
    ]
