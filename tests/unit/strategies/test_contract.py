"""Losing these: a study that goes on otherwise than it would have, or trains a point twice."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormsweep.config.study import SearchTable
from stormsweep.search.proposals import Event, Known, Outcome, Proposal
from stormsweep.search.space import Space
from stormsweep.work import identity

from .contract import (
    FIXED,
    FOLDS,
    Case,
    World,
    check_proposals,
    drive,
    made,
    outside,
    point,
    proposals,
    searches,
)

#: What Optuna's Gaussian process is computed by; nobody needs it for anything else.
TORCH = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
#: Every strategy there is: a new one is one line more.
CASES = [
    Case("grid", ranges=False),
    Case("random"),
    Case("sobol"),
    Case("halving", milestones=True),
    Case("halving", {"sampler": "grid", "first_folds": 1}, ranges=False, milestones=True),
    Case("hyperband", {"reduction": 2, "first_folds": 2}, milestones=True),
    Case("asha", milestones=True),
    Case("asha", {"sampler": "tpe", "first_folds": 1}, milestones=True),
    Case("tpe"),
    Case("cma-es"),
    pytest.param(Case("gp"), marks=[TORCH, pytest.mark.slow]),
    Case("nsga2", {"objectives": ["roc_auc", "loss"]}, objectives=2),
]
#: Optuna's take some milliseconds a proposal; more of them where there is time.
EXAMPLES = 30 if os.environ.get("HYPOTHESIS_PROFILE") == "wander" else 5

workers = st.sampled_from([1, 2, 16])
seeds = st.integers(0, 2**32 - 1)


def every(test: Callable[..., None]) -> Callable[..., None]:
    """Put a test through every strategy, with tables that it takes."""

    @pytest.mark.parametrize("case", CASES, ids=str)
    @settings(max_examples=EXAMPLES)
    @given(data=st.data(), seed=seeds)
    def wrapped(case: Case, data: st.DataObject, seed: int) -> None:
        test(case, data.draw(searches(case), label="search"), data, seed)

    wrapped.__doc__ = test.__doc__
    wrapped.__name__ = test.__name__
    return wrapped


@every
def test_proposals_are_of_the_space_and_end(
    case: Case, search: SearchTable, data: st.DataObject, seed: int
) -> None:
    """However many workers there are, in whatever order they finish."""
    count = data.draw(workers, label="workers")
    events = drive(made(search, seed), World(case.objectives), count, seed)
    check_proposals(case, search, proposals(events))
    assert proposals(events), "nothing was proposed"


@every
def test_the_same_events_make_the_same_proposals_at_any_point(
    case: Case, search: SearchTable, data: st.DataObject, seed: int
) -> None:
    """A driver that was killed and started again goes on as if nothing had happened."""
    offers: list[tuple[int, list[Proposal]]] = []

    def note(events: Sequence[Event], offer: Sequence[Proposal]) -> None:
        offers.append((len(events), list(offer)))

    count = data.draw(workers, label="workers")
    again = data.draw(st.sampled_from([0.0, 0.3]), label="tried again")
    events = drive(made(search, seed), World(case.objectives), count, seed, note, again=again)
    check_proposals(case, search, proposals(events))
    for at, offer in random.Random(seed).sample(offers, min(4, len(offers))):
        other = made(search, seed)
        for event in events[:at]:
            other.take(event)
        assert list(other.propose()) == offer
        assert list(other.propose()) == offer, "asking changed something"


@every
def test_failures_do_no_harm(
    case: Case, search: SearchTable, data: st.DataObject, seed: int
) -> None:
    """All fail: the search ends all the same, and goes over to other points."""
    events = drive(made(search, seed), World(case.objectives, failing=1.0), 4, seed)
    check_proposals(case, search, proposals(events))
    assert proposals(events)


@every
def test_an_outcome_that_comes_again_is_passed_over(
    case: Case, search: SearchTable, data: st.DataObject, seed: int
) -> None:
    strategy, plain = made(search, seed), made(search, seed)
    events = drive(made(search, seed), World(case.objectives, failing=0.5), 3, seed)
    for event in events:
        strategy.take(event)
        plain.take(event)
        if isinstance(event, Outcome):
            strategy.take(replace(event, merits=()))
            if not event.failed:
                strategy.take(replace(event, merits=(9.0,) * case.objectives))
    assert list(strategy.propose()) == list(plain.propose())


@every
def test_a_failure_that_was_tried_again_counts_as_if_it_had_never_been(
    case: Case, search: SearchTable, data: st.DataObject, seed: int
) -> None:
    """Losing this: a full disk makes a point the worst there is, whatever it scores later."""
    strategy, plain, world = made(search, seed), made(search, seed), World(case.objectives, 0.0)
    for event in drive(made(search, seed), world, 3, seed):
        if isinstance(event, Outcome):
            strategy.take(replace(event, merits=()))
        strategy.take(event)
        plain.take(event)
        assert list(strategy.propose()) == list(plain.propose())


@every
def test_known_points_are_taken_whatever_they_are(
    case: Case, search: SearchTable, data: st.DataObject, seed: int
) -> None:
    """Inside the space or not, with a score or not; those without are tried first, if they fit."""
    other = proposals(drive(made(search, seed + 1), World(case.objectives)))
    chosen = data.draw(st.lists(st.sampled_from(other), max_size=4), label="known")
    scores: list[tuple[float, ...]] = [(), (0.7,) * case.objectives]
    known = [
        Known(one.hyperparameters, one.epochs, FOLDS, data.draw(st.sampled_from(scores)))
        for one in chosen
    ]
    known += data.draw(st.permutations(outside(search)))
    strategy = made(search, seed)
    for one in known:
        strategy.take(one)
    wished = [one for one in known[: len(chosen)] if not one.merits]
    events = drive(strategy, World(case.objectives), 1, seed)
    check_proposals(case, search, proposals(events))
    if wished:
        assert proposals(events)[0].hyperparameters == wished[0].hyperparameters


@every
def test_what_is_on_record_counts_though_it_would_be_proposed_otherwise(
    case: Case, search: SearchTable, data: st.DataObject, seed: int
) -> None:
    """An update of a library must not end a study, nor have it try its trials again."""
    world = World(case.objectives)
    others = proposals(drive(made(search, seed + 1), world))
    others = [one for one in others if one.epochs == others[0].epochs]
    kept = dict.fromkeys(one.trial for one in others[: data.draw(st.integers(1, 3))])
    strategy, events = made(search, seed), list[Event]()
    for number, trial in enumerate(kept):
        one = next(one for one in others if one.trial == trial)
        there = Proposal(number, one.hyperparameters, one.epochs, one.folds)
        events += [there, world.outcome(there)]
    for event in events:
        strategy.take(event)
    after = drive(strategy, world, 2, seed)
    check_proposals(case, search, proposals([*events, *after]))


@every
def test_a_trial_that_the_space_has_no_more_counts_and_the_search_goes_on(
    case: Case, search: SearchTable, data: st.DataObject, seed: int
) -> None:
    """Somebody edited the space of a study that was begun."""
    strategy, world = made(search, seed), World(case.objectives)
    (first, *_) = made(search, seed).propose()
    gone = Proposal(0, {"rate": 7.0, "gone": "x"}, first.epochs, first.folds)
    for event in (gone, world.outcome(gone)):
        strategy.take(event)
    after = proposals(drive(strategy, world, data.draw(workers), seed))
    trials = {one.trial for one in after} - {0}
    assert trials == set(range(1, len(trials) + 1))
    if not case.grid:
        assert len(trials) < search.trials
    space = Space.of(search, FIXED)
    assert all(space.fit(point(search, one)) for one in after if one.trial)


def table(strategy: str, space: dict[str, Any], **keys: Any) -> SearchTable:
    return SearchTable.model_validate({"strategy": strategy, "space": space, **keys})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_another_seed_tries_other_points(case: Case) -> None:
    """Losing this: three seeds of a comparison that are one. A grid has nothing to choose."""
    space = {"rate": [0.1, 0.2, 0.3], "x": {"low": 0, "high": 1}, "epochs": [2, 4]}
    if not case.ranges:
        space["x"] = [1, 2]
    search = table(case.strategy, space, **case.trials(6), **case.keys)
    points = [
        {identity(one.hyperparameters) for one in proposals(drive(made(search, seed), World()))}
        for seed in (0, 0, 1)
    ]
    assert points[0] == points[1]
    assert (points[0] != points[2]) == case.ranges


@pytest.mark.parametrize("strategy", ["grid", "halving", "hyperband", "asha"])
def test_a_grid_that_grew_while_its_constraints_tightened_is_trained_whole(strategy: str) -> None:
    """Losing this: new values that nobody tries, as many as the old ones that are out of bounds."""
    keys = {} if strategy == "grid" else {"sampler": "grid"}
    old = table(strategy, {"rate": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "epochs": [4]}, **keys)
    before = drive(made(old), World(failing=0.0))
    rates = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    space = {"rate": rates, "epochs": [4]}
    strategy_now = made(table(strategy, space, constraints=["rate > 0.55"], **keys))
    for event in before:
        strategy_now.take(event)
    after = proposals(drive(strategy_now, World(failing=0.0)))
    assert [one.hyperparameters["rate"] for one in after] == [0.7, 0.8, 0.9]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_points_known_from_elsewhere_are_trained_here_the_best_of_them_first(case: Case) -> None:
    """Losing this: a study that never trains the best point it was told of, nor can verify it."""
    rates = [0.1, 0.2, 0.3, 0.4]
    search = table(case.strategy, {"rate": rates, "epochs": [4]}, **case.trials(20), **case.keys)
    strategy = made(search)
    for rate in rates:
        merits = (0.99 if rate == 0.3 else rate,) * case.objectives
        strategy.take(Known({"rate": rate}, 4, FOLDS, merits))
    tried = [
        one.hyperparameters["rate"]
        for one in proposals(drive(strategy, World(case.objectives, failing=0.0)))
    ]
    assert set(tried) == set(rates)
    if case.strategy not in ("grid", "random", "sobol"):  # These learn from nothing.
        assert tried[0] == 0.3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_small_space_is_searched_whole_and_then_it_ends(case: Case) -> None:
    space = {"rate": [0.1, 0.2, 0.3], "kind": ["a", "b"], "epochs": [4]}
    search = table(case.strategy, space, **case.trials(20), **case.keys)
    events = drive(made(search), World(case.objectives, failing=0.0), 3)
    found = {tuple(one.hyperparameters.values()) for one in proposals(events)}
    assert found == {(rate, kind) for rate in (0.1, 0.2, 0.3) for kind in "ab"}
