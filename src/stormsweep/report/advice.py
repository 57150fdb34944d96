"""What to ask for next time: the study simulated in other layouts, and which of them is advised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.ticker

from stormsweep.config.sites import LOCAL
from stormsweep.errors import UserError, typed
from stormsweep.records import SessionBegun
from stormsweep.report import words
from stormsweep.report.advice_words import (
    COSTS,
    about,
    between,
    frame,
    in_words,
    layouts_table,
    price,
    shown,
    signed,
)
from stormsweep.report.material import Material
from stormsweep.report.parts import Part
from stormsweep.report.style import BLUE, GREY, NARROW, RED, Picture, legend_above, new_figure
from stormsweep.results.journal import of_kind
from stormsweep.scaling.advice import cost_of
from stormsweep.scaling.foretold import Foretold
from stormsweep.scaling.machine import Machine
from stormsweep.scaling.simulated_journal import HOST
from stormsweep.study.next_time import NextTime, next_time

#: Where the largest is so many times the least, an axis is logarithmic.
_WIDE_RANGE = 8.0
#: Layouts of the front that are named in the figure: more would cover each other.
_MOST_NAMES = 8
_LONGEST = 600


def section(material: Material) -> Part | None:
    """Return what to ask for next time; None where a study has nothing to reckon with.

    Whatever goes wrong here: it is no reason for a report that is not written.
    """
    if material.directory is None or not material.study_file or not material.done:
        return None
    if all(one.host == HOST for one in of_kind(material.entries, SessionBegun)):
        return None
    if not material.foretells:
        now = typed("advise", material.directory)
        return _without(f"Follows when the study has ended; until then see {now}.")
    try:
        return part(material, next_time(material.directory, material.entries))
    except UserError as error:
        why = str(error)
    except Exception as error:
        why = f"that failed with {type(error).__name__}: {error}"
    return _without(f"No layout is foretold: {words.short(why, _LONGEST).rstrip('.')}.")


def _without(line: str) -> Part:
    return Part([line], more={"advised": None})


def part(material: Material, found: NextTime) -> Part:
    """Return what stands in the section."""
    advice = found.advice
    best = advice.asked
    picture = front_picture(found, material.synthetic_note)
    return Part(
        list(about(material, found)),
        [] if picture is None else [picture],
        [layouts_table(found)],
        {
            "advised": in_words(best.machine),
            "site": "" if best.machine.name == LOCAL else best.machine.name,
            "time": words.duration(best.makespan.median),
            "between": between(best.makespan),
            "price": price(cost_of(best, advice.unit), advice.unit),
            "because": words.capital(advice.because),
            "notes": found.notes,
            "site_table": found.table,
            "lines": found.lines,
            "left": found.left,
            "purpose": found.purpose,
            "noun": "workers" if best.machine.name == LOCAL else "nodes",
            "limits": [signed(line) for line in advice.limits],
            "command": found.command,
        },
    )


def front_picture(found: NextTime, note: str = "") -> Picture | None:
    """Show time against cost of all layouts that finish; none where there is one only."""
    advice = found.advice
    drawn = [one for one in shown(found) if one.finishes]
    if len(drawn) < 2:
        return None
    unit, size = words.time_unit(max(one.makespan.high for one in drawn))
    figure = new_figure(NARROW, 3.0, note)
    axis = figure.subplots()

    def place(one: Foretold) -> tuple[float, float]:
        return cost_of(one, advice.unit).median, one.makespan.median / size

    for one in drawn:
        colour = BLUE if one in advice.front else GREY
        (x, y), cost, time = place(one), cost_of(one, advice.unit), one.makespan
        axis.hlines(y, cost.low, cost.high, color=colour, lw=0.8, alpha=0.6)
        axis.vlines(x, time.low / size, time.high / size, color=colour, lw=0.8, alpha=0.6)
    others = [place(one) for one in drawn if one not in advice.front]
    front = [place(one) for one in advice.front]
    looks: list[tuple[str, list[tuple[float, float]], dict[str, Any]]] = [
        ("on the front", front, {"color": BLUE, "marker": "o"}),
        ("others", others, {"color": GREY, "marker": "o", "linestyle": ""}),
    ]
    if advice.knee is not advice.chosen:
        knee: dict[str, Any] = {"color": BLUE, "marker": "s", "ms": 6.5, "linestyle": ""}
        looks.append(("the knee", [place(advice.knee)], knee))
    chosen: dict[str, Any] = {"color": RED, "marker": "D", "ms": 6, "linestyle": ""}
    name = "advised, the knee" if advice.knee is advice.chosen else "advised"
    looks.append((name, [place(advice.chosen)], chosen))
    if found.ran is not None and found.ran.finishes:
        ring: dict[str, Any] = {"color": "#222222", "marker": "o", "mfc": "none", "ms": 11}
        looks.append(("as it ran", [place(found.ran)], ring | {"linestyle": ""}))
    handles, texts = [], []
    for text, points, look in looks:
        if points:
            axis.plot(*zip(*points, strict=True), **look)
            handles.append(mpl.lines.Line2D([], [], **{**look, "ms": min(look.get("ms", 5), 8)}))
            texts.append(text)
    brief, what = _naming(drawn)
    for one in _named(found):
        axis.annotate(
            brief(one.machine),
            place(one),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=7,
            color="#222222",
        )
    _scale(axis, "x", [value for one in drawn for value in cost_of(one, advice.unit)])
    _scale(axis, "y", [value / size for one in drawn for value in one.makespan])
    # Room for what stands beside the last point.
    axis.margins(x=0.14, y=0.1)
    axis.grid(axis="x")
    axis.set_xlabel(COSTS[advice.unit])
    axis.set_ylabel(f"Time ({unit})")
    legend_above(figure, handles, texts)
    return Picture(
        "advice",
        "Time against cost of other layouts",
        f"The study simulated {words.count(advice.chosen.repeats, 'time')} in each layout: "
        "medians, and lines between which 9 of 10 lie. On the front no other is both faster and "
        f"cheaper. Beside layouts of the front: {what}.",
        figure,
        frame(found),
    )


def _named(found: NextTime) -> list[Foretold]:
    """Return the layouts that are named: of a long front its ends and what is advised."""
    front = found.advice.front
    if len(front) <= _MOST_NAMES:
        return list(front)
    chosen = (front[0], found.advice.chosen, front[-1])
    return [one for place, one in enumerate(chosen) if one not in chosen[:place]]


def _naming(drawn: list[Foretold]) -> tuple[Callable[[Machine], str], str]:
    """Return what names layouts in the figure, and what these names are: what tells them apart."""
    machines = [one.machine for one in drawn]
    local = machines[0].name == LOCAL
    if len({(not local and one.workers_per_node, one.threads_per_worker) for one in machines}) == 1:
        noun = "workers" if local else "nodes"
        return lambda one: str(one.workers if local else one.nodes), f"the number of {noun}"
    sign = f" {words.TIMES} "
    if local:
        return _layout, f"the number of workers{sign}threads"
    return lambda one: f"{one.nodes}{words.TIMES}{_layout(one)}", f"nodes{sign}workers{sign}threads"


def _layout(machine: Machine) -> str:
    return f"{machine.workers_per_node}{words.TIMES}{machine.threads_per_worker}"


def _scale(axes: Any, name: str, values: list[float]) -> None:
    """Make an axis logarithmic where values differ much; its ticks are read as plain numbers."""
    low, high = min(values), max(values)
    axis = getattr(axes, f"{name}axis")
    if low > 0 and high / low >= _WIDE_RANGE:
        axes.set(**{f"{name}scale": "log"})
        axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(mpl.ticker.NullLocator())
    else:
        axis.set_major_locator(mpl.ticker.MaxNLocator(5))
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:.6g}"))
