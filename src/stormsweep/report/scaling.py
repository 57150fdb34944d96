"""What measuring layouts showed, drawn: speed-ups, layouts beside each other, batch sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd

from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.parts import Cell, Part, Table
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
from stormsweep.scaling.measured import Findings, layout_of, usual

HEADER = [
    *("Layout", "Repeats", "Time", "Range", "Start-up", "Speed-up", "Range", "Efficiency"),
    *("Busy", "Core-hours"),
]
LAWS_HEADER = ["Scaling", "Workers", "Law", "Parameters (90 % intervals)", "Error"]
#: Lines of one figure.
_MOST_LINES = len(COLOURS)
_LAWS = {"amdahl": "Amdahl's law", "gustafson": "Gustafson's law", "usl": "universal law"}
_PINNED = {"within": "within a socket", "across": "across sockets", "none": "not pinned"}


def pictures(findings: Findings) -> list[Picture]:
    """Return the figures of what was measured at one site, as far as there is something to show."""
    makers = (speedup_picture, weak_picture, layouts_picture, pin_picture, batch_picture)
    return [made for make in makers if (made := make(findings)) is not None]


def rows(table: pd.DataFrame) -> list[list[str]]:
    """Return the rows of a table of layouts as they are read, in the order of `HEADER`.

    Parameters
    ----------
    table : DataFrame
        `Findings.strong` or `Findings.weak`.
    """
    unit = words.time_unit(float(table["high"].max())) if len(table) else ("s", 1.0)
    return [
        [
            Cell(in_words(row), row["cores"]),
            str(row["repeats"]),
            Cell(seconds(row["seconds"], unit), row["seconds"]),
            _range(seconds(row["low"], unit), seconds(row["high"], unit), row["repeats"]),
            Cell(seconds(row["startup_seconds"]), row["startup_seconds"]),
            Cell(words.number(row["speedup"], 2), row["speedup"]),
            _range(
                words.number(row["speedup_low"], 2), words.number(row["speedup_high"], 2), _two(row)
            ),
            Cell(words.percent(row["efficiency"]), row["efficiency"]),
            Cell(words.percent(row["busy"]), row["busy"]),
            Cell(words.number(row["core_hours"], 3), row["core_hours"]),
        ]
        for row in table.to_dict("records")
    ]


def law_rows(findings: Findings) -> list[list[str]]:
    """Return all laws that were fitted, as they are read, in the order of `LAWS_HEADER`."""
    found = []
    for kind, fitted in (("strong", findings.laws), ("weak", findings.weak_laws)):
        for (threads, pin), laws in fitted.items():
            for law in laws:
                shown = ", ".join(_parameter(law, name, "") for name in law.parameters)
                group = words.capital(_group(threads, pin, findings))
                error = words.percent(law.error, 1)
                found.append([kind.capitalize(), group, _LAWS[law.name], shown, error])
    return found


def _two(row: Mapping[Any, Any]) -> int:
    """Return how many times a speed-up was measured: that of the baseline over itself never."""
    return 1 if row["cores"] == 1 else int(row["repeats"])


def _range(low: str, high: str, repeats: int) -> str:
    return f"{low} to {high}" if repeats > 1 else words.NOTHING


def in_words(row: Mapping[Any, Any]) -> str:
    """Return a layout in words, with the sign that multiplies."""
    return str(layout_of(row)).replace(" x ", f" {words.TIMES} ")


def seconds(given: float, unit: tuple[str, float] | None = None) -> str:
    """Return a time with three or four digits, to be compared with others.

    Parameters
    ----------
    given : float
        Seconds.
    unit : tuple of str and float, optional
        As of `words.time_unit`; unless given the one that fits.

    Examples
    --------
    >>> seconds(34.123), seconds(341.23), seconds(34123.0), seconds(34.123, ("min", 60.0))
    ('34.1 s', '5.69 min', '9.48 h', '0.57 min')
    """
    if not math.isfinite(given):
        return words.NOTHING
    name, size = unit or words.time_unit(given)
    value = given / size
    return f"{words.number(value, 2 if value < 10 or name != 's' else 1)} {name}"


def answer(findings: Findings) -> list[str]:
    """Say which layout is best, how sure that is, and which law the layouts follow."""
    best = findings.best
    if best is None:
        return ["No layout is measured yet."]
    repeats = int(best["repeats"])
    line = f"Best layout: {in_words(best)}, {seconds(best['seconds'])}"
    if repeats > 1:
        low, high = seconds(best["low"]), seconds(best["high"])
        line += f" (median of {repeats} repeats, {low} to {high})"
    if best["cores"] > 1 and math.isfinite(best["speedup"]):
        line += f", {words.number(best['speedup'], 2)} times as fast as one worker of one thread: "
        line += f"parallel efficiency {words.percent(best['efficiency'])}"
    return [f"{line}.", *_how_sure(findings), *_least_core_hours(findings), *_law_words(findings)]


def _how_sure(findings: Findings) -> Iterator[str]:
    best, others = findings.best, findings.as_fast
    assert best is not None
    if len(findings.strong) < 2:
        return
    if best["repeats"] < 2:
        yield "Each layout was measured once only, so that nothing says how sure that is."
    elif len(others):
        named = " and ".join(in_words(row) for row in others.to_dict("records"))
        yield f"It is not told apart from {named}: some repeat of theirs was as fast as one of its."
    else:
        rest: Any = findings.strong.sort_values("seconds").iloc[1]
        more = words.percent(rest["seconds"] / best["seconds"] - 1)
        yield (
            "All its repeats were faster than any of another layout; the next, "
            f"{in_words(rest)}, takes {more} longer."
        )


def _least_core_hours(findings: Findings) -> Iterator[str]:
    table, best = findings.strong, findings.best
    least: Any = table.sort_values("core_hours").iloc[0]
    if best is not None and layout_of(least) != layout_of(best):
        share = 1 - least["core_hours"] / best["core_hours"]
        yield (
            f"The fewest core-hours takes {in_words(least)}: "
            f"{words.number(least['core_hours'], 3)}, {words.percent(share)} less than the fastest."
        )


def _law_words(findings: Findings) -> Iterator[str]:
    table = usual(findings.strong)
    shown = set(zip(table["threads"], table["pin"], strict=True))
    for (threads, pin), laws in findings.laws.items():
        if (threads, pin) not in shown:
            continue
        law = laws[0]
        line = f"Workers of {words.count(threads, 'thread')} follow {_LAWS[law.name]} best: "
        line += ", ".join(_parameter(law, name) for name in law.parameters)
        if math.isfinite(law.error):
            line += f"; it misses numbers of workers left out by {words.percent(law.error, 1)}"
        yield f"{line}. Beyond {law.measured[1]} workers, which were not measured, it may not hold."


def _parameter(law: Law, name: str, what: str = " interval ") -> str:
    low, high = law.intervals[name]
    value = law.parameters[name]
    shown = f"{name.replace('_', ' ')} {value:.2g}"
    level = f"{words.percent(law.level)}{what}" if what else ""
    return f"{shown} ({level}{low:.2g} to {high:.2g})"


def _group(threads: int, pin: str, findings: Findings) -> str:
    text = f"{words.count(threads, 'thread')} a worker"
    several = len(set(findings.strong["pin"])) > 1
    return f"{text}, {_PINNED[pin]}" if several else text


def _where(findings: Findings) -> str:
    return "" if findings.site == "local" else f" on {findings.site}"


def named(findings: Findings, name: str) -> str:
    """Return what a figure or table of a site is called."""
    return f"scaling-{name}" if findings.site == "local" else f"scaling-{findings.site}-{name}"


def speedup_picture(findings: Findings) -> Picture | None:
    """Show speed-up and parallel efficiency against cores, with the ideal and the laws."""
    table = findings.strong
    if len(table) < 2:
        return None
    drawn = ", and the law that fits best, with its interval shaded" if findings.laws else ""
    return Picture(
        named(findings, "speedup"),
        f"Speed-up and parallel efficiency{_where(findings)}",
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
        f"Weak scaling{_where(findings)}",
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
        texts.append(f"{text} ({_LAWS[law.name]})" if law is not None else text)
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
        f"Time in each layout{_where(findings)}",
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
        for index, pin in enumerate(_PINNED):
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
    kept = [pin for pin in _PINNED if pin in marks]
    legend_above(figure, [marks[pin] for pin in kept], [_PINNED[pin] for pin in kept])
    return Picture(
        named(findings, "pinning"),
        f"Where the threads of a worker lie{_where(findings)}",
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
    low.set_ylabel("Patches per second,\nall workers")
    low.set_xlabel("Batch size")
    for axis in (top, low):
        axis.set_ylim(0, 1.06 * axis.get_ylim()[1])
    low.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: words.number(value)))
    figure.align_ylabels([top, low])
    legend_above(figure, handles, texts, f"Workers {words.TIMES} threads")
    fastest = f" The {_MOST_LINES} fastest layouts." if len(ordered) > _MOST_LINES else ""
    return Picture(
        named(findings, "batch-size"),
        f"Batch size in each layout{_where(findings)}",
        "Above, what a worker takes to train an epoch, nothing else counted: medians of tasks, and "
        "shaded their 10th to 90th percentile. Below, patches that all workers of the layout "
        f"together train in a second.{fastest}",
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


def tables(findings: Findings) -> list[Table]:
    """Return the tables of what was measured at one site, as far as there is something to show."""
    found = [strong_table(findings)]
    if len(findings.weak):
        found.append(weak_table(findings))
    if findings.laws or findings.weak_laws:
        found.append(laws_table(findings))
    return found


def strong_table(findings: Findings) -> Table:
    """Return the table of strong scaling."""
    return Table(
        named(findings, "strong"),
        f"The same work in every layout{_where(findings)}",
        HEADER,
        rows(findings.strong),
        "Times are medians over repeats from the instant at which all workers were ready; starting "
        "them stands beside. The speed-up is over one worker of one thread, the efficiency that "
        "divided by the number of cores; core-hours are those held, the start included.",
        frame=findings.strong,
    )


def weak_table(findings: Findings) -> Table:
    """Return the table of weak scaling."""
    return Table(
        named(findings, "weak"),
        f"Work in proportion to workers{_where(findings)}",
        HEADER,
        rows(findings.weak),
        frame=findings.weak,
    )


def laws_table(findings: Findings) -> Table:
    """Return the table of all laws that were fitted."""
    return Table(
        named(findings, "laws"),
        f"Laws{_where(findings)}",
        LAWS_HEADER,
        law_rows(findings),
        "Fitted to all repeats; the error is that at numbers of workers that were left out of the "
        "fit, each in turn. No law holds for sure beyond what was measured.",
        numeric_from=4,
    )
