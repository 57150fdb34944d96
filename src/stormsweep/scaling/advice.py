"""What to ask for: layouts, nodes and sites, each simulated, and the best among them.

Everything is decided from `Foretold`: the numbers of advice are those of a simulation of the same
layout.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from stormsweep.errors import UserError
from stormsweep.scaling.foretold import Foretold, Range
from stormsweep.scaling.machine import Machine
from stormsweep.wording import counted, duration, percent

#: Twice the nodes must take this share off the time to be worth it.
_WORTH = 0.1
#: A part of the makespan with so large a share of it is what more nodes would not shorten.
_MOST = 0.5
#: Where the driver is busy for such a share of the time that workers work, they wait for it.
_DRIVER_FULL = 0.75
#: A walltime that is too short is tried again longer by this factor.
_LONGER = 1.1
CORE_HOURS, GPU_HOURS, MONEY = "core-h", "gpu-h", "money"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a study may cost.

    Attributes
    ----------
    amount : float
        How many of the unit at most, in 19 of 20 cases.
    unit : str
        ``core-h``, ``gpu-h`` or ``money``, at the site's prices.
    """

    amount: float
    unit: str

    def of(self, foretold: Foretold) -> Range:
        """Return what a study costs in this unit.

        Parameters
        ----------
        foretold : Foretold
            The study on a machine.

        Returns
        -------
        Range
            Median and percentiles, of hours or of money.

        Raises
        ------
        UserError
            If that is money, and the site has no prices.
        """
        return cost_of(foretold, self.unit)

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}" if self.unit != MONEY else f"{self.amount:g}"


def cost_of(foretold: Foretold, unit: str) -> Range:
    """Return a cost in a unit; see `Budget`."""
    if unit == CORE_HOURS:
        return foretold.core_hours
    if unit == GPU_HOURS:
        return foretold.gpu_hours
    if foretold.cost is None:
        raise UserError(
            f"site {foretold.machine.name!r} has no prices; set price_per_core_hour (and "
            "price_per_gpu_hour) in sites.toml, or give the budget in core-h"
        )
    return foretold.cost


@dataclass(frozen=True, slots=True)
class Advice:
    """Layouts compared.

    Attributes
    ----------
    candidates : tuple of Foretold
        All that were simulated, by site and size.
    unit : str
        What cost is in; see `Budget`.
    front : tuple of Foretold
        None of the others is both faster and cheaper: the fastest last.
    knee : Foretold
        Of the front: from there on, time costs more and more.
    chosen : Foretold
        What is advised, with the longest walltime.
    asked : Foretold
        The same with the walltime to ask for: simulated with it.
    because : str
        Why, in a few words.
    limits : tuple of str
        For each site and layout in one line, where more nodes (workers) stop helping, and why.
    """

    candidates: tuple[Foretold, ...]
    unit: str
    front: tuple[Foretold, ...]
    knee: Foretold
    chosen: Foretold
    asked: Foretold
    because: str
    limits: tuple[str, ...]


def advise(
    families: Iterable[Sequence[Machine]],
    foretell: Callable[[Machine], Foretold],
    *,
    deadline: float | None = None,
    budget: Budget | None = None,
) -> Advice:
    """Simulate candidates and choose among them.

    Parameters
    ----------
    families : iterable of sequence of Machine
        Candidates of one site and one layout of a node, from small to large.
    foretell : callable
        Simulates a machine.
    deadline : float, optional
        Seconds in which the study must be done, in 19 of 20 cases.
    budget : Budget, optional
        What it may cost, in 19 of 20 cases.

    Returns
    -------
    Advice
        The cheapest within the deadline, or the fastest within the budget; with both the cheapest
        of those that keep to both; with neither the knee.

    Raises
    ------
    UserError
        If nothing meets them; the text names what comes nearest. If costs cannot be compared.
    """
    asked = [list(family) for family in families]
    unit = _unit([machine for family in asked for machine in family], budget)
    made = [[foretell(machine) for machine in family] for family in asked]
    candidates = [one for family in made for one in family]
    sound = [one for one in candidates if one.finishes]
    if not candidates:
        raise UserError("there is no layout to try")
    if not sound:
        raise UserError(_no_walltime(candidates))
    front = pareto(sound, unit)
    knee = knee_of(front, unit)
    chosen, because = _choose(sound, front, knee, unit, deadline, budget)
    asked_for = with_walltime(chosen, foretell)
    limits = tuple(limit(family) for family in made)
    return Advice(tuple(candidates), unit, front, knee, chosen, asked_for, because, limits)


