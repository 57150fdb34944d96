"""The problem of a study: its data, from whatever source, as prepared arrays and folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stormsweep.config.kinds import STORM_SOURCES
from stormsweep.config.study import StudyFile
from stormsweep.data.export import Format
from stormsweep.data.export import export as write_files
from stormsweep.data.prepared import PreparedData
from stormsweep.data.provenance import sources_changed
from stormsweep.data.source import destination, request
from stormsweep.data.turned import (
    check_images,
    folder_of,
    open_turned,
    vectors_of,
    write_turned,
)
from stormsweep.errors import DataError
from stormsweep.study.protocol import (
    FoldRows,
    check_metric,
    default_group_said,
    folds_of,
    protocol_of,
    whole_rows,
)
from stormsweep.study.unprepared import look_ahead, to_fetch

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
    with default_group_said(study):
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
            from stormsweep.data.npz import prepare_npz

            prepare_npz(config, seed, folder, group_by=group_by, progress=told)
        case source if source in STORM_SOURCES:
            from stormsweep.cluster import machine
            from stormsweep.storms.problem import prepare_storms

            if line := to_fetch(config):
                raise DataError(line)
            prepare_storms(
                config,
                seed,
                folder,
                progress=told,
                cores=machine.cores(),
                making=_shares("synthesizing the twin", progress),
            )
        case _:
            from stormsweep.data.functions import prepare_function

            prepare_function(config, seed, folder, group_by=group_by, progress=told)


@dataclass(frozen=True, slots=True)
class Ready:
    """Prepared data that are there already, and how a study splits them.

    Attributes
    ----------
    data : PreparedData
        Not checked against their checksums.
    folds : list of FoldRows
        Of all rounds.
    """

    data: PreparedData
    folds: list[FoldRows]


def ready(study: StudyFile) -> Ready | str:
    """Return the prepared data of a study, split as it says.

    Returns
    -------
    Ready or str
        In one line what is to be done first, where they are not prepared yet.

    Raises
    ------
    DataError
        If they cannot be read, or do not allow the folds or the metric; what of that can be seen
        before they are prepared, too (`unprepared.look_ahead`).
    """
    folder = prepared_folder(study)
    if not folder.is_dir():
        return look_ahead(study)
    data = PreparedData.open(folder)
    part = data.part("train")
    folds = folds_of(part, study)
    check_metric(part, folds, study.search.metric)
    return Ready(data, folds)


def turned_folder(study: StudyFile, data: PreparedData) -> Path | None:
    """Return where the patches turned ahead of training lie; None where a study has none."""
    augmentation = protocol_of(study).augmentation
    if augmentation is None or not augmentation.copies:
        return None
    return folder_of(data, augmentation, study.study.seed)


def prepare_turned(
    study: StudyFile, data: PreparedData, progress: Progress | None = None, again: bool = False
) -> None:
    """Make the patches turned ahead of training where they are missing, and check them.

    Raises
    ------
    DataError
        If the inputs cannot be turned, or turned patches changed since they were made.
    """
    augmentation, seed = protocol_of(study).augmentation, study.study.seed
    if augmentation is None:
        return
    check_images(data.manifest)
    if augmentation.method == "physical":
        vectors_of(data.manifest)
    folder = turned_folder(study, data)
    if folder is None:
        return
    if folder.exists() and not again:
        open_turned(folder, data.fingerprint, check=True)
        return
    told = _shares("turning patches", progress) if progress else None
    write_turned(data, augmentation, seed, told)


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
    if study.balance.method not in ("none", "class-weight"):
        balanced = whole_rows(data.part("train"), protocol_of(study))
    told = _shares("exporting", progress) if progress else None
    return write_files(data, folder, format, balanced, told)


def _shares(what: str, progress: Progress) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done / total if total else 1.0)
