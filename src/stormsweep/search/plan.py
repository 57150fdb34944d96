"""The plan: configurations become fits, fits become runs, runs become tasks.

Everything here is a pure function of plain values, so that a plan can be shown, tested and
simulated before anything runs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stormsweep.search.space import DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS
from stormsweep.work import Hyperparameters, Run, Task, identity

#: What one optimizer step costs beside its patches, in patches: small batches take longer.
UPDATE_COST = 40.0


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
    """

    configurations: tuple[Hyperparameters, ...]
    folds: int
    runs: tuple[Run, ...]

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
        values = {"batch_size": DEFAULT_BATCH_SIZE, "epochs": DEFAULT_EPOCHS, **fixed, **proposal}
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
        shut = set(closed)
        self._patches = patches_per_epoch
        self._order = {run.id: index for index, run in enumerate(runs)}
        #: What an epoch costs, by batch size and fold.
        self._epoch_costs: dict[tuple[int, int], float] = {}
        #: The next task of every run that waits, and what the run has left.
        self._waiting: dict[str, tuple[float, Task]] = {}
        self._structure = structure
        self._structures: dict[str, Hashable] = {}
        #: Waiting runs that may be trained together: of one structure, over one stretch of epochs.
        self._alike: dict[Hashable, _Alike] = {}
        #: Runs by what they have left, the longest first; entries of runs that no longer wait there
        #: are passed over when they come up.
        self._heap: list[tuple[float, int, str, int]] = []
        for run in runs:
            epoch = reached.get(run.id, 0)
            if run.id not in shut and epoch < run.milestones[-1]:
                self._heap.append(self._admit(_next(run, epoch, (paused or {}).get(run.id, -1))))
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._waiting)

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
        if self._structure is not None:
            bundle = self.take_bundle(() if held is None else (held,), limit=1)
            return bundle[0] if bundle else None
        if not self._waiting:
            return None
        return self._waiting.pop(self._first(() if held is None else (held,)))[1]

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
        if not self._waiting:
            return []
        first = self._first(held)
        if self._structure is None:
            return [self._waiting.pop(first)[1]]
        least = at_most or {}
        count = max(1, min(limit, least.get(first, limit)))
        alike = self._alike[self._kind(first)]
        return [self._take(name) for name in self._chosen(first, held, alike, count, least)]

    def _first(self, held: Collection[str]) -> str:
        """Return the run that is next: the longest, or one in memory that is about as long."""
        first = self._longest()
        own, best = "", (-1.0, 0)
        for name in held:
            if name in self._waiting:
                place = self._waiting[name][0], -self._order[name]
                if not own or place > best:
                    own, best = name, place
        if own and own != first:
            left, task = self._waiting[own]
            stretch = (task.to_epoch - task.start) * self._epoch_cost(task.run)
            if self._waiting[first][0] <= left + stretch:
                return own
        return first

    def _chosen(
        self,
        first: str,
        held: Collection[str],
        alike: _Alike,
        count: int,
        least: Mapping[str, int],
    ) -> list[str]:
        """Return the first run and others like it: those in memory, then in the plan's order."""
        bound = least.get(first)
        own = sorted(
            {name for name in held if name in alike.names and least.get(name) == bound} - {first},
            key=self._order.__getitem__,
        )
        chosen = dict.fromkeys([first, *own[: count - 1]])
        others: list[tuple[int, str]] = []
        while len(chosen) < count and alike.heap:
            place = heapq.heappop(alike.heap)
            if place[1] not in alike.names or (others and place == others[-1]):
                continue
            if least.get(place[1]) == bound:
                chosen[place[1]] = None
            others.append(place)
        for place in others:
            # Those chosen are passed over once they are taken; the rest waits on.
            if place[1] not in chosen:
                heapq.heappush(alike.heap, place)
        return list(chosen)

    def _take(self, name: str) -> Task:
        self._alike[self._kind(name)].names.discard(name)
        return self._waiting.pop(name)[1]

    def _kind(self, name: str) -> Hashable:
        assert self._structure is not None
        task = self._waiting[name][1]
        kind = self._structures.get(name)
        if kind is None:
            kind = self._structures[name] = self._structure(task.run)
        return kind, task.from_epoch, task.to_epoch, task.start

    def put_back(self, task: Task) -> None:
        """Return a task that was not done."""
        self._wait(task)

    def paused(self, task: Task, epoch: int) -> None:
        """Say that a task was left at an epoch; the rest of it waits again."""
        self._wait(replace(task, paused_at=-1 if epoch == task.from_epoch else epoch))

    def done(self, task: Task) -> None:
        """Say that a task is done; the rest of its run waits again."""
        if task.to_epoch < task.run.milestones[-1]:
            self._wait(_next(task.run, task.to_epoch))

    def _wait(self, task: Task) -> None:
        heapq.heappush(self._heap, self._admit(task))

    def _admit(self, task: Task) -> tuple[float, int, str, int]:
        """Have a task wait; return its entry for the heap."""
        run, name = task.run, task.run.id
        start, order = task.start, self._order[name]
        left = (run.milestones[-1] - start) * self._epoch_cost(run)
        self._waiting[name] = left, task
        if self._structure is not None:
            alike = self._alike.setdefault(self._kind(name), _Alike())
            alike.names.add(name)
            heapq.heappush(alike.heap, (order, name))
        return -left, order, name, start

    def _longest(self) -> str:
        heap, waiting = self._heap, self._waiting
        while True:
            _, _, name, epoch = heap[0]
            if name in waiting and waiting[name][1].start == epoch:
                return name
            heapq.heappop(heap)

    def _epoch_cost(self, run: Run) -> float:
        key = run.hyperparameters["batch_size"], run.fold
        known = self._epoch_costs.get(key)
        if known is None:
            known = self._epoch_costs[key] = cost(1, self._patches[run.fold], key[0])
        return known


@dataclass(slots=True)
class _Alike:
    """Runs of one kind that wait, and these in the order of the plan.

    The heap may hold runs that are gone, and runs twice: they are passed over when they come up.
    """

    names: set[str] = field(default_factory=set)
    heap: list[tuple[int, str]] = field(default_factory=list)


def _next(run: Run, epoch: int, paused_at: int = -1) -> Task:
    for stop in run.milestones:
        if stop > epoch:
            break
    return Task(run, epoch, stop, paused_at if paused_at < stop else -1)


def structure(run: Run) -> str:
    """Return what runs of one bundle have in common: all but the learning rate and the fold."""
    return identity(
        {name: value for name, value in run.hyperparameters.items() if name != "learning_rate"}
    )
