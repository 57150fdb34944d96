"""What is measured to see how a study scales: which runs, in which order. Pure functions."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from stormsweep.errors import UserError
from stormsweep.scaling.layouts import PINS, Layout
from stormsweep.search.plan import Plan, program, structure
from stormsweep.wording import counted
from stormsweep.work import Run, identity

#: Runs that every worker of the widest layout has to have, where only some are measured: with fewer
#: it would be seen how evenly they divide, not how well the layout works.
RUNS_EACH = 3
#: What more threads of a worker are taken to be worth before they are measured: their number to
#: this power.
_THREADS_WORTH = 0.5


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: a layout, the runs it trains, and which repeat it is.

    Attributes
    ----------
    layout : Layout
        The layout.
    runs : int
        How many runs, the first ones of the order that is kept in ``scale.json``.
    repeat : int
        From 1.
    """

    layout: Layout
    runs: int
    repeat: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.layout.name}.{self.runs}-runs.{self.repeat}"


@dataclass(frozen=True, slots=True)
class Part:
    """Runs of a plan, and the milestones at which each is scored.

    Attributes
    ----------
    milestones : mapping of str to tuple of int
        By the runs' ids.
    """

    milestones: Mapping[str, tuple[int, ...]]

    def of(self, plan: Plan) -> Plan:
        """Return the plan of these runs alone, in their order."""
        known = {run.id: run for run in plan.runs}
        runs = tuple(
            replace(known[name], milestones=stops) for name, stops in self.milestones.items()
        )
        # Cut milestones make configurations that the whole plan need not have.
        points = [
            {**run.hyperparameters, "epochs": stop} for run in runs for stop in run.milestones
        ]
        configurations = {identity(point): point for point in points}
        return Plan(tuple(configurations.values()), plan.folds, runs)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What runs are foreseen to take.

    Attributes
    ----------
    epoch : mapping of str to float
        Seconds of an epoch of each run with one worker of one thread.
    program : float
        Seconds to build and compile one, which every worker does for every program it needs.
    starting : float
        Seconds until workers are ready.
    any_batch : bool
        Whether a program takes batches of any size.
    """

    epoch: Mapping[str, float]
    program: float = 0.0
    starting: float = 0.0
    any_batch: bool = False

    def cell(self, runs: Sequence[Run], layout: Layout) -> float:
        """Return about how long a layout takes for runs."""
        faster = math.pow(layout.threads, _THREADS_WORTH)
        each = [self.epoch[run.id] * run.milestones[-1] / faster for run in runs]
        programs = len({program(run, self.any_batch) for run in runs})
        met = min(programs, math.ceil(len(runs) / layout.workers))
        work = sum(each) / layout.workers
        return self.starting + max(work, max(each, default=0.0)) + met * self.program


@dataclass(frozen=True, slots=True)
class Work:
    """The runs that are measured.

    Attributes
    ----------
    runs : tuple of Run
        In an order in which the first so many have all batch sizes as alike as can be.
    weak : int
        For weak scaling: runs for each worker; 0: it is not measured.
    why : str
        Which they are, and why not all; empty: all, whole.
    """

    runs: tuple[Run, ...]
    weak: int = 0
    why: str = ""

    def part(self, count: int) -> Part:
        """Return the first so many runs, as a part of the plan."""
        return Part({run.id: run.milestones for run in self.runs[:count]})


def spread(runs: Sequence[Run], seed: int) -> list[Run]:
    """Order runs so that the first so many are as mixed as can be.

    Batch sizes come by turns; within one, models of different structure by turns; what is left
    (learning rates, folds) makes no difference to the time and comes as the seed has it.
    """
    shuffled = list(runs)
    random.Random(f"spread-{seed}").shuffle(shuffled)

    def batch(run: Run) -> int:
        return int(run.hyperparameters["batch_size"])

    sizes = sorted({batch(run) for run in runs})
    return _by_turns(
        [
            _by_turns(
                [
                    [run for run in shuffled if batch(run) == size and structure(run) == kind]
                    for kind in sorted({structure(run) for run in runs if batch(run) == size})
                ]
            )
            for size in sizes
        ]
    )


def _by_turns(piles: Sequence[Sequence[Run]]) -> list[Run]:
    longest = max(map(len, piles), default=0)
    return [pile[turn] for turn in range(longest) for pile in piles if turn < len(pile)]


def choose_work(
    runs: Sequence[Run],
    wanted: Sequence[Layout],
    repeats: int,
    weak: bool,
    estimate: Estimate,
    minutes: float,
    seed: int,
    option: str = "",
) -> Work:
    """Choose the runs that are measured: all, if that is not too long, else fewer, then shorter.

    Parameters
    ----------
    runs : sequence of Run
        Of the study.
    wanted : sequence of Layout
        All that are measured.
    repeats : int
        How often each.
    weak : bool
        Whether weak scaling is measured too.
    estimate : Estimate
        What runs take.
    minutes : float
        How long all may take.
    seed : int
        The study's.
    option : str, optional
        Where the widest layout comes from, such as ``--nodes: given 2``.

    Raises
    ------
    UserError
        If nothing is to be measured, the study has fewer runs than the widest layout workers, or
        even a part takes longer.
    """
    widest = max(layout.workers for layout in wanted)
    if repeats < 1:
        raise UserError(f"--repeats: given {repeats}; must be at least 1")
    if len(runs) < widest:
        raise UserError(
            f"{option or f'--workers: given {widest}'}; the study has "
            f"{counted(len(runs), 'run')}, and a worker without one tells nothing"
        )
    ordered = spread(runs, seed)
    sizes = len({run.hyperparameters["batch_size"] for run in runs})
    longest = max(run.milestones[-1] for run in runs)
    least = min(len(runs), max(sizes, RUNS_EACH * widest))

    def work(count: int, epochs: int) -> Work:
        kept = tuple(_cut(run, epochs) for run in ordered[:count])
        return Work(kept, for_each(count, widest, sizes) if weak else 0)

    def fits(count: int, epochs: int) -> bool:
        chosen = work(count, epochs)
        return foreseen(cells(chosen, wanted, repeats, seed), chosen, estimate) <= 60 * minutes

    if fits(len(runs), longest):
        return work(len(runs), longest)
    if not fits(least, 1):
        shortest = work(least, 1)
        seconds = foreseen(cells(shortest, wanted, repeats, seed), shortest, estimate)
        raise UserError(
            f"--minutes: given {minutes:g}; an epoch of {least} runs in every layout takes about "
            f"{counted(math.ceil(seconds / 60), 'minute')}; allow more, or ask for fewer layouts "
            "or repeats"
        )
    count, epochs = least, longest
    if fits(least, longest):
        count = _largest(least, len(runs), lambda number: fits(number, longest))
    else:
        epochs = _largest(1, longest, lambda number: fits(least, number))
    shorter = f", trained for {counted(epochs, 'epoch')} at most instead of {longest}"
    return replace(
        work(count, epochs),
        why=(
            f"{count} of {len(runs)} runs{shorter * (epochs < longest)}, of all batch sizes alike: "
            f"with all of them every layout {counted(repeats, 'time')} would take more than "
            f"{minutes:g} minute{'' if minutes == 1 else 's'}"
        ),
    )


def _cut(run: Run, epochs: int) -> Run:
    last = min(epochs, run.milestones[-1])
    return replace(run, milestones=(*(stop for stop in run.milestones if stop < last), last))


def for_each(count: int, widest: int, sizes: int) -> int:
    """Return the runs of each worker in weak scaling: of all batch sizes alike, if it can be.

    Parameters
    ----------
    count : int
        Runs that there are.
    widest : int
        Most workers.
    sizes : int
        Batch sizes.
    """
    each = count // widest
    return each - each % sizes if each >= sizes else each


def _largest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number from `low`, which fits, to `high` that does."""
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def cells(work: Work, wanted: Iterable[Layout], repeats: int, seed: int) -> list[Cell]:
    """Return all measurements in the order in which they are made.

    Every repeat measures all layouts, in an order of its own: what changes on the machine in the
    course of time meets all of them alike.
    """
    asked = list(wanted)
    # Where threads lie is seen well enough from the same work.
    usual = {
        count: min((one.pin for one in asked if one.threads == count), key=PINS.index)
        for count in {one.threads for one in asked}
    }
    growing = [one for one in asked if one.pin == usual[one.threads]]
    ordered: list[Cell] = []
    for repeat in range(1, repeats + 1):
        block = {Cell(layout, len(work.runs), repeat): None for layout in asked}
        if work.weak:
            block |= {Cell(one, one.workers * work.weak, repeat): None for one in growing}
        mixed = list(block)
        random.Random(f"order-{seed}-{repeat}").shuffle(mixed)
        ordered += mixed
    return ordered


def foreseen(measured: Iterable[Cell], work: Work, estimate: Estimate) -> float:
    """Return about how many seconds measurements take."""
    known: dict[tuple[Layout, int], float] = {}
    total = 0.0
    for cell in measured:
        key = (cell.layout, cell.runs)
        if key not in known:
            known[key] = estimate.cell(work.runs[: cell.runs], cell.layout)
        total += known[key]
    return total
