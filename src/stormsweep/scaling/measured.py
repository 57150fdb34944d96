"""What measurements of layouts say: read from their journals, and from nothing else."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stormsweep.errors import DataError
from stormsweep.records import Entry, SessionBegun, SessionEnded, WorkerEvent
from stormsweep.results import facts, frames, journal
from stormsweep.results.journal import of_kind
from stormsweep.scaling import laws
from stormsweep.scaling.design import PINS, Layout
from stormsweep.scaling.laws import Law

FOLDER, FILE, _JOURNAL = "scale", "scale.json", "journal.jsonl"
#: Beside the journal of a measurement on one machine: how many of its cores others used meanwhile.
LOAD = "load.json"
#: Others' share of a machine's cores from which times are not to be trusted.
MUCH = 0.1
#: Numbers of workers that a law is fitted to, at least.
_ENOUGH = 3
_KEYS = ["workers", "threads", "nodes", "pin"]


@dataclass(frozen=True)
class Findings:
    """Measurements of layouts at one site.

    Attributes
    ----------
    folder : Path
        Where they lie.
    about : dict
        What ``scale.json`` says.
    journals : dict of str to list of Entry
        By the name of the measurement; those that are over.
    loads : dict of str to float
        By the name of the measurement: cores that others used meanwhile, where that is known.
    """

    folder: Path
    about: dict[str, Any]
    journals: Mapping[str, Sequence[Entry]]
    loads: Mapping[str, float] = field(default_factory=dict)

    @property
    def site(self) -> str:
        """Where it was measured."""
        return str(self.about["site"])

    @property
    def note(self) -> str:
        """What stands in figures where the data are synthetic."""
        return f"synthetic data ({self.about['source']})" if self.about["synthetic"] else ""

    @property
    def asked(self) -> dict[str, dict[str, Any]]:
        """All measurements that were asked for, by name: layout, runs, repeat."""
        return dict(self.about["cells"])

    @cached_property
    def missing(self) -> int:
        """How many of them are not made yet."""
        return len(self.asked.keys() - self.journals.keys())

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a measurement; see `cell`."""
        rows = [
            {"name": name, **self.asked[name], **cell(entries)}
            | {"others_cores": self.loads.get(name, math.nan)}
            for name, entries in self.journals.items()
        ]
        columns = ["name", *_KEYS, "runs", "repeat", *cell(()), "others_cores"]
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values(["threads", "pin", "workers", "runs", "repeat"], ignore_index=True)

    @property
    def whole(self) -> pd.DataFrame:
        """The measurements of all the work."""
        return self.cells[self.cells["runs"] == len(self.about["runs"])]

    @cached_property
    def strong_cells(self) -> pd.DataFrame:
        """Those of them in which no run failed: strong scaling."""
        return self.whole[self.whole["failed"] == 0]

    @cached_property
    def weak_cells(self) -> pd.DataFrame:
        """Measurements of work in proportion to workers; empty where that was not measured.

        Runs are not all equally long. Work is therefore counted in the seconds that the same runs
        took one worker of one thread, and ``seconds`` are those for exactly a layout's share of it.
        """
        each = int(self.about["weak"])
        own = self.cells[(self.cells["runs"] == each * self.cells["workers"]) & (each > 0)]
        own = own[own["failed"] == 0]
        if own.empty or self._alone.empty:
            return own.iloc[:0]
        work = self._alone.reindex(list(self.about["runs"])).cumsum().to_numpy()
        ideal = work[each - 1] * own["workers"].to_numpy()
        done = work[own["runs"].to_numpy(dtype=int) - 1]
        return own.assign(seconds=own["seconds"] * ideal / done)

    @cached_property
    def strong(self) -> pd.DataFrame:
        """The same work in every layout: one row a layout; see `speedups`."""
        return speedups(self.strong_cells)

    @cached_property
    def weak(self) -> pd.DataFrame:
        """Work in proportion to workers: one row a layout; see `speedups`."""
        return speedups(self.weak_cells, self.weak_cells["workers"])

    @cached_property
    def laws(self) -> dict[tuple[int, str], list[Law]]:
        """Laws of strong scaling by threads and pin, the best first, where enough was measured."""
        return _laws(self.strong_cells, scaled=False)

    @cached_property
    def weak_laws(self) -> dict[tuple[int, str], list[Law]]:
        """Laws of weak scaling, likewise."""
        return _laws(self.weak_cells, scaled=True)

    @cached_property
    def _alone(self) -> pd.Series[float]:
        """Seconds of each run with one worker of one thread: medians over repeats."""
        table = self.strong_cells
        baseline = table[(table["workers"] == 1) & (table["threads"] == 1)]
        found = [
            frames.tasks(self.journals[name]).groupby("run")["seconds"].sum()
            for name in baseline["name"]
        ]
        if not found:
            return pd.Series(dtype="float64")
        return pd.concat(found, axis=1).median(axis=1)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row a layout and batch size, of the measurements of all the work.

        ``seconds`` of an epoch of training, the median over tasks and repeats, with ``low`` and
        ``high``, their 10th and 90th percentile; ``run_seconds``, the median time of a whole run
        with all that is beside training; ``patches_per_second`` of all workers together, if
        all of them train runs of that batch size.
        """
        parts = []
        for row in self.whole.to_dict("records"):
            tasks = frames.tasks(self.journals[row["name"]])
            if "batch_size" in tasks and len(tasks):
                parts.append(tasks.assign(**{key: row[key] for key in _KEYS}, cell=row["name"]))
        names = [*_KEYS, "batch_size"]
        columns = [*names, "seconds", "low", "high", "run_seconds", "patches_per_second"]
        if not parts:
            return pd.DataFrame(columns=columns)
        tasks = pd.concat(parts, ignore_index=True)
        tasks["epoch"] = tasks["train_seconds"] / (tasks["to_epoch"] - tasks["from_epoch"])
        grouped = tasks.groupby(names)
        table: Any = grouped["epoch"].agg(
            seconds="median", low=lambda one: one.quantile(0.1), high=lambda one: one.quantile(0.9)
        )
        runs = tasks.groupby([*names, "cell", "run"])["seconds"].sum()
        table["run_seconds"] = runs.groupby(names).median()
        table["patches_per_second"] = grouped["patches_per_second"].median()
        table = table.reset_index()
        table["patches_per_second"] *= table["workers"]
        return pd.DataFrame(table[columns])

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the fastest layout; None where nothing was measured."""
        if self.strong.empty:
            return None
        rows: list[dict[Any, Any]] = self.strong.sort_values("seconds").to_dict("records")
        return rows[0]

    @property
    def as_fast(self) -> pd.DataFrame:
        """Other layouts of which some repeat was as fast as the slowest of the fastest layout."""
        best = self.best
        if best is None:
            return self.strong
        mask = (self.strong["seconds"] > best["seconds"]) & (self.strong["low"] <= best["high"])
        return pd.DataFrame(self.strong[mask]).sort_values("seconds")

    @cached_property
    def different_scores(self) -> list[str]:
        """Layouts whose scores are not those of others with the same threads; none should be.

        Scores are compared to the bit where the processor trains. Bundles of the engine JAX are put
        together as workers are free, which may change the last digits: there they may differ by a
        thousandth.
        """
        exact = self.about["engine"] != "jax"
        wrong: dict[str, None] = {}
        first: dict[tuple[int, str, int], tuple[dict[str, float], str]] = {}
        for row in self.cells.to_dict("records"):
            layout = str(layout_of(row))
            for task in facts.tasks_done(self.journals[row["name"]]):
                key = (row["threads"], task.run, task.to_epoch)
                scores, whose = first.setdefault(key, (task.scores, layout))
                if not _same(scores, task.scores, exact):
                    wrong[f"{layout} and {whose}"] = None
        return list(wrong)

    @cached_property
    def remarks(self) -> list[str]:
        """What a reader has to know beside the numbers, one sentence each."""
        told = []
        table = self.cells
        if self.about["why"]:
            told.append(f"Measured were {self.about['why']}.")
        elif len(table):
            told.append(f"Measured were all {len(self.about['runs'])} runs of the study.")
        if self.missing:
            total = len(self.asked)
            told.append(f"{self.missing} of {total} measurements are not made yet.")
        for left in self.about["left_out"]:
            told.append(f"Left out: {left}.")
        if self.about["sockets"] < 2 and len(table):
            told.append(
                f"{self.about['node'].capitalize()} has one socket: what it costs when the threads "
                "of a worker lie on two cannot be seen here."
            )
        for row in table[table["failed"] > 0].to_dict("records"):
            told.append(f"{layout_of(row)}, repeat {row['repeat']}: runs failed; not counted.")
        for row in table[table["lost"] > 0].to_dict("records"):
            told.append(f"{layout_of(row)}, repeat {row['repeat']}: lost a worker on the way.")
        busy = table["others_cores"] / self.about["cores"]
        if (busy > MUCH).any():
            told.append(
                f"Other work took up to {busy.max():.0%} of the cores during "
                f"{int((busy > MUCH).sum())} of {len(table)} measurements: the times are those of "
                "a machine that is shared, and layouts that leave cores free look better than they "
                "are."
            )
        machines = sorted({name for names in table["hosts"] for name in names})
        if self.site == "local" and len(machines) > 1:
            told.append(f"Measured on {' and '.join(machines)}: they may not be equally fast.")
        if self.different_scores:
            told.append(
                "The scores are NOT the same in all layouts with the same number of threads: "
                f"{'; '.join(self.different_scores)}."
            )
        elif len(table) > 1:
            told.append("The scores are the same in all layouts with the same number of threads.")
        return told


