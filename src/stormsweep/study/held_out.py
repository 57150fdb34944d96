"""The test part: can it be scored, and is it of cases whose like no training has seen?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from stormsweep.errors import DataError

if TYPE_CHECKING:
    from stormsweep.config.study import DataTable


def unscorable(data: Mapping[str, Any]) -> str:
    """Say why the test part cannot be scored: its cases are of one class; empty where it can.

    Parameters
    ----------
    data : mapping
        The summary of the data (`stormsweep.data.prepared.PreparedData.summary`), as the journal
        has it.

    Examples
    --------
    >>> unscorable({"test": 9, "test_positives": 9})
    'the event happened in 9 of 9 cases of the test part, and one class alone cannot be scored'
    >>> unscorable({"test": 9, "test_positives": 1}), unscorable({"test": 0, "test_positives": 0})
    ('', '')
    """
    cases, events = data.get("test"), data.get("test_positives")
    if not cases or events not in (0, cases):
        return ""
    return (
        f"the event happened in {events} of {cases} cases of the test part, and one class alone "
        "cannot be scored"
    )


def check_test_part(data: Mapping[str, Any], where: object) -> None:
    """Refuse a test part of one class, before anything is trained to be scored on it.

    Parameters
    ----------
    data : mapping
        As for `unscorable`.
    where : path or str
        The study, for the message.

    Raises
    ------
    DataError
        If all its cases are of one class.
    """
    if why := unscorable(data):
        raise DataError(
            f"{where}: {why}; set data.threshold, data.test_from or data.test_fraction otherwise, "
            "in another study"
        )


def leak(data: DataTable, groups: Collection[str], drawn_by: str) -> str:
    """Say why the test part is not of unseen cases; empty where it is.

    Parameters
    ----------
    data : DataTable
        The table ``[data]``. A test part by date has whole dates.
    groups : collection of str
        Names of the groups that the data have.
    drawn_by : str
        The group of which a test part by share has whole ones, or ``none``: it has single cases.
        That is ``validation.group_by`` of the study that the data were prepared for.

    Examples
    --------
    >>> from stormsweep.config.study import DataTable
    >>> table = DataTable(source="csv", groups={"day": "date"}, test_fraction=0.2)
    >>> leak(table, table.groups, "day")
    ''
    >>> leak(table, table.groups, "none")[-57:]
    'cases of one day are in the training and in the test part'
    """
    if data.test_from is not None or not data.test_fraction or not groups:
        return ""
    shared = telling(groups)
    if drawn_by == "none":
        what = "single cases are drawn"
    elif shared == "run_date" and drawn_by != "run_date":
        what = f"whole groups of {drawn_by} are drawn"
    else:
        return ""
    return (
        f'data.test_fraction with validation.group_by = "{drawn_by}": {what}, so that cases of one '
        f"{shared} are in the training and in the test part"
    )


def telling(groups: Collection[str]) -> str:
    """Return the group whose cases are most alike, as far as names tell.

    Examples
    --------
    >>> telling(["hour", "run_date"]), telling(["station", "hour"])
    ('run_date', 'hour')
    """
    return "run_date" if "run_date" in groups else min(groups)
