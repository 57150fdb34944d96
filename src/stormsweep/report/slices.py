"""The score against each hyperparameter, one by one: drawn, and as panels that are linked."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.patches
import numpy as np
import pandas as pd

from stormsweep.report import words
from stormsweep.report.axes import Scale, places, scale_of
from stormsweep.report.material import Material
from stormsweep.report.scored import drawn, limits
from stormsweep.report.style import (
    BLUE,
    GREY,
    NARROW,
    PALE,
    RED,
    WIDE,
    Picture,
    legend_above,
    new_figure,
)

MOST_SLICES = 9
#: More configurations than these are drawn without their spread over folds, and as pixels.
MOST_BARS, MOST_VECTORS = 200, 2000
#: A trend over a range is drawn from parts of it of this many configurations or more.
_LEAST, _PARTS = 6, 8


def slice_picture(material: Material, table: pd.DataFrame) -> Picture:
    """Return the score against each hyperparameter, one point for each configuration."""
    names = material.varied[:MOST_SLICES]
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure((NARROW, 5.4, WIDE)[columns - 1], 2.35 * rows, material.synthetic_note)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    heights = table[f"{material.metric}_mean"].to_numpy(dtype=float)
    complete = table["complete"].to_numpy(dtype=bool)
    bars = len(table) <= MOST_BARS
    medians = False
    for axis, name in zip(grid.flat, names, strict=False):
        values = table[material.columns[name]]
        scale = scale_of(material, name, values)
        at, places_of = _side_by_side(scale, values)
        _points(axis, material, table, at, bars)
        for where, own in _trend(scale, places_of, heights):
            axis.plot(where, own, color="#222222", lw=1.4, zorder=4, solid_capstyle="butt")
            medians = True
        axis.plot(at[:1], heights[:1], "o", ms=9, mfc="none", mec=RED, mew=1.4, zorder=5)
        scale.apply(axis)
        if (reach := _reach(scale)) is not None:
            axis.set_xlim(*reach)
    for axis in grid.flat[len(names) :]:
        axis.set_visible(False)
    for row in grid:
        row[0].set(ylabel=words.capital(material.metric_label), ylim=_heights(material, table))
    line = mpl.lines.Line2D
    handles = [line([], [], ls="", marker="o", color=BLUE, alpha=0.65, mew=0)]
    texts = ["configuration"]
    if bars:
        handles.append(line([], [], color=PALE, lw=1))
        texts.append("± SD over folds")
    if not complete.all():
        handles.append(line([], [], ls="", marker="o", color=BLUE, mfc="white"))
        texts.append("not all folds scored")
    if medians:
        handles.append(line([], [], color="#222222", lw=1.4))
        texts.append("median")
    handles.append(line([], [], ls="", marker="o", ms=9, mfc="none", mec=RED, mew=1.4))
    texts.append("best")
    legend_above(figure, handles, texts)
    return Picture(
        "score-slices",
        f"{words.capital(material.metric_label)} against each hyperparameter",
        _caption(material, bars, medians),
        figure,
        drawn(material, table),
        lambda: _live(material, table),
    )


def _caption(material: Material, bars: bool, medians: bool) -> str:
    left_out = [words.label(name) for name in material.varied[MOST_SLICES:]]
    spread = ", with the standard deviation over them either way" if bars else ""
    lines = "Dark lines: the median of the configurations with a value, or in a part of a range. "
    return (
        f"Each point is one configuration: its mean {material.metric_label} over the validation "
        f"folds{spread}. {lines if medians else ''}The other hyperparameters differ from point to "
        "point, so a trend across a panel may be theirs."
        + (f" Not shown: {', '.join(left_out)}." if left_out else "")
    )


def _heights(material: Material, table: pd.DataFrame) -> tuple[float, float]:
    """Return the limits of the vertical axis: all scores, with their spread where it is drawn."""
    heights = table[f"{material.metric}_mean"]
    if len(table) > MOST_BARS:
        return limits(heights)
    sd = table[f"{material.metric}_sd"].fillna(0.0)
    return limits(pd.concat([heights - sd, heights + sd]))


def _side_by_side(scale: Scale, values: pd.Series[Any]) -> tuple[Any, Any]:
    """Return where points are drawn and where their values are.

    Points of one value stand beside each other, so that equal scores stay apart.
    """
    exact = np.array(places(scale, values), dtype=float)
    if not scale.by_value:
        return exact, exact
    shift = np.linspace(-1, 1, 7)[np.arange(len(exact)) % 7]
    distinct = sorted(scale.place(value) for value in scale.values)
    if scale.kind in ("log", "log2"):
        ratios = np.diff(np.log(distinct))
        return exact * np.exp(shift * 0.18 * (ratios.min() if len(ratios) else 1.0)), exact
    gaps = np.diff(distinct)
    return exact + shift * 0.18 * (gaps.min() if len(gaps) else 1.0), exact


def _reach(scale: Scale) -> tuple[float, float] | None:
    """Return from where to where points and strokes of few values reach, with a little room."""
    if not scale.by_value:
        return None
    at = np.array(sorted(scale.place(value) for value in scale.values), dtype=float)
    log = scale.kind in ("log", "log2")
    gaps = np.diff(np.log(at) if log else at)
    room = 0.34 * (gaps.min() if len(gaps) else 1.0)
    if log:
        return float(at[0] * np.exp(-room)), float(at[-1] * np.exp(room))
    return float(at[0] - room), float(at[-1] + room)


def _points(axis: Any, material: Material, table: pd.DataFrame, at: Any, bars: bool) -> None:
    heights = table[f"{material.metric}_mean"].to_numpy(dtype=float)
    complete = table["complete"].to_numpy(dtype=bool)
    many = len(table) > MOST_VECTORS
    if bars:
        sd = np.nan_to_num(table[f"{material.metric}_sd"].to_numpy(dtype=float))
        axis.vlines(at, heights - sd, heights + sd, color=PALE, lw=1, zorder=1)
    style: dict[str, Any] = {"color": BLUE, "rasterized": many, "ms": 2.0 if many else 4.0}
    alpha = 0.65 if len(table) <= MOST_BARS else 0.3
    axis.plot(at[complete], heights[complete], "o", alpha=alpha, mew=0, **style)
    axis.plot(at[~complete], heights[~complete], "o", mfc="white", alpha=0.8, **style)


def _trend(scale: Scale, at: Any, heights: Any) -> list[tuple[Any, Any]]:
    """Return lines of the median score: a stroke at each of few values, else one over the range."""
    log = scale.kind in ("log", "log2")
    if scale.by_value:
        distinct = np.unique(at)
        steps = np.diff(np.log(distinct) if log else distinct)
        half = 0.26 * (steps.min() if len(steps) else 1.0)
        lines = []
        for place in distinct:
            if scale.ranged and np.sum(at == place) == 1:
                # Of one draw from a range there is no median.
                continue
            median = float(np.median(heights[at == place]))
            ends = np.array([-half, half])
            lines.append((place * np.exp(ends) if log else place + ends, [median, median]))
        return lines
    parts = min(_PARTS, len(at) // _LEAST)
    if parts < 2:
        return []
    order = np.argsort(at, kind="stable")
    groups = np.array_split(order, parts)
    where = [float(np.median(at[own])) for own in groups]
    return [(where, [float(np.median(heights[own])) for own in groups])]


def _live(material: Material, table: pd.DataFrame) -> Any:
    """Return the panels with one source: what is chosen in one is chosen in all."""
    from bokeh.models import BoxSelectTool, Range1d, TapTool

    from stormsweep.report import live

    metric, metric_label = material.metric, material.metric_label
    bars = len(table) <= MOST_BARS
    heights = table[f"{metric}_mean"].to_numpy(dtype=float)
    sd = np.nan_to_num(table[f"{metric}_sd"].to_numpy(dtype=float))
    columns = {name: material.columns[name] for name in material.varied}
    data, said = live.facts(table, columns)
    data |= {
        "score": live.numbers(heights),
        "sd": live.numbers(sd),
        "low": live.numbers(heights - sd),
        "high": live.numbers(heights + sd),
        "rank": table["rank"].to_numpy(dtype="int32"),
    }
    said = [
        ("rank", "@{rank}"),
        *said,
        (material.metric_label, "@{score}{%.4f}"),
        ("SD over folds", "@{sd}{%.4f}"),
    ]
    scales = {
        name: scale_of(material, name, table[material.columns[name]])
        for name in material.varied[:MOST_SLICES]
    }
    for number, (name, scale) in enumerate(scales.items()):
        data[f"x{number}"] = live.numbers(_side_by_side(scale, table[material.columns[name]])[0])
    source, heads = live.source(**data), Range1d(*_heights(material, table))
    panels = []
    for number, (name, scale) in enumerate(scales.items()):
        log, reach = scale.kind in ("log", "log2"), _reach(scale)
        plot = live.canvas(
            260,
            words.capital(words.short(words.label(name), 40)),
            words.capital(material.metric_label),
            material.synthetic_note,
            x_axis_type="log" if log else "linear",
            x_range=live.span(scale) if reach is None else Range1d(*reach),
            y_range=heads,
        )
        live.axis(plot, plot.xaxis, scale)
        if bars:
            plot.segment(
                f"x{number}",
                "low",
                f"x{number}",
                "high",
                source=source,
                line_color=GREY.lower(),
                line_alpha=0.5,
            )
        points = plot.scatter(
            f"x{number}",
            "score",
            source=source,
            size=7 if len(table) <= MOST_VECTORS else 4,
            fill_color=BLUE.lower(),
            line_color=None,
            fill_alpha=0.7 if len(table) <= MOST_VECTORS else 0.35,
            selection_fill_color=RED.lower(),
            selection_fill_alpha=1.0,
            nonselection_fill_color=GREY.lower(),
            nonselection_fill_alpha=0.2,
        )
        chooser = BoxSelectTool(renderers=[points])
        live.tools(plot, "both", [live.hover(said, [points]), chooser, TapTool(renderers=[points])])
        plot.toolbar.active_drag = chooser
        panels.append(plot)
    return live.Live(
        panels,
        f"Each point is one configuration: its mean {metric_label} over the validation folds"
        f"{', with the standard deviation over them either way' if bars else ''}. Draw a box, or "
        "tap a point, and the same configurations stand out in every panel. The other "
        "hyperparameters differ from point to point, so a trend across a panel may be theirs.",
        wide=False,
    )
