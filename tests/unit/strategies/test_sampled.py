"""Losing these: samplers that learn nothing, or print into the command's own words."""

from __future__ import annotations

import itertools
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import pytest

from stormsweep.config.study import SearchTable
from stormsweep.errors import StudyFileError
from stormsweep.search.proposals import Known, Outcome, Proposal, Strategy
from stormsweep.search.strategies import make, sampled

Merits = Callable[[dict[str, Any]], tuple[float, ...]]
SPACE: dict[str, Any] = {
    "rate": {"low": 1e-5, "high": 1, "log": True},
    "x": {"low": -3, "high": 3},
    "layers": [1, 2, 4, 8, 16, 32],
    "kind": ["a", "b", "c"],
}


def bowl(point: dict[str, Any]) -> tuple[float, ...]:
    """Return a merit that is greatest, 0, at one corner of nowhere."""
    return (
        -((math.log10(point["rate"]) + 2) ** 2)
        - (point["x"] - 1) ** 2
        - 0.3 * (math.log2(point["layers"]) - 3) ** 2
        - (point["kind"] != "b"),
    )


def begin(strategy: str, seed: int = 0, trials: int = 30, **keys: Any) -> Strategy:
    table = {"strategy": strategy, "trials": trials, "space": SPACE, **keys}
    return make(SearchTable.model_validate(table), {}, 3, seed)


def searched(strategy: Strategy, merits: Merits, workers: int = 4) -> list[tuple[float, ...]]:
    """Return the merits of all trials, of which some are always under way."""
    running: list[Proposal] = []
    found = []
    while True:
        offer = strategy.propose()
        if offer and len(running) < workers:
            strategy.take(offer[0])
            running.append(offer[0])
        elif running:
            one = running.pop(0)
            found.append(merits(one.hyperparameters))
            strategy.take(Outcome(one.trial, one.epochs, one.folds, found[-1]))
        else:
            return found


@pytest.mark.parametrize("name", ["tpe", "cma-es"])
def test_they_find_better_points_than_chance(name: str) -> None:
    """What they propose after 20 trials is better on the whole, not by one lucky point."""
    last = {
        strategy: statistics.mean(
            merits[0] for seed in range(3) for merits in searched(begin(strategy, seed), bowl)[20:]
        )
        for strategy in ("random", name)
    }
    assert last[name] > last["random"] / 2


def test_nsga2_comes_nearer_to_the_front_than_chance() -> None:
    def two(point: dict[str, Any]) -> tuple[float, ...]:
        rest = bowl({**point, "x": 1})[0]
        return rest - (point["x"] + 1) ** 2, rest - (point["x"] - 1) ** 2

    keys = {"trials": 64, "objectives": ["roc_auc", "loss"]}
    better = []
    for seed in range(3):
        chance = sorted(map(sum, searched(begin("random", seed, 64), two)))
        sampler = sorted(map(sum, searched(begin("nsga2", seed, **keys), two)))
        better.append(statistics.mean(sampler[-20:]) - statistics.mean(chance[-20:]))
    assert statistics.median(better) > 0.1


def test_workers_without_a_score_yet_get_points_apart_from_each_other() -> None:
    """Losing this: 16 workers that train 16 times nearly the same."""
    strategy = begin("tpe", trials=60)
    for number in range(20):
        (one,) = strategy.propose()
        strategy.take(one)
        strategy.take(Outcome(number, one.epochs, one.folds, bowl(one.hyperparameters)))
    points = []
    for _ in range(16):
        (one,) = strategy.propose()
        strategy.take(one)
        points.append(one.hyperparameters["x"])
    points.sort()
    assert min(b - a for a, b in itertools.pairwise(points)) > 0
    assert statistics.pstdev(points) > 0.3


def test_what_failed_and_was_tried_again_is_learned_from() -> None:
    """Losing this: the region of the best point is kept away from, because a disk was full."""
    nexts = []
    for good, again in ((True, False), (False, True), (False, False)):
        strategy = begin("tpe")
        for number in range(16):
            (one,) = strategy.propose()
            strategy.take(one)
            merits = bowl(one.hyperparameters)
            # Only the last one fails, so that all begin with the same points.
            strategy.take(
                Outcome(number, one.epochs, one.folds, merits if number < 15 or good else ())
            )
        if again:
            strategy.take(Outcome(15, one.epochs, one.folds, merits))
        nexts.append(list(strategy.propose()))
    assert nexts[0] == nexts[1] != nexts[2]


