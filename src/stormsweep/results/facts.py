"""What the journal says, read out of its records: the study, its plan, what was done of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stormsweep.config.strategies import KNOWN_AHEAD
from stormsweep.config.study import METRICS
from stormsweep.errors import JournalError
from stormsweep.records import (
    Entry,
    PlaceRefused,
    Proposed,
    RunPlanned,
    SearchBegun,
    SearchEnded,
    SessionBegun,
    StudyBegun,
    TaskDone,
    TaskPaused,
)
from stormsweep.results.journal import of_kind
from stormsweep.results.progress import progress_of
from stormsweep.results.views import view
from stormsweep.work import identity

#: What a worker does in a task, in the order it does it.
PHASES = ("open", "build", "compile", "train", "score", "checkpoint")
#: Columns of the frames themselves; a hyperparameter called like one gives way.
_OWN = frozenset(
    (
        *("rank", "configuration", "run", "fold", "folds", "folds_expected", "complete", "seconds"),
        "front",
        *("session", "worker", "from_epoch", "to_epoch", "submitted", "started", "stopped"),
        *("waited", "threads", "cores", "patches", "updates", "patches_per_second", "memory_mb"),
        *("parameters", "bundle", "paused", "failure", "reason", "detail", "time", "recovered"),
        *(f"{phase}_seconds" for phase in PHASES),
    )
)


@view
def refused(entries: Sequence[Entry]) -> list[str]:
    """Return why nodes, or GPUs, got no more work: a line for each that names it.

    Where there were several sessions, each line says in which: the next one gives them work again.
    """
    several = len(of_kind(entries, SessionBegun)) > 1
    said = (
        f"{one.reason} (session {one.session})" if several else one.reason
        for one in of_kind(entries, PlaceRefused)
    )
    return list(dict.fromkeys(said))


@view
def refused_last(entries: Sequence[Entry]) -> list[str]:
    """Return why nodes, or GPUs, get no more work in the last session, as in `refused`."""
    last = max((one.session for one in of_kind(entries, SessionBegun)), default=1)
    found = (one.reason for one in of_kind(entries, PlaceRefused) if one.session == last)
    return list(dict.fromkeys(found))


@view
def study(entries: Sequence[Entry]) -> StudyBegun:
    """Return what the study is about.

    Raises
    ------
    JournalError
        If the journal does not say, because nothing was recorded yet.
    """
    begun = of_kind(entries, StudyBegun)
    if not begun and of_kind(entries, SearchBegun):
        raise JournalError(
            "journal.jsonl: is that of a SweepSearchCV, not of a study; `stormsweep status` and "
            "`stormsweep results` tell of it"
        )
    if not begun:
        raise JournalError("journal.jsonl: no study is recorded in it yet; run the study first")
    return begun[-1]


def epoch_patches(entries: Sequence[Entry], folds: int) -> list[int]:
    """Return the patches of an epoch of each fold, balanced.

    Parameters
    ----------
    entries : list of Entry
        The journal.
    folds : int
        How many: folds that a study has got since are taken to be like those of its first round.
    """
    about = study(entries)
    sizes = [int(size["epoch_patches"]) for size in about.fold_sizes]
    return sizes + [sizes[fold % about.splits] for fold in range(len(sizes), folds)]


@view
def higher_is_better(entries: Sequence[Entry]) -> bool:
    """Say whether the study's metric is to be maximized."""
    return METRICS.get(study(entries).metric, "maximize") == "maximize"


@view
def planned_runs(entries: Sequence[Entry]) -> dict[str, RunPlanned]:
    """Return the planned runs by id; a run planned again has the milestones of both plans.

    Milestones that a change of the study made needless are left out, and so are runs without any.
    """
    return progress_of(entries).planned


@view
def planned_configurations(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Return the hyperparameters of every planned configuration by id, in the order of the plan."""
    names, points = configuration_names(entries), {}
    for run, plan in planned_runs(entries).items():
        for epochs in plan.milestones:
            name = names[run, epochs]
            if name not in points:
                points[name] = {**plan.hyperparameters, "epochs": epochs}
    return points


@view
def configuration_names(entries: Sequence[Entry]) -> dict[tuple[str, int], str]:
    """Return the id of the configuration that each planned run is at each of its milestones."""
    names: dict[tuple[str, int], str] = {}
    for run, plan in planned_runs(entries).items():
        for epochs in plan.milestones:
            names[run, epochs] = identity({**plan.hyperparameters, "epochs": epochs})
    return names


@view
def tasks_done(entries: Sequence[Entry]) -> list[TaskDone]:
    """Return the tasks that were done, each stretch of a run once, in the order of the journal."""
    return [record for record in stretches(entries) if isinstance(record, TaskDone)]


@view
def stretches(entries: Sequence[Entry]) -> list[TaskDone | TaskPaused]:
    """Return what was trained at one go, each once, in the order of the journal.

    These are the tasks that were done, from where they went on after a pause, and the stretches
    before their pauses: the times, patches and epochs of all are those of the study.
    """
    seen: set[tuple[str, int]] = set()
    found: list[TaskDone | TaskPaused] = []
    for entry in entries:
        record = entry.record
        if isinstance(record, TaskDone):
            if (record.run, record.to_epoch) in seen:
                continue
            seen.add((record.run, record.to_epoch))
        elif not isinstance(record, TaskPaused):
            continue
        found.append(record)
    return found


@view
def finished_runs(entries: Sequence[Entry]) -> set[str]:
    """Return the ids of the runs that were scored at all their milestones."""
    done: dict[str, set[int]] = {}
    for task in of_kind(entries, TaskDone):
        done.setdefault(task.run, set()).add(task.to_epoch)
    runs = planned_runs(entries)
    return {run for run, plan in runs.items() if done.get(run, set()) >= set(plan.milestones)}


@view
def search_over(entries: Sequence[Entry]) -> bool:
    """Tell whether no more runs will be planned: a strategy that learns says so when it is done."""
    over, strategy = True, ""
    for entry in entries:
        match entry.record:
            case StudyBegun(strategy=name) if name != strategy:
                over, strategy = name in KNOWN_AHEAD, name
            case Proposed():
                over = False
            case SearchEnded():
                over = True
            case _:
                pass
    return over


@view
def score_names(entries: Sequence[Entry]) -> list[str]:
    """Return the names of the scores, the study's metric first."""
    names = dict.fromkeys([study(entries).metric])
    for record in of_kind(entries, TaskDone):
        names.update(dict.fromkeys(record.scores))
    return list(names)


@view
def hyperparameter_columns(entries: Sequence[Entry]) -> dict[str, str]:
    """Return the column of each hyperparameter, in the order of the space, ``epochs`` last."""
    names = dict.fromkeys(study(entries).space)
    for record in of_kind(entries, RunPlanned):
        names.update(dict.fromkeys(record.hyperparameters))
    names.pop("epochs", None)
    scores = score_names(entries)
    taken = _OWN.union(
        scores, *({f"{s}_{x}" for x in ("mean", "sd", "low", "high")} for s in scores)
    )
    columns = {name: f"hyperparameter_{name}" if name in taken else name for name in names}
    return {**columns, "epochs": "epochs"}


def shown(value: Any) -> Any:
    """Return a hyperparameter's value as a frame holds it: lists and tables as a string."""
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value
