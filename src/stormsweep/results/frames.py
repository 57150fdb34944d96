"""Frames: the journal seen as tables. Pure views; nothing is kept, nothing is written.

Every frame holds plain columns (numbers, booleans, strings), so that it goes to CSV, JSON and
Parquet as it is. Hyperparameters have one column each, named like the hyperparameter; where that
name is also a score or another column of the frames, it is ``hyperparameter_<name>``. Values that
are lists are shown as strings such as ``[8, 16, 32]``. Times are seconds, instants are seconds
since 1970 (UTC).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from stormsweep.config.study import BOUNDS
from stormsweep.records import (
    Entry,
    RunFailed,
    SessionBegun,
    TaskDone,
    TaskPaused,
    TaskRetried,
)
from stormsweep.results.facts import (
    PHASES,
    configuration_names,
    finished_runs,
    higher_is_better,
    hyperparameter_columns,
    planned_runs,
    score_names,
    shown,
    stretches,
    study,
)
from stormsweep.results.front import front
from stormsweep.results.journal import of_kind
from stormsweep.results.spans import clocks, hosts_of, spans, spells
from stormsweep.results.views import view

CONFIDENCE = 0.95


@view
def fits(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row a fit that was scored.

    Parameters
    ----------
    entries : list of Entry
        The journal.

    Returns
    -------
    DataFrame
        - ``configuration``, ``run``, ``fold``: which fit.
        - One column for each hyperparameter; ``epochs`` is the milestone.
        - One column for each score, on the validation fold.
        - ``seconds``: the time that the run's tasks took until this milestone, paused ones
          included; of a bundle its share.
    """
    runs, columns, scores = (
        planned_runs(entries),
        hyperparameter_columns(entries),
        score_names(entries),
    )
    names = configuration_names(entries)
    by_run: dict[str, list[TaskDone | TaskPaused]] = {}
    for task in stretches(entries):
        by_run.setdefault(task.run, []).append(task)
    rows: list[dict[str, Any]] = []
    for run, plan in runs.items():
        seconds = 0.0
        for task in sorted(by_run.get(run, []), key=lambda done: done.to_epoch):
            seconds += task.seconds
            if isinstance(task, TaskPaused) or task.to_epoch not in plan.milestones:
                continue
            point = {**plan.hyperparameters, "epochs": task.to_epoch}
            rows.append(
                {"configuration": names[run, task.to_epoch], "run": run, "fold": plan.fold}
                | {column: shown(point.get(name)) for name, column in columns.items()}
                | {score: float(task.scores.get(score, np.nan)) for score in scores}
                | {"seconds": seconds}
            )
    order = ["configuration", "run", "fold", *columns.values(), *scores, "seconds"]
    numbers = dict.fromkeys([*scores, "seconds"], "float64")
    return _frame(rows, order, numbers | dict.fromkeys(["fold", "epochs"], "int64"))


