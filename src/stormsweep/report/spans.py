"""A timeline of workers drawn, for paper and to look at closely: of a study or of a simulation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import matplotlib.collections
import matplotlib.lines
import matplotlib.patches
import numpy as np
import pandas as pd

from stormsweep.report import words
from stormsweep.report.style import GREY, WIDE, legend_above, new_figure

MOST_ROWS, MOST_VECTORS, MOST_LABELS = 48, 3000, 3
#: More bars than these are not drawn to be looked at closely: the page would become too large.
MOST_LIVE, MOST_OVERVIEW = 100_000, 20_000
#: What a task does besides training.
BESIDES = "open, build, compile, score, save"


@dataclass(frozen=True)
class Mark:
    """Instants of a kind, each at a worker.

    Attributes
    ----------
    text, marker, live, sign, colour : str
        What they are; the marker of matplotlib, that of Bokeh, a character like it, and its colour.
    workers, at, reasons : list
        Of each: the worker, the seconds since the begin, and what a reader is told.
    """

    text: str
    marker: str
    live: str
    sign: str
    colour: str
    workers: list[str]
    at: list[float]
    reasons: list[str]


@dataclass(frozen=True)
class Spans:
    """What is drawn.

    Attributes
    ----------
    bars : DataFrame
        One row a bar: ``worker``, ``begun`` and ``ended`` in seconds since the begin; of these
        ``head`` seconds before training and ``train`` in it; ``code``, the place of its colour;
        and what a reader is told: the columns of `columns`, and of ``run``, ``fold``,
        ``from_epoch``, ``to_epoch``, ``patches_per_second`` those that are there.
    workers : list of str
        From the top down.
    length : float
        Seconds from the begin to the end.
    colours, texts, what : list of str, list of str, str
        The colours of training, what each means, and by what they tell bars apart.
    columns : dict of str to str
        Hyperparameters and their columns in `bars`.
    marks : list of Mark
        What happened besides.
    pauses : list of (float, float)
        Where time was cut out, and how much.
    note : str
        Such as that the data are synthetic.
    cases : str
        What the cases are called.
    """

    bars: pd.DataFrame
    workers: list[str]
    length: float
    colours: list[str]
    texts: list[str]
    what: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    note: str = ""
    cases: str = "cases"

    @property
    def rows(self) -> dict[str, int]:
        """The row of each worker."""
        return {name: place for place, name in enumerate(self.workers)}

    @property
    def x_label(self) -> str:
        """What the horizontal axis is called."""
        what = "at work, pauses cut out" if self.pauses else "since the begin"
        return f"Time {what} ({words.time_unit(self.length)[0]})"


def drawn(spans: Spans) -> Any:
    """Return the timeline as a figure for paper."""
    names, bars = spans.workers, spans.bars
    thin = len(names) > MOST_ROWS
    height = 0.75 + (MOST_ROWS * 0.09 if thin else max(0.26 * len(names), 0.5))
    figure = new_figure(WIDE, height, spans.note)
    axis = figure.subplots()
    _, size = words.time_unit(spans.length)
    row = bars["worker"].map(spans.rows).to_numpy(dtype=float)
    begun, ended, train_from, train_to = (part / size for part in _edges(bars))
    colours = np.array([mpl.colors.to_rgba(colour) for colour in spans.colours])
    faces = colours[bars["code"].to_numpy(dtype=int)]
    grey = np.broadcast_to(mpl.colors.to_rgba(GREY), faces.shape)
    # Each bar twice, the training on top of the whole.
    boxes: Any = np.concatenate(
        [_boxes(begun, ended, row), _boxes(train_from, train_to, row)], axis=1
    )
    axis.add_collection(
        mpl.collections.PolyCollection(
            boxes.reshape(-1, 4, 2),
            facecolors=np.stack([grey, faces], axis=1).reshape(-1, 4),
            edgecolors="white",
            linewidths=0.3 if len(bars) <= 400 else 0.0,
            rasterized=2 * len(bars) > MOST_VECTORS,
        )
    )
    handles: list[Any] = [mpl.patches.Patch(facecolor=colour) for colour in spans.colours]
    texts = [*spans.texts, BESIDES]
    handles.append(mpl.patches.Patch(facecolor=GREY))
    for mark in spans.marks:
        style: dict[str, Any] = {"marker": mark.marker, "color": mark.colour, "ls": ""}
        style |= {"mec": "black", "mew": 0.6, "ms": 7}
        at = np.array(mark.at) / size
        rows = [spans.rows[worker] for worker in mark.workers]
        axis.plot(at, rows, **style, zorder=5, clip_on=False)
        handles.append(mpl.lines.Line2D([], [], **style))
        texts.append(mark.text)
    legend_above(figure, handles, texts, spans.what)
    for start, pause in spans.pauses:
        axis.axvline(start / size, color="#222222", linewidth=0.9, linestyle=(0, (3, 2)))
        if len(spans.pauses) <= MOST_LABELS:
            axis.annotate(
                f"stopped for {words.duration(pause)}",
                (start / size, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
            )
    step = max(1, -(-len(names) // MOST_ROWS) * 4) if thin else 1
    axis.set_yticks(range(0, len(names), step), [called(name) for name in names[::step]])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlim(0, spans.length / size)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(spans.x_label)
    return figure


def _edges(bars: pd.DataFrame) -> tuple[Any, Any, Any, Any]:
    """Return in seconds where bars begin and end, and where the training in them does."""
    begun, ended = (bars[name].to_numpy(dtype=float) for name in ("begun", "ended"))
    train_from = np.minimum(begun + bars["head"].to_numpy(dtype=float), ended)
    train_to = np.minimum(train_from + bars["train"].to_numpy(dtype=float), ended)
    return begun, ended, train_from, train_to


def _boxes(left: Any, right: Any, row: Any) -> Any:
    """Return the corners of one box a bar, of the shape (bars, 1, 4, 2)."""
    x = np.stack([left, left, right, right], axis=1)
    y = np.stack([row - 0.38, row + 0.38, row + 0.38, row - 0.38], axis=1)
    return np.stack([x, y], axis=2)[:, None]


def live(spans: Spans, caption: str) -> Any:
    """Return the timeline to zoom into and to point at; None where it has too many bars."""
    if len(spans.bars) > MOST_LIVE:
        return None
    from bokeh.models import FixedTicker, PlainText, Range1d
    from bokeh.transform import linear_cmap

    from stormsweep.report import live as lively

    names, (unit, size) = spans.workers, words.time_unit(spans.length)
    end = spans.length / size
    plot = lively.canvas(
        min(max(110 + 26 * len(names), 200), 640),
        spans.x_label,
        "",
        spans.note,
        x_range=Range1d(0, end, bounds=(0, end), min_interval=end / 1e5),
        y_range=Range1d(len(names) - 0.4, -0.6),
    )
    data, said = _told(spans, size, unit)
    source = lively.source(**data)
    bars = plot.hbar("y", 0.76, "right", "left", source=source, line_color=None, fill_color=GREY)
    train = plot.hbar("y", 0.76, "train_to", "train_from", source=source, line_color=None)
    train.glyph.fill_color = (
        linear_cmap("code", spans.colours, -0.5, len(spans.colours) - 0.5)
        if len(spans.colours) > 1
        else spans.colours[0]
    )
    extra = [lively.hover(said, [bars], point_policy="follow_mouse")]
    keys = [lively.Key(*key) for key in zip(spans.colours, spans.texts, strict=True)]
    keys.append(lively.Key(GREY.lower(), BESIDES))
    for mark in spans.marks:
        shown = plot.scatter(
            "x",
            "y",
            source=lively.source(
                x=np.array(mark.at) / size,
                y=[spans.rows[worker] for worker in mark.workers],
                why=[words.short(reason, 120) for reason in mark.reasons],
            ),
            marker=mark.live,
            size=11,
            fill_color=mark.colour,
            line_color=lively.INK,
        )
        keys.append(lively.Key(mark.colour, mark.text, mark.sign))
        extra.append(lively.hover([(mark.text, "@{why}")], [shown]))
    for start, _ in spans.pauses:
        plot.vspan(x=[start / size], line_color=lively.INK, line_dash="dashed")
    step = -(-len(names) // 24)
    ticks = list(range(0, len(names), step))
    plot.yaxis.ticker = FixedTicker(ticks=ticks)
    texts = {at: PlainText(text=called(names[at])) for at in ticks}
    plot.yaxis.major_label_overrides = texts
    plot.ygrid.grid_line_color = None
    lively.tools(plot, "width", extra)
    panels = [plot]
    if len(spans.bars) <= MOST_OVERVIEW:
        panels.append(_overview(plot, source, spans))
    return lively.Live(panels, caption, keys=keys, what=spans.what)


def _overview(plot: Any, source: Any, spans: Spans) -> Any:
    """Return the whole timeline, small, with a window that is drawn to where one looks."""
    from bokeh.models import Range1d, RangeTool

    from stormsweep.report import live as lively

    small = lively.canvas(
        70, "", "", x_range=Range1d(0, plot.x_range.end), y_range=Range1d(len(spans.workers), -1)
    )
    small.hbar("y", 0.9, "right", "left", source=source, line_color=None, fill_color=GREY)
    small.yaxis.visible = small.xaxis.visible = False
    small.ygrid.grid_line_color = None
    small.toolbar_location = None
    window = RangeTool(x_range=plot.x_range, start_gesture="pan")
    window.overlay.update(fill_color="#0072b2", fill_alpha=0.15, line_color="#0072b2")
    small.add_tools(window)
    return small


def _told(spans: Spans, size: float, unit: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the columns of the bars, and what a reader is told of each."""
    from stormsweep.report import live as lively

    bars = spans.bars
    edges = [lively.numbers(part / size) for part in _edges(bars)]
    data: dict[str, Any] = dict(
        zip(("left", "right", "train_from", "train_to"), edges, strict=True)
    )
    data["y"] = bars["worker"].map(spans.rows).to_numpy(dtype="int32")
    data["code"] = bars["code"].to_numpy(dtype="int32")
    more, said = lively.facts(bars, spans.columns)
    data |= more
    for name, label in (("fold", "fold"), ("from_epoch", "after epoch"), ("to_epoch", "to epoch")):
        if name in bars:
            data[name] = bars[name].to_numpy(dtype="int32") + (name == "fold")
            said.append((label, f"@{{{name}}}"))
    data["seconds"] = lively.numbers(bars["ended"] - bars["begun"])
    said += [("took", "@{seconds}{%.1f} s"), (f"from ({unit})", "@{left}{%.2f}")]
    if "patches_per_second" in bars:
        data["speed"] = lively.numbers(bars["patches_per_second"])
        said.append((f"{spans.cases} per second", "@{speed}{%.0f}"))
    if "run" in bars and len(bars) <= lively.MOST_TEXTS:
        data["run"] = bars["run"].tolist()
        said.append(("run", "@{run}"))
    return data, said


def called(worker: str) -> str:
    """Return what a worker is called: numbers alone say too little."""
    return f"worker {worker}" if worker.isdigit() else words.short(worker, 24)


def natural(name: str) -> list[Any]:
    """Order worker-2 before worker-10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)
    ]