def _unit(machines: Sequence[Machine], budget: Budget | None) -> str:
    """Return what costs are compared in: what is asked, money, or what all machines charge.

    Raises
    ------
    UserError
        If there is nothing that they have in common, or nobody says how many cores are charged.
    """
    gpus = {machine.gpus_per_node > 0: machine.name for machine in machines}
    if budget is not None:
        if budget.unit == GPU_HOURS and False in gpus:
            raise UserError(
                f"--budget: given {budget}; {gpus[False]} has no GPUs, so that it takes none of "
                "them however long; give a budget in core-h or in money"
            )
        if budget.unit == CORE_HOURS or (
            budget.unit == MONEY and not all(machine.priced for machine in machines)
        ):
            _refuse_uncounted(machines)
        return budget.unit
    if all(machine.priced for machine in machines):
        return MONEY
    if False in gpus:
        _refuse_uncounted(machines)
    if len(gpus) > 1:
        raise UserError(
            f"{gpus[True]} has GPUs and {gpus[False]} has none, and without prices nothing "
            "compares their costs; set price_per_core_hour and price_per_gpu_hour of both in "
            "sites.toml, or ask for one of them (--site)"
        )
    return GPU_HOURS if True in gpus else CORE_HOURS


def _refuse_uncounted(machines: Sequence[Machine]) -> None:
    for machine in machines:
        if math.isnan(machine.cores_per_node):
            raise UserError(
                f"nodes of {machine.name} are exclusive, and nobody says how many of their cores "
                "are charged; set cores_per_node of it in sites.toml"
            )


def _no_walltime(candidates: Sequence[Foretold]) -> str:
    one = candidates[-1]
    if one.given_up:
        return (
            f"on {one.machine.name} an epoch of {len(one.given_up)} runs does not fit into the "
            "walltime; ask for a longer walltime"
        )
    return f"on {one.machine.name} {one.machine.max_jobs} jobs one after another do not finish it"


def pareto(candidates: Sequence[Foretold], unit: str) -> tuple[Foretold, ...]:
    """Return those that no other is both faster and cheaper than, the cheapest first."""
    front: list[Foretold] = []
    best = math.inf
    order = sorted(candidates, key=lambda one: (cost_of(one, unit).median, one.makespan.median))
    for one in order:
        if one.makespan.median < best:
            front.append(one)
            best = one.makespan.median
    return tuple(front)


def knee_of(front: Sequence[Foretold], unit: str) -> Foretold:
    """Return where a front bends most: what has the least product of time and cost.

    To the left of it a percent of time is bought with less than a percent of cost, to the right
    with more: the same for every unit of either.
    """
    return min(
        front,
        key=lambda one: (one.makespan.median * cost_of(one, unit).median, one.makespan.median),
    )


def _choose(
    sound: Sequence[Foretold],
    front: Sequence[Foretold],
    knee: Foretold,
    unit: str,
    deadline: float | None,
    budget: Budget | None,
) -> tuple[Foretold, str]:
    if deadline is None and budget is None:
        return knee, "the knee: beyond it, saving 1 % of time costs more than 1 % more"
    cheap = [one for one in sound if budget is None or budget.of(one).high <= budget.amount]
    soon = [one for one in cheap if deadline is None or one.makespan.high <= deadline]
    if soon and deadline is not None:
        chosen = min(soon, key=lambda one: (cost_of(one, unit).median, one.makespan.median))
        within = "the deadline" if budget is None else "the deadline and the budget"
        return chosen, f"the cheapest within {within}"
    if soon:
        chosen = min(soon, key=lambda one: (one.makespan.median, cost_of(one, unit).median))
        return chosen, "the fastest within the budget"
    if not cheap:
        assert budget is not None
        nearest = min(sound, key=lambda one: budget.of(one).high)
        raise UserError(
            f"--budget: nothing keeps to {budget}; the nearest is {called(nearest.machine)} with "
            f"{budget.of(nearest).high:.3g} {unit if unit != MONEY else 'in money'}"
        )
    assert deadline is not None
    nearest = min(cheap, key=lambda one: one.makespan.high)
    within = "" if budget is None else " within the budget"
    raise UserError(
        f"--deadline: nothing is done{within} in {duration(deadline)}; the nearest is "
        f"{called(nearest.machine)} with {duration(nearest.makespan.high)}"
    )


def limit(family: Sequence[Foretold]) -> str:
    """Say where more nodes (workers) of a family stop helping, and why."""
    noun = "worker" if family[0].machine.name == "local" else "node"
    what = family[0].machine
    where = f"{what.name}, {counted(what.threads_per_worker, 'thread')} a worker"
    if noun == "node":
        where = f"{what.name}, {what.workers_per_node} x {what.threads_per_worker} a node"
    for before, after in itertools.pairwise(family):
        more = _size(after) / _size(before)
        # What doubling must bring, also where the next candidate is not twice as large.
        expected = (1 - _WORTH) ** math.log2(more)
        if after.makespan.median > expected * before.makespan.median:
            count = _size(before)
            hardly = f"more than {counted(count, noun)} hardly help{'s' if count == 1 else ''}"
            return f"{where}: {hardly}: {why(before, after)}"
    most = _size(family[-1])
    return f"{where}: {counted(most, noun)}, the most tried, still help{'s' if most == 1 else ''}"