def known_points(center: float, count: int) -> list[Known]:
    """Return points over the whole space, the best of which lie at a value of ``x``."""
    chance = begin("sobol", 3, count)
    return [
        Known(one.hyperparameters, 10, 3, (-((one.hyperparameters["x"] - center) ** 2),))
        for one in chance.propose()
    ]


@pytest.mark.parametrize("name", ["tpe", "cma-es"])
def test_known_points_say_where_to_begin(name: str) -> None:
    """Losing this: a warm start from an earlier study that is read and then not made use of."""
    away: dict[float, list[float]] = {}
    for center in (-2.0, 2.0):
        xs = []
        for seed in range(4):
            strategy = begin(name, seed)
            for one in known_points(center, 32):
                strategy.take(one)
            for _ in range(4):
                (proposal,) = strategy.propose()
                strategy.take(proposal)
                xs.append(proposal.hyperparameters["x"])
        away[center] = xs
    assert statistics.median(away[-2.0]) < -1 < 1 < statistics.median(away[2.0])


def test_known_points_are_parents_for_nsga2() -> None:
    strategy = begin("nsga2", trials=80)
    for one in known_points(2.0, 40):
        strategy.take(one)
    strategy.take(strategy.propose()[0])  # The best known one.
    (first,) = strategy.propose()
    assert any(
        first.hyperparameters[name] == one.hyperparameters[name]
        for one in known_points(2.0, 40)
        for name in ("rate", "x")
    ), "a child has a value of a parent's; a point of chance has none"


def test_a_known_point_of_this_very_study_is_not_trained_again() -> None:
    space = {"x": [1, 2, 3], "y": [1, 2]}
    search = SearchTable.model_validate({"strategy": "tpe", "space": space})
    strategy = make(search, {"width": 8}, 3, 0)
    strategy.take(Known({"x": 1, "y": 1, "width": 8}, 10, 3, (0.9,), here=True))
    strategy.take(Known({"x": 1, "y": 2, "width": 9}, 10, 3, (0.9,), here=True))  # Another model.
    strategy.take(Known({"x": 2, "y": 1, "width": 8}, 5, 3, (0.9,), here=True))  # Half as long.
    strategy.take(Known({"x": 2, "y": 2, "width": 8}, 10, 1, (0.9,), here=True))  # One fold.
    tried = set()
    while offer := strategy.propose():
        strategy.take(offer[0])
        tried.add(tuple(offer[0].hyperparameters.values()))
    assert tried == {(1, 2), (2, 1), (2, 2), (3, 1), (3, 2)}


def test_what_is_searched_has_no_default_that_a_point_of_this_study_must_have() -> None:
    """Losing this: trials spent on batch sizes that are scored already, in place of new ones."""
    space = {"batch_size": [16, 32, 64], "epochs": [2]}
    search = SearchTable.model_validate({"strategy": "tpe", "trials": 1, "space": space})
    strategy = make(search, {}, 3, 0)
    for size in (16, 32):
        strategy.take(Known({"batch_size": size}, 2, 3, (0.9,), here=True))
    (offer,) = strategy.propose()
    assert offer.hyperparameters == {"batch_size": 64}


def test_a_point_that_is_best_at_both_ends_of_a_warm_start_is_trained_once() -> None:
    """Another strategy of this study scored what an earlier study knew as well."""
    search = SearchTable.model_validate({"strategy": "tpe", "space": {"x": [1, 2, 3]}})
    strategy = make(search, {}, 3, 0)
    strategy.take(Known({"x": 2}, 10, 3, (0.99,)))
    strategy.take(Known({"x": 2}, 10, 3, (0.97,), here=True))
    tried = []
    while offer := strategy.propose():
        strategy.take(offer[0])
        tried.append(offer[0].hyperparameters["x"])
    assert sorted(tried) == [1, 3]


