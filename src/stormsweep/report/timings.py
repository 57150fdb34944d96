"""Figures of the time: training against batch size, the workers' timeline, where time went."""

from __future__ import annotations

import re
from typing import Any

import matplotlib as mpl
import matplotlib.collections
import matplotlib.lines
import matplotlib.patches
import numpy as np
import pandas as pd

from stormsweep.records import LayoutTried
from stormsweep.report import words
from stormsweep.report.axes import MOST_STEPS, places, scale_of
from stormsweep.report.material import Material
from stormsweep.report.style import (
    BLUE,
    COLOURS,
    GREY,
    MARKERS,
    NARROW,
    RED,
    WIDE,
    Picture,
    legend_above,
    new_figure,
)
from stormsweep.results import facts
from stormsweep.results.journal import of_kind

MOST_ROWS, MOST_VECTORS, MOST_BARS, MOST_LABELS = 48, 3000, 24, 3
#: Of the parts of a worker's time; waiting is pale, training strong, so that waste is seen.
PART_COLOURS = {
    "start": "#7F7F7F",
    "open": "#56B4E9",
    "build": "#E69F00",
    "compile": "#D55E00",
    "train": "#0072B2",
    "score": "#009E73",
    "checkpoint": "#CC79A7",
    "other": "#000000",
    "lost": "#8B0000",
    "travel": "#B39DDB",
    "waiting": "#F0E442",
    "idle": "#E2E2E2",
    "underway": "#A1887F",
}


def train_time_picture(material: Material) -> Picture | None:
    """Show the time spent in training and the speed of it, against batch size."""
    tasks = material.tasks
    tasks = tasks[(tasks["train_seconds"] > 0) & (tasks["patches"] > 0)]
    names = [name for name in material.varied if name != "epochs"]
    if tasks.empty or not names:
        return None
    name = "batch_size" if "batch_size" in names else names[0]
    column = material.columns[name]
    scale = scale_of(material, name, tasks[column])
    if len(scale.values) > MOST_STEPS:
        return _train_scatter(material, tasks, name)
    tasks = tasks.assign(_at=places(scale, tasks[column]))
    figure = new_figure(NARROW, 3.5, material.synthetic_note)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(1.3, 1))
    totals = tasks.groupby(["threads", "_at"])["train_seconds"].sum()
    unit, size = words.time_unit(float(totals.max()))
    lagging = _unfinished_places(material, scale, column)
    handles, texts = [], []
    for index, (threads, own) in enumerate(tasks.groupby("threads")):
        style: dict[str, Any] = {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": "" if scale.kind == "steps" else "-",
        }
        total = own.groupby("_at")["train_seconds"].sum() / size
        top.plot(total.index, total, **style)
        late = total[total.index.isin(lagging)]
        top.plot(late.index, late, **{**style, "linestyle": "", "mfc": "white"})
        by_place = own.groupby("_at")["patches_per_second"]
        slow, speed, fast = (by_place.quantile(share) for share in (0.1, 0.5, 0.9))
        if scale.kind == "steps":
            low.vlines(speed.index, slow, fast, color=style["color"], alpha=0.35, lw=5)
        else:
            low.fill_between(speed.index, slow, fast, color=style["color"], alpha=0.18, lw=0)
        low.plot(speed.index, speed, **style)
        handles.append(mpl.lines.Line2D([], [], **style))
        texts.append(words.count(int(str(threads)), "thread") + " a worker")
    scale.apply(top, label=False)
    scale.apply(low)
    top.tick_params(labelbottom=False)
    top.set_ylabel(f"Training time ({unit})")
    top.set_ylim(0, 1.06 * top.get_ylim()[1])
    low.set_ylabel("Patches per second")
    low.set_ylim(0, 1.06 * low.get_ylim()[1])
    low.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: words.number(v)))
    figure.align_ylabels([top, low])
    if len(handles) > 1:
        legend_above(figure, handles, texts)
    runs = tasks.groupby("_at")["run"].nunique()
    each = (
        f"{words.count(int(runs.max()), 'run')} for each value"
        if runs.min() == runs.max()
        else f"{runs.min()} to {runs.max()} runs for each value"
    )
    caption = (
        f"Above, time of all workers together in training alone ({each}); below, patches trained "
        "per second by one worker, copies counted: median of the tasks and, shaded, their 10th to "
        "90th percentile."
    )
    if len(lagging):
        more = "" if material.summary.finished else ", the total will grow"
        caption += f" Hollow markers: not all runs are finished{more}."
    return Picture(
        f"training-time-{name.replace('_', '-')}" if name == "batch_size" else "training-time",
        f"Training time against {words.label(name)}",
        caption,
        figure,
    )


