"""Losing these: the best trial dropped without a look, training done twice, no end."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.search.proposals import Event, Known, Outcome, Proposal, Setting, Strategy
from stormsweep.search.strategies.halving import Asha, Hyperband, SuccessiveHalving
from stormsweep.search.strategies.ladder import Ladder, bracket_sizes

Kind = type[SuccessiveHalving] | type[Hyperband] | type[Asha]
KINDS: list[Kind] = [SuccessiveHalving, Hyperband, Asha]
kinds = st.sampled_from(KINDS)
Score = Callable[[Proposal], float | None]


class Listed:
    """A sampler that proposes points one after another, and notes what it is told."""

    def __init__(self, points: int, epochs: int, folds: int) -> None:
        self._points, self._epochs, self._folds = points, epochs, folds
        self._begun = 0
        self.told: list[Event] = []

    def propose(self) -> Sequence[Proposal]:
        return [
            Proposal(number, {"x": number}, self._epochs, self._folds)
            for number in range(self._begun, self._points)
        ]

    def take(self, event: Event) -> None:
        self.told.append(event)
        self._begun += isinstance(event, Proposal)


def made(kind: Kind, trials: int, epochs: Sequence[int] = (1, 3, 9), **keys: Any) -> Any:
    """Return a strategy on three folds, whose trials have their number as the point."""
    setting = Setting(tuple(epochs), 3, trials, 0)
    epoch, folds = Ladder.of(setting, first_folds=keys.get("first_folds")).rungs[0]
    return kind(Listed(trials, epoch, folds), setting, **keys)


def drive(strategy: Strategy, score: Score, workers: int = 1, seed: int = 0) -> list[Event]:
    """Carry out what is proposed, one at a time, by workers that finish in any order."""
    chance, events = random.Random(seed), list[Event]()
    running: list[Proposal] = []
    while True:
        offer = strategy.propose()
        if offer and len(running) < workers:
            event: Event = offer[0]
            running.append(offer[0])
        elif running:
            done = running.pop(chance.randrange(len(running)))
            merit = score(done)
            event = Outcome(done.trial, done.epochs, done.folds, () if merit is None else (merit,))
        else:
            return events
        strategy.take(event)
        events.append(event)


def proposed(events: Sequence[Event]) -> list[tuple[int, int, int]]:
    return [(e.trial, e.epochs, e.folds) for e in events if isinstance(e, Proposal)]


def counts(events: Sequence[Event]) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    for _, epochs, folds in proposed(events):
        found[epochs, folds] = found.get((epochs, folds), 0) + 1
    return found


def by_number(proposal: Proposal) -> float:
    return float(proposal.trial)


def test_halving_leaves_one_of_three_at_each_milestone_and_these_are_the_best() -> None:
    events = drive(made(SuccessiveHalving, 27), by_number, workers=4)
    assert counts(events) == {(1, 3): 27, (3, 3): 9, (9, 3): 3}
    assert [trial for trial, epochs, _ in proposed(events) if epochs == 9] == [26, 25, 24]


def test_halving_waits_for_the_whole_rung() -> None:
    """Or a trial that finishes late is dropped without having been compared."""
    strategy = made(SuccessiveHalving, 9)
    for proposal in strategy.propose():
        strategy.take(proposal)
    for trial in range(8):
        strategy.take(Outcome(trial, 1, 3, (float(trial),)))
        assert not strategy.propose()
    strategy.take(Outcome(8, 1, 3, (8.0,)))
    assert [proposal.trial for proposal in strategy.propose()] == [8, 7, 6]


def test_asha_promotes_as_published() -> None:
    """Li and others (2020), algorithm 2 with reduction 3: after three scores one goes on."""
    scores = [0.5, 0.1, 0.9, 0.2, 0.3, 0.8, 0.7, 0.6, 0.4]
    events = drive(made(Asha, 9, epochs=(1, 3)), lambda proposal: scores[proposal.trial])
    assert [(trial, epochs) for trial, epochs, _ in proposed(events)] == [
        *((0, 1), (1, 1), (2, 1), (2, 3), (3, 1), (4, 1), (5, 1), (5, 3)),
        *((6, 1), (7, 1), (8, 1), (6, 3)),
    ]


@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 99), st.sampled_from([None, 1, 2]))
def test_no_worker_of_asha_waits_while_a_trial_is_left_to_begin(
    trials: int, workers: int, seed: int, first_folds: int | None
) -> None:
    chance = random.Random(seed)
    strategy = made(Asha, trials, first_folds=first_folds)
    running: list[Proposal] = []
    begun: set[int] = set()
    while len(begun) < trials:
        if len(running) < workers:
            assert strategy.propose(), "a worker has nothing to do"
            running.append(strategy.propose()[0])
            begun.add(running[-1].trial)
            strategy.take(running[-1])
        else:
            done = running.pop(chance.randrange(workers))
            strategy.take(Outcome(done.trial, done.epochs, done.folds, (chance.random(),)))


def test_hyperband_has_the_brackets_that_were_published() -> None:
    """Table 1 of Li and others (2018): R = 81, reduction 3."""
    assert bracket_sizes(143, milestones=5, reduction=3) == [81, 34, 15, 8, 5]
    events = drive(made(Hyperband, 143, epochs=(1, 3, 9, 27, 81)), by_number)
    choosing = {1: (0, 81), 3: (81, 115), 9: (115, 130), 27: (130, 138), 81: (138, 143)}
    left = {1: [81, 27, 9, 3, 1], 3: [34, 11, 3, 1], 9: [15, 5, 1], 27: [8, 2], 81: [5]}
    for first, (begin, end) in choosing.items():
        reached = [epochs for trial, epochs, _ in proposed(events) if begin <= trial < end]
        later = [epochs for epochs in (1, 3, 9, 27, 81) if epochs >= first]
        assert [reached.count(epochs) for epochs in later] == left[first]
        # On the way to where it begins to choose, a bracket drops nobody.
        assert {reached.count(epochs) for epochs in (1, 3, 9, 27, 81) if epochs < first} <= {
            end - begin
        }


def test_hyperband_fills_the_wait_of_one_bracket_with_trials_of_the_next() -> None:
    strategy = made(Hyperband, 20)
    sizes = bracket_sizes(20, 3, 3)
    for _ in range(20):
        (proposal,) = strategy.propose()
        strategy.take(proposal)
    assert sum(sizes) == 20
    assert not strategy.propose()


@given(st.integers(0, 500), st.integers(1, 6), st.integers(2, 5))
def test_brackets_have_all_trials(trials: int, milestones: int, reduction: int) -> None:
    sizes = bracket_sizes(trials, milestones, reduction)
    assert sum(sizes) == trials
    assert sizes == sorted(sizes, reverse=True)


def test_some_folds_come_before_all_at_each_milestone() -> None:
    events = drive(made(SuccessiveHalving, 27, first_folds=1), by_number)
    assert list(counts(events).items()) == [
        *(((1, 1), 27), ((1, 3), 15), ((3, 1), 9), ((3, 3), 5), ((9, 1), 3), ((9, 3), 1)),
    ]


@given(
    kinds,
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(0, 999),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from([0.0, 0.3, 0.8]),
)
def test_a_trial_gets_to_the_top_whatever_fails(
    kind: Kind,
    trials: int,
    workers: int,
    seed: int,
    first_folds: int | None,
    failing: float,
) -> None:
    """If not, the user has spent the time and has no result."""

    def score(proposal: Proposal) -> float | None:
        chance = random.Random(f"{seed} {proposal}")
        return None if chance.random() < failing else chance.random()

    strategy = made(kind, trials, first_folds=first_folds)
    events = drive(strategy, score, workers, seed)
    steps = proposed(events)
    assert len(set(steps)) == len(steps), "a proposal was made twice"
    assert {trial for trial, *_ in steps} == set(range(trials)), "a trial was not begun"
    outcomes = [event for event in events if isinstance(event, Outcome)]
    failed = {(o.trial, o.epochs, o.folds) for o in outcomes if o.failed}
    rungs, reached = list(strategy.ladder.rungs), dict[int, int]()
    for trial, epochs, folds in steps:
        before = reached.get(trial, -1)
        assert rungs.index((epochs, folds)) > before, "it does not go upwards"
        assert before < 0 or (trial, *rungs[before]) not in failed, "what failed goes on"
        reached[trial] = rungs.index((epochs, folds))
    whole = [o for o in outcomes if (o.epochs, o.folds) == rungs[-1] and not o.failed]
    # Only if each and every one failed on its way.
    assert whole or all((trial, *rungs[rung]) in failed for trial, rung in reached.items())


@given(kinds, st.integers(1, 30), st.integers(1, 5), st.integers(0, 999), st.data())
def test_a_study_goes_on_as_it_would_have(
    kind: Kind, trials: int, workers: int, seed: int, data: st.DataObject
) -> None:
    def score(proposal: Proposal) -> float:
        return random.Random(f"{seed} {proposal}").random()

    events = drive(made(kind, trials, first_folds=1), score, workers, seed)
    cut = data.draw(st.integers(0, len(events)))
    first, again = (made(kind, trials, first_folds=1) for _ in range(2))
    for event in events[:cut]:
        first.take(event)
        first.propose()
        again.take(event)
    assert list(first.propose()) == list(again.propose())


@pytest.mark.parametrize("kind", KINDS)
def test_the_sampler_is_told_scores_that_can_be_compared(kind: Kind) -> None:
    strategy = made(kind, 20, first_folds=1)
    strategy.take(Known({"x": -1}, 1, 1, (0.4,)))
    strategy.take(Known({"x": -2}, 9, 3, (0.9,)))
    strategy.take(Known({"x": -3}, 9, 3, (0.8,)))
    strategy.take(Known({"x": -4}, 9, 3, ()))
    drive(strategy, by_number, 3)
    told = strategy._sampler.told
    outcomes = [event for event in told if isinstance(event, Outcome)]
    assert sorted(outcome.trial for outcome in outcomes) == list(range(20))
    scored = [e for e in told if not isinstance(e, Proposal) and e.merits]
    assert {(event.epochs, event.folds) for event in scored} == {(1, 1)}
    known = [e for e in told if isinstance(e, Known)]
    # The best of those scored are worth a trial; scores that cannot be compared are not passed on.
    assert known == [
        Known({"x": -1}, 1, 1, (0.4,)),
        Known({"x": -4}, 9, 3, ()),
        Known({"x": -2}, 9, 3, ()),
        Known({"x": -1}, 1, 1, ()),
    ]


def test_trials_that_the_space_no_longer_has_take_no_place_in_a_bracket() -> None:
    """Losing this: new points that are begun, and of which none goes on."""
    strategy = made(Hyperband, 9, epochs=(1, 3), allowed=lambda point: point["x"] >= 0)
    for trial in range(20):
        strategy.take(Proposal(trial, {"x": -1 - trial}, 1, 3))
        strategy.take(Outcome(trial, 1, 3, (0.5,)))
    strategy._sampler._points += 20
    events = drive(strategy, by_number)
    assert counts(events)[1, 3] == 9
    first = len([trial for trial in range(20, 29) if strategy.bracket(trial) == 0])
    assert counts(events)[3, 3] == first // 3 + (9 - first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_of_this_study_that_is_scored_on_the_first_rung_can_go_on(kind: Kind) -> None:
    """Losing this: another strategy's trials, shut out of the halving by their first scores."""
    strategy = made(kind, 20)
    strategy.take(Known({"x": -1}, 1, 3, (0.4,), here=True))
    strategy.propose()
    known = [Known({"x": -1}, 1, 3, (0.4,)), Known({"x": -1}, 1, 3, ())]
    assert strategy._sampler.told == known