def layout_of(row: Mapping[Any, Any]) -> Layout:
    """Return the layout of a row of a table."""
    workers, threads, nodes = (int(row[key]) for key in ("workers", "threads", "nodes"))
    return Layout(workers, threads, nodes, str(row["pin"]))


def read(directory: Path) -> list[Findings]:
    """Read what was measured of a study's layouts: one of each site, ``local`` first.

    Parameters
    ----------
    directory : Path
        The study's directory.

    Raises
    ------
    DataError
        If a ``scale.json`` is damaged.
    JournalError
        If the journal of a measurement is damaged.
    """
    folders = [path.parent for path in (directory / FOLDER).glob(f"*/{FILE}")]
    found = [read_site(folder) for folder in folders]
    return sorted(found, key=lambda one: (one.site != "local", one.site))


def read_site(folder: Path) -> Findings:
    """Read what was measured at one site; see `read`."""
    try:
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        names = list(about["cells"])
        for key in ("site", "node", "runs", "weak", "why", "left_out", "sockets", "engine"):
            about[key]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{folder / FILE}: is missing or damaged; remove {folder} and measure again"
        ) from None
    read_in: dict[str, list[Entry]] = {}
    loads: dict[str, float] = {}
    for name in names:
        path = folder / name / _JOURNAL
        if not path.is_file() or not over(entries := journal.read(path)):
            continue
        read_in[name] = entries
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            text = (folder / name / LOAD).read_text(encoding="utf-8")
            loads[name] = float(json.loads(text)["others_cores"])
    return Findings(folder, about, read_in, loads)