def _unfinished_places(material: Material, scale: Any, column: str) -> list[float]:
    finished = facts.finished_runs(material.entries)
    name = next(name for name, own in material.columns.items() if own == column)
    values = [
        plan.hyperparameters.get(name)
        for run, plan in facts.planned_runs(material.entries).items()
        if run not in finished
    ]
    known = set(scale.values)
    if scale.kind == "steps":
        values = [words.value(value) for value in values]
    return sorted({scale.place(value) for value in values if value in known})


def _train_scatter(material: Material, tasks: pd.DataFrame, name: str) -> Picture:
    """Show time per epoch and speed of each task, where values are drawn from a range."""
    scale = scale_of(material, name, tasks[material.columns[name]])
    at = places(scale, tasks[material.columns[name]])
    epochs = tasks["to_epoch"] - tasks["from_epoch"]
    figure = new_figure(NARROW, 3.5, material.synthetic_note)
    top, low = figure.subplots(2, 1, sharex=True)
    top.plot(at, tasks["train_seconds"] / epochs, "o", color=BLUE, alpha=0.65, mew=0)
    low.plot(at, tasks["patches_per_second"], "o", color=BLUE, alpha=0.65, mew=0)
    scale.apply(top, label=False)
    scale.apply(low)
    top.tick_params(labelbottom=False)
    top.set_ylabel("Time per epoch (s)")
    low.set_ylabel("Patches per second")
    for axis in (top, low):
        axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
    figure.align_ylabels([top, low])
    return Picture(
        "training-time",
        f"Training time against {words.label(name)}",
        "Each point is one task: above, its training time per epoch; below, patches trained per "
        "second, copies counted. Tasks differ in the other hyperparameters too.",
        figure,
    )


def timeline_picture(material: Material) -> Picture | None:
    """Show what each worker did when; pauses between sessions are cut out."""
    tasks, sessions = material.tasks, material.sessions
    if tasks.empty or sessions.empty:
        return None
    clock = _Clock(sessions)
    names = sorted({*tasks["worker"], *material.workers["worker"]}, key=_natural)
    rows = {name: place for place, name in enumerate(names)}
    thin = len(names) > MOST_ROWS
    height = 0.75 + (MOST_ROWS * 0.09 if thin else max(0.26 * len(names), 0.5))
    figure = new_figure(WIDE, height, material.synthetic_note)
    axis = figure.subplots()
    unit, size = words.time_unit(clock.length)
    colours, handles, texts, what = _task_colours(material)
    boxes, faces = [], []
    # Runs of a bundle have their times in common, and one bar.
    for task in tasks.drop_duplicates(["session", "worker", "started"]).to_dict("records"):
        start, row = clock.at(task["session"], task["started"]), rows[task["worker"]]
        length, train = (task["bundle"] * task[key] for key in ("seconds", "train_seconds"))
        head = sum(
            task["bundle"] * task[f"{part}_seconds"] for part in ("open", "build", "compile")
        )
        parts = (
            (0.0, length, GREY),
            (head, min(train, length), colours[task["run"]]),
        )
        for offset, length, colour in parts:
            left, right = (start + offset) / size, (start + offset + length) / size
            boxes.append(
                [(left, row - 0.38), (left, row + 0.38), (right, row + 0.38), (right, row - 0.38)]
            )
            faces.append(colour)
    edge = 0.3 if len(tasks) <= 400 else 0.0
    axis.add_collection(
        mpl.collections.PolyCollection(
            boxes,
            facecolors=faces,
            edgecolors="white",
            linewidths=edge,
            rasterized=len(boxes) > MOST_VECTORS,
        )
    )
    handles.append(mpl.patches.Patch(facecolor=GREY))
    texts.append("open, build, compile, score, save")
    marks = _marks(axis, material, clock, rows, size)
    legend_above(figure, handles + [m for m, _ in marks], texts + [t for _, t in marks], what)
    for start, pause in clock.pauses:
        axis.axvline(start / size, color="#222222", linewidth=0.9, linestyle=(0, (3, 2)))
        if len(clock.pauses) <= MOST_LABELS:
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
    axis.set_yticks(range(0, len(names), step), [_called(name) for name in names[::step]])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlim(0, clock.length / size)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)
    cut = ", pauses cut out" if clock.pauses else ""
    axis.set_xlabel(f"Time since the study began{cut} ({unit})")
    return Picture(
        "timeline",
        "Timeline of the workers",
        _timeline_caption(material, clock, what),
        figure,
    )


