"""Scores by month, by hour, by region: where a forecast is good, and where nobody can tell."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stormsweep.data.split import as_date
from stormsweep.verification.forecasts import Forecasts
from stormsweep.verification.resampling import LEVEL, RESAMPLES
from stormsweep.verification.scores import Estimate, estimate
from stormsweep.wording import counted

#: Events, and cases without, that a group needs before it is scored.
LEAST_EVENTS = 10
#: A grouping into more groups than this is no table to read.
MOST_GROUPS = 24
#: What groups are compared by.
SCORES = ("roc_auc", "brier_skill_score", "csi", "pod", "far", "bias")


@dataclass(frozen=True, slots=True)
class Group:
    """The scores of one group.

    Attributes
    ----------
    label : str
        What it is called.
    cases, events, blocks : int
        How many cases, events, and blocks (such as run dates) it has.
    scores : dict of str to Estimate
        By the names of `SCORES`; empty where it has too few events.
    remark : str
        Why there are no scores, or no intervals; else empty.
    """

    label: str
    cases: int
    events: int
    blocks: int
    scores: dict[str, Estimate]
    remark: str


def groupings(labels: Mapping[str, NDArray[np.str_]]) -> dict[str, NDArray[np.str_]]:
    """Return the ways to group cases that make a table to read.

    Parameters
    ----------
    labels : mapping of str to ndarray of str, shape (n,)
        The groups that the data have.

    Returns
    -------
    dict of str to ndarray of str
        ``month``, where ``run_date`` holds dates; then every group of 2 to 24 labels but the dates.

    Examples
    --------
    >>> found = groupings({"run_date": np.array(["2015-05-01", "2016-06-02"])})
    >>> {name: list(map(str, values)) for name, values in found.items()}
    {'month': ['May', 'Jun']}
    """
    found: dict[str, NDArray[np.str_]] = {}
    for name, values in labels.items():
        distinct, inverse = np.unique(values, return_inverse=True)
        dates = [as_date(str(label)) for label in distinct]
        if distinct.size and None not in dates:
            months = [calendar.month_abbr[date.month] for date in dates if date is not None]
            if name == "run_date" and len(set(months)) > 1:
                found = {"month": np.array(months)[inverse], **found}
        elif 2 <= distinct.size <= MOST_GROUPS:
            found[name] = np.asarray(values, dtype=np.str_)
    return found


def in_order(name: str, labels: NDArray[np.str_]) -> list[str]:
    """Return the distinct labels of a grouping in the order to read them.

    Months as in the year, numbers by value, all else by name.
    """
    distinct = [str(label) for label in np.unique(labels)]
    if name == "month" and set(distinct) <= set(calendar.month_abbr):
        return sorted(distinct, key=list(calendar.month_abbr).index)
    if all(label.lstrip("-").isdigit() for label in distinct):
        return sorted(distinct, key=int)
    return sorted(distinct)


def by_group(
    forecasts: Forecasts,
    name: str,
    labels: NDArray[np.str_],
    threshold: float,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> list[Group]:
    """Score each group of cases by itself.

    Intervals resample the blocks that have cases in the group. Groups with fewer than
    `LEAST_EVENTS` events, or cases without, are counted and not scored.

    Parameters
    ----------
    forecasts : Forecasts
        All forecasts.
    name : str
        Of the grouping, such as ``month``.
    labels : ndarray of str, shape (n,)
        The group of each case.
    threshold, seed, resamples, level : float, int, int, float
        As in `scores.estimate`.

    Returns
    -------
    list of Group
        In the order of `in_order`.
    """
    found = []
    for label in in_order(name, labels):
        own = forecasts.of(labels == label)
        events, others = own.events, len(own) - own.events
        scored: dict[str, Estimate] = {}
        remark = ""
        if events < LEAST_EVENTS or others < LEAST_EVENTS:
            few, what = (events, "event") if events < LEAST_EVENTS else (others, "non-event")
            remark = f"{counted(few, what)}: too few to score"
        else:
            every = estimate(own, threshold, seed=seed, resamples=resamples, level=level)
            scored = {score: every[score] for score in SCORES}
            if np.isnan(scored["roc_auc"].low):
                what = own.block_name.replace("_", " ")
                remark = f"{counted(own.blocks, what)}: no interval"
        found.append(Group(label, len(own), events, own.blocks, scored, remark))
    return found
