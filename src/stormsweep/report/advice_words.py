"""What to ask for next time, in words and as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from stormsweep.cluster.machine import host
from stormsweep.config.sites import LOCAL
from stormsweep.records import SessionBegun
from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.parts import Cell, Table
from stormsweep.results.journal import of_kind
from stormsweep.scaling.advice import CORE_HOURS, GPU_HOURS, MONEY, called, cost_of
from stormsweep.scaling.foretold import Foretold, Range
from stormsweep.scaling.machine import Machine
from stormsweep.study.next_time import Layout, NextTime
from stormsweep.wording import amount

#: What costs are called, by their unit.
COSTS = {CORE_HOURS: "Core-hours", GPU_HOURS: "GPU-hours", MONEY: "Price"}
#: What a layout is, as the table marks it.
ADVISED, KNEE, FRONT, RAN, ENDLESS = (
    "advised",
    "the knee",
    "on the front",
    "as it ran",
    "does not finish",
)


def about(material: Material, found: NextTime) -> Iterator[str]:
    """Say what was simulated, where, and how that compares with what the study took."""
    advice = found.advice
    if found.left:
        yield (
            "Preliminary: the study is not finished. What follows is for what is left of it, by "
            "what is on record so far."
        )
    what = "What is left" if found.left else "The whole study, as if it were run anew,"
    repeats = words.count(advice.asked.repeats, "time")
    layouts = words.count(len(advice.candidates), "layout")
    yield f"{what} was simulated from its own journal, {repeats} in each of {layouts}."
    hosts = {one.host for one in of_kind(material.entries, SessionBegun) if one.site == LOCAL}
    if found.layout.site == LOCAL and host() not in hosts:
        yield (
            f"It ran on {' and '.join(sorted(hosts))}; the layouts are those of {host()}, where "
            "this page was written, with cores taken to be as fast."
        )
    yield _as_it_ran(material, found)


def _as_it_ran(material: Material, found: NextTime) -> str:
    own, ran = _named(found.layout), found.ran
    if ran is None:
        return f"Most of its tasks were done by {own}: a layout that there is no room for now."
    foretold = f"{words.duration(ran.makespan.median)}, {between(ran.makespan)}"
    sessions = material.sessions[material.sessions["tasks"] > 0]
    # What took several sessions, or waited in a queue, is not what was simulated.
    whole = len(sessions) == 1 and not found.left and not material.summary.runs_failed
    if whole and not ran.machine.wait.median:
        took = words.duration(float(sessions["seconds"].iloc[0]))
        return f"It ran with {own} and took {took}; foretold for that layout: {foretold}."
    return f"Most of its tasks were done by {own}; foretold for that layout: {foretold}."


def _named(layout: Layout) -> str:
    where = "" if layout.site == LOCAL else f" on {layout.site}"
    threads = words.count(layout.threads, "thread")
    return f"{words.count(layout.workers, 'worker')} {words.TIMES} {threads}{where}"


def between(time: Range) -> str:
    """Say where nine of ten simulated times lie."""
    return f"9 of 10 between {words.duration(time.low)} and {words.duration(time.high)}"


def price(cost: Range, unit: str) -> str:
    """Say what a study costs, in a unit."""
    span = f"{hours(cost.low)} and {hours(cost.high)}"
    return f"{COSTS[unit]}: {hours(cost.median)}, 9 of 10 between {span}"


def hours(value: float) -> str:
    """Return core-hours, or money, with some three digits; less than a thousandth with one.

    Examples
    --------
    >>> hours(0.0194), hours(7.25), hours(431.27), hours(0.00021)
    ('0.019', '7.250', '431.3', '0.0002')
    """
    if 0 < value < 0.001:
        return amount(value)
    return words.number(value, 3 if value < 10 else 1)


def signed(line: str) -> str:
    """Return a line of advice with the sign that multiplies."""
    return line.replace(" x ", f" {words.TIMES} ")


def in_words(machine: Machine) -> str:
    r"""Return a layout in words.

    Examples
    --------
    >>> in_words(Machine("taki", nodes=3, workers_per_node=16)) == (
    ...     "3 nodes of 16 workers \N{MULTIPLICATION SIGN} 1 thread"
    ... )
    True
    """
    return signed(called(machine).removeprefix(f"{machine.name} with "))


def shown(found: NextTime) -> list[Foretold]:
    """Return all layouts that were simulated, that in which it ran among them."""
    candidates = list(found.advice.candidates)
    ran = found.ran
    return candidates if ran is None or ran in candidates else [*candidates, ran]


def marks(one: Foretold, found: NextTime) -> list[str]:
    """Return what a layout is among the others."""
    advice = found.advice
    known = {
        ADVISED: one is advice.chosen,
        KNEE: one is advice.knee,
        FRONT: one in advice.front,
        RAN: one is found.ran,
        ENDLESS: not one.finishes,
    }
    return [name for name, true in known.items() if true]


def layouts_table(found: NextTime) -> Table:
    """Return the table of all layouts that were simulated."""
    unit = found.advice.unit
    rows: list[list[str]] = []
    for one in shown(found):
        time, cost = one.makespan, cost_of(one, unit)
        span = f"{words.duration(time.low)} to {words.duration(time.high)}"
        marked = words.capital(", ".join(marks(one, found)))
        rows.append(
            [
                Cell(in_words(one.machine), one.machine.workers * one.machine.threads_per_worker),
                marked or words.NOTHING,
                Cell(words.duration(time.median), time.median),
                Cell(span, time.low),
                Cell(hours(cost.median), cost.median),
                Cell(f"{hours(cost.low)} to {hours(cost.high)}", cost.low),
                Cell(words.percent(one.utilisation.median), one.utilisation.median),
            ]
        )
    header = ["Layout", "Mark", "Time", "9 of 10 between", COSTS[unit], "9 of 10 between", "Busy"]
    return Table(
        "advice",
        "The layouts",
        header,
        rows,
        "Medians of the simulations, and where 9 of 10 of them lie. On the front: no other is both "
        "faster and cheaper. The knee: the least product of time and cost; beyond it, saving 1 % "
        "of time costs more than 1 % more. Busy: the share of their time that workers are at "
        "tasks.",
        numeric_from=2,
        frame=frame(found),
        style="advice",
    )


def frame(found: NextTime) -> pd.DataFrame:
    """Return all layouts that were simulated, one row each; times in seconds."""
    unit = found.advice.unit
    rows: list[dict[str, Any]] = []
    for one in shown(found):
        machine, cost, marked = one.machine, cost_of(one, unit), marks(one, found)
        rows.append(
            {
                "site": machine.name,
                "nodes": machine.nodes,
                "workers_per_node": machine.workers_per_node,
                "threads_per_worker": machine.threads_per_worker,
                "simulations": one.repeats,
                "seconds": one.makespan.median,
                "seconds_low": one.makespan.low,
                "seconds_high": one.makespan.high,
                "cost": cost.median,
                "cost_low": cost.low,
                "cost_high": cost.high,
                "cost_unit": unit,
                "core_hours": one.core_hours.median,
                "gpu_hours": one.gpu_hours.median,
                "utilisation": one.utilisation.median,
                "jobs": one.jobs.median,
                "finishes": one.finishes,
                "on_front": FRONT in marked,
                "knee": KNEE in marked,
                "advised": ADVISED in marked,
                "as_it_ran": RAN in marked,
            }
        )
    return pd.DataFrame(rows)
