"""The table of a campaign."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from .kinds import KINDS, WALLTIME

#: Violations of one study that the table shows.
_SHOWN = 2


def table(told: dict[str, Any]) -> str:
    """Return it in Markdown."""
    studies = told["studies"]
    faults = [fault for study in studies for fault in study["faults"]]
    known, found = told["facts"], _violations(studies)
    count = sum(bool(study["violations"]) for study in studies)
    lines = [
        f"{len(faults)} faults at random instants in {len(studies)} studies on a Slurm "
        f"({known['slurm']}) whose nodes are this machine: {known['cores']} cores, "
        f"{known['processor']}, Python {known['python']}, Stormsweep {known['stormsweep']}.",
        "",
        "| fault | injected | that hit work | tasks retried | time lost a task, median, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        ours = [fault for fault in faults if fault["kind"] == kind]
        if ours:
            lost = [seconds for fault in ours for seconds in fault["lost"]]
            hit = sum(bool(fault["lost"]) for fault in ours)
            lines.append(_row(kind, len(ours), hit, len(lost), lost))
    ends = [one for study in studies for one in study["walltimes"]]
    if ends:
        hit = sum(bool(one["paused"] + one["lost"]) for one in ends)
        lines.append(f"| {WALLTIME} | {len(ends)} | {hit} | paused, not lost | |")
    lost = [seconds for fault in faults for seconds in fault["lost"]]
    lines.append(
        _row("all", len(faults), sum(bool(fault["lost"]) for fault in faults), len(lost), lost)
    )
    by_way = {way: sum(study["way"] == way for study in studies) for way in ("run", "submit")}
    resumed = sum(study.get("resumed", 0) for study in studies)
    unmet = sum(not fault["met"] for fault in faults)
    lines += [
        "",
        f"**Studies with violations: {count}**"
        + (":" if found else " (a score lost, twice or different to the last bit; a journal"),
    ]
    if found:
        lines += [f"- {violation}" for violation in found]
    else:
        lines += [
            "that cannot be read; a loss not on record, or under a wrong name; a driver that ended",
            "without a fault that ends drivers; a process, a job or a secret left at the end).",
        ]
    lines += [
        "",
        f"{by_way['run']} studies by `run --site` (each node a job), {by_way['submit']} by "
        "`submit` (steps in one job, jobs in a chain);",
        f"{sum(study['walltime'] == '00:01:00' for study in studies)} of them with jobs of one "
        f"minute. {sum(study['sessions'] for study in studies)} sessions of drivers;",
        "Runs set aside after three kills and tried again: "
        f"{sum(study['set_aside'] for study in studies)}. The same command was given again",
        *_again(studies),
        f"Nodes that Slurm drained by itself and that were resumed, as operators do: {resumed}.",
        f"Of troubles made for sbatch and srun, {unmet} met no call. The last process and job were",
        f"gone at most {max(study['gone'] for study in studies):.1f} s after the end of a study.",
        "",
        "Each study trains a small network on scikit-learn's digits, on two nodes of one worker:",
        "no data of storms. Scores are compared with those of a run on this machine without Slurm",
        "and faults. Time lost: from when a task was given out to when it was given out again, so",
        "work since the last milestone and the wait for a new worker, node or driver together; on",
        "two cores for driver, workers and Slurm. Tasks that paused at a walltime go on where they",
        "were. An agent, or in a submitted job the driver, is killed to have the troubled command",
        "called. slurmctld's absence and most of slurmd's cost no task, as they should.",
    ]
    if told.get("notes"):
        lines += ["", *told["notes"]]
    return "\n".join(lines) + "\n"


def _violations(studies: list[dict[str, Any]]) -> list[str]:
    """Return a line for each, of which a study that was not done can have dozens."""
    lines = []
    for study in studies:
        all_ = study["violations"]
        where = f"seed {study['seed']}, study {study['number']} (`{study['way']}`)"
        lines += [f"{where}: {' '.join(violation.split())[:160]}" for violation in all_[:_SHOWN]]
        if len(all_) > _SHOWN:
            lines.append(f"{where}: {len(all_) - _SHOWN} more, in `faults.json`")
    return lines


def _again(studies: list[dict[str, Any]]) -> list[str]:
    lines = []
    for way in ("run", "submit"):
        ours = [cause for study in studies if study["way"] == way for cause in study["again"]]
        counts = ", ".join(f"{times} x {cause}" for cause, times in Counter(ours).most_common())
        lines.append(f"- to `{way}`: {len(ours)} times" + (f": {counts}" if ours else ""))
    return [*lines, ""]


def _row(name: str, injected: int, hit: int, again: int, lost: list[float]) -> str:
    median = f"{statistics.median(lost):.1f}" if lost else ""
    return f"| {name} | {injected} | {hit} | {again} | {median} |"