class _Clock:
    """Instants as seconds at work: the sessions laid end to end."""

    def __init__(self, sessions: pd.DataFrame) -> None:
        self.starts: dict[int, tuple[float, float]] = {}
        self.pauses: list[tuple[float, float]] = []
        self.length, ended = 0.0, None
        for row in sessions.to_dict("records"):
            if ended is not None:
                self.pauses.append((self.length, max(row["begun"] - ended, 0.0)))
            self.starts[int(row["session"])] = (row["begun"], self.length)
            self.length += row["seconds"]
            ended = row["ended"]
        self.length = self.length or 1.0

    def at(self, session: int, instant: float) -> float:
        """Return the seconds at work at an instant of a session."""
        begun, offset = self.starts.get(int(session), next(iter(self.starts.values())))
        return float(instant - begun + offset)


def _task_colours(material: Material) -> tuple[dict[str, str], list[Any], list[str], str]:
    """Return the colour of each run, and the legend: by batch size where that varies."""
    tasks = material.tasks
    # Colours are those of a whole bar, so of what the runs of a bundle have in common.
    mixed = {"epochs", "learning_rate"} if tasks["bundle"].max() > 1 else {"epochs"}
    names = [n for n in ("batch_size", *material.varied) if n in material.varied and n not in mixed]
    for name in names:
        scale = scale_of(material, name, tasks[material.columns[name]])
        if 1 < len(scale.values) <= len(COLOURS) - 1:
            # From dark to light in the order of the values, even in grey print.
            ramp = mpl.colormaps["viridis"](np.linspace(0.05, 0.95, len(scale.values)))
            hexes = [mpl.colors.to_hex(colour) for colour in ramp]
            keys = places(scale, tasks[material.columns[name]])
            order = [scale.place(value) for value in scale.values]
            colours = {
                run: hexes[order.index(key)] for run, key in zip(tasks["run"], keys, strict=True)
            }
            handles = [mpl.patches.Patch(facecolor=colour) for colour in hexes]
            texts = [words.short(words.value(value), 20) for value in scale.values]
            return colours, handles, texts, f"Training, by {words.label(name)}"
    return (
        dict.fromkeys(tasks["run"], BLUE),
        [mpl.patches.Patch(facecolor=BLUE)],
        ["training"],
        "",
    )


def _marks(
    axis: Any, material: Material, clock: _Clock, rows: dict[str, int], size: float
) -> list[tuple[Any, str]]:
    """Mark failures and repeated tasks; return their entries of the legend."""
    entries = []
    for table, marker, colour, text in (
        (material.failures, "X", RED, "run failed"),
        (material.retries, "v", "#E69F00", "worker lost, task repeated"),
    ):
        known = table[table["worker"].isin(list(rows))] if len(table) else table
        if not len(known):
            continue
        style: dict[str, Any] = {
            "marker": marker,
            "color": colour,
            "mec": "black",
            "mew": 0.6,
            "ms": 7,
            "ls": "",
        }
        at = [
            clock.at(session, time) / size
            for session, time in zip(known["session"], known["time"], strict=True)
        ]
        axis.plot(
            at, [rows[worker] for worker in known["worker"]], **style, zorder=5, clip_on=False
        )
        entries.append((mpl.lines.Line2D([], [], **style), text))
    return entries


