"""What journals say of stretches of training: one row each, with all its time may hang on.

A stretch is what a worker did at one go: a task, or what was done of it before a pause.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stormsweep.config.sites import LOCAL
from stormsweep.records import Entry, SessionBegun, WorkerEvent
from stormsweep.results import facts, frames
from stormsweep.results.journal import of_kind
from stormsweep.results.spans import hosts_of, sharing_of

#: Building a model or restoring one takes longer than this; going on in memory does not.
_AT_ONCE = 0.005


def observations(
    entries: Sequence[Entry], environment: Mapping[Any, Any] | None = None, study: str = ""
) -> pd.DataFrame:
    """Return one row a stretch of training, with all that its time may hang on.

    Frames of several journals can be put together with `pandas.concat`.

    Parameters
    ----------
    entries : sequence of Entry
        A journal.
    environment : mapping, optional
        What the ``environment.json`` beside it says: on which processors, by which engine. Or that
        by number of the session.
    study : str
        What tells its runs from those of other journals; its name unless given.

    Returns
    -------
    DataFrame
        ``study``, ``run``, ``kind`` (site, processor, engine, precision, devices, model and inputs:
        what makes two stretches comparable), ``session``, ``worker``, ``started``, ``stopped``,
        ``seconds``, the phases ``<phase>_seconds``;
        ``epochs``, ``patches``, ``updates``, ``batch_size``, ``parameters``, ``bundle``;
        ``scores`` (not before a pause) and ``validation`` (patches scored); ``opens`` (the first of
        its process), ``compiles`` and ``builds`` (the program was compiled, the run was not in
        memory); ``threads``, ``workers`` of a node at once, and ``neighbours`` (threads of other
        workers of the node that were busy, on average over the stretch). Seconds of a bundle are
        shares.
    """
    found = frames.tasks(entries)
    about = facts.study(entries)
    plans = facts.planned_runs(entries)
    kinds = _kinds(entries, environment or {})
    processes = _processes(entries)
    host_of = hosts_of(entries)
    sizes = about.fold_sizes
    rows: list[dict[str, Any]] = []
    seen: set[tuple[int, str, int]] = set()
    order = found.sort_values("started", kind="stable").index
    plain = {name: found[name].tolist() for name in found.columns}
    for place in order:
        run, session, worker = (plain[name][place] for name in ("run", "session", "worker"))
        if run not in plans or not plain["patches"][place]:
            continue
        fold = plain["fold"][place]
        size = sizes[fold] if 0 <= fold < len(sizes) else {}
        validation = int(size.get("validation", 0))
        # Where a checkpoint was lost, more was trained than the stretch: its patches tell.
        again = round(plain["patches"][place] / size.get("epoch_patches", math.inf))
        process = (session, worker, processes(session, worker, plain["started"][place]))
        opens = process not in seen
        seen.add(process)
        bundle = plain["bundle"][place]
        rows.append(
            {name: plain[name][place] for name in _TAKEN}
            | {
                "study": study or about.name,
                "kind": kinds.get(session, ""),
                "epochs": max(plain["to_epoch"][place] - plain["from_epoch"][place], again),
                "batch_size": int(plans[run].hyperparameters["batch_size"]),
                "scores": not plain["paused"][place],
                "validation": 0 if plain["paused"][place] else validation,
                "opens": opens,
                "compiles": plain["compile_seconds"][place] * bundle > _AT_ONCE,
                "builds": plain["build_seconds"][place] * bundle > _AT_ONCE,
                "host": host_of.get((session, worker), ""),
            }
        )
    table = pd.DataFrame(rows, columns=[*_TAKEN, *_FOUND])
    table["neighbours"] = _neighbours(table)
    sharing = sharing_of(entries)
    table["workers"] = [
        sharing.get(who, 1) for who in zip(table["session"], table["worker"], strict=True)
    ]
    return table


_TAKEN = [
    *("run", "session", "worker", "started", "stopped", "seconds"),
    *(f"{phase}_seconds" for phase in facts.PHASES),
    *("patches", "updates", "parameters", "bundle", "threads"),
]
_FOUND = [
    "study",
    "kind",
    "epochs",
    "batch_size",
    "scores",
    "validation",
    "opens",
    "compiles",
    "builds",
]
_FOUND += ["host"]


def _kinds(entries: Sequence[Entry], environment: Mapping[Any, Any]) -> dict[int, str]:
    """Return by session what makes its stretches comparable with others, in words."""
    about = facts.study(entries)
    said: dict[int, Any] = {key: one for key, one in environment.items() if isinstance(key, int)}
    if not said:
        sessions = (environment, *environment.get("later", []))
        said = {int(one.get("session", 1)): one for one in sessions}
    inputs = ", ".join(about.data.get("inputs", ()))
    kinds = {}
    for record in of_kind(entries, SessionBegun):
        one = said.get(record.session, {})
        engine = str(one.get("engine", "tensorflow"))
        packed = " packed" if one.get("packing") and engine == "tensorflow" else ""
        devices = "".join(f" on {device}" for device in one.get("devices", ()))
        # The processor on record is the driver's: a node of a site may have another.
        place = () if record.site in ("", LOCAL) else (f"site {record.site}",)
        kinds[record.session] = "; ".join(
            (
                *place,
                str(one.get("processor", "an unknown processor")),
                f"{engine} {one.get('precision', 'float32')}{packed}{devices}",
                about.model.get("build", ""),
                inputs,
            )
        )
    return kinds


def _processes(entries: Sequence[Entry]) -> Any:
    """Return a function that says which of a worker's processes was at work at an instant."""
    ready: dict[tuple[int, str], list[float]] = {}
    for entry in entries:
        record = entry.record
        if isinstance(record, WorkerEvent) and record.event == "ready":
            ready.setdefault((record.session, record.worker), []).append(entry.time)

    def process(session: int, worker: str, started: float) -> int:
        times = ready.get((session, worker), [])
        # The first one had the task that began before its own record was written.
        return max(1, int(np.searchsorted(times, started, side="right")))

    return process


def _neighbours(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the threads of others that were busy on a stretch's node."""
    busy = np.zeros(len(table))
    places = table.reset_index(drop=True)
    groups: Any = places.groupby(["session", "host"], sort=False)
    for _, own in groups:
        at = own.index.to_numpy()
        # Runs of a bundle have their span in common: it counts once.
        once = own.drop_duplicates(["worker", "started"])
        begun, ended = once["started"].to_numpy(float), once["stopped"].to_numpy(float)
        weight = once["threads"].to_numpy(float)
        whole = _busy_until(begun, ended, weight)
        start, stop = own["started"].to_numpy(float), own["stopped"].to_numpy(float)
        length = np.maximum(stop - start, 1e-9)
        mean = (whole(stop) - whole(start)) / length
        busy[at] = np.maximum(0.0, mean - own["threads"].to_numpy(float))
    return busy


def _busy_until(begun: Any, ended: Any, weight: Any) -> Any:
    """Return a function: how many thread-seconds were worked until an instant."""
    times = np.concatenate([begun, ended])
    steps = np.concatenate([weight, -weight])
    order = np.argsort(times, kind="stable")
    times, level = times[order], np.cumsum(steps[order])
    area = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(times))])
    return lambda instant: np.interp(instant, times, area)
