"""What is seen of a study's data before they are prepared: mistakes are refused as `run` does."""

from __future__ import annotations

from collections.abc import Collection

from stormsweep.config.kinds import STORM_SOURCES
from stormsweep.config.study import DataTable, StudyFile
from stormsweep.data.split import unknown_group
from stormsweep.errors import typed
from stormsweep.files import namesake
from stormsweep.study.protocol import check_metric, fold_rows, protocol_of

NOT_PREPARED = "the data are not prepared yet (`stormsweep data prepare STUDY`)"


def look_ahead(study: StudyFile) -> str:
    """Refuse what can be seen of data without preparing them, which may take hours.

    Paths, columns and arrays; storm files and their dates; groups; of tables and arrays that are
    not large folds and metric too. A function of the user's is found, and not called.

    Parameters
    ----------
    study : StudyFile
        The study; its data are not prepared.

    Returns
    -------
    str
        What there is to be done before they can be reckoned with, in one line.

    Raises
    ------
    DataError
        If preparing them, or splitting them afterwards, would fail.
    """
    config, seed, group_by = study.data, study.study.seed, study.validation.group_by
    groups: Collection[str]
    if config.source in STORM_SOURCES:
        from stormsweep.storms.problem import check_storms
        from stormsweep.storms.staging import GROUPS

        check_storms(config, seed)
        groups = GROUPS
    elif config.source in ("csv", "npz"):
        from stormsweep.data.npz import npz_cases
        from stormsweep.data.tables import csv_cases
        from stormsweep.data.unread import training_part

        cases = csv_cases(config) if config.source == "csv" else npz_cases(config)
        groups = config.groups
        if cases is not None:
            part = training_part(config, cases, group_by, seed)
            check_metric(part, fold_rows(part, protocol_of(study)), study.search.metric)
    else:
        from stormsweep.data.functions import check_place

        check_place(config.source)
        return NOT_PREPARED
    if group_by != "none" and group_by not in groups:
        raise unknown_group(group_by, groups)
    return to_fetch(config) or NOT_PREPARED


def to_fetch(config: DataTable) -> str:
    """Say how storm files that are not there are fetched; empty: they are, or nobody has to."""
    if config.source != "ncar-storms" or config.path is None or config.path.exists():
        return ""
    return (
        f"data.path: {config.path}: no such folder of storm files{namesake(config.path)}; "
        f"fetch them with: {typed('data', 'fetch', config.path)}"
    )
