"""Runs that are known get further milestones: what is on record is not trained again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stormsweep.search.plan import Plan
from stormsweep.work import Run


def beside(known: Mapping[str, Run], wanted: Run) -> list[Run]:
    """Return what serves a run's milestones beside runs that are known.

    Milestones after a run's last one make it longer: it goes on from its checkpoint. Those before
    it that were not scored on the way need a run of their own from the start, named after the first
    with a number: its scores are the same.

    Parameters
    ----------
    known : mapping of str to Run
        By id, each with all its milestones.
    wanted : Run
        With its milestones; its id is that of the first run of its hyperparameters and fold.

    Returns
    -------
    list of Run
        New runs, and known ones that are longer now; none where all milestones are served.

    Examples
    --------
    >>> run = Run("a-f0", {}, 0, (5, 10))
    >>> [(one.id, one.milestones) for one in beside({"a-f0": run}, Run("a-f0", {}, 0, (7, 10, 20)))]
    [('a-f0', (5, 10, 20)), ('a-f0.1', (7,))]
    """
    first = known.get(wanted.id)
    if first is None:
        return [wanted]
    missing, number = set(wanted.milestones) - set(first.milestones), 1
    while (other := known.get(f"{wanted.id}.{number}")) is not None:
        missing -= set(other.milestones)
        number += 1
    later = sorted(epoch for epoch in missing if epoch > first.milestones[-1])
    changed = []
    if later:
        changed.append(replace(first, milestones=(*first.milestones, *later)))
    if earlier := sorted(missing.difference(later)):
        changed.append(replace(wanted, id=f"{wanted.id}.{number}", milestones=tuple(earlier)))
    return changed


def family(known: Mapping[str, Run], name: str) -> list[Run]:
    """Return the first run of its hyperparameters and fold, and those named after it."""
    found, number = [], 0
    while (run := known.get(name if not number else f"{name}.{number}")) is not None:
        found.append(run)
        number += 1
    return found


def fitted(plan: Plan, known: Mapping[str, Run]) -> Plan:
    """Return a plan with its runs as they are beside those that are on record.

    Parameters
    ----------
    plan : Plan
        What a study is to train, as if nothing were known.
    known : mapping of str to Run
        The runs on record, by id, with all their milestones.

    Returns
    -------
    Plan
        The same configurations; runs with the milestones that they had too, and those that scores
        between these need. Runs that no configuration needs any more are left out.
    """
    runs: list[Run] = []
    for wanted in plan.runs:
        changed = {run.id: run for run in beside(known, wanted)}
        runs += [changed.pop(run.id, run) for run in family(known, wanted.id)]
        runs += changed.values()
    return replace(plan, runs=tuple(runs))
