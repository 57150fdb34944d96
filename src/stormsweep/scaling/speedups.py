"""One measurement read from its journal, and layouts compared with one worker of one thread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stormsweep.records import Entry, SessionBegun, SessionEnded, WorkerEvent
from stormsweep.results import facts, frames
from stormsweep.results.journal import of_kind
from stormsweep.results.spans import allotment_of
from stormsweep.scaling.layouts import PINS, Layout

#: What tells layouts apart in a table.
KEYS = ["workers", "threads", "nodes", "pin"]


def layout_of(row: Mapping[Any, Any]) -> Layout:
    """Return the layout of a row of a table."""
    workers, threads, nodes = (int(row[key]) for key in ("workers", "threads", "nodes"))
    return Layout(workers, threads, nodes, str(row["pin"]))


def over(entries: Sequence[Entry]) -> bool:
    """Say whether a measurement came to its end at one go: one that was interrupted tells nothing.

    Parameters
    ----------
    entries : sequence of Entry
        Its journal.
    """
    ended = of_kind(entries, SessionEnded)
    whole = len(ended) == 1 and ended[0].outcome in ("done", "failed")
    return whole and len(of_kind(entries, SessionBegun)) == 1


def cell(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what one measurement says.

    Parameters
    ----------
    entries : list of Entry
        Its journal.

    Returns
    -------
    dict
        - ``seconds``: from the instant at which all workers were ready until the last task was
          recorded.
        - ``startup_seconds``: from the begin of the session to that instant.
        - ``train_seconds``: of all workers together.
        - ``busy``: share of the workers' time in tasks.
        - ``patches``: cases trained on, copies counted.
        - ``failed``, ``lost``: runs that failed, workers that were lost.
        - ``hosts``: names of the machines that workers ran on.
        - ``charged_cores``: of all nodes; NaN where that is not known.
    """
    empty: dict[str, Any] = {"seconds": math.nan, "startup_seconds": math.nan, "train_seconds": 0.0}
    empty |= {"busy": math.nan, "patches": 0, "failed": 0, "lost": 0, "hosts": ""}
    empty["charged_cores"] = math.nan
    begun, done = of_kind(entries, SessionBegun), facts.tasks_done(entries)
    if not begun or not done:
        return empty
    # The driver's clock alone: those of nodes may be wrong.
    opened = next(entry.time for entry in entries if isinstance(entry.record, SessionBegun))
    joined: dict[str, float] = {}
    for entry in entries:
        if isinstance(entry.record, WorkerEvent) and entry.record.event == "ready":
            joined.setdefault(entry.record.worker, entry.time)
    ready = max(list(joined.values())[: begun[0].workers], default=opened)
    last = max(entry.time for entry in entries if entry.record in done[-1:])
    table, events = frames.tasks(entries), of_kind(entries, WorkerEvent)
    seconds = last - ready
    return {
        "seconds": seconds,
        "startup_seconds": ready - opened,
        "train_seconds": float(table["train_seconds"].sum()),
        "busy": float(table["seconds"].sum()) / (begun[0].workers * seconds),
        "patches": int(table["patches"].sum()),
        "failed": len(frames.failures(entries)),
        "lost": sum(event.event == "lost" for event in events),
        "hosts": " ".join(sorted({event.host for event in events if event.event == "ready"})),
        "charged_cores": _charged_cores(begun[0]),
    }


def _charged_cores(begun: SessionBegun) -> float:
    """Return the cores that are charged: whole nodes where they are exclusive."""
    if not begun.allotment:
        return float(begun.workers * begun.threads_per_worker)
    given = allotment_of(begun)
    return float(given["nodes"]) * float(given.get("cores_per_node", math.nan))


def usual(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows where threads lie as they should: within a socket, where that was measured.

    How they lie otherwise is a question of its own, and would fill every other figure.
    """
    order = table["pin"].map(PINS.index)
    least = order.groupby(table["threads"]).transform("min")
    return pd.DataFrame(table[order == least])


def speedups(table: pd.DataFrame, times: Any = 1) -> pd.DataFrame:
    """Return how layouts compare with one worker of one thread.

    Parameters
    ----------
    table : DataFrame
        Measurements, as of `Findings.cells`.
    times : array of int
        How much work each measurement did, in that of the baseline.

    Returns
    -------
    DataFrame
        One row a layout. Without the baseline, speed-ups are NaN.

        - ``workers``, ``threads``, ``nodes``, ``pin``: the layout.
        - ``cores``: workers times threads.
        - ``repeats``: how often it was measured.
        - ``seconds``, ``low``, ``high``: median of the times, the least and the greatest.
        - ``startup_seconds``, ``busy``: medians of what `cell` says.
        - ``speedup``, ``speedup_low``, ``speedup_high``: ratio of the medians, and what the least
          and the greatest times on either side allow.
        - ``efficiency``, ``efficiency_low``, ``efficiency_high``: speed-up divided by cores.
        - ``core_hours``: cores charged times time, start-up included; NaN where the cores are not
          known.
    """
    columns = [*KEYS, "cores", "repeats", "seconds", "low", "high", "startup_seconds", "busy"]
    columns += [
        f"{name}{end}" for name in ("speedup", "efficiency") for end in ("", "_low", "_high")
    ]
    columns.append("core_hours")
    if table.empty:
        return pd.DataFrame(columns=columns)
    grouped = table.assign(times=times).groupby(KEYS, sort=False)
    found: Any = grouped["seconds"].agg(seconds="median", low="min", high="max", repeats="count")
    for name in ("startup_seconds", "busy", "times", "charged_cores"):
        found[name] = grouped[name].median()
    found = found.reset_index()
    found["cores"] = found["workers"] * found["threads"]
    # Not pinned only where that is all there is.
    base = found[(found["workers"] == 1) & (found["threads"] == 1)].sort_values("pin").iloc[-1:]
    first = base.iloc[0] if len(base) else dict.fromkeys(("seconds", "low", "high"), np.nan)
    found["speedup"] = found["times"] * first["seconds"] / found["seconds"]
    found["speedup_low"] = found["times"] * first["low"] / found["high"]
    found["speedup_high"] = found["times"] * first["high"] / found["low"]
    if len(base):
        # It is compared with itself.
        found.loc[base.index, ["speedup_low", "speedup_high"]] = 1.0
    for end in ("", "_low", "_high"):
        found[f"efficiency{end}"] = found[f"speedup{end}"] / found["cores"]
    held = found["seconds"] + found["startup_seconds"]
    found["core_hours"] = found["charged_cores"] * held / 3600
    found["_pin"] = found["pin"].map(PINS.index)
    order = ["_pin", "threads", "workers"]
    return pd.DataFrame(found.sort_values(order, ignore_index=True)[columns])