def _timeline_caption(material: Material, clock: _Clock, what: str) -> str:
    text = "Each bar is a task of a worker; white is waiting."
    if material.tasks["bundle"].max() > 1:
        text = (
            "Each bar is what a worker did at one go, often a bundle of runs (up to "
            f"{material.tasks['bundle'].max()}) that were trained together; white is waiting."
        )
    if what:
        text += f" Colour: {what[0].lower()}{what[1:]}; grey: what a task does besides training."
    if material.tasks["paused"].any():
        text += " A task that was paused when its worker's time was over has several bars."
    if clock.pauses:
        total = sum(pause for _, pause in clock.pauses)
        text += (
            f" Dashed lines: the driver was stopped ({words.duration(total)} in all), and the "
            "study went on later."
        )
    outside = material.failures
    outside = outside[~outside["worker"].isin(list(material.workers["worker"]))]
    if len(outside):
        text += f" {words.count(len(outside), 'failure')} without a worker not shown."
    return text


def breakdown_picture(material: Material) -> Picture | None:
    """Show where the workers' time went, in shares."""
    table = material.worker_time
    parts = [part for part in words.PHASES if part in table.columns and table[part].sum() > 0]
    if not parts:
        return None
    by_worker = table.groupby("worker")[parts].sum()
    by_worker = by_worker.loc[sorted(by_worker.index, key=_natural)]
    if len(by_worker) > MOST_BARS or len(by_worker) == 1:
        by_worker = by_worker.iloc[:0]
    rows = pd.concat([table[parts].sum().to_frame("all workers").T, by_worker])
    shares = 100 * rows.div(rows.sum(axis=1).replace(0, np.nan), axis=0)
    figure = new_figure(WIDE, 0.6 + 0.26 * len(shares), material.synthetic_note)
    axis = figure.subplots()
    left = np.zeros(len(shares))
    for part in parts:
        axis.barh(
            range(len(shares)),
            shares[part],
            left=left,
            color=PART_COLOURS[part],
            height=0.72,
            edgecolor="white",
            linewidth=0.4,
        )
        left += shares[part].fillna(0).to_numpy()
    axis.set_yticks(range(len(shares)), [_called(str(name)) for name in shares.index])
    axis.set_ylim(len(shares) - 0.45, -0.55)
    axis.set(xlim=(0, 100), xlabel="Share of the worker's time (%)")
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)
    handles = [mpl.patches.Patch(facecolor=PART_COLOURS[part]) for part in parts]
    legend_above(figure, handles, [words.PHASES[part] for part in parts])
    return Picture(
        "time-breakdown",
        "Where the workers' time went",
        "Shares of the time from the begin of a session until the worker left. What a worker did "
        "last before its driver was killed is not on record." + _layout_words(material),
        figure,
    )


def _layout_words(material: Material) -> str:
    """Say how the layout was found, and whether workers had cores of their own."""
    text = ""
    for found in of_kind(material.entries, LayoutTried):
        layout = f"{words.count(found.workers, 'worker')} {words.TIMES} "
        layout += words.count(found.threads, "thread")
        text += f" A trial of {words.duration(found.seconds)} found the layout, {layout}: "
        text += f"{found.why}."
    if material.done and all(task.cores for task in material.done):
        text += " Each worker was pinned to cores of its own."
    return text


def _called(worker: str) -> str:
    """Return what a worker is called: numbers alone say too little."""
    return f"worker {worker}" if worker.isdigit() else words.short(worker, 24)


def _natural(name: str) -> list[Any]:
    """Order worker-2 before worker-10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)
    ]
