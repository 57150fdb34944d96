"""What measuring layouts showed, in words and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from stormsweep.report import words
from stormsweep.report.parts import Cell, Table
from stormsweep.scaling.laws import Law
from stormsweep.scaling.measured import Findings
from stormsweep.scaling.speedups import layout_of, usual

HEADER = [
    *("Layout", "Repeats", "Time", "Range", "Start-up", "Speed-up", "Range", "Efficiency"),
    *("Busy", "Core-hours"),
]
LAWS_HEADER = ["Scaling", "Workers", "Law", "Parameters (90 % intervals)", "Error"]
LAW_NAMES = {"amdahl": "Amdahl's law", "gustafson": "Gustafson's law", "usl": "universal law"}
PINNED = {"within": "within a socket", "across": "across sockets", "none": "not pinned"}


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
                found.append([kind.capitalize(), group, LAW_NAMES[law.name], shown, error])
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
    if best is not None and least["core_hours"] < best["core_hours"]:
        share = 1 - least["core_hours"] / best["core_hours"]
        yield (
            f"The fewest core-hours takes {in_words(least)}: "
            f"{words.number(least['core_hours'], 3)}, {words.percent(share)} less than the fastest."
        )


def told_apart(laws: Sequence[Law]) -> bool:
    """Say whether more than one law could be tried on numbers of workers left out of the fit."""
    return sum(math.isfinite(law.error) for law in laws) > 1


def _law_words(findings: Findings) -> Iterator[str]:
    table = usual(findings.strong)
    shown = set(zip(table["threads"], table["pin"], strict=True))
    for (threads, pin), laws in findings.laws.items():
        if (threads, pin) not in shown:
            continue
        law = laws[0]
        line = f"Workers of {words.count(threads, 'thread')} "
        if told_apart(laws):
            line += f"follow {LAW_NAMES[law.name]} best: "
        else:
            line += f"by {LAW_NAMES[law.name]}, which so few numbers of workers cannot tell from "
            line += "others: "
        line += ", ".join(_parameter(law, name) for name in law.parameters)
        if math.isfinite(law.error):
            line += f"; it misses numbers of workers left out by {words.percent(law.error, 1)}"
        yield f"{line}. Beyond {law.measured[1]} workers, which were not measured, it may not hold."
        if math.isfinite(law.best_workers):
            most = max(1, round(law.best_workers))
            line = f"By it, more than {words.count(most, 'worker')} would make it slower"
            doubt = law.beyond(most)
            yield f"{line}{f' ({doubt})' if doubt else ''}."


def _parameter(law: Law, name: str, what: str = " interval ") -> str:
    low, high = law.intervals[name]
    value = law.parameters[name]
    shown = f"{name.replace('_', ' ')} {value:.2g}"
    level = f"{words.percent(law.level)}{what}" if what else ""
    return f"{shown} ({level}{low:.2g} to {high:.2g})"


def _group(threads: int, pin: str, findings: Findings) -> str:
    text = f"{words.count(threads, 'thread')} a worker"
    several = len(set(findings.strong["pin"])) > 1
    return f"{text}, {PINNED[pin]}" if several else text


def where(findings: Findings) -> str:
    """Say where it was measured, where that is not this machine."""
    return "" if findings.site == "local" else f" on {findings.site}"


def named(findings: Findings, name: str) -> str:
    """Return what a figure or table of a site is called."""
    return f"scaling-{name}" if findings.site == "local" else f"scaling-{findings.site}-{name}"


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
    told = (
        "Times are medians over repeats from the instant at which all workers were ready; starting "
        "them stands beside. The speed-up is over one worker of one thread, the efficiency that "
        "divided by the number of cores; core-hours are those charged (of whole nodes where a site "
        "has them exclusive), the start included."
    )
    if findings.strong["core_hours"].isna().any():
        told += " Those of whole nodes are not known: the site says no cores_per_node."
    return Table(
        named(findings, "strong"),
        f"The same work in every layout{where(findings)}",
        HEADER,
        rows(findings.strong),
        told,
        frame=findings.strong,
    )


def weak_table(findings: Findings) -> Table:
    """Return the table of weak scaling."""
    return Table(
        named(findings, "weak"),
        f"Work in proportion to workers{where(findings)}",
        HEADER,
        rows(findings.weak),
        frame=findings.weak,
    )


def laws_table(findings: Findings) -> Table:
    """Return the table of all laws that were fitted."""
    return Table(
        named(findings, "laws"),
        f"Laws{where(findings)}",
        LAWS_HEADER,
        law_rows(findings),
        "Fitted to all repeats; the error is that at numbers of workers that were left out of the "
        "fit, each in turn. No law holds for sure beyond what was measured.",
        numeric_from=4,
    )
