"""Figure of the test part's scores by month, hour and region."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.ticker
import numpy as np

from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.style import (
    BLUE,
    GREY,
    NARROW,
    PALE,
    WIDE,
    Picture,
    legend_above,
    new_figure,
)
from stormsweep.report.tested_words import group_frame
from stormsweep.report.verification import level
from stormsweep.verification.groups import LEAST_EVENTS, Group

_GROUP_SCORES = ("roc_auc", "brier_skill_score", "csi")


def group_picture(material: Material) -> Picture | None:
    """Show the scores by month, hour and region; none where the data have no such groups."""
    found = material.tested
    if found is None or not found.groups:
        return None
    names = list(found.groups)[:3]
    figure = new_figure(WIDE if len(names) > 1 else NARROW, 4.6, material.synthetic_note)
    sizes = [max(9, len(found.groups[name])) for name in names]
    room = (figure.get_figwidth() - 0.9) / sum(sizes)
    grid = figure.subplots(
        len(_GROUP_SCORES) + 1,
        len(names),
        squeeze=False,
        sharex="col",
        sharey="row",
        width_ratios=sizes,
        height_ratios=(*(1 for _ in _GROUP_SCORES), 0.7),
    )
    for column, name in enumerate(names):
        groups = found.groups[name]
        at = np.arange(len(groups))
        for row, score in enumerate(_GROUP_SCORES):
            _group_scores(grid[row, column], groups, score, found.record.scores[score][0])
        events = np.array([group.events for group in groups])
        colours = [BLUE if group.scores else PALE for group in groups]
        grid[-1, column].bar(at, events, 0.7, color=colours, alpha=0.6, lw=0)
        grid[-1, column].set_xlabel(_grouping(name))
        _group_ticks(grid[-1, column], groups, room * sizes[column])
    for row, score in enumerate(_GROUP_SCORES):
        grid[row, 0].set_ylabel(_SHORT[score])
    grid[-1, 0].set_ylabel("Events")
    figure.align_ylabels(grid[:, 0])
    scored = [group for name in names for group in found.groups[name] if group.scores]
    unsure = [group for group in scored if group.remark]
    line = mpl.lines.Line2D
    handles, texts = [], []
    sure, name_of_block = len(unsure) < len(scored), words.label(found.record.block) + "s"
    if sure:
        handles.append(line([], [], color=BLUE, marker="o", ms=4, lw=1.1))
        texts.append("group, with its interval")
    if unsure:
        handles.append(line([], [], color=BLUE, marker="o", ms=4, mfc="white", ls=""))
        texts.append("too few " + f"{words.label(found.record.block)}s for an interval")
    handles.append(line([], [], color=GREY, lw=0.8, ls=(0, (4, 3))))
    legend_above(figure, handles, [*texts, "all test cases"])
    bars = f", with {level(found)} intervals from resampled {name_of_block}" if sure else ""
    few = sum(not group.scores for name in names for group in found.groups[name])
    return Picture(
        "verification-groups",
        f"Scores of the test set by {_and([words.label(name) for name in names])}",
        "ROC AUC, Brier skill score against the training part's climatology, and critical success "
        f"index at the decision threshold{bars}; beneath, the number of events. Each group is "
        "scored by itself: scores of groups differ also because their events are more or less "
        "frequent."
        + (
            f" {words.capital(words.count(few, 'group'))} with fewer than {LEAST_EVENTS} events "
            "(pale) cannot be scored."
            if few
            else ""
        ),
        figure,
        group_frame(found, names),
    )


_SHORT = {"roc_auc": "ROC AUC", "brier_skill_score": "BSS", "csi": "CSI"}
_GROUPINGS = {"month": "Month", "hour": "Hour (valid time, UTC)", "region": "Region"}


def _grouping(name: str) -> str:
    return _GROUPINGS.get(name, words.capital(words.label(name)))


def _group_scores(axis: Any, groups: list[Group], score: str, whole: float) -> None:
    for place, group in enumerate(groups):
        if not group.scores:
            continue
        own = group.scores[score]
        if np.isfinite(own.low):
            axis.plot([place, place], [own.low, own.high], color=BLUE, lw=1.1, alpha=0.7)
        face = "white" if group.remark else BLUE
        axis.plot(place, own.value, "o", color=BLUE, mfc=face, ms=4)
    axis.axhline(whole, color=GREY, lw=0.8, ls=(0, (4, 3)))
    axis.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    axis.margins(y=0.12)


def _group_ticks(axis: Any, groups: list[Group], width: float) -> None:
    """Name the groups beneath a panel of a width in inches; turn the names where they are long."""
    labels = [words.short(group.label, 18) for group in groups]
    crowded = sum(0.066 * len(label) + 0.07 for label in labels) > width
    numbers = all(label.isdigit() for label in labels)
    step = 2 if crowded and numbers else 1
    axis.set_xticks(np.arange(len(labels))[::step], labels[::step])
    axis.set_xlim(-0.7, len(labels) - 0.3)
    if crowded and not numbers:
        axis.tick_params(axis="x", labelrotation=40)
        for text in axis.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
