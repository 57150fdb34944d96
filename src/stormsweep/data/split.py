"""Which cases are kept as the test set."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import DataError, nearest

if TYPE_CHECKING:
    from stormsweep.config.study import DataTable

_TAG = 0x7E57


def choose_test(
    config: DataTable,
    labels: NDArray[Any],
    groups: Mapping[str, NDArray[Any]],
    group_by: str,
    seed: int,
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Choose the test set of a table or of arrays, by date or by share.

    Parameters
    ----------
    config : DataTable
        ``test_from`` and ``test_fraction`` of it; without either there is no test set.
    labels : ndarray of 0 and 1, shape (n,)
        The classes.
    groups : mapping of str to ndarray of str, shape (n,)
        Labels of the groups.
    group_by : str
        ``validation.group_by``: whole groups of it make up the share; ``none``: single cases,
        stratified by class.
    seed : int
        What is drawn with.

    Returns
    -------
    is_test : ndarray of bool, shape (n,)
    split : dict
        For the manifest: ``test_from`` with the group that it refers to, or ``test_fraction``.

    Raises
    ------
    DataError
        If no group holds dates, or one part would be empty.
    """
    if config.test_from is not None:
        return _by_date(config.test_from, groups)
    if not config.test_fraction:
        return np.zeros(len(labels), bool), {"test_fraction": 0.0}
    if groups and group_by != "none":
        if group_by not in groups:
            raise unknown_group(group_by, groups)
        chosen = _whole_groups(groups[group_by], config.test_fraction, seed)
        return chosen, {"test_fraction": config.test_fraction, "group": group_by}
    chosen = _stratified(labels, config.test_fraction, seed)
    return chosen, {"test_fraction": config.test_fraction}


class UnknownGroupError(DataError):
    """A ``validation.group_by`` that the data do not have; `unset`: the file says nothing of it."""

    def __init__(self, what: str, unset: str = "") -> None:
        super().__init__(what)
        self.unset = unset


def unknown_group(group_by: str, groups: Iterable[str]) -> UnknownGroupError:
    """Return the refusal of a ``validation.group_by`` that the data do not have."""
    known = [*groups, "none"]
    must = f"{nearest(group_by, known)}; must be one that the data have: {', '.join(known)}"
    is_ = f"validation.group_by: is {group_by!r}"
    return UnknownGroupError(f"{is_}{must}", f"{is_}, the default{must}")


def as_date(label: str) -> dt.date | None:
    """Return the date of an ISO date or date and time, or of eight digits; else None.

    Examples
    --------
    >>> as_date("20150529") == as_date("2015-05-29 18:00:00") == dt.date(2015, 5, 29)
    True
    >>> as_date("20159999") is None
    True
    """
    try:
        date = dt.datetime.fromisoformat(label.strip()).date()
    except ValueError:
        return None
    # Eight digits far from any weather archive are an identifier.
    return date if 1800 <= date.year < 2200 else None


def _by_date(
    test_from: dt.date, groups: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    dated: dict[str, dict[str, dt.date]] = {}
    for name, values in groups.items():
        dates = {str(label): as_date(str(label)) for label in np.unique(values)}
        if dates and None not in dates.values():
            dated[name] = {label: date for label, date in dates.items() if date is not None}
    if not dated:
        raise DataError(
            f"data.test_from: given {test_from}, but no group holds dates (groups: "
            f"{', '.join(groups) or 'none'}); add one to data.groups, such as "
            "run_date = 'file:(\\d{8})', or use data.test_fraction"
        )
    name = "run_date" if "run_date" in dated else next(iter(dated))
    if name != "run_date" and len(dated) > 1:
        raise DataError(
            f"data.test_from: the groups {', '.join(dated)} all hold dates; call the one that is "
            "meant run_date"
        )
    labels, inverse = np.unique(groups[name], return_inverse=True)
    late = np.array([dated[name][str(label)] >= test_from for label in labels])
    chosen: NDArray[np.bool_] = late[inverse]
    if chosen.all() or not chosen.any():
        kept = "training" if chosen.all() else "test"
        raise DataError(
            f"data.test_from: given {test_from}, which leaves no case in the {kept} part; {name} "
            f"runs from {min(dated[name].values())} to {max(dated[name].values())}"
        )
    return chosen, {"test_from": test_from.isoformat(), "group": name}


def _whole_groups(values: NDArray[Any], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Draw groups until their cases come nearest to the share; at least one stays on each side."""
    labels, inverse, sizes = np.unique(values, return_inverse=True, return_counts=True)
    if len(labels) < 2:
        raise DataError(
            f"data.test_fraction: given {fraction:g}, but there is one group only, and groups stay "
            "whole"
        )
    order = np.random.default_rng(np.random.SeedSequence([seed, _TAG])).permutation(len(labels))
    shares = np.cumsum(sizes[order])[:-1] / len(values)
    count = int(np.argmin(np.abs(shares - fraction))) + 1
    drawn = np.zeros(len(labels), bool)
    drawn[order[:count]] = True
    chosen: NDArray[np.bool_] = drawn[inverse]
    return chosen


def _stratified(labels: NDArray[Any], fraction: float, seed: int) -> NDArray[np.bool_]:
    from sklearn.model_selection import train_test_split

    state = int(np.random.SeedSequence([seed, _TAG]).generate_state(1)[0])
    try:
        _, test = train_test_split(
            np.arange(len(labels)), test_size=fraction, random_state=state, stratify=labels
        )
    except ValueError as error:
        raise DataError(
            f"data.test_fraction: given {fraction:g}, which does not split {len(labels)} cases "
            f"with {int(np.sum(labels))} events ({' '.join(str(error).split())})"
        ) from None
    chosen = np.zeros(len(labels), bool)
    chosen[test] = True
    return chosen
