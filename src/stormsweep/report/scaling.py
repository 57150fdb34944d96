"""What measuring layouts showed, drawn: speed-ups, layouts beside each other, batch sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd

from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.parts import Part
from stormsweep.report.scaling_words import (
    LAW_NAMES,
    PINNED,
    answer,
    in_words,
    named,
    tables,
    told_apart,
    where,
)
from stormsweep.report.style import (
    BLUE,
    COLOURS,
    GREY,
    MARKERS,
    NARROW,
    WIDE,
    Picture,
    legend_above,
    new_figure,
    plain_ticks,
)
from stormsweep.scaling.laws import Law
from stormsweep.scaling.measured import Findings
from stormsweep.scaling.speedups import layout_of, usual

#: Lines of one figure.
_MOST_LINES = len(COLOURS)


def pictures(findings: Findings) -> list[Picture]:
    """Return the figures of what was measured at one site, as far as there is something to show."""
    makers = (speedup_picture, weak_picture, layouts_picture, pin_picture, batch_picture)
    return [made for make in makers if (made := make(findings)) is not None]


def speedup_picture(findings: Findings) -> Picture | None:
    """Show speed-up and parallel efficiency against cores, with the ideal and the laws."""
    table = findings.strong
    if len(table) < 2:
        return None
    law = "the law that fits best" if all(map(told_apart, findings.laws.values())) else "a law"
    drawn = f", and {law}, with its interval shaded" if findings.laws else ""
    return Picture(
        named(findings, "speedup"),
        f"Speed-up and parallel efficiency{where(findings)}",
        "The same runs in every layout. Left, how much faster than one worker of one thread; "
        "right, that divided by the number of cores. Medians, and lines from the least to the "
        f"greatest that repeats allow; dashed, what would be ideal{drawn}. Starting workers is not "
        "counted.",
        _scaling_figure(findings, table, findings.laws, "Speed-up"),
        usual(table),
    )


def weak_picture(findings: Findings) -> Picture | None:
    """Show weak scaling: how much more work is done in the same time."""
    table = findings.weak
    if len(table) < 2:
        return None
    each = words.count(int(findings.about["weak"]), "run")
    return Picture(
        named(findings, "weak"),
        f"Weak scaling{where(findings)}",
        f"Work in proportion to workers: {each} for each. Left, how much more work is done in the "
        "same time than by one worker of one thread; right, that divided by the number of cores. "
        "Work is counted in the time that the same runs take one worker. Medians, and lines from "
        "the least to the greatest that repeats allow; dashed, what would be ideal.",
        _scaling_figure(findings, table, findings.weak_laws, "Scaled speed-up"),
        usual(table),
    )


def _scaling_figure(
    findings: Findings, table: pd.DataFrame, laws: Mapping[tuple[int, str], list[Law]], name: str
) -> Any:
    figure = new_figure(WIDE, 2.7, findings.note)
    left, right = figure.subplots(1, 2)
    base: Any = table[table["cores"] == 1].sort_values("pin").iloc[-1:]
    handles: list[Any] = []
    texts: list[str] = []
    table = usual(table)
    cores = sorted(set(table["cores"]))
    groups: Any = table.groupby(["threads", "pin"])
    for index, ((threads, pin), own) in enumerate(groups):
        colour = COLOURS[index % len(COLOURS)]
        look: dict[str, Any] = {"color": colour, "marker": MARKERS[index % len(MARKERS)]}
        law = laws.get((int(threads), str(pin)), [None])[0]
        line = "" if law is not None else "-"
        for axis, column, size in ((left, "speedup", 1), (right, "efficiency", 100)):
            own = own.sort_values("cores")
            axis.plot(own["cores"], size * own[column], linestyle=line, **look)
            axis.vlines(
                own["cores"],
                size * own[f"{column}_low"],
                size * own[f"{column}_high"],
                color=colour,
            )
        if law is not None and len(base):
            _draw_law(left, right, law, int(threads), float(base["seconds"].iloc[0]), colour)
        handles.append(mpl.lines.Line2D([], [], linestyle=line or "-", **look))
        text = f"{words.count(int(threads), 'thread')} a worker"
        texts.append(f"{text} ({LAW_NAMES[law.name]})" if law is not None else text)
    ends = np.array([min(cores), max(cores)])
    left.plot(ends, ends, color=GREY, linestyle=(0, (4, 2)), linewidth=1, zorder=1)
    right.axhline(100, color=GREY, linestyle=(0, (4, 2)), linewidth=1, zorder=1)
    handles.append(mpl.lines.Line2D([], [], color=GREY, linestyle=(0, (4, 2)), linewidth=1))
    texts.append("ideal")
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        plain_ticks(axis.xaxis, [float(c) for c in cores], [str(c) for c in cores])
        axis.set_xlabel("Cores (workers \N{MULTIPLICATION SIGN} threads)")
    left.set_yscale("log", base=2)
    steps = [2.0**power for power in range(math.floor(math.log2(left.get_ylim()[0])), 12)]
    low, high = left.get_ylim()
    steps = [step for step in steps if low <= step <= high]
    plain_ticks(left.yaxis, steps, [f"{step:g}" for step in steps])
    left.set_ylim(low, high)
    left.set_ylabel(name)
    right.set_ylabel("Parallel efficiency (%)")
    right.set_ylim(0, 1.05 * max(100.0, right.get_ylim()[1]))
    legend_above(figure, handles, texts)
    return figure


def _draw_law(left: Any, right: Any, law: Law, threads: int, base: float, colour: str) -> None:
    n = np.geomspace(max(1, law.measured[0]), law.measured[1], 100)
    # Speed-ups of the law are over its own time of one worker, those drawn over the baseline's.
    over = base / law.seconds_of_one
    low, high = law.interval(n)
    for axis, size in ((left, 1.0), (right, 100 / (n * threads))):
        axis.plot(n * threads, size * over * law.speedup(n), color=colour, linewidth=1)
        axis.fill_between(
            n * threads, size * over * low, size * over * high, color=colour, alpha=0.18, lw=0
        )


def layouts_picture(findings: Findings) -> Picture | None:
    """Show every measurement of every layout, the fastest above."""
    table = findings.strong.sort_values("seconds")
    if len(table) < 2:
        return None
    unit, size = words.time_unit(float(table["high"].max()))
    figure = new_figure(WIDE, 0.75 + 0.24 * len(table), findings.note)
    axis = figure.subplots()
    for place, row in enumerate(table.to_dict("records")):
        colour = BLUE if place == 0 else GREY
        own = _repeats(findings, row)
        axis.hlines(place, row["low"] / size, row["high"] / size, color=colour, linewidth=1)
        axis.plot(own["seconds"] / size, [place] * len(own), "|", color=colour, markersize=8)
        axis.plot(row["seconds"] / size, place, "o", color=colour, markersize=5.5)
    axis.set_yticks(range(len(table)), [in_words(row) for row in table.to_dict("records")])
    axis.set_ylim(len(table) - 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"Time of the runs ({unit})")
    axis.grid(axis="x")
    axis.grid(axis="y", visible=False)
    return Picture(
        named(findings, "layouts"),
        f"Time in each layout{where(findings)}",
        "The same runs in every layout: points are medians, strokes single repeats; the fastest in "
        "blue. Starting workers is not counted.",
        figure,
        findings.strong_cells,
    )


def _repeats(findings: Findings, row: Mapping[Any, Any]) -> pd.DataFrame:
    cells = findings.strong_cells
    mask = [layout_of(one) == layout_of(row) for one in cells.to_dict("records")]
    return cells[mask]


def pin_picture(findings: Findings) -> Picture | None:
    """Show what it does where the threads of a worker lie; none where that was not tried."""
    table = findings.strong[findings.strong["threads"] > 1]
    keys = ["workers", "threads", "nodes"]
    groups: Any = table.groupby(keys)
    tried = [(key, own) for key, own in groups if len(set(own["pin"])) > 1]
    if not tried:
        return None
    unit, size = words.time_unit(float(table["high"].max()))
    figure = new_figure(WIDE, 0.8 + 0.34 * len(tried), findings.note)
    axis = figure.subplots()
    marks: dict[str, Any] = {}
    for place, (_, own) in enumerate(tried):
        for index, pin in enumerate(PINNED):
            for row in own[own["pin"] == pin].to_dict("records"):
                at, look = place + 0.2 * (index - 1), {"color": COLOURS[index]}
                axis.hlines(at, row["low"] / size, row["high"] / size, linewidth=1, **look)
                (marks[pin],) = axis.plot(row["seconds"] / size, at, MARKERS[index], **look)
    labels = [in_words(own.iloc[0].to_dict() | {"pin": "within"}) for _, own in tried]
    axis.set_yticks(range(len(tried)), labels)
    axis.set_ylim(len(tried) - 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"Time of the runs ({unit})")
    axis.grid(axis="x")
    axis.grid(axis="y", visible=False)
    kept = [pin for pin in PINNED if pin in marks]
    legend_above(figure, [marks[pin] for pin in kept], [PINNED[pin] for pin in kept])
    return Picture(
        named(findings, "pinning"),
        f"Where the threads of a worker lie{where(findings)}",
        "The same runs with workers pinned to cores of one socket, to cores of all sockets alike, "
        "and left to the system. Medians, and lines from the least to the greatest of the repeats.",
        figure,
        pd.concat([own for _, own in tried]),
    )


def batch_picture(findings: Findings) -> Picture | None:
    """Show the time of an epoch and the speed of all workers against batch size, by layout."""
    table = findings.epochs
    if table.empty or table["batch_size"].nunique() < 2:
        return None
    fastest_first = usual(findings.strong).sort_values("seconds")
    ordered = [layout_of(row) for row in fastest_first.to_dict("records")]
    listed = sorted(ordered[:_MOST_LINES])
    sizes = sorted(set(table["batch_size"]))
    figure = new_figure(NARROW, 3.8, findings.note)
    top, low = figure.subplots(2, 1, sharex=True)
    handles, texts = [], []
    whose = [layout_of(row) for row in table.to_dict("records")]
    for index, layout in enumerate(listed):
        own = table[[one == layout for one in whose]].sort_values("batch_size")
        look: dict[str, Any] = {"color": COLOURS[index], "marker": MARKERS[index]}
        top.plot(own["batch_size"], own["seconds"], **look)
        top.fill_between(
            own["batch_size"], own["low"], own["high"], color=COLOURS[index], alpha=0.15, lw=0
        )
        low.plot(own["batch_size"], own["patches_per_second"], **look)
        handles.append(mpl.lines.Line2D([], [], **look))
        texts.append(layout.name.replace("x", f" {words.TIMES} ").replace("-", " "))
    low.set_xscale("log", base=2)
    plain_ticks(low.xaxis, [float(size) for size in sizes], [words.number(size) for size in sizes])
    top.tick_params(labelbottom=False)
    top.set_ylabel("Time of an epoch (s)")
    low.set_ylabel(f"{findings.cases.capitalize()} per second,\nall workers")
    low.set_xlabel("Batch size")
    for axis in (top, low):
        axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
    low.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: words.number(value)))
    figure.align_ylabels([top, low])
    legend_above(figure, handles, texts, f"Workers {words.TIMES} threads")
    fastest = f" The {_MOST_LINES} fastest layouts." if len(ordered) > _MOST_LINES else ""
    return Picture(
        named(findings, "batch-size"),
        f"Batch size in each layout{where(findings)}",
        "Above, what a worker takes to train an epoch, nothing else counted: medians of tasks, and "
        f"shaded their 10th to 90th percentile. Below, {findings.cases} that all workers of the "
        f"layout together train in a second.{fastest}",
        figure,
        table,
    )


def section(material: Material) -> Part | None:
    """Return what a study's report says of its layouts; None where none was measured."""
    if not material.scaling:
        return None
    told: list[str] = []
    for found in material.scaling:
        begin = f"On {found.about['machine']}: " if len(material.scaling) > 1 else ""
        first, *rest = answer(found)
        told += [f"{begin}{first}", *rest, *found.remarks]
    return Part(
        told,
        [picture for found in material.scaling for picture in pictures(found)],
        [table for found in material.scaling for table in tables(found)],
    )