def test_the_best_known_point_is_one_of_the_epochs_that_are_asked_for() -> None:
    """Losing this: a mediocre point first, because it was trained ten times as long."""
    search = SearchTable.model_validate({"strategy": "tpe", "space": {"x": [1, 2, 3]}})
    strategy = make(search, {}, 3, 0)
    for x, epochs, merit in ((1, 100, 0.9), (2, 10, 0.8), (3, 10, 0.7)):
        strategy.take(Known({"x": x}, epochs, 3, (merit,)))
    (first,) = strategy.propose()
    assert first.hyperparameters == {"x": 2}


def test_optuna_prints_nothing_and_is_left_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        for name in ("tpe", "cma-es", "nsga2"):
            searched(begin(name, trials=14), bowl)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["tpe", "cma-es", "nsga2"])
def test_samplers_are_asked_for_nothing_that_they_cannot_answer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: a sampler that only ever fails, and points of chance in its place."""
    answer, answered = sampled.Sampled._answer, []

    def counted(self: sampled.Sampled, seed: int) -> Any:
        answered.append(False)
        found = answer(self, seed)
        answered[-1] = True
        return found

    monkeypatch.setattr(sampled.Sampled, "_answer", counted)
    momentum = {"low": 0, "high": 1, "when": {"kind": ["a"]}}
    search = {"strategy": name, "trials": 24, "space": {**SPACE, "momentum": momentum}}
    strategy = make(SearchTable.model_validate(search), {}, 3, 0)
    for one in known_points(1.0, 3):
        strategy.take(one)
    searched(strategy, bowl)
    assert len(answered) >= 24
    assert all(answered)


@pytest.mark.parametrize("warm", [False, True])
def test_cma_es_goes_on_where_its_first_points_all_have_a_conditional_number(
    warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: points of chance to the end, when the first without the number comes."""
    relative, moved = optuna.samplers.CmaEsSampler.sample_relative, []

    def noted(self: Any, *args: Any) -> Any:
        moved.append(set[str]())
        found = relative(self, *args)
        moved[-1] |= set(found)
        return found

    monkeypatch.setattr(optuna.samplers.CmaEsSampler, "sample_relative", noted)
    unit = {"low": 0, "high": 1}
    space = {"x": unit, "y": unit, "kind": ["a", "b"], "z": {**unit, "when": {"kind": ["a"]}}}
    search = {"strategy": "cma-es", "trials": 30, "space": space}
    strategy = make(SearchTable.model_validate(search), {}, 3, 0)
    first = [{"x": n / 20, "y": 1 - n / 20, "kind": "a", "z": n / 20} for n in range(12)]
    for point in first if warm else ():
        strategy.take(Known(point, 10, 3, (point["x"],)))
    for number, point in enumerate(() if warm else first):
        strategy.take(Proposal(number, point, 10, 3))
        strategy.take(Outcome(number, 10, 3, (point["x"],)))
    moved.clear()
    searched(strategy, lambda point: (point["x"],))
    assert len(moved) >= 18
    assert all(names == {"x", "y"} for names in moved)


def test_trouble_inside_a_sampler_costs_its_choice_and_not_the_study(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> Any:
        raise ArithmeticError("singular")

    monkeypatch.setattr(sampled.Sampled, "_answer", broken)
    assert len(searched(begin("tpe", trials=7), bowl)) == 7


def test_gp_without_pytorch_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "find_spec", lambda name: None)
    with pytest.raises(StudyFileError, match="pip install torch") as caught:
        begin("gp")
    assert "\n" not in str(caught.value)


def run(code: str) -> Sequence[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_grid_is_planned_without_numpy_and_optuna() -> None:
    """Losing this: `plan` on a login node that waits for what it does not need."""
    code = (
        "import sys\n"
        "from stormsweep.config.study import SearchTable\n"
        "from stormsweep.search.strategies import make\n"
        "assert make(SearchTable(space={'x': [1, 2]}), {}, 3, 0).propose()\n"
        "print(*({'numpy', 'optuna', 'scipy'} & set(sys.modules)))"
    )
    assert run(code) == []