def test_a_score_that_is_no_number_goes_no_further() -> None:
    events = drive(
        made(SuccessiveHalving, 9), lambda p: float("nan") if p.trial > 3 else float(p.trial)
    )
    assert [trial for trial, epochs, _ in proposed(events) if epochs == 3] == [3, 2, 1]


def test_a_trial_that_was_begun_at_other_epochs_is_begun_anew() -> None:
    """The space had the epochs 2 and 4 once; its trials race on the new milestones too."""
    strategy = made(Asha, 3)
    old = Proposal(0, {"x": 0}, 2, 3)
    strategy.take(old)
    strategy.take(Outcome(0, 2, 3, (0.9,)))
    assert strategy.propose()[0] == Proposal(0, {"x": 0}, 1, 3)
    steps = proposed(drive(strategy, by_number))
    assert {trial for trial, epochs, _ in steps if epochs == 1} == {0, 1, 2}


def test_a_trial_that_the_space_no_longer_has_goes_no_further() -> None:
    setting = Setting((1, 3), 3, 3, 0)
    strategy = Asha(Listed(3, 1, 3), setting, allowed=lambda point: point["x"] != 2)
    steps = proposed(drive(strategy, by_number))
    assert [trial for trial, epochs, _ in steps if epochs == 3] == [1]


@pytest.mark.parametrize(
    ("epochs", "keys", "says"),
    [
        ((3, 1), {}, "epochs"),
        ((), {}, "epochs"),
        ((1, 3), {"reduction": 1}, "reduction: given 1; must be a whole number from 2"),
        ((1, 3), {"first_folds": 4}, "first_folds: given 4; must be 1 to 3"),
        ((1, 3), {"first_folds": 0}, "first_folds: given 0; must be 1 to 3"),
    ],
)
def test_a_ladder_without_rungs_is_refused(
    epochs: tuple[int, ...], keys: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Ladder.of(Setting(epochs, 3, 9, 0), **keys)