def why(before: Foretold, after: Foretold) -> str:
    """Say why a larger machine is hardly faster than a smaller one, from what its time went to."""
    # Each part is of the whole that it was averaged with: of a median a mean may be more than all.
    parts, whole, span = after.parts, after.parts.whole, after.makespan.median
    if span <= 0:
        return "nothing is left to share"
    at_work = whole - parts.waiting - parts.starting
    if after.driver_busy >= _DRIVER_FULL * at_work:
        # It is busy with others' tasks before the worker that ends last is there, and after it.
        share = min(1.0, after.driver_busy / max(at_work, 1e-9))
        return f"overhead: the driver is busy for {percent(share)} of the time"
    if parts.overhead >= _MOST * whole:
        return f"overhead: {percent(parts.overhead / whole)} of the time passes between tasks"
    if parts.waiting >= _MOST * whole:
        return f"the queue: {percent(parts.waiting / whole)} of the time is waiting in it"
    if parts.starting >= _MOST * whole:
        starting = percent(parts.starting / whole)
        return f"start-up: {starting} of the time passes until workers are ready"
    if before.machine.workers >= before.runs:
        return (
            f"nothing left to share: {counted(before.runs, 'run')}, one worker each, and the "
            f"longest run takes {duration(before.longest_chain)}"
        )
    if after.longest_chain >= _MOST * span:
        return f"the longest run takes {duration(after.longest_chain)} of {duration(span)}"
    if (beside := parts.waiting + parts.starting + parts.overhead) >= _MOST * whole:
        return f"start-up and overhead: {percent(beside / whole)} of the time"
    return f"workers are idle for {percent(1 - after.utilisation.median)} of their time"


def _size(one: Foretold) -> int:
    return one.machine.workers if one.machine.name == "local" else one.machine.nodes


def counts(most: int) -> list[int]:
    """Return the numbers of nodes (workers) to try: 1, 2, 3, 4, 6, 8, 12, ...

    Examples
    --------
    >>> counts(10)
    [1, 2, 3, 4, 6, 8, 10]
    """
    found = {1, most}
    number = 2
    while number <= most:
        found |= {number, number * 3 // 2} if number * 3 // 2 <= most else {number}
        number *= 2
    return sorted(found)


def sized(machine: Machine, most: int) -> list[Machine]:
    """Return a machine with 1, 2, 3 and up to `most` nodes."""
    return [replace(machine, nodes=count) for count in counts(most)]


def called(machine: Machine) -> str:
    """Return a layout in words.

    Examples
    --------
    >>> called(Machine.local(2, 1))
    'local with 2 workers x 1 thread'
    >>> called(Machine("taki", nodes=3, workers_per_node=16))
    'taki with 3 nodes of 16 workers x 1 thread'
    """
    layout = (
        f"{counted(machine.workers_per_node, 'worker')} x "
        f"{counted(machine.threads_per_worker, 'thread')}"
    )
    if machine.name == "local":
        return f"local with {layout}"
    return f"{machine.name} with {counted(machine.nodes, 'node')} of {layout}"


def with_walltime(chosen: Foretold, foretell: Callable[[Machine], Foretold]) -> Foretold:
    """Return what is chosen, simulated with the least walltime that changes nothing.

    What is left of a walltime may be too little for an epoch to be begun: then runs pause, and wait
    for another worker, or in the queue again. So the walltime is raised until jobs and times are
    those that were foretold.

    Parameters
    ----------
    chosen : Foretold
        With the longest walltime that may be asked for; without end where nobody knows of one.
    foretell : callable
        Simulates a machine.
    """
    longest = chosen.machine.walltime
    if chosen.machine.name == "local":
        return chosen
    walltime = walltime_for(chosen, longest)
    while walltime < longest:
        found = foretell(replace(chosen.machine, walltime=walltime))
        # Times that are added up in another order differ in the last digits.
        as_soon = all(map(math.isclose, found.makespan, chosen.makespan))
        if found.jobs == chosen.jobs and as_soon:
            return found
        walltime = min(longest, _quarters(_LONGER * walltime))
    return chosen


def walltime_for(foretold: Foretold, longest: float) -> float:
    """Return the walltime to try: what nearly all studies take, to a quarter of an hour.

    Parameters
    ----------
    foretold : Foretold
        Without walltime, or with the site's.
    longest : float
        What the site allows.
    """
    need = foretold.without_wait.high
    need += 2 * max(60.0, 0.1 * need)
    return min(longest, _quarters(need))


def _quarters(seconds: float) -> float:
    return 900.0 * math.ceil(seconds / 900.0)
