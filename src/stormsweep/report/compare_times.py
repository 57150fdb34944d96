"""Figures of a comparison's times and costs, against batch size or whatever was varied."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd

from stormsweep.report import words
from stormsweep.report.axes import Scale, places, scale_for
from stormsweep.report.compare_figures import line_style, note, slug
from stormsweep.report.style import GREY, NARROW, Picture, legend_above, new_figure
from stormsweep.scaling.comparison import SAME_WORK, Comparison


def basis(found: Comparison) -> tuple[str, str]:
    """Return what times can be compared by: ``all``, ``fit`` or ``cases``, and what that is.

    The time of all fits of a value of x, where every line did the same; else the time per fit,
    where their fits are the same work; else the time per million cases that the fits ask for.
    """
    table = found.times
    if not found.x or len(table) == 0:
        return "all", ""
    per_fit = table.assign(each=table["asked"] / table["fits"]).groupby(found.x)["each"]
    counts = table.groupby(found.x)["fits"]
    alike = bool(((per_fit.max() / per_fit.min() - 1) <= SAME_WORK).all())
    if alike and bool((counts.max() == counts.min()).all()):
        return "all", f"all fits of a {words.label(found.x)}"
    if alike:
        return "fit", "each fit"
    return "cases", f"each million {found.cases} that the fits ask for"


def _by_basis(found: Comparison, column: str) -> pd.Series[Any]:
    table = found.times
    kind, _ = basis(found)
    if kind == "all":
        return table[column]
    return table[column] / (table["fits"] if kind == "fit" else table["asked"] / 1e6)


def _scale(found: Comparison) -> Scale | None:
    if not found.x or found.times.empty:
        return None
    scale = scale_for(found.x, found.times[found.x])
    return scale if len(scale.values) > 1 else None


def time_picture(found: Comparison) -> Picture | None:
    """Show time against batch size, one line for each kind of node; beneath, the speed-up."""
    scale, table = _scale(found), found.times
    if scale is None:
        return None
    kind, what = basis(found)
    seconds = _by_basis(found, "node_seconds")
    unit, size = words.time_unit(float(seconds.max()))
    ratio = "rate_ratio" if kind == "cases" else "speedup"
    gains = found.speedups
    gains = gains[(gains["measure"] == "node time") & gains[found.x].notna()]
    gains = gains[np.isfinite(gains[ratio].to_numpy(dtype=float))]
    figure = new_figure(NARROW, 3.6 if len(gains) else 2.6, note(found))
    if len(gains):
        top, low = figure.subplots(2, 1, sharex=True, height_ratios=(1.9, 1))
    else:
        top, low = figure.subplots(), None
    handles, texts = [], []
    for place, line in enumerate(found.lines):
        own = table["line"] == line.name
        at = places(scale, table.loc[own, found.x])
        _trace(top, at, seconds[own] / size, scale, line_style(place))
        handles.append(mpl.lines.Line2D([], [], **line_style(place)))
        texts.append(words.short(line.name, 34))
        if low is not None:
            part = gains[gains["line"] == line.name]
            _trace(low, places(scale, part[found.x]), part[ratio], scale, line_style(place))
    top.set_ylabel(
        {
            "all": f"Time of one node ({unit})",
            "fit": f"Node time per fit ({unit})",
            "cases": f"Node {unit} per million {found.cases}",
        }[kind]
    )
    top.set_ylim(0, 1.06 * top.get_ylim()[1])
    scale.apply(top, label=low is None)
    if low is not None:
        top.tick_params(labelbottom=False)
        scale.apply(low)
        low.axhline(1, color=GREY, lw=0.9, ls=(0, (4, 3)))
        low.set_ylabel("Ratio of speeds" if kind == "cases" else "Speed-up")
        low.set_ylim(0, 1.12 * max(low.get_ylim()[1], 1.0))
        low.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, min_n_ticks=3))
        figure.align_ylabels([top, low])
    legend_above(figure, handles, texts)
    return Picture(
        f"time-{slug(found.x)}",
        f"Time against {words.label(found.x)}",
        _time_caption(found, kind, what, low is not None),
        figure,
        _drawn(found, "node_seconds", seconds).merge(
            gains[["line", found.x, ratio]], how="left", on=["line", found.x]
        ),
    )


def _time_caption(found: Comparison, kind: str, what: str, gains: bool) -> str:
    text = f"Time that {what} would take one node alone: " if kind == "all" else ""
    text = text or f"Time of one node for {what}: "
    text += "the workers' time in tasks, shared by the workers of a node"
    if any(side.published for side in found.sides):
        text += "; published times are wall times of one grid search on one node"
    text += "."
    if kind == "cases":
        text += (
            " The studies did not do the same work, so their times are set against the "
            f"{found.cases} that their fits ask for (epochs times cases of an epoch, whether or "
            "not fits shared their training)."
        )
    if gains:
        says = "ratio of these speeds" if kind == "cases" else "speed-up on the same fits"
        text += f" Beneath, the {says} against {found.lines[0].name}."
    return text


def _trace(axis: Any, at: list[float], heights: Any, scale: Scale, style: dict[str, Any]) -> None:
    order = np.argsort(at, kind="stable")
    line = "" if scale.kind == "steps" else "-"
    axis.plot(np.array(at)[order], np.asarray(heights, float)[order], linestyle=line, **style)


def cost_picture(found: Comparison) -> Picture | None:
    """Show the cores' time of a fit against batch size, one line for each kind of node."""
    scale, table = _scale(found), found.times
    if scale is None or not (table["core_seconds"] > 0).any():
        return None
    kind, _ = basis(found)
    per_fit = kind != "cases"
    over = table["fits"] if per_fit else table["asked"] / 1e6
    seconds = table["core_seconds"] / over
    unit, size = words.time_unit(float(seconds.max()))
    figure = new_figure(NARROW, 2.5, note(found))
    axis = figure.subplots()
    handles, texts = [], []
    for place, line in enumerate(found.lines):
        own = table["line"] == line.name
        _trace(
            axis,
            places(scale, table.loc[own, found.x]),
            seconds[own] / size,
            scale,
            line_style(place),
        )
        handles.append(mpl.lines.Line2D([], [], **line_style(place)))
        texts.append(words.short(line.name, 34))
    scale.apply(axis)
    axis.set_ylabel(
        f"Core time per fit ({unit})" if per_fit else f"Core {unit} per million {found.cases}"
    )
    axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
    legend_above(figure, handles, texts)
    return Picture(
        f"cost-{slug(found.x)}",
        f"Core time against {words.label(found.x)}",
        "Time in tasks times the threads of the worker, per "
        f"{'fit' if per_fit else f'million {found.cases} asked for'}: what the same answer cost in "
        "cores."
        + (
            " Published: the time of a node times all its cores."
            if any(side.published for side in found.sides)
            else ""
        ),
        figure,
        _drawn(found, "core_seconds", seconds),
    )


def _drawn(found: Comparison, name: str, seconds: Any) -> pd.DataFrame:
    """Return what a figure of time shows, and how much work that was."""
    table = found.times[["line", found.x, "fits", "asked", name]]
    return table.assign(drawn_seconds=seconds)