@view
def configurations(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row a configuration with at least one fold scored, the best first.

    Complete configurations stand before incomplete ones, among these the one with the most folds
    first; a score that is not a number ranks behind those that are.

    Parameters
    ----------
    entries : list of Entry
        The journal.

    Returns
    -------
    DataFrame
        - ``rank``: 1 is the best.
        - ``configuration``: its id.
        - One column for each hyperparameter.
        - ``folds``, ``folds_expected``: folds that are scored, and folds that there are to be.
        - ``complete``: whether all of them are scored.
        - ``front``: whether no other complete configuration beats it in the scores that are traded
          off; only with several ``search.objectives``.
        - ``<score>_mean``, ``<score>_sd``: mean and standard deviation (n - 1 in the denominator)
          over folds, for each score.
        - ``<metric>_low``, ``<metric>_high``: 95 % t-interval of the mean of the metric, by which
          configurations are ranked, over folds; cut at the metric's bounds. Further rounds validate
          the same cases again: they tell better how much folds scatter, but the variance of the
          mean is counted as that of one round.
        - ``seconds``: the time of all its folds' tasks.
    """
    frame, columns, scores = fits(entries), hyperparameter_columns(entries), score_names(entries)
    about = study(entries)
    grouped = frame.groupby("configuration", sort=False)
    table = grouped[[*columns.values()]].first()
    table["folds"] = grouped["fold"].nunique()
    expected = _folds_expected(entries)
    table["folds_expected"] = [expected[name] for name in table.index]
    table["complete"] = table["folds"] >= table["folds_expected"]
    traded = [name for name in about.objectives if name in scores]
    if len(traded) > 1:
        table["front"] = False
    for score in scores:
        # One fold that is not a number leaves no mean: pandas would pass over it in silence.
        whole = ~frame[score].isna().groupby(frame["configuration"], sort=False).any()
        table[f"{score}_mean"] = grouped[score].mean().where(whole)
        table[f"{score}_sd"] = grouped[score].std(ddof=1).where(whole)
        if score == about.metric:
            mean, sd = table[f"{score}_mean"], table[f"{score}_sd"]
            half = sd * _half_width(table["folds"].to_numpy(), about.splits)
            least, most = BOUNDS[score]
            table[f"{score}_low"] = (mean - half).clip(lower=least)
            table[f"{score}_high"] = (mean + half).clip(upper=most)
    if len(traded) > 1:
        means = table[[f"{score}_mean" for score in traded]]
        table["front"] = front(means.where(table["complete"]), traded)
    table["seconds"] = grouped["seconds"].sum()
    table = table.reset_index()
    # The order of the plan decides ties, so that equal studies rank equally.
    planned = {name: place for place, name in enumerate(expected)}
    table = table.sort_values("configuration", key=lambda ids: ids.map(planned))
    key = table[f"{about.metric}_mean"] * (-1 if higher_is_better(entries) else 1)
    missing = (table["folds_expected"] - table["folds"]).clip(lower=0)
    table = table.assign(_missing=missing, _key=key)
    table = table.sort_values(["_missing", "_key"], kind="stable", na_position="last")
    table = table.drop(columns=["_missing", "_key"]).reset_index(drop=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


@view
def tasks(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row a task that was done, and one for each time that one was paused on the way.

    Returns
    -------
    DataFrame
        ``run``, ``fold``, the hyperparameters without ``epochs``, ``from_epoch``, ``to_epoch`` (of
        what was trained at one go: after a pause ``from_epoch`` is where it went on), ``session``,
        ``worker``, ``threads`` of the worker, ``cores`` it was pinned to (such as ``0-3``; empty:
        none), ``submitted``, ``started``, ``stopped`` (all by the driver's clock),
        ``waited`` and ``seconds``, ``<phase>_seconds``, ``patches``, ``updates``,
        ``patches_per_second`` of the worker while training, ``memory_mb``, ``parameters``,
        ``bundle``: how many runs were trained together from ``started`` to ``stopped``. Their
        ``seconds`` are shares of that time: sums of them count no second twice. ``paused``: whether
        the row ends with a pause instead of a milestone.
    """
    runs, columns = planned_runs(entries), hyperparameter_columns(entries)
    columns = {name: column for name, column in columns.items() if name != "epochs"}
    threads = {s.session: s.threads_per_worker for s in of_kind(entries, SessionBegun)}
    ahead, hosts = clocks(entries), hosts_of(entries)
    rows: list[dict[str, Any]] = []
    for task in stretches(entries):
        clock = ahead.get((task.session, hosts.get((task.session, task.worker), "")), 0.0)
        plan = runs.get(task.run)
        point = plan.hyperparameters if plan else {}
        train = task.phases.get("train", 0.0)
        rows.append(
            {"run": task.run, "fold": plan.fold if plan else -1}
            | {column: shown(point.get(name)) for name, column in columns.items()}
            | {
                "from_epoch": task.start,
                "to_epoch": task.to_epoch,
                "session": task.session,
                "worker": task.worker,
                "threads": task.threads or threads.get(task.session, 1),
                "cores": _cpus(task.cores),
                "submitted": task.submitted,
                "started": task.started - clock,
                "stopped": task.stopped - clock,
                "waited": max(0.0, task.started - clock - task.submitted),
                "seconds": task.seconds,
            }
            | {f"{phase}_seconds": task.phases.get(phase, 0.0) for phase in PHASES}
            | {
                "patches": task.patches,
                "updates": task.updates,
                "patches_per_second": task.patches / train if train > 0 < task.patches else np.nan,
                "memory_mb": task.memory_mb,
                "parameters": task.parameters,
                "bundle": task.bundle,
                "paused": isinstance(task, TaskPaused),
            }
        )
    reals = ["submitted", "started", "stopped", "waited", "seconds"]
    reals += [*(f"{phase}_seconds" for phase in PHASES), "patches_per_second", "memory_mb"]
    whole = ["fold", "from_epoch", "to_epoch", "session", "threads", "patches", "updates"]
    order = ["run", "fold", *columns.values(), "from_epoch", "to_epoch", "session", "worker"]
    order += ["threads", "cores", *reals[:-2], "patches", "updates", *reals[-2:], "parameters"]
    order += ["bundle", "paused"]
    whole += ["parameters", "bundle"]
    types = dict.fromkeys(reals, "float64") | dict.fromkeys(whole, "int64") | {"paused": "bool"}
    return _frame(rows, order, types)


@view
def sessions(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row a session of the driver.

    A session without an end was killed when another follows it, and otherwise runs still or was
    killed: its outcome is ``killed`` or ``open``, and it counts until its last record, or the end
    of a task of its that a later session found in a checkpoint.

    Parameters
    ----------
    entries : list of Entry
        The journal.

    Returns
    -------
    DataFrame
        - ``session``: its number.
        - ``host``, ``pid``, ``site``: the driver's machine and process, and where workers ran.
        - ``workers``, ``threads``: the layout, threads of each worker.
        - ``begun``, ``ended``, ``seconds``: two instants, and the time between them.
        - ``outcome``: how it ended.
        - ``tasks``, ``busy_seconds``: tasks that were done, and the seconds of all workers in
          tasks.
    """
    rows: dict[int, dict[str, Any]] = {
        number: {
            "session": number,
            "host": span.begun.host,
            "pid": span.begun.pid,
            "site": span.begun.site,
            "workers": span.begun.workers,
            "threads": span.begun.threads_per_worker,
            "begun": span.start,
            "ended": span.end,
            "seconds": span.seconds,
            "outcome": span.outcome,
            "tasks": 0,
            "busy_seconds": 0.0,
        }
        for number, span in spans(entries).items()
    }
    for task in stretches(entries):
        if (row := rows.get(task.session)) is not None:
            row["tasks"] += isinstance(task, TaskDone)
            row["busy_seconds"] += task.seconds
    order = "session host pid site workers threads begun ended seconds outcome tasks busy_seconds"
    types = dict.fromkeys(["session", "pid", "workers", "threads", "tasks"], "int64")
    types |= dict.fromkeys(["begun", "ended", "seconds", "busy_seconds"], "float64")
    return _frame(list(rows.values()), order.split(), types)


@view
def workers(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row a worker and session.

    Returns
    -------
    DataFrame
        ``session``, ``worker``, ``host``, ``pid``, ``ready`` and ``gone`` (instants),
        ``available_seconds`` between them (a worker that came back counts its spells),
        ``startup_seconds`` from the session's begin until ready, ``tasks``, ``busy_seconds``,
        ``<phase>_seconds``, ``busy_share`` of the time available, ``lost`` (how often),
        ``memory_mb`` at its peak.
    """
    sessions = spans(entries)
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for spell in spells(entries, sessions):
        row = rows.setdefault(
            (spell.session, spell.worker),
            {"session": spell.session, "worker": spell.worker, "ready": spell.start}
            | {"available_seconds": 0.0, "lost": 0},
        )
        row |= {"host": spell.host, "pid": spell.pid, "gone": spell.end}
        row["available_seconds"] += spell.seconds
        row["lost"] += spell.lost
    done = tasks(entries)
    sums: dict[tuple[int, str], dict[str, Any]] = {}
    groups: Any = done.groupby(["session", "worker"])
    for (session, worker), own in groups:
        sums[int(session), str(worker)] = {
            "tasks": int((~own["paused"]).sum()),
            "memory_mb": float(own["memory_mb"].max()),
            "busy_seconds": float(own["seconds"].sum()),
        } | {f"{phase}_seconds": float(own[f"{phase}_seconds"].sum()) for phase in PHASES}
    idle: dict[str, Any] = {"tasks": 0, "memory_mb": np.nan, "busy_seconds": 0.0}
    idle |= {f"{phase}_seconds": 0.0 for phase in PHASES}
    for key, row in rows.items():
        span = sessions.get(key[0])
        row["startup_seconds"] = max(row["ready"] - span.start, 0.0) if span else 0.0
        row |= sums.get(key, idle)
        room = row["available_seconds"]
        row["busy_share"] = row["busy_seconds"] / room if room > 0 else np.nan
    order = ["session", "worker", "host", "pid", "ready", "gone", "available_seconds"]
    reals = ["ready", "gone", "available_seconds", "startup_seconds", "busy_seconds"]
    reals += [*(f"{phase}_seconds" for phase in PHASES), "busy_share", "memory_mb"]
    order += ["startup_seconds", "tasks", *reals[4:-1], "lost", "memory_mb"]
    types = dict.fromkeys(["session", "pid", "tasks", "lost"], "int64")
    return _frame(list(rows.values()), order, types | dict.fromkeys(reals, "float64"))


@view
def failures(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row a failure of a run.

    Returns
    -------
    DataFrame
        ``run``, ``fold``, the hyperparameters without ``epochs``, ``from_epoch``, ``to_epoch``,
        ``failure``, ``reason``, ``detail``, ``session``, ``worker``, ``time``, and ``recovered``:
        whether the run got through later on.
    """
    runs, columns = planned_runs(entries), hyperparameter_columns(entries)
    columns = {name: column for name, column in columns.items() if name != "epochs"}
    whole = finished_runs(entries)
    rows: list[dict[str, Any]] = []
    for entry in entries:
        record = entry.record
        if not isinstance(record, RunFailed):
            continue
        plan = runs.get(record.run)
        point = plan.hyperparameters if plan else {}
        rows.append(
            {"run": record.run, "fold": plan.fold if plan else -1}
            | {column: shown(point.get(name)) for name, column in columns.items()}
            | {"from_epoch": record.from_epoch, "to_epoch": record.to_epoch}
            | {"failure": record.failure, "reason": record.reason, "detail": record.detail}
            | {"session": record.session, "worker": record.worker, "time": entry.time}
            | {"recovered": record.run in whole}
        )
    order = ["run", "fold", *columns.values(), "from_epoch", "to_epoch", "failure", "reason"]
    order += ["detail", "session", "worker", "time", "recovered"]
    types = dict.fromkeys(["fold", "from_epoch", "to_epoch", "session"], "int64")
    return _frame(rows, order, types | {"time": "float64", "recovered": "bool"})


@view
def retries(entries: Sequence[Entry]) -> pd.DataFrame:
    """Return one row a task that was given out again: when, which, and why."""
    rows = [
        {"run": r.run, "to_epoch": r.to_epoch, "attempt": r.attempt, "reason": r.reason}
        | {"session": r.session, "worker": r.worker, "time": entry.time}
        for entry in entries
        if isinstance(r := entry.record, TaskRetried)
    ]
    types = dict.fromkeys(["to_epoch", "attempt", "session"], "int64") | {"time": "float64"}
    order = ["run", "to_epoch", "attempt", "reason", "session", "worker", "time"]
    return _frame(rows, order, types)


def t_quantile(counts: Any) -> Any:
    """Return the factor of the two-sided 95 % t-interval for so many values; NaN below two."""
    freedom = np.asarray(counts, dtype=float) - 1
    factor = stdtrit(np.maximum(freedom, 1), 0.5 + CONFIDENCE / 2)
    return np.where(freedom >= 1, factor, np.nan)


def _half_width(folds: NDArray[Any], splits: int) -> NDArray[Any]:
    """Return half the t-interval of a mean over folds, in standard deviations over these folds.

    All rounds have the same mean but for chance in training, since each validates the same cases
    once: a fold less of each round scatters freely, and the mean has the variance of one round's.
    """
    rounds = -(-folds // splits)
    free = np.maximum(folds - rounds, 1)
    widened = np.sqrt((folds - 1) / free / np.minimum(folds, splits))
    width: NDArray[Any] = t_quantile(folds - rounds + 1) * widened
    return width


@view
def _folds_expected(entries: Sequence[Entry]) -> dict[str, int]:
    """Return the number of folds of every planned configuration, in the order of the plan."""
    folds: dict[str, set[int]] = {}
    runs = planned_runs(entries)
    for (run, _), name in configuration_names(entries).items():
        folds.setdefault(name, set()).add(runs[run].fold)
    least = study(entries).folds
    return {name: max(len(numbers), least) for name, numbers in folds.items()}


def _frame(
    rows: list[dict[str, Any]], columns: Sequence[str], types: Mapping[str, str]
) -> pd.DataFrame:
    """Return a frame with these columns; those without a type get the plainest that holds them."""
    series = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        kind = types.get(column)
        series[column] = pd.Series(values, dtype=kind) if kind else _plain_series(values)
    return pd.DataFrame(series, columns=list(columns))


def _cpus(cores: Sequence[int]) -> str:
    """Return a list of processors as Linux writes it: ``0-3,8``."""
    parts: list[list[int]] = []
    for cpu in sorted(cores):
        if parts and cpu == parts[-1][-1] + 1:
            parts[-1].append(cpu)
        else:
            parts.append([cpu])
    return ",".join(f"{part[0]}-{part[-1]}" if part[1:] else f"{part[0]}" for part in parts)


def _plain_series(values: Iterable[Any]) -> pd.Series[Any]:
    """Return a series of one type: whole numbers, numbers, booleans, else strings."""
    values = list(values)
    present = [value for value in values if value is not None]
    if present and len(present) == len(values) and all(type(v) is bool for v in present):
        return pd.Series(values, dtype="bool")
    if present and all(type(v) in (int, float) for v in present):
        whole = all(type(v) is int for v in present) and len(present) == len(values)
        return pd.Series(values, dtype="int64" if whole else "float64")
    return pd.Series([None if v is None else _text(v) for v in values], dtype="str")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
