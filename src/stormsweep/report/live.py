"""Figures that readers can zoom into and point at: Bokeh models, and how a page carries them.

A page holds one library of Bokeh's and, for each figure, the figure as JSON. Nothing is fetched and
nothing is compiled from text in the page, so that its security policy can forbid both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    PanTool,
    PlainText,
    Range1d,
    ResetTool,
    Title,
    WheelZoomTool,
)
from bokeh.plotting import figure
from bokeh.resources import Resources

from stormsweep.report import words
from stormsweep.report.axes import MOST_LABELS, Scale
from stormsweep.report.drawing import counterpart

INK, SOFT, LINE = "#1c1f23", "#5a626b", "#e3e3e3"
_FONT = "system-ui, sans-serif"
#: More rows than these do not carry texts of their own for who points at them.
MOST_TEXTS = 5_000


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a colour, what it means, and the sign that stands in the figure."""

    colour: str
    text: str
    sign: str = "\N{BLACK SQUARE}"


@dataclass(frozen=True)
class Live:
    """A figure for a page that has scripts.

    Attributes
    ----------
    panels : list
        Bokeh models, side by side where there is room; what they share stays shared.
    caption : str
        How to read it, in place of the drawing's caption.
    wide : bool
        Whether each takes the whole width.
    keys, what : list of Key, str
        The legend, and its heading: set by the page, which wraps it where there is little room.
    """

    panels: Sequence[Any]
    caption: str
    wide: bool = True
    keys: Sequence[Key] = ()
    what: str = ""


def canvas(height: int, x_label: str, y_label: str, note: str = "", **options: Any) -> Any:
    """Return an empty figure as wide as there is room, in the page's own look.

    Parameters
    ----------
    height : int
        In pixels of the page.
    x_label, y_label : str
        Of the axes, as they are: nothing in them is read as mathematics.
    note : str
        What stands at its foot, such as that the data are synthetic.
    options
        What `bokeh.plotting.figure` takes besides.
    """
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        min_width=240,
        tools=[],
        toolbar_location="above",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        output_backend="canvas",
        **options,
    )
    plot.toolbar.logo = None
    for axis, label in ((plot.xaxis, x_label), (plot.yaxis, y_label)):
        axis.axis_label = PlainText(text=label)
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_label_text_font = axis.major_label_text_font = _FONT
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
        axis.axis_line_color = axis.major_tick_line_color = SOFT
        axis.minor_tick_line_color = None
    plot.grid.grid_line_color = LINE
    plot.xgrid.grid_line_color = None
    if note:
        foot = Title(text=note, align="right", text_color=SOFT, text_font=_FONT)
        foot.update(text_font_size="12px", text_font_style="normal")
        plot.add_layout(foot, "below")
    return plot


def tools(plot: Any, dimensions: str = "both", extra: Sequence[Any] = ()) -> None:
    """Let a reader zoom by drawing a box, by the wheel (once chosen), move, and go back."""
    box = BoxZoomTool(dimensions=dimensions)
    plot.add_tools(box, PanTool(dimensions=dimensions), WheelZoomTool(dimensions=dimensions))
    plot.add_tools(*extra, ResetTool())
    plot.toolbar.active_drag = box
    plot.toolbar.active_scroll = None


def hover(rows: Sequence[tuple[str, str]], renderers: Sequence[Any], **options: Any) -> Any:
    """Return a tool that tells these facts of what is pointed at: label and ``@{column}``.

    A column of numbers with ``{%...}`` behind it is written as C would.
    """
    printed = {
        found.group(1): "printf"
        for _, text in rows
        for found in re.finditer(r"(@\{\w+\})\{%", text)
    }
    shown = [(re.sub("[@$]", "", label), text) for label, text in rows]
    return HoverTool(tooltips=shown, renderers=list(renderers), formatters=printed, **options)


def numbers(values: Any) -> Any:
    """Return numbers in the least room that figures need."""
    return np.asarray(values, dtype="float32")


def facts(
    frame: pd.DataFrame, columns: dict[str, str]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the hyperparameters of rows as columns of a source, and what `hover` says of them.

    Texts are left out where there are many rows.
    """
    data: dict[str, Any] = {}
    said: list[tuple[str, str]] = []
    for place, (name, column) in enumerate(columns.items()):
        key, values = f"h{place}", frame[column]
        plain = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        if plain:
            data[key] = numbers(values)
            said.append((words.label(name), f"@{{{key}}}{{%.6g}}"))
        elif len(frame) <= MOST_TEXTS:
            data[key] = [words.short(words.value(value), 60) for value in values]
            said.append((words.label(name), f"@{{{key}}}"))
    return data, said


def span(scale: Scale) -> Any:
    """Return the range of an axis that shows a scale's values."""
    at = [scale.place(value) for value in scale.values]
    low, high = min(at), max(at)
    if scale.kind in ("log", "log2"):
        margin = (high / low) ** 0.08 if high > low else 2.0
        return Range1d(low / margin, high * margin)
    gap = (high - low) / max(len(at) - 1, 1)
    margin = max(0.08 * (high - low), 0.3 * gap, 0.5 * (scale.kind == "steps")) or 0.5
    return Range1d(low - margin, high + margin)


def axis(plot: Any, which: Any, scale: Scale) -> None:
    """Put ticks at a scale's values with their texts, where they are few."""
    if not scale.labelled and scale.kind != "steps":
        if scale.kind in ("log", "log2"):
            at = scale.log_ticks()
            which.ticker = FixedTicker(ticks=at)
            which.major_label_overrides = {
                _tick(place): PlainText(text=f"{place:.6g}") for place in at
            }
        return
    step = -(-len(scale.values) // MOST_LABELS)
    shown = scale.values[::step]
    which.ticker = FixedTicker(ticks=[scale.place(value) for value in shown])
    which.major_label_overrides = {
        _tick(scale.place(value)): PlainText(text=words.short(words.value(value), 16))
        for value in shown
    }
    if sum(len(words.short(words.value(value), 16)) + 2 for value in shown) > 34:
        which.major_label_orientation = 0.7


def _tick(place: float) -> Any:
    return int(place) if place == int(place) else place


def source(**columns: Any) -> Any:
    """Return a source of these columns."""
    return ColumnDataSource(data=columns)


def script() -> str:
    """Return the part of Bokeh's own script that the figures need: no widgets, tables or maths."""
    return str(Resources(mode="inline", components=["bokeh"]).js_raw[0])


def as_json(figures: dict[str, Live]) -> str:
    """Return figures as the page's script takes them: the same text for the same figures.

    Parameters
    ----------
    figures : dict of str to Live
        By name.
    """
    shown = {}
    for name, live in figures.items():
        document = Document()
        for panel in live.panels:
            document.add_root(panel)
        roots = [panel.id for panel in live.panels]
        text = str(serialize_json({"document": document.to_json(deferred=False), "roots": roots}))
        shown[name] = _counted_anew(text)
    body = ",".join(f"{json.dumps(name)}:{text}" for name, text in shown.items())
    used = sorted(set(re.findall(r'"(#[0-9a-f]{6})"', body)))
    dark = json.dumps({colour: counterpart(colour) for colour in used})
    # In a script element, only the end of one can end it.
    return f'{{"figures":{{{body}}},"dark":{dark}}}'.replace("<", "\\u003c")


def _counted_anew(text: str) -> str:
    """Return a document with its models numbered from 0: Bokeh counts over a process's life."""
    known: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return f'"p{known.setdefault(found[1], str(len(known)))}"'

    return re.sub(r'"p(\d+)"', name, text)
