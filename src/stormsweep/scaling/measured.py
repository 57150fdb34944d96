"""What measurements of layouts say: read from their journals, and from nothing else."""

from __future__ import annotations

import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from stormsweep.config.study import cases_of
from stormsweep.errors import DataError
from stormsweep.records import Entry
from stormsweep.results import facts, frames, journal
from stormsweep.results.spans import processors_of
from stormsweep.scaling import laws
from stormsweep.scaling.laws import Law
from stormsweep.scaling.speedups import KEYS, cell, layout_of, over, speedups
from stormsweep.wording import percent

FOLDER, FILE, _JOURNAL = "scale", "scale.json", "journal.jsonl"
#: Beside the journal of a measurement on one machine: how many of its cores others used meanwhile.
LOAD = "load.json"
#: Others' share of a machine's cores from which times are not to be trusted.
MUCH = 0.1
#: Numbers of workers that a law is fitted to, at least.
_ENOUGH = 3


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
    def cases(self) -> str:
        """What the cases are called."""
        return cases_of(str(self.about["source"]))

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
        """One row a measurement: its layout, and what `stormsweep.scaling.speedups.cell` says."""
        rows = [
            {"name": name, **self.asked[name], **cell(entries)}
            | {"others_cores": self.loads.get(name, math.nan)}
            for name, entries in self.journals.items()
        ]
        columns = ["name", *KEYS, "runs", "repeat", *cell(()), "others_cores"]
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values(["threads", "pin", "workers", "runs", "repeat"], ignore_index=True)

    def disturbed(self, name: str) -> bool:
        """Say whether others used much of the cores during a measurement, as far as is known.

        Parameters
        ----------
        name : str
            Of the measurement.
        """
        return self.loads.get(name, 0.0) > MUCH * float(self.about["cores"])

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
        """The same work in every layout: one row a layout; see `scaling.speedups.speedups`."""
        return speedups(self.strong_cells)

    @cached_property
    def weak(self) -> pd.DataFrame:
        """Work in proportion to workers: one row a layout; see `scaling.speedups.speedups`."""
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
                parts.append(tasks.assign(**{key: row[key] for key in KEYS}, cell=row["name"]))
        names = [*KEYS, "batch_size"]
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

    @property
    def different_scores(self) -> list[str]:
        """Layouts whose scores are not those of others with the same threads; none should be.

        Scores are compared to the bit where the same kind of processor trains. Another may round
        the last digits otherwise; so may bundles of the engine JAX, which are put together as
        workers are free: there they may differ by a thousandth.
        """
        return self._compared[0]

    @cached_property
    def _compared(self) -> tuple[list[str], list[str]]:
        """Return the layouts of `different_scores`, and processors that round otherwise."""
        exact = self.about["engine"] != "jax"
        wrong: dict[str, None] = {}
        rounding: dict[str, None] = {}
        first: dict[tuple[int, str, int], dict[frozenset[str], tuple[dict[str, float], str]]] = {}
        for row in self.cells.to_dict("records"):
            layout, entries = str(layout_of(row)), self.journals[row["name"]]
            processors, used = processors_of(entries), defaultdict[str, frozenset[str]](frozenset)
            for task in facts.tasks_done(entries):
                on = used[task.run] = used[task.run] | {
                    processors.get((task.session, task.worker), "")
                }
                known = first.setdefault((row["threads"], task.run, task.to_epoch), {})
                alike = on if on in known else next(iter(known), on)
                scores, whose = known.setdefault(alike, (task.scores, layout))
                known.setdefault(on, (task.scores, layout))
                if not _same(scores, task.scores, exact and alike == on and len(on) == 1):
                    wrong[f"{layout} and {whose}"] = None
                elif exact and not _same(scores, task.scores, True):
                    rounding |= dict.fromkeys(sorted(on | alike))
        return list(wrong), list(rounding)

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
                f"Other work took up to {percent(busy.max())} of the cores during "
                f"{int((busy > MUCH).sum())} of {len(table)} measurements: the times are those of "
                "a machine that is shared, and layouts that leave cores free look better than they "
                "are."
            )
        machines = sorted({name for names in table["hosts"] for name in names.split()})
        if self.site == "local" and len(machines) > 1:
            told.append(f"Measured on {' and '.join(machines)}: they may not be equally fast.")
        if self.different_scores:
            told.append(
                "The scores are NOT the same in all layouts with the same number of threads: "
                f"{'; '.join(self.different_scores)}."
            )
        elif len(table) > 1:
            line = "The scores are the same in all layouts with the same number of threads"
            if self._compared[1]:
                line += (
                    ", but for their last digits, which processors of different kinds round "
                    f"differently: {', '.join(self._compared[1])}"
                )
            told.append(f"{line}.")
        return told


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
        a == b
        or (math.isnan(a) and math.isnan(b))
        or (not exact and math.isclose(a, b, abs_tol=1e-3))
        for a, b in pairs
    )
