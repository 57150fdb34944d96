"""What every strategy promises, in a form that any of them can be put through."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from stormsweep.config.study import SearchTable
from stormsweep.search.proposals import Event, Known, Outcome, Proposal, Strategy
from stormsweep.search.space import Space, size
from stormsweep.search.strategies import make
from stormsweep.work import Hyperparameters, identity

FOLDS = 3
FIXED: Hyperparameters = {"width": 8}


@dataclass(frozen=True)
class Case:
    """A strategy to be tested: one line in ``CASES``.

    Attributes
    ----------
    strategy : str
        Its name.
    keys : dict
        More keys of ``[search]`` that it is tested with.
    ranges : bool
        Whether it takes ranges.
    milestones : bool
        Whether it goes on with trials from one of the epochs to the next; the space then always
        has a list of them.
    objectives : int
        Merits of an outcome.
    """

    strategy: str
    keys: dict[str, Any] = field(default_factory=dict)
    ranges: bool = True
    milestones: bool = False
    objectives: int = 1

    @property
    def grid(self) -> bool:
        """Whether it begins every point of the space, however many trials are asked for."""
        return "grid" in (self.strategy, self.keys.get("sampler"))

    def trials(self, count: int) -> dict[str, int]:
        """Return the key that says how many trials at most, where there is one."""
        return {} if self.grid else {"trials": count}

    def __str__(self) -> str:
        return "-".join([self.strategy, *(str(value) for value in self.keys.values())])


@st.composite
def searches(draw: st.DrawFn, case: Case, most: int = 9) -> SearchTable:
    """Draw a ``[search]`` table: lists, ranges, conditions, a constraint."""
    space: dict[str, Any] = {
        "rate": [0.001, 0.01, 0.1, 0.2],
        "optimizer": ["sgd", "adam", "lion"][: draw(st.integers(1, 3))],
    }
    if draw(st.booleans()):
        space["layers"] = [1, 2, 3]
    if draw(st.booleans()):
        space["filters"] = {"values": [[8], [8, 16]], "when": {"optimizer": ["sgd"]}}
    if case.milestones or draw(st.booleans()):
        space["epochs"] = draw(st.sampled_from([[1, 3, 9], [2, 4], [5]]))
        if case.ranges and not case.milestones and draw(st.booleans()):
            space["epochs"] = {"low": 2, "high": 6, "integer": True}
    if case.ranges and draw(st.booleans()):
        space["rate"] = {"low": 1e-4, "high": 0.1, "log": True}
    if case.ranges and draw(st.booleans()):
        space["momentum"] = {"low": 0, "high": 0.9, "when": {"optimizer": ["sgd"]}}
        space["nesterov"] = {"values": [True, False], "when": {"momentum": [0.0], "layers": [1]}}
        space.setdefault("layers", {"low": 1, "high": 4, "integer": True})
    if case.ranges and draw(st.booleans()):
        space["units"] = {"low": 1, "high": 300, "log": True, "integer": True}
    constraints = []
    if draw(st.booleans()):
        constraints.append("optimizer != 'sgd' or rate * width < 0.7")
    table = {"strategy": case.strategy, "space": space, **case.trials(draw(st.integers(1, most)))}
    return SearchTable.model_validate({**table, "constraints": constraints, **case.keys})


def made(search: SearchTable, seed: int = 0) -> Strategy:
    """Return the strategy that a table names, at its beginning."""
    return make(search, FIXED, FOLDS, seed)


class World:
    """Stands in for training: the same point has the same merits, and some points fail."""

    def __init__(self, objectives: int = 1, failing: float = 0.2) -> None:
        self._objectives, self._failing = objectives, failing

    def outcome(self, proposal: Proposal, tried: int = 1) -> Outcome:
        """Return what comes of a proposal; nothing fails twice."""
        chance = random.Random(
            hashlib.sha256(identity(proposal.hyperparameters).encode()).hexdigest()
        )
        fails = chance.random() < self._failing and tried == 1
        merits = tuple(
            chance.random() + 0.01 * proposal.epochs + 0.001 * proposal.folds
            for _ in range(self._objectives)
        )
        return Outcome(proposal.trial, proposal.epochs, proposal.folds, () if fails else merits)


def drive(
    strategy: Strategy,
    world: World,
    workers: int = 1,
    seed: int = 0,
    seen: Callable[[Sequence[Event], Sequence[Proposal]], None] = lambda events, offer: None,
    most: int = 10_000,
    again: float = 0.0,
) -> list[Event]:
    """Carry out what a strategy proposes, with workers that finish in any order.

    Parameters
    ----------
    seen : callable
        Told the events so far and what is proposed next, whenever either changes.
    again : float
        How likely what failed is tried again, with success, before each other step.
    """
    chance, events = random.Random(seed), list[Event]()
    running: list[Proposal] = []
    lost: list[Proposal] = []

    def happened(event: Event) -> None:
        strategy.take(event)
        events.append(event)

    while len(events) < most:
        offer = strategy.propose()
        seen(events, offer)
        if lost and chance.random() < again:
            happened(world.outcome(lost.pop(chance.randrange(len(lost))), tried=2))
        elif offer and len(running) < workers:
            # Sometimes all that is sure is recorded at once, as a driver may.
            count = 1 if chance.random() < 0.7 else workers - len(running)
            for proposal in offer[:count]:
                happened(proposal)
                running.append(proposal)
        elif running:
            done = running.pop(chance.randrange(len(running)))
            outcome = world.outcome(done)
            happened(outcome)
            lost += [done] if outcome.failed and again else []
        else:
            break
    return events


def proposals(events: Sequence[Event]) -> list[Proposal]:
    """Return the proposals among events."""
    return [event for event in events if isinstance(event, Proposal)]


def point(search: SearchTable, proposal: Proposal) -> Hyperparameters:
    """Return a proposal as a point of the space."""
    epochs = {"epochs": proposal.epochs} if "epochs" in search.space else {}
    return {**proposal.hyperparameters, **epochs}


def check_proposals(case: Case, search: SearchTable, made: Sequence[Proposal]) -> None:
    """Hold proposals of one study, in order, against what was asked for."""
    space = Space.of(search, FIXED)
    trials: dict[int, Hyperparameters] = {}
    for proposal in made:
        asked = point(search, proposal)
        fitted = space.fit(asked)
        assert fitted is not None, f"{asked} is not of the space"
        assert identity(fitted) == identity(asked), f"{asked} has types of its own"
        assert "epochs" not in proposal.hyperparameters
        assert proposal.folds in ((1, 2, 3) if case.milestones else (FOLDS,))
        if "epochs" not in search.space:
            assert proposal.epochs == 10
        known = trials.setdefault(proposal.trial, proposal.hyperparameters)
        assert known == proposal.hyperparameters, "a trial became another"
    assert list(trials) == list(range(len(trials))), "trials are not numbered in order"
    steps = {(one.trial, one.epochs, one.folds) for one in made}
    assert len(steps) == len(made), "a proposal was made twice"
    own = {identity(one.hyperparameters if case.milestones else point(search, one)) for one in made}
    assert len(own) == len(trials), "a point was tried twice"
    if not case.grid:
        assert len(trials) <= search.trials
    assert len(trials) <= size(space.values)


def outside(search: SearchTable) -> list[Known]:
    """Return known points that are none of the space, or do not say all of it."""
    return [
        Known({"rate": 7.0, "optimizer": "sgd"}, 3, 3, (0.9,)),
        Known({"rate": 0.01}, 5, 1, (0.2,)),
        Known({"optimizer": "none such", "other": [1, 2]}, 1, 2, ()),
        Known({}, 1, 1, ()),
        Known({"rate": "fast", "optimizer": 3, "layers": True}, 1, 1, (0.5, 0.5, 0.5)),
    ]
