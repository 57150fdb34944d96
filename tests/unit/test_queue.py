"""Losing this: the queue gives out other tasks than it did, and studies go on in another order."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stormsweep.search.plan import Queue, cost, structure
from stormsweep.work import Run, Task

_PATCHES = [100, 130, 90]


class PlainQueue:
    """The same rules, looked up in all that waits: slow and plain."""

    def __init__(self, runs: Sequence[Run], bundles: bool) -> None:
        self._order = {run.id: place for place, run in enumerate(runs)}
        self._bundles = bundles
        self._waiting = {run.id: Task(run, 0, run.milestones[0]) for run in runs}

    def take_bundle(
        self, held: Collection[str], limit: int, at_most: Mapping[str, int]
    ) -> list[Task]:
        if not self._waiting:
            return []
        first = min(self._waiting, key=lambda name: (-self._left(name), self._order[name]))
        known = [name for name in held if name in self._waiting]
        if known:
            own = max(known, key=lambda name: (self._left(name), -self._order[name]))
            if self._left(first) <= self._left(own) + self._stretch(own):
                first = own
        alike = [first]
        if self._bundles:
            alike = [
                name
                for name in self._waiting
                if self._kind(name) == self._kind(first) and at_most.get(name) == at_most.get(first)
            ]
        alike.sort(key=lambda name: (name != first, name not in held, self._order[name]))
        count = max(1, min(limit, at_most.get(first, limit))) if self._bundles else 1
        return [self._waiting.pop(name) for name in alike[:count]]

    def put(self, task: Task) -> None:
        self._waiting[task.run.id] = task

    def _left(self, name: str) -> float:
        task = self._waiting[name]
        return self._cost(task.run, task.run.milestones[-1] - task.start)

    def _stretch(self, name: str) -> float:
        task = self._waiting[name]
        return self._cost(task.run, task.to_epoch - task.start)

    def _cost(self, run: Run, epochs: int) -> float:
        return cost(epochs, _PATCHES[run.fold], run.hyperparameters["batch_size"])

    def _kind(self, name: str) -> Any:
        task = self._waiting[name]
        return structure(task.run), task.from_epoch, task.to_epoch, task.start


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 25))
def test_the_queue_gives_out_what_plain_rules_say(seed: int, bundles: bool, count: int) -> None:
    chance = random.Random(seed)
    runs = [
        Run(
            f"r{number}",
            {"batch_size": chance.choice([16, 32]), "learning_rate": chance.random()},
            chance.randrange(3),
            tuple(sorted(chance.sample(range(1, 9), chance.randint(1, 3)))),
        )
        for number in range(count)
    ]
    queue = Queue(runs, {}, (), _PATCHES, structure if bundles else None)
    plain = PlainQueue(runs, bundles)
    out: list[Task] = []
    at_most: dict[str, int] = {}
    for _ in range(150):
        if chance.random() < 0.55 or not out:
            names = [run.id for run in runs]
            held = chance.sample(names, min(len(names), chance.randint(0, 4)))
            limit = chance.choice([1, 2, 4, 64])
            if chance.random() < 0.1:
                at_most[chance.choice(names)] = chance.randint(1, 3)
            taken = queue.take_bundle(held, limit, at_most)
            assert taken == plain.take_bundle(held, limit, at_most)
            out += taken
            continue
        task = out.pop(chance.randrange(len(out)))
        what = chance.random()
        if what < 0.2:
            queue.put_back(task)
            plain.put(task)
        elif what < 0.4:
            epoch = chance.randrange(task.start, task.to_epoch)
            queue.paused(task, epoch)
            at = -1 if epoch == task.from_epoch else epoch
            plain.put(dataclasses.replace(task, paused_at=at))
        else:
            queue.done(task)
            later = [stop for stop in task.run.milestones if stop > task.to_epoch]
            if later:
                plain.put(Task(task.run, task.to_epoch, later[0]))
