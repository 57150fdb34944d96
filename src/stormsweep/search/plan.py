"""The plan: configurations become fits, fits become runs, runs become tasks.

Everything here is a pure function of plain values, so that a plan can be shown, tested and
simulated before anything runs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stormsweep.markup import facts, table
from stormsweep.search.space import DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS
from stormsweep.work import Hyperparameters, Run, Task, identity

#: What one optimizer step costs beside its patches, in patches: small batches take longer.
UPDATE_COST = 40.0
#: Configurations that a notebook shows of a plan.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study consists of.

    Attributes
    ----------
    configurations : tuple of dict
        Every hyperparameter of each, ``batch_size`` and ``epochs`` included.
    folds : int
        Folds of the cross-validation.
    runs : tuple of Run
        The training trajectories that serve all fits, in the order they were proposed.
    expected : bool
        Whether this is about what a strategy that learns from scores will come to.
    """

    configurations: tuple[Hyperparameters, ...]
    folds: int
    runs: tuple[Run, ...]
    expected: bool = False

    @property
    def fits(self) -> int:
        """Number of fits: configurations times folds."""
        return len(self.configurations) * self.folds

    @property
    def epochs(self) -> int:
        """Epochs of training after sharing."""
        return sum(run.milestones[-1] for run in self.runs)

    @property
    def epochs_unshared(self) -> int:
        """Epochs of training if every fit were trained on its own."""
        return self.folds * sum(int(values["epochs"]) for values in self.configurations)

    @property
    def tasks(self) -> int:
        """Number of tasks: one from milestone to milestone of every run."""
        return sum(len(run.milestones) for run in self.runs)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the sums, and the first configurations."""
        apart = self.epochs_unshared
        rows: list[tuple[str, Any]] = [
            ("configurations", len(self.configurations)),
            ("fits", f"{self.fits:,}: each on {self.folds} folds"),
            ("runs", f"{len(self.runs):,} after sharing, in {self.tasks:,} tasks"),
            ("epochs", f"{self.epochs:,} instead of {apart:,}"),
        ]
        names = list(dict.fromkeys(name for values in self.configurations for name in values))
        first = self.configurations[:SHOWN]
        cells = [[values.get(name) for name in names] for values in first]
        more = len(self.configurations) - len(first)
        notes = [f"and {more:,} more"] if more else []
        title = "Plan, about: the strategy learns" if self.expected else "Plan"
        return facts(title, rows) + table(names, cells) + "".join(f"<p>{x}</p>" for x in notes)


def complete(fixed: Hyperparameters) -> Hyperparameters:
    """Return the hyperparameters outside the space, those with a default too."""
    return {"batch_size": DEFAULT_BATCH_SIZE, "epochs": DEFAULT_EPOCHS, **fixed}


def make_plan(proposals: Iterable[Hyperparameters], fixed: Hyperparameters, folds: int) -> Plan:
    """Turn proposed configurations into runs that share what can be shared.

    Fits that differ only in ``epochs`` follow the same trajectory: the same initial weights and the
    same batches in the same order. One run to the greatest number of epochs, scored on the way,
    gives the scores of all of them.

    Parameters
    ----------
    proposals : iterable of dict
        Points of the space.
    fixed : dict
        Hyperparameters outside the space.
    folds : int
        Folds of the cross-validation.

    Returns
    -------
    Plan
    """
    configurations: list[Hyperparameters] = []
    milestones: dict[str, set[int]] = {}
    structures: dict[str, Hyperparameters] = {}
    for proposal in proposals:
        values = {**complete(fixed), **proposal}
        configurations.append(values)
        structure = {name: value for name, value in values.items() if name != "epochs"}
        key = identity(structure)
        if structures.setdefault(key, structure) != structure:
            raise ValueError(f"two configurations share the name {key}: {structure}")
        milestones.setdefault(key, set()).add(values["epochs"])
    runs = tuple(
        Run(f"{key}-f{fold}", structure, fold, tuple(sorted(milestones[key])))
        for key, structure in structures.items()
        for fold in range(folds)
    )
    return Plan(tuple(configurations), folds, runs)


def cost(epochs: int, patches_per_epoch: int, batch_size: int) -> float:
    """Estimate what training costs, in patches; only good for comparing tasks.

    Parameters
    ----------
    epochs : int
        Epochs to train.
    patches_per_epoch : int
        Patches of the balanced training fold.
    batch_size : int
        Patches a step.
    """
    updates = -(-patches_per_epoch // batch_size)
    return epochs * (patches_per_epoch + UPDATE_COST * updates)


class Queue:
    """What is left to do, longest first.

    A run is one chain of tasks; how long it still takes decides when it is its turn. A worker that
    holds a run in memory keeps it while no waiting run is longer by more than one of its tasks.

    Parameters
    ----------
    runs : sequence of Run
        All runs of the study.
    reached : mapping of str to int
        Run id to the last milestone that is on record; runs not named start at epoch 0.
    closed : iterable of str
        Ids of runs that are not to be trained (failed).
    patches_per_epoch : sequence of int
        Patches of the balanced training fold, for each fold.
    structure : callable, optional
        What two runs must have in common to be trained in one bundle; none: there are no bundles.
    paused : mapping of str to int, optional
        Run id to the epoch at which it waits, of runs that were paused on the way to a milestone.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        reached: Mapping[str, int],
        closed: Iterable[str],
        patches_per_epoch: Sequence[int],
        structure: Callable[[Run], Hashable] | None = None,
        paused: Mapping[str, int] | None = None,
    ) -> None:
        shut, waits = set(closed), paused or {}
        self._runs: list[Run] = []
        self._order: dict[str, int] = {}
        self._patches = patches_per_epoch
        #: What an epoch costs, by batch size and fold; of every run, by its place.
        self._known_costs: dict[tuple[int, int], float] = {}
        self._costs: list[float] = []
        #: By place in the plan: the next task of a run that waits, and what the run has left.
        self._tasks: list[Task | None] = []
        self._left: list[float] = []
        self._count = 0
        self._structure = structure
        self._structures: dict[int, Hashable] = {}
        #: Waiting runs that may be trained together: of one structure, over one stretch of epochs.
        self._alike: dict[Hashable, _Alike] = {}
        #: Places of runs by what they have left, each list a heap, and what there is, the most
        #: first (negative). Runs that wait there no longer are passed over when they come up.
        self._by_left: dict[float, list[int]] = {}
        self._lefts: list[float] = []
        for run in runs:
            place = self._place(run)
            epoch = reached.get(run.id, 0)
            if run.id not in shut and epoch < run.milestones[-1]:
                self._wait(place, _next(run, epoch, waits.get(run.id, -1)))

    def __len__(self) -> int:
        return self._count

    def add(self, run: Run, reached: int = 0, at_work: bool = False) -> None:
        """Take in a run, or a known one that has further milestones now.

        Parameters
        ----------
        run : Run
            With all its milestones; those that it had are among them.
        reached : int
            Its last milestone that is on record.
        at_work : bool
            Whether a worker has a task of it: what comes after waits once that is done.
        """
        place = self._order.get(run.id)
        if place is None:
            place = self._place(run)
        self._runs[place] = run
        waiting = self._tasks[place]
        if at_work or reached >= run.milestones[-1]:
            return
        self._wait(place, _next(run, reached, -1 if waiting is None else waiting.paused_at))

    def _place(self, run: Run) -> int:
        """Give a run its place, the last, and return it."""
        place = self._order[run.id] = len(self._runs)
        self._runs.append(run)
        key = batch_size, fold = run.hyperparameters["batch_size"], run.fold
        if key not in self._known_costs:
            self._known_costs[key] = cost(1, self._patches[fold], batch_size)
        self._costs.append(self._known_costs[key])
        self._tasks.append(None)
        self._left.append(0.0)
        return place

    def take(self, held: str | None = None) -> Task | None:
        """Take out the next task for a worker.

        Parameters
        ----------
        held : str, optional
            Id of the run whose state the worker still has in memory.

        Returns
        -------
        Task or None
            None when nothing waits.
        """
        bundle = self.take_bundle(() if held is None else (held,), limit=1)
        return bundle[0] if bundle else None

    def take_bundle(
        self,
        held: Collection[str] = (),
        limit: int = 1,
        at_most: Mapping[str, int] | None = None,
    ) -> list[Task]:
        """Take out the next task for a worker, and those that can be trained together with it.

        Parameters
        ----------
        held : collection of str
            Ids of the runs whose state the worker still has in memory.
        limit : int
            How many tasks at most.
        at_most : mapping of str to int, optional
            Runs that go in smaller bundles, by id, among others of which the same is known.

        Returns
        -------
        list of Task
            All from the same epoch to the same, and paused at the same; empty when nothing waits.
        """
        if not self._count:
            return []
        places, tasks = map(self._order.get, held), self._tasks
        known = [place for place in places if place is not None and tasks[place] is not None]
        first = self._first(known)
        if self._structure is None:
            return [self._take(first)]
        least = at_most or {}
        count = max(1, min(limit, least.get(self._runs[first].id, limit)))
        return [self._take(place) for place in self._chosen(first, known, count, least)]

    def _first(self, held: Collection[int]) -> int:
        """Return the run that is next: the longest, or one in memory that is about as long."""
        first = self._longest()
        if not held:
            return first
        own = max(held, key=lambda place: (self._left[place], -place))
        task = self._tasks[own]
        assert task is not None
        stretch = (task.to_epoch - task.start) * self._costs[own]
        return own if self._left[first] <= self._left[own] + stretch else first

    def _chosen(
        self, first: int, held: Collection[int], count: int, least: Mapping[str, int]
    ) -> list[int]:
        """Return the first run and others like it: those in memory, then in the plan's order."""
        alike, runs = self._alike[self._kind(first)], self._runs
        bound = least.get(runs[first].id)
        own = {one for one in held if one in alike.places and least.get(runs[one].id) == bound}
        chosen = dict.fromkeys([first, *sorted(own - {first})[: count - 1]])
        passed: list[int] = []
        while len(chosen) < count and alike.heap:
            place = heapq.heappop(alike.heap)
            if place not in alike.places or (passed and place == passed[-1]):
                continue
            if least.get(runs[place].id) == bound:
                chosen[place] = None
            passed.append(place)
        for place in passed:
            if place not in chosen:
                heapq.heappush(alike.heap, place)
        return list(chosen)

    def _take(self, place: int) -> Task:
        if self._structure is not None:
            self._alike[self._kind(place)].places.discard(place)
        task = self._tasks[place]
        assert task is not None
        self._tasks[place] = None
        self._count -= 1
        return task

    def _kind(self, place: int) -> Hashable:
        task = self._tasks[place]
        assert self._structure is not None
        assert task is not None
        kind = self._structures.get(place)
        if kind is None:
            kind = self._structures[place] = self._structure(task.run)
        return kind, task.from_epoch, task.to_epoch, task.start

    def put_back(self, task: Task) -> None:
        """Return a task that was not done."""
        self._wait(self._order[task.run.id], task)

    def paused(self, task: Task, epoch: int) -> None:
        """Say that a task was left at an epoch; the rest of it waits again."""
        rest = replace(task, paused_at=-1 if epoch == task.from_epoch else epoch)
        self._wait(self._order[task.run.id], rest)

    def done(self, task: Task) -> None:
        """Say that a task is done; the rest of its run waits again."""
        place = self._order[task.run.id]
        # It may have got further milestones meanwhile.
        run = self._runs[place]
        if task.to_epoch < run.milestones[-1]:
            self._wait(place, _next(run, task.to_epoch))

    def _wait(self, place: int, task: Task) -> None:
        run = self._runs[place]
        left = (run.milestones[-1] - task.start) * self._costs[place]
        self._count += self._tasks[place] is None
        self._tasks[place], self._left[place] = task, left
        if (places := self._by_left.get(left)) is None:
            self._by_left[left] = [place]
            heapq.heappush(self._lefts, -left)
        else:
            heapq.heappush(places, place)
        if self._structure is not None:
            alike = self._alike.setdefault(self._kind(place), _Alike())
            alike.places.add(place)
            heapq.heappush(alike.heap, place)

    def _longest(self) -> int:
        tasks, lefts = self._tasks, self._left
        while True:
            left = -self._lefts[0]
            places = self._by_left[left]
            while places:
                place = places[0]
                if tasks[place] is not None and lefts[place] == left:
                    return place
                heapq.heappop(places)
            heapq.heappop(self._lefts)
            del self._by_left[left]


