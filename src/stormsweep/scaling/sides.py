"""Sides of a comparison: what a journal, or a published study, says of scores and times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stormsweep.config.study import METRICS, cases_of
from stormsweep.records import (
    Entry,
    RunPlanned,
    SessionBegun,
    StudyBegun,
    TaskDone,
    TaskPaused,
)
from stormsweep.results import facts, frames
from stormsweep.results.journal import of_kind
from stormsweep.results.spans import sharing_of
from stormsweep.scaling.accounts import account
from stormsweep.scaling.published import PREFIX, Published

#: Columns of `Side.timed` and of `Side.places`.
TIMED = ["kind", "point", "epochs", "fold", "block", "whole"]
TIMED += ["seconds", "node_seconds", "core_seconds", "asked"]
PLACES = ["kind", "site", "processor", "nodes", "workers_per_node", "threads", "cores_per_node"]
PLACES += ["wall_seconds", "granted_core_hours", "gpu_hours", "money", "price_basis"]


@dataclass(frozen=True)
class Side:
    """One of the studies that are compared.

    Attributes
    ----------
    label : str
        What figures and tables call it.
    source : str
        The study's directory, or ``published:NAME``.
    metric : str
        What it ranks its configurations by.
    folds : int
        Of the cross-validation, all rounds together.
    same_folds : str
        Sides with the same text here were scored on the same cases, fold by fold; empty: on cases
        that nobody else was.
    points : dict of str to dict
        Its hyperparameters without ``epochs``, by a name that equal ones have in common.
    scores : DataFrame
        One row a fit: ``point``, ``epochs``, ``fold``, and its scores. Empty where only means are
        known.
    configurations : DataFrame
        One row a configuration: ``point``, ``epochs``, ``folds``, ``complete``, ``<score>_mean``
        and ``<score>_sd`` (n - 1 in the denominator, or as published).
    timed : DataFrame
        One row a fit and kind of node that it was timed on: ``kind``, ``point``, ``epochs``,
        ``fold``; ``block``: what was timed together; ``seconds``, ``node_seconds`` and
        ``core_seconds`` of the block up to this fit (of workers, of whole nodes, of cores);
        ``whole``: they are known of the whole block only; ``asked``: patches that the fit asks
        for, which is its epochs times the cases of an epoch.
    places : DataFrame
        One row a kind of node: what was used of it, and for how long it was held.
    parameters : dict of str to int
        Trainable parameters by point; empty: not known.
    synthetic : bool
        Whether its data are.
    data, flaws, remarks : str, list of str, list of str
        What its data are; what makes its validation other than honest; what else to know.
    published_sd : float
        What the published standard deviations are to be multiplied with, to have n - 1 in the
        denominator; 1 for journals.
    rounds : int
        How often all cases were split.
    cases : str
        What they are called.
    """

    label: str
    source: str
    metric: str
    folds: int
    same_folds: str
    points: dict[str, dict[str, Any]]
    scores: pd.DataFrame
    configurations: pd.DataFrame
    timed: pd.DataFrame
    places: pd.DataFrame
    parameters: dict[str, int]
    synthetic: bool
    data: str
    flaws: list[str]
    remarks: list[str]
    published_sd: float = 1.0
    rounds: int = 1
    cases: str = "cases"

    @property
    def published(self) -> bool:
        """Whether its numbers are of a publication."""
        return self.source.startswith(PREFIX)

    @property
    def score_names(self) -> list[str]:
        """The scores that it has."""
        columns = [str(name) for name in self.configurations.columns]
        return [name.removesuffix("_mean") for name in columns if name.endswith("_mean")]

    @property
    def kinds(self) -> list[str]:
        """The kinds of nodes that it has times of."""
        return [str(kind) for kind in self.places["kind"]]

    def place(self, kind: str) -> dict[str, Any]:
        """Return what was used of a kind of nodes: its row of `places`.

        Parameters
        ----------
        kind : str
            One of `kinds`.
        """
        rows = self.places[self.places["kind"] == kind].to_dict("records")
        return {str(name): value for name, value in rows[0].items()}

    def line(self, kind: str) -> str:
        """Return what a kind of its nodes is called: the study's label, where it has one only.

        Parameters
        ----------
        kind : str
            One of `kinds`.
        """
        return self.label if len(self.kinds) == 1 else f"{self.label}, {kind}"


def point_name(hyperparameters: dict[str, Any], names: Sequence[str] | None = None) -> str:
    """Return a text that equal hyperparameters have in common, ``epochs`` left out.

    Parameters
    ----------
    hyperparameters : dict
        Names and values.
    names : sequence of str, optional
        Those that count; by default all.

    Examples
    --------
    >>> point_name({"b": 512, "a": 0.1, "epochs": 5}) == point_name({"a": 0.1, "b": 512.0})
    True
    """
    kept = {
        name: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in hyperparameters.items()
        if name != "epochs" and (names is None or name in names)
    }
    return json.dumps(kept, sort_keys=True)


def from_published(published: Published) -> Side:
    """Return the side of a published study."""
    about = published.about
    # In the order of the ranks, as a journal's frame is.
    table = published.scores.sort_values(
        f"{about['metric']}_mean", ascending=METRICS[about["metric"]] == "minimize", kind="stable"
    )
    names = [name for name in about["hyperparameters"] if name != "epochs"]
    folds, score = int(about["folds"]), str(about["metric"])
    shown = [point_name({name: row[name] for name in names}) for row in table.to_dict("records")]
    points = {
        text: {name: row[name] for name in names}
        for text, row in zip(shown, table.to_dict("records"), strict=True)
    }
    configurations = table[["epochs", f"{score}_mean", f"{score}_sd"]].assign(
        point=shown, folds=folds, complete=True
    )
    rows = []
    kinds = {kind["name"]: kind for kind in about["kind"]}
    for time in published.times.to_dict("records"):
        block = point_name({name: time[name] for name in about["block"]})
        for text, epochs in zip(shown, table["epochs"], strict=True):
            if any(points[text][name] != time[name] for name in about["block"]):
                continue
            for fold in range(folds):
                seconds = float(time["seconds"])
                cores = seconds * kinds[time["kind"]]["cores_per_node"]
                asked = int(epochs) * int(about["epoch_patches"])
                fit = [time["kind"], text, int(epochs), fold]
                rows.append([*fit, block, True, seconds, seconds, cores, asked])
    places = []
    for name, kind in kinds.items():
        # The nodes worked side by side, and all were held until the slowest was done.
        wall = float(published.times.loc[published.times["kind"] == name, "seconds"].max())
        granted = wall * kind["nodes"] * kind["cores_per_node"] / 3600
        places.append(
            {"kind": name, "site": name, "wall_seconds": wall, "granted_core_hours": granted}
            | {"gpu_hours": 0.0, "money": np.nan, "price_basis": "no price was published"}
            | {"workers_per_node": 1, "threads": kind["cores_per_node"]}
            | {key: kind[key] for key in ("processor", "nodes", "cores_per_node")}
        )
    return Side(
        label=str(about["name"]),
        source=PREFIX + str(about["name"]),
        metric=score,
        folds=folds,
        same_folds="",
        points=points,
        scores=pd.DataFrame(columns=["point", "epochs", "fold"]),
        configurations=configurations,
        timed=pd.DataFrame(rows, columns=TIMED),
        places=pd.DataFrame(places, columns=PLACES),
        parameters=dict.fromkeys(points, int(about["parameters"])),
        synthetic=bool(about["synthetic"]),
        data=str(about["data"]),
        flaws=list(about["flaws"]),
        remarks=list(about["remarks"]),
        published_sd=np.sqrt(folds / (folds - 1)) if about["sd_divides_by"] == "folds" else 1.0,
        cases="patches",
    )


def from_journal(
    entries: Sequence[Entry], source: str, environment: dict[str, Any] | None = None
) -> Side:
    """Return the side of a journal.

    Parameters
    ----------
    entries : list of Entry
        The journal.
    source : str
        Where it lies, for messages.
    environment : dict, optional
        What ``environment.json`` holds: it knows the processors.
    """
    about = facts.study(entries)
    names = [name for name in facts.score_names(entries) if name in METRICS]
    plans = facts.planned_runs(entries)
    points = {point_name(plan.hyperparameters): plan.hyperparameters for plan in plans.values()}
    point_of = {run: point_name(plan.hyperparameters) for run, plan in plans.items()}
    fits, table = frames.fits(entries), frames.configurations(entries)
    scores = fits[["epochs", "fold", *names]].assign(point=[point_of[run] for run in fits["run"]])
    by_configuration = dict(zip(fits["configuration"], scores["point"], strict=True))
    means = [f"{name}_{what}" for name in names for what in ("mean", "sd")]
    configurations = table[["epochs", "folds", "complete", *means]].assign(
        point=[by_configuration[name] for name in table["configuration"]]
    )
    source_name = str(about.data.get("source", ""))
    cases = about.data.get("train")
    return Side(
        label=about.name,
        source=source,
        metric=about.metric,
        folds=about.folds,
        same_folds=_folds_key(about),
        points=points,
        scores=scores,
        configurations=configurations,
        timed=_timed(entries, environment or {}),
        places=_places(entries, environment or {}),
        parameters={
            point_of[task.run]: task.parameters
            for task in facts.tasks_done(entries)
            if task.run in point_of
        },
        synthetic=bool(about.data.get("synthetic", False)),
        data=source_name + (f", {cases:,} cases" if isinstance(cases, int) else ""),
        flaws=list(about.flaws),
        remarks=[],
        rounds=about.rounds,
        cases=cases_of(source_name),
    )


def _folds_key(about: StudyBegun) -> str:
    """Return what decides which cases are in which fold."""
    fingerprint = str(about.data.get("fingerprint", ""))
    if not fingerprint:
        return ""
    sizes = [
        [sizes.get("validation"), sizes.get("validation_positives")] for sizes in about.fold_sizes
    ]
    split = about.split or ("stratified" if about.group_by == "none" else "grouped")
    drawn = split in ("stratified", "k-fold", "stratified-grouped") or about.rounds > 1
    seed = about.seed if drawn else None
    return json.dumps([fingerprint, about.folds, about.rounds, split, about.group_by, seed, sizes])


def kinds_of_nodes(entries: Sequence[Entry], environment: dict[str, Any]) -> dict[int, str]:
    """Return the kind of node of each session: its site, and the processor where that changed."""
    begun = of_kind(entries, SessionBegun)
    processors = {
        int(known.get("session", 1)): str(known.get("processor", ""))
        for known in [environment, *environment.get("later", [])]
    }
    local = {processors.get(one.session, "") for one in begun if one.site == "local"} - {""}
    return {
        one.session: f"{one.site} ({processors[one.session]})"
        if one.site == "local" and len(local) > 1 and processors.get(one.session)
        else one.site
        for one in begun
    }


def _timed(entries: Sequence[Entry], environment: dict[str, Any]) -> pd.DataFrame:
    kinds, plans = kinds_of_nodes(entries, environment), facts.planned_runs(entries)
    sessions = {one.session: one for one in of_kind(entries, SessionBegun)}
    sharing = sharing_of(entries)
    sizes = facts.study(entries).fold_sizes
    by_run: dict[str, list[TaskDone | TaskPaused]] = {}
    for task in facts.stretches(entries):
        by_run.setdefault(task.run, []).append(task)
    rows = []
    for run, plan in plans.items():
        spent, seen = np.zeros(3), set[str]()
        for task in sorted(by_run.get(run, []), key=lambda done: done.to_epoch):
            begun = sessions.get(task.session)
            threads = task.threads or (begun.threads_per_worker if begun else 1)
            workers = sharing.get((task.session, task.worker)) or (begun.workers if begun else 1)
            spent += task.seconds * np.array([1.0, 1.0 / max(workers, 1), threads])
            seen.add(kinds.get(task.session, ""))
            if isinstance(task, TaskPaused) or task.to_epoch not in plan.milestones:
                continue
            # A run that went on elsewhere says nothing of either place alone.
            kind = seen.copy().pop() if len(seen) == 1 else ""
            fit = [kind, point_name(plan.hyperparameters), task.to_epoch, plan.fold]
            asked = _asked(plan, task.to_epoch, sizes)
            rows.append([*fit, run, False, *spent.tolist(), asked])
    table = pd.DataFrame(rows, columns=TIMED)
    # Work on a site whose share of a run is mixed is in no kind.
    return table[table["kind"] != ""].reset_index(drop=True)


def _asked(plan: RunPlanned, epochs: int, sizes: list[dict[str, Any]]) -> float:
    size = sizes[plan.fold].get("epoch_patches") if plan.fold < len(sizes) else None
    return float("nan") if size is None else float(epochs * size)


def _places(entries: Sequence[Entry], environment: dict[str, Any]) -> pd.DataFrame:
    kinds = kinds_of_nodes(entries, environment)
    known = {
        int(one.get("session", 1)): one for one in [environment, *environment.get("later", [])]
    }
    sessions = frames.sessions(entries)
    staff = frames.workers(entries)
    sharing = sharing_of(entries)
    begun = {one.session: one for one in of_kind(entries, SessionBegun)}
    rows: dict[str, dict[str, Any]] = {}
    for one in sessions.to_dict("records"):
        session = int(one["session"])
        own = staff[staff["session"] == session]
        row = rows.setdefault(
            kinds[session],
            {"kind": kinds[session], "site": one["site"], "processor": "", "nodes": 0}
            | {"workers_per_node": 0, "threads": 0, "wall_seconds": 0.0},
        )
        row["nodes"] = max(row["nodes"], own["host"].nunique(), 1)
        # A worker that was never seen ready has no host; then the session's layout counts.
        per_node = [n for (number, _), n in sharing.items() if number == session]
        given = begun[session].allotment.get("workers_per_node") or int(one["workers"])
        row["workers_per_node"] = max(row["workers_per_node"], *per_node, 0) or given
        row["threads"] = max(row["threads"], int(one["threads"]))
        row["wall_seconds"] += float(one["seconds"])
        if one["site"] == "local":
            row["processor"] = str(known.get(session, {}).get("processor", "")) or row["processor"]
    for kind, row in rows.items():
        row["cores_per_node"] = row["workers_per_node"] * row["threads"]
        own_account = account(_of(entries, {n for n, name in kinds.items() if name == kind}))
        row["granted_core_hours"] = own_account.core_hours_granted
        row["gpu_hours"] = own_account.gpu_hours_granted
        row["money"] = np.nan if own_account.cost is None else own_account.cost
        row["price_basis"] = own_account.price_basis
    return pd.DataFrame(list(rows.values()), columns=PLACES)


def _of(entries: Sequence[Entry], sessions: set[int]) -> list[Entry]:
    """Return a journal as if only some of its sessions had been."""
    return [
        entry for entry in entries if getattr(entry.record, "session", None) in sessions | {None}
    ]


def environment_of(directory: Path) -> dict[str, Any]:
    """Return what ``environment.json`` of a study's directory holds; nothing where it has none."""
    try:
        value = json.loads((directory / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