def over_in(folder: Path) -> bool:
    """Say whether the measurement in a folder came to its end; see `over`."""
    path = folder / _JOURNAL
    return path.is_file() and over(journal.read(path))


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

    Returns
    -------
    dict
        ``seconds`` from the instant at which all workers were ready until the last task was
        recorded, ``startup_seconds`` before that, ``train_seconds`` of all workers together,
        ``busy`` (share of the workers' time in tasks), ``patches``, ``failed`` (runs), ``lost``
        (workers), and ``hosts`` (names of the machines that workers ran on).
    """
    empty: dict[str, Any] = {"seconds": math.nan, "startup_seconds": math.nan, "train_seconds": 0.0}
    empty |= {"busy": math.nan, "patches": 0, "failed": 0, "lost": 0, "hosts": ()}
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
        "hosts": tuple(sorted({event.host for event in events if event.event == "ready"})),
    }


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
        One row a layout: ``workers``, ``threads``, ``nodes``, ``pin``, ``cores``, ``repeats``,
        ``seconds`` (median) with ``low`` and ``high`` (least and greatest), ``startup_seconds``,
        ``busy`` (medians), ``speedup`` (ratio of the medians) with ``speedup_low`` and
        ``speedup_high`` (of the least and greatest times on either side), ``efficiency`` (speed-up
        divided by cores) with the same, ``core_hours`` (cores times time, start-up included).
        Without the baseline, speed-ups are NaN.
    """
    columns = [*_KEYS, "cores", "repeats", "seconds", "low", "high", "startup_seconds", "busy"]
    columns += [
        f"{name}{end}" for name in ("speedup", "efficiency") for end in ("", "_low", "_high")
    ]
    columns.append("core_hours")
    if table.empty:
        return pd.DataFrame(columns=columns)
    grouped = table.assign(times=times).groupby(_KEYS, sort=False)
    found: Any = grouped["seconds"].agg(seconds="median", low="min", high="max", repeats="count")
    for name in ("startup_seconds", "busy", "times"):
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
    found["core_hours"] = found["cores"] * held / 3600
    found["_pin"] = found["pin"].map(PINS.index)
    order = ["_pin", "threads", "workers"]
    return pd.DataFrame(found.sort_values(order, ignore_index=True)[columns])


def _laws(table: pd.DataFrame, scaled: bool) -> dict[tuple[int, str], list[Law]]:
    found: dict[tuple[int, str], list[Law]] = {}
    groups: Any = table.groupby(["threads", "pin"])
    for (threads, pin), own in groups:
        # Two numbers of workers fit any law: they say nothing for or against it.
        if own["workers"].nunique() >= _ENOUGH:
            workers, seconds = own["workers"].to_numpy(), own["seconds"].to_numpy()
            found[int(threads), str(pin)] = laws.choose(workers, seconds, scaled=scaled)
    return found


def _same(one: Mapping[str, float], other: Mapping[str, float], exact: bool) -> bool:
    if one.keys() != other.keys():
        return False
    pairs = ((one[name], other[name]) for name in one)
    return all(
        (a == b or (math.isnan(a) and math.isnan(b))) if exact else math.isclose(a, b, abs_tol=1e-3)
        for a, b in pairs
    )