@dataclass(slots=True)
class _Alike:
    """Places of runs of one kind that wait, and these in the order of the plan.

    The heap may hold runs that are gone, and runs twice: they are passed over when they come up.
    """

    places: set[int] = field(default_factory=set)
    heap: list[int] = field(default_factory=list)


def _next(run: Run, epoch: int, paused_at: int = -1) -> Task:
    for stop in run.milestones:
        if stop > epoch:
            break
    return Task(run, epoch, stop, paused_at if paused_at < stop else -1)


def on_all_folds(plan: Plan) -> Plan:
    """Return a plan with each of its runs on every fold, for strategies that begin on some only.

    Which configurations they go on with to the other folds, scores decide.

    Parameters
    ----------
    plan : Plan
        Its runs are named after configuration and fold.
    """
    runs = {run.id: run for run in plan.runs}
    for run in plan.runs:
        own = run.id.rpartition("-f")[0]
        for fold in range(plan.folds):
            name = f"{own}-f{fold}"
            runs.setdefault(name, replace(run, id=name, fold=fold))
    return replace(plan, runs=tuple(runs.values()))


def structure(run: Run) -> str:
    """Return what runs of one bundle have in common: all but the learning rate and the fold."""
    return _without(run, {"learning_rate"})


def program(run: Run, any_batch: bool) -> str:
    """Return which compiled program a run needs: what runs that share one have in common.

    Parameters
    ----------
    run : Run
        The run.
    any_batch : bool
        Whether a program takes batches of any size.
    """
    return _without(run, {"learning_rate", "batch_size"}) if any_batch else structure(run)


def _without(run: Run, left_out: set[str]) -> str:
    return identity(
        {name: value for name, value in run.hyperparameters.items() if name not in left_out}
    )
