"""Figures of the time: training against batch size, and where the workers' time went."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.patches
import numpy as np
import pandas as pd

from stormsweep.records import LayoutTried
from stormsweep.report import words
from stormsweep.report.axes import MOST_STEPS, places, scale_of
from stormsweep.report.material import Material
from stormsweep.report.spans import called, natural
from stormsweep.report.style import (
    BLUE,
    COLOURS,
    MARKERS,
    NARROW,
    WIDE,
    Picture,
    legend_above,
    new_figure,
)
from stormsweep.results import facts
from stormsweep.results.journal import of_kind

MOST_BARS, MOST_VECTORS = 24, 2000
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
    by_value = tasks.groupby(["threads", column])
    drawn = by_value.agg(
        runs=("run", "nunique"), tasks=("run", "size"), train_seconds=("train_seconds", "sum")
    )
    for share, name_of in ((0.1, "p10"), (0.5, "median"), (0.9, "p90")):
        drawn[f"patches_per_second_{name_of}"] = by_value["patches_per_second"].quantile(share)
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
    low.set_ylabel(f"{material.cases.capitalize()} per second")
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
        f"Above, time of all workers together in training alone ({each}); below, {material.cases} "
        "trained per second by one worker, copies counted: median of the tasks and, shaded, their "
        "10th to 90th percentile."
    )
    if len(lagging):
        more = "" if material.summary.finished else ", the total will grow"
        caption += f" Hollow markers: not all runs are finished{more}."
    return Picture(
        f"training-time-{name.replace('_', '-')}" if name == "batch_size" else "training-time",
        f"Training time against {words.label(name)}",
        caption,
        figure,
        drawn.reset_index(),
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
    # A pause on the way to a lost checkpoint trained, and stands where it went on.
    epochs = (tasks["to_epoch"] - tasks["from_epoch"]).replace(0, np.nan)
    own = ["train_seconds", "patches", "patches_per_second"]
    figure = new_figure(NARROW, 3.5, material.synthetic_note)
    top, low = figure.subplots(2, 1, sharex=True)
    many = len(tasks) > MOST_VECTORS
    style: dict[str, Any] = {"color": BLUE, "mew": 0, "rasterized": many}
    style |= {"alpha": 0.3, "ms": 2.0} if many else {"alpha": 0.65}
    top.plot(at, tasks["train_seconds"] / epochs, "o", **style)
    low.plot(at, tasks["patches_per_second"], "o", **style)
    scale.apply(top, label=False)
    scale.apply(low)
    top.tick_params(labelbottom=False)
    top.set_ylabel("Time per epoch (s)")
    low.set_ylabel(f"{material.cases.capitalize()} per second")
    for axis in (top, low):
        axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
    figure.align_ylabels([top, low])
    return Picture(
        "training-time",
        f"Training time against {words.label(name)}",
        f"Each point is one task: above, its training time per epoch; below, {material.cases} "
        "trained per second, copies counted. Tasks differ in the other hyperparameters too.",
        figure,
        tasks[["run", "worker", "threads", material.columns[name], "from_epoch", "to_epoch", *own]],
    )


def breakdown_picture(material: Material) -> Picture | None:
    """Show where the workers' time went, in shares."""
    table = material.worker_time
    parts = [part for part in words.PHASES if part in table.columns and table[part].sum() > 0]
    if not parts:
        return None
    by_worker = table.groupby("worker")[parts].sum()
    by_worker = by_worker.loc[sorted(by_worker.index, key=natural)]
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
    axis.set_yticks(range(len(shares)), [called(str(name)) for name in shares.index])
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
        rows.rename_axis("worker").add_suffix("_seconds").reset_index(),
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
