"""What was measured and what was foretold, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from stormsweep.cluster import machine


def of(found: Mapping[str, Any]) -> str:
    """Return the tables as Markdown."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"Foretold and measured, {machine.cores()} cores for all, {machine.processor()}."
    if "sleeping" in found:
        fitted = [str(row["workers"]) for row in found["sleeping"] if row["fitted"]]
        yield from (
            "",
            f"Workers that sleep 0.5 to 1.5 s a task, fitted to {' and '.join(fitted)} of them:",
            "",
            "| workers | tasks | measured, s | foretold, s | 9 of 10 between | error "
            "| busy, measured | busy, foretold |",
            "| " + " | ".join(["---"] * 8) + " |",
        )
        for row in found["sleeping"]:
            low, median, high = row["foretold"]
            mark = " (fitted)" if row["fitted"] else ""
            yield (
                f"| {row['workers']}{mark} | {row['tasks']:,} | {row['measured']:.1f} "
                f"| {median:.1f} | {low:.1f} and {high:.1f} | {median / row['measured'] - 1:+.1%} "
                f"| {row['utilisation']:.1%} | {row['utilisation_foretold']:.1%} |"
            )
    if "real" in found:
        yield from (
            "",
            "Real workers, workers x threads; from the session's begin to the last result. Each "
            "repeat of a layout",
            "is fitted by itself; measured are all repeats of the other, median (least to "
            "greatest):",
            "",
            "| study | tasks | fitted to | foretold for | measured, s | foretold, s "
            "| 9 of 10 between | error |",
            "| " + " | ".join(["---"] * 8) + " |",
        )
        for row in found["real"]:
            low, median, high = row["foretold"]
            fitted, layout = (" x ".join(map(str, row[name])) for name in ("fitted", "layout"))
            spans = row["measured"]
            middle = statistics.median(spans)
            yield (
                f"| {row['study']} | {row['tasks']} | {fitted} | {layout} "
                f"| {middle:.1f} ({spans[0]:.1f} to {spans[-1]:.1f}) "
                f"| {median:.1f} | {low:.1f} and {high:.1f} | {median / middle - 1:+.1%} |"
            )
    yield from (
        "",
        "Errors are those of the median of 20 simulations.",
    )
    if "note" in found:
        yield from ("", found["note"])
