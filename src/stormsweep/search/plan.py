"""The plan: configurations become fits, fits become runs, runs become tasks.

Everything here is a pure function of plain values, so that a plan can be shown, tested and
simulated before anything runs.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
        #: The next task of every run that waits.
        self._waiting: dict[str, Task] = {}
        self._structure = structure
        #: Waiting runs that may be trained together: of one structure, over one stretch of epochs.
        self._alike: dict[Hashable, set[str]] = {}
        #: Runs by what they have left, the longest first; entries of runs that no longer wait there
        #: are passed over when they come up.
        self._heap: list[tuple[float, int, str, int]] = []
        for run in runs:
            epoch = reached.get(run.id, 0)
            if run.id not in shut and epoch < run.milestones[-1]:
                self._wait(_next(run, epoch, (paused or {}).get(run.id, -1)))

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
        if not self._waiting:
            return []
        first = self._longest()
        known = [name for name in held if name in self._waiting]
        if known:
            own = max(known, key=lambda name: (self._left(name), -self._order[name]))
            if self._left(first) <= self._left(own) + self._task_cost(own):
                first = own
        least = at_most or {}
        alike = {first}
        if self._structure is not None:
            alike = {
                name
                for name in self._alike[self._kind(first)]
                if least.get(name) == least.get(first)
            }
        chosen = sorted(
            alike, key=lambda name: (name != first, name not in held, self._order[name])
        )
        count = max(1, min(limit, least.get(first, limit)))
        return [self._take(name) for name in chosen[:count]]

    def _take(self, name: str) -> Task:
        if self._structure is not None:
            self._alike[self._kind(name)].discard(name)
        return self._waiting.pop(name)

    def _kind(self, name: str) -> Hashable:
        assert self._structure is not None
        task = self._waiting[name]
        return self._structure(task.run), task.from_epoch, task.to_epoch, task.start

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
        name = task.run.id
        self._waiting[name] = task
        if self._structure is not None:
            self._alike.setdefault(self._kind(name), set()).add(name)
        heapq.heappush(self._heap, (-self._left(name), self._order[name], name, task.start))

    def _longest(self) -> str:
        while True:
            _, _, name, epoch = self._heap[0]
            if name in self._waiting and self._waiting[name].start == epoch:
                return name
            heapq.heappop(self._heap)

    def _left(self, name: str) -> float:
        task = self._waiting[name]
        return self._cost(task.run, task.run.milestones[-1] - task.start)

    def _task_cost(self, name: str) -> float:
        task = self._waiting[name]
        return self._cost(task.run, task.to_epoch - task.start)

    def _cost(self, run: Run, epochs: int) -> float:
        return cost(epochs, self._patches[run.fold], run.hyperparameters["batch_size"])


def _next(run: Run, epoch: int, paused_at: int = -1) -> Task:
    stop = next(stop for stop in run.milestones if stop > epoch)
    return Task(run, epoch, stop, paused_at if paused_at < stop else -1)


def structure(run: Run) -> str:
    """Return what runs of one bundle have in common: all but the learning rate and the fold."""
    return identity(
        {name: value for name, value in run.hyperparameters.items() if name != "learning_rate"}
    )
