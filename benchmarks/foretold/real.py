"""Real workers that train: each journal foretold from those of the same study in other layouts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stormsweep import Study
from stormsweep.records import Entry, SessionBegun, TaskDone
from stormsweep.results.journal import of_kind, read
from stormsweep.study.foretelling import Outlook


def foretold(directories: Sequence[Path]) -> list[dict[str, Any]]:
    """Foretell every study from every journal of the same study in another layout.

    Repeats of a layout are fitted one by one; what is foretold is compared with all repeats of the
    other layout.
    """
    journals = {path: read(path / "journal.jsonl") for path in directories}
    measured: dict[tuple[str, tuple[int, int]], list[float]] = defaultdict(list)
    for entries in journals.values():
        measured[_name(entries), _layout(entries)].append(_makespan(entries))
    rows: list[dict[str, Any]] = []
    for source, known in journals.items():
        outlook = Outlook(Study.from_toml(source), whole=True)
        fitted = _layout(known)
        for (name, layout), spans in measured.items():
            if name != _name(known) or layout == fitted or layout[1] != fitted[1]:
                continue
            found = outlook.foretell(outlook.machines.local(*layout))
            rows.append(
                {
                    "study": name,
                    "fitted": list(fitted),
                    "layout": list(layout),
                    "tasks": found.tasks,
                    "measured": sorted(spans),
                    "foretold": list(found.makespan),
                }
            )
    return sorted(rows, key=lambda row: (row["study"], row["fitted"], row["layout"]))


def _name(entries: Sequence[Entry]) -> str:
    from stormsweep.results import facts

    return facts.study(entries).name


def _layout(entries: Sequence[Entry]) -> tuple[int, int]:
    (begun,) = of_kind(entries, SessionBegun)
    return begun.workers, begun.threads_per_worker


def _makespan(entries: Sequence[Entry]) -> float:
    """Return the seconds from the begin of the session until the last result."""
    begun = next(entry.time for entry in entries if isinstance(entry.record, SessionBegun))
    return max(entry.time for entry in entries if isinstance(entry.record, TaskDone)) - begun
