"""Many simulated studies seen as one answer: how long, how much, with percentiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from stormsweep.scaling.durations import Durations
from stormsweep.scaling.machine import Machine
from stormsweep.scaling.simulated import Parts, Simulated
from stormsweep.scaling.simulation import simulate
from stormsweep.search.bundling import Bundling
from stormsweep.search.plan import Plan
from stormsweep.search.search import Search

#: Simulations, unless asked otherwise; fewer of studies with very many tasks, which vary less.
REPEATS = 20
_LEAST_REPEATS, _MOST_TASKS = 3, 2_000_000
#: Percentiles that a range goes from and to: nine of ten studies lie between.
_LOW, _HIGH = 5, 95
#: So many simulations have percentiles of their own; of fewer the least and the most are taken.
ENOUGH = 19


class Range(NamedTuple):
    """A median and where nine of ten simulated studies lie.

    Attributes
    ----------
    low, median, high : float
        The 5th, 50th and 95th percentile.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Range:
        """Return the range of some values.

        Between the i-th and the j-th of n, another one lies with a chance of (j - i) / (n + 1):
        the usual percentiles of twenty would hold 82 of a hundred, not 90.

        Parameters
        ----------
        values : iterable of float
            At least one.
        """
        found = np.percentile(list(values), (_LOW, 50, _HIGH), method="weibull")
        return cls(*(float(value) for value in found))


@dataclass(frozen=True, slots=True)
class Foretold:
    """What a study is foretold to take on a machine.

    Attributes
    ----------
    machine : Machine
        On what.
    repeats, tasks, runs : int
        Simulations; what each had to do.
    makespan : Range
        Seconds from asking until the last result.
    without_wait : Range
        The same less what jobs waited in the queue.
    core_hours, gpu_hours : Range
        Charged.
    cost : Range or None
        At the site's prices; None where it has none.
    utilisation : Range
        Share of their time that workers are at tasks.
    jobs : Range
        Jobs that run.
    parts : Parts
        What the makespan goes to: means, whose sum is its mean.
    longest_chain : float
        Seconds at tasks of the run that takes most: a median, as that of the makespan.
    driver_busy : float
        Seconds that the driver is busy: a mean.
    given_up : tuple of str
        Runs of which an epoch does not fit into a walltime, in some simulation; see `Simulated`.
    unfinished : int
        Simulations that the chain's jobs did not finish.
    """

    machine: Machine
    repeats: int
    tasks: int
    runs: int
    makespan: Range
    without_wait: Range
    core_hours: Range
    gpu_hours: Range
    cost: Range | None
    utilisation: Range
    jobs: Range
    parts: Parts
    longest_chain: float
    driver_busy: float
    given_up: tuple[str, ...] = ()
    unfinished: int = 0

    @property
    def finishes(self) -> bool:
        """Whether every simulation finished every run."""
        return not self.unfinished and not self.given_up


def repeats_for(tasks: int, asked: int | None = None) -> int:
    """Return how often to simulate a study with so many tasks.

    Examples
    --------
    >>> repeats_for(162), repeats_for(1_000_000), repeats_for(1_000_000, 40)
    (20, 3, 40)
    """
    if asked is not None:
        return asked
    return max(_LEAST_REPEATS, min(REPEATS, _MOST_TASKS // max(1, tasks)))


def strata(repeats: int) -> list[float]:
    """Return the normal deviations that simulations have in common with all their tasks, each one.

    How far off a fit is scales a whole study and does not average out. Were it drawn at random, a
    range of few simulations would be as wide as luck has it; so it is spread evenly, in such a way
    that `Range.of` finds its percentiles.

    Examples
    --------
    >>> [round(one, 3) for one in strata(2)]
    [-1.645, 1.645]
    """
    if repeats >= ENOUGH:
        places = np.arange(1, repeats + 1) / (repeats + 1)
    else:
        places = np.linspace(_LOW / 100, _HIGH / 100, repeats) if repeats > 1 else np.array([0.5])
    return [NormalDist().inv_cdf(float(place)) for place in places]


def foretell(
    plan: Plan,
    patches_per_epoch: Sequence[int],
    durations: Durations,
    machine: Machine,
    seed: int = 0,
    repeats: int | None = None,
    *,
    reached: Mapping[str, int] | None = None,
    paused: Mapping[str, int] | None = None,
    closed: Iterable[str] = (),
    bundling: Callable[[], Bundling] = Bundling.none,
    search: Callable[[], Search] | None = None,
) -> Foretold:
    """Simulate a study again and again; see `stormsweep.scaling.simulation.simulate`."""
    shut, before = frozenset(closed), reached or {}
    left = [run for run in plan.runs if run.id not in shut]
    tasks = sum(sum(stop > before.get(run.id, 0) for stop in run.milestones) for run in left)
    made = [
        simulate(
            plan,
            patches_per_epoch,
            durations,
            machine,
            (seed, number),
            reached=before,
            paused=paused,
            closed=shut,
            bundling=bundling,
            common=common,
            search=search,
        )
        for number, common in enumerate(strata(repeats_for(tasks, repeats)))
    ]
    runs = sum(before.get(run.id, 0) < run.milestones[-1] for run in left)
    if search is not None:
        # What the strategy did ask for, of all that it may.
        runs = round(float(np.median([len(one.runs) for one in made])))
        tasks = round(
            float(np.median([sum(len(run.milestones) for run in one.runs) for one in made]))
        )
    return summed_up(made, machine, tasks, runs)


def summed_up(made: Sequence[Simulated], machine: Machine, tasks: int, runs: int) -> Foretold:
    """Return what simulations of one study on one machine come to."""
    costs = [one.cost for one in made if one.cost is not None]
    parts = np.mean(
        [
            (
                one.parts.waiting,
                one.parts.starting,
                one.parts.busy,
                one.parts.idle,
                one.parts.overhead,
            )
            for one in made
        ],
        axis=0,
    )
    return Foretold(
        machine=machine,
        repeats=len(made),
        tasks=tasks,
        runs=runs,
        makespan=Range.of(one.makespan for one in made),
        without_wait=Range.of(one.makespan - one.parts.waiting for one in made),
        core_hours=Range.of(one.core_hours for one in made),
        gpu_hours=Range.of(one.gpu_hours for one in made),
        cost=Range.of(costs) if costs else None,
        utilisation=Range.of(one.utilisation for one in made),
        jobs=Range.of(one.jobs for one in made),
        parts=Parts(*parts.tolist()),
        longest_chain=float(np.median([one.longest_chain for one in made])),
        driver_busy=float(np.mean([one.driver_busy for one in made])),
        given_up=tuple(sorted({name for one in made for name in one.given_up})),
        unfinished=sum(not one.finished for one in made),
    )
