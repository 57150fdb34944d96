"""Importance: if these fail, a user tunes what does not matter and leaves alone what does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stormsweep.errors import UserError
from stormsweep.results import grid_variance, journal
from stormsweep.results.dimensions import ABSENT, PARTS, Dimension, dimensions
from stormsweep.results.importance import (
    MORE,
    Importance,
    importance,
    importance_frame,
    importance_of,
)
from stormsweep.results.stopped import levelled
from tests import journals

UNIT: dict[str, Any] = {"low": 0.0, "high": 1.0, "log": False, "integer": False}
GRID: dict[str, Any] = {
    "a": [1, 2, 3],
    "b": ["x", "y"],
    "filters": [[8], [8, 16]],
    "epochs": [5, 9],
}
Point = dict[str, Any]


def grid(space: dict[str, Any]) -> list[Point]:
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*space.values())]


def drawn(count: int, space: dict[str, Any], seed: int = 0) -> list[Point]:
    random = np.random.default_rng(seed)

    def draw(values: Any) -> Any:
        if isinstance(values, list):
            return values[random.integers(len(values))]
        if values["log"]:
            return float(math.exp(random.uniform(*np.log([values["low"], values["high"]]))))
        return float(random.uniform(values["low"], values["high"]))

    return [{n: draw(v) for n, v in space.items()} | {"epochs": 10} for _ in range(count)]


def scored(
    points: list[Point], score: Callable[[Point], float], noise: float = 0.0, folds: int = 3
) -> Any:
    random = np.random.default_rng(7)
    means = np.array([score(point) for point in points], dtype=float)
    return means[:, None] + noise * random.normal(size=(len(points), folds))


def share(found: Importance) -> dict[str, float]:
    return dict(zip(found.effects["effect"], found.effects["share"], strict=True))


def sure(found: Importance) -> set[str]:
    return set(found.effects.loc[found.effects["beyond_noise"], "effect"])


def test_a_whole_grid_is_split_exactly() -> None:
    points = grid(GRID)

    def score(point: Point) -> float:
        alone = 0.3 * point["a"] + 0.2 * (point["b"] == "y")
        return alone + 0.1 * (point["filters"] == [8]) * (1 if point["epochs"] == 5 else -1)

    found = importance_of(points, scored(points, score), GRID)
    assert found.method == "grid"
    parts = {"a": 0.09 * 2 / 3, "b": 0.01, "filters with epochs": 0.0025}
    # Half of what acts together is a part of the epochs' own effect.
    parts |= {"epochs": 0.0025}
    whole = sum(parts.values())
    for effect, own in share(found).items():
        assert own == pytest.approx(parts.get(effect, 0.0) / whole, abs=1e-12)
    assert sure(found) == set(parts)
    assert found.fold_noise == pytest.approx(0, abs=1e-12)


@settings(max_examples=40)
@given(
    arrays.arrays(
        float,
        st.tuples(st.integers(2, 4), st.integers(2, 4), st.integers(1, 4), st.integers(2, 3)),
        elements=st.floats(-10, 10, width=16),
    )
)
def test_parts_of_any_grid_add_up_and_stay_within_bounds(cube: Any) -> None:
    cube = cube.squeeze(axis=2) if cube.shape[2] == 1 else cube
    if cube.mean(axis=0).var() < 1e-6:
        return
    effects = grid_variance.decompose(cube)
    assert sum(effect.share for effect in effects) == pytest.approx(1)
    for effect in effects:
        assert 0 <= effect.low <= effect.share + 1e-12
        assert effect.share - 1e-12 <= effect.high <= 1
        assert effect.noise >= 0
    # Without what belongs to the last dimension, the table is that of its means.
    last = cube.ndim - 2
    without = sum(effect.share for effect in effects if effect.of and last not in effect.of)
    means = cube.mean(axis=(0, -1))
    direct = means.var() / cube.mean(axis=0).var()
    assert without <= direct + 1e-9 if cube.ndim > 3 else without == pytest.approx(direct)


def test_the_chance_of_the_folds_is_what_the_f_test_of_blocks_says() -> None:
    cube = np.random.default_rng(0).normal(size=(3, 4, 2))
    effect = grid_variance.decompose(cube)[0]
    # By the book: sums of squares of the effect and of its interaction with blocks.
    rows = cube.mean(axis=2)
    own = rows - rows.mean(axis=1, keepdims=True)
    between = 3 * (own.mean(axis=0) ** 2).sum() / 3
    within = ((own - own.mean(axis=0)) ** 2).sum() / 6
    assert effect.share / effect.noise == pytest.approx(between / within)


def test_a_grid_of_noise_seldom_has_an_effect() -> None:
    random = np.random.default_rng(3)
    found = [
        effect.beyond_noise
        for _ in range(100)
        for effect in grid_variance.decompose(
            random.normal(size=(3, 3, 2, 2)) + 5 * random.normal(size=(3, 1, 1, 1))
        )
    ]
    assert np.mean(found) <= 0.05


def test_absent_hyperparameters_make_no_difference_where_they_are_absent() -> None:
    points = [{"optimizer": "adam", "epochs": 5}]
    points += [{"optimizer": "sgd", "momentum": value, "epochs": 5} for value in (0.0, 0.9)]
    space = {"optimizer": ["adam", "sgd"], "momentum": {"values": [0.0, 0.9], "when": {}}}
    found = importance_of(points, scored(points, lambda p: 4.0 * p.get("momentum", 0.45)), space)
    assert found.method == "grid"
    # adam scores in the middle: momentum alone, and only with sgd.
    assert share(found) == pytest.approx(
        {"momentum": 0.5, "optimizer": 0.0, "optimizer with momentum": 0.5}
    )
    many: list[Point] = []
    for n, point in enumerate(drawn(200, {"rate": UNIT, "momentum": UNIT})):
        many.append(point | {"optimizer": ["adam", "sgd"][n % 2]})
        if n % 2 == 0:
            del many[-1]["momentum"]
    wide = {"rate": UNIT, "optimizer": ["adam", "sgd"], "momentum": UNIT | {"when": {}}}
    sampled = importance_of(many, scored(many, lambda p: p["rate"] + p.get("momentum", 0.5)), wide)
    # Var(rate) = 1/12; momentum: half of it alone 1/48, and 1/48 more with the optimizer.
    assert share(sampled)["rate"] == pytest.approx(2 / 3, abs=0.1)
    assert share(sampled)["momentum"] == pytest.approx(1 / 6, abs=0.1)
    assert share(sampled)["optimizer with momentum"] == pytest.approx(1 / 6, abs=0.1)
    # That it is absent elsewhere is known beforehand, and no discovery.
    assert sure(sampled) == {"rate", "momentum"}


KNOWN: dict[str, tuple[dict[str, Any], Callable[[Point], float], dict[str, float]]] = {
    "additive": (
        {"a": UNIT, "b": UNIT, "c": UNIT},
        lambda p: 2 * p["a"] + p["b"],
        {"a": 0.8, "b": 0.2, "c": 0.0},
    ),
    "interacting": (
        {"a": UNIT, "b": UNIT, "c": UNIT},
        lambda p: 12 * (p["a"] - 0.5) * (p["b"] - 0.5) + p["c"],
        {"a": 0.0, "b": 0.0, "a with b": 12 / 13, "c": 1 / 13},
    ),
    "logarithmic": (
        {"rate": {"low": 1e-5, "high": 1e-1, "log": True, "integer": False}, "b": UNIT},
        lambda p: math.log10(p["rate"]) / 4 + p["b"],
        {"rate": 0.5, "b": 0.5},
    ),
    "words and lists": (
        {"kind": ["x", "y", "z"], "filters": [[8], [8, 16]], "a": UNIT},
        lambda p: {"x": 0.0, "y": 1.0, "z": 0.0}[p["kind"]] + 0.5 * (p["filters"] == [8]),
        {"kind": 2 / 9 / (2 / 9 + 1 / 16), "filters": 1 / 16 / (2 / 9 + 1 / 16), "a": 0.0},
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_forest_recovers_known_functions(name: str) -> None:
    space, score, expected = KNOWN[name]
    points = drawn(150, space)
    found = importance_of(points, scored(points, score, 0.02), space)
    assert found.method == "forest"
    assert found.fit > 0.75
    known = share(found)
    assert sum(known.values()) == pytest.approx(1)
    for effect, own in expected.items():
        assert known[effect] == pytest.approx(own, abs=0.08), effect
        row = found.effects.set_index("effect").loc[effect]
        assert row["low"] - 0.06 <= own <= row["high"] + 0.06, effect
    clear = {effect for effect, own in expected.items() if own > 0.1}
    assert clear <= sure(found) <= {effect for effect, own in expected.items() if own > 0}


def test_a_forest_says_what_optunas_says_of_functions_that_both_can_say() -> None:
    import optuna

    space, score, _ = KNOWN["additive"]
    points = drawn(100, space)
    ours = share(importance_of(points, scored(points, score), space))
    study = optuna.create_study(direction="maximize")
    ranges = {name: optuna.distributions.FloatDistribution(0, 1) for name in space}
    for point in points:
        own = {name: point[name] for name in space}
        study.add_trial(
            optuna.trial.create_trial(params=own, distributions=ranges, value=score(point))
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=24, seed=0)
    theirs = evaluator.evaluate(study)
    for name in space:
        assert ours[name] == pytest.approx(theirs[name], abs=0.08)


def test_noise_is_called_noise() -> None:
    flagged = 0
    for seed in range(3):
        points = drawn(40, {"a": UNIT, "b": UNIT}, seed)
        random = np.random.default_rng(seed)
        found = importance_of(points, random.normal(size=(40, 3)), {"a": UNIT, "b": UNIT})
        flagged += len(sure(found))
        assert found.fold_noise > 0.5
    assert flagged <= 1


def test_epochs_of_one_run_are_no_configurations_of_their_own() -> None:
    # Scores at random, but alike along a run: as if each point were measured many times.
    random = np.random.default_rng(1)
    flagged = 0
    for seed in range(3):
        trials = drawn(14, {"a": UNIT, "b": UNIT}, seed)
        points = [trial | {"epochs": epochs} for trial in trials for epochs in (1, 2, 3, 4, 5)]
        means = np.repeat(random.normal(size=14), 5)
        scores = means[:, None] + 0.01 * random.normal(size=(70, 3))
        flagged += bool({"a", "b"} & sure(importance_of(points, scores, {"a": UNIT, "b": UNIT})))
    assert flagged == 0


@pytest.mark.parametrize("kind", ["grid", "forest"])
def test_order_and_names_make_no_difference(kind: str) -> None:
    space = GRID if kind == "grid" else {"a": UNIT, "b": ["x", "y", "z"]}
    points = grid(space) if kind == "grid" else drawn(30, space)
    scores = scored(points, lambda p: p["a"] * (2 if p["b"] == "x" else 1), 0.1)
    found = importance_of(points, scores, space)
    order = np.random.default_rng(0).permutation(len(points))
    mixed = importance_of([points[at] for at in order], scores[order], space)
    pd.testing.assert_frame_equal(found.effects, mixed.effects, rtol=1e-9, atol=1e-12)
    renamed = {name if name == "epochs" else f"z_{name}": values for name, values in space.items()}
    others = [{k if k == "epochs" else f"z_{k}": v for k, v in p.items()} for p in points]
    again = importance_of(others, scores, renamed)
    assert again.effects["first"].str.removeprefix("z_").tolist() == found.effects["first"].tolist()
    assert np.allclose(again.effects["share"], found.effects["share"])


def test_epochs_do_not_explain_what_the_choice_of_survivors_does() -> None:
    space = {"a": UNIT, "b": UNIT, "epochs": [1, 3, 9]}

    def score(point: Point) -> float:
        return 4 * point["a"] + point["b"] + math.log(point["epochs"]) / 2

    trials = [point | {"epochs": 1} for point in drawn(60, {"a": UNIT, "b": UNIT})]
    ranked = sorted(trials, key=score, reverse=True)
    reached = [(1, trials), (3, ranked[:20]), (9, ranked[:7])]
    points = [trial | {"epochs": epochs} for epochs, own in reached for trial in own]
    found = importance_of(points, scored(points, score, 0.05), space)
    assert found.filled == 3 * 60 - 87
    whole = 16 / 12 + 1 / 12 + np.var(np.log([1, 3, 9])) / 4
    for name, variance in (("a", 16 / 12), ("b", 1 / 12)):
        assert share(found)[name] == pytest.approx(variance / whole, abs=0.1)
    assert share(found)["epochs"] == pytest.approx(1 - 17 / 12 / whole, abs=0.1)


def test_trials_of_one_epoch_each_and_whole_ones_are_left_as_they_are() -> None:
    trials = drawn(9, {"a": UNIT})
    random = [point | {"epochs": [1, 3, 9][n % 3]} for n, point in enumerate(trials)]
    whole = [point | {"epochs": epochs} for point in trials[:4] for epochs in (1, 3, 9)]
    for points in (random, whole):
        scores = scored(points, lambda p: p["a"], 0.1)
        level = levelled(points, scores)
        assert level.filled == 0
        assert level.points == points
        assert np.array_equal(level.scores, scores)


def test_what_is_filled_in_is_what_others_gained_fold_by_fold() -> None:
    points = [{"a": n, "epochs": epochs} for n in range(4) for epochs in (1, 3)][:-1]
    points.append({"a": 0, "epochs": 9})
    scores = np.array([[n, n + 10.0] for n in range(8)])
    scores[[1, 3, 5], 1] += 3
    level = levelled(points, scores)
    # The fourth trial lacks 3 epochs, and 9 are known of one trial only.
    assert level.filled == 1
    assert level.points[-1] == {"a": 3, "epochs": 3}
    assert level.scores[-1].tolist() == [7.0, 20.0]
    assert {point["epochs"] for point in level.points} == {1, 3}
    assert len(set(level.trials)) == 4


def test_ranges_are_cut_on_the_scale_on_which_they_are_drawn() -> None:
    space = {
        "rate": {"low": 1e-4, "high": 1.0, "log": True, "integer": False},
        "layers": {"low": 1, "high": 4, "log": False, "integer": True},
        "width": {"low": 1, "high": 1000, "log": True, "integer": True},
    }
    points = [
        {"rate": rate, "layers": layers, "width": width, "epochs": 1}
        for rate, layers, width in [(1e-4, 1, 1), (1e-2, 2, 31), (1.0, 4, 1000), (5.0, 3, 1)]
    ]
    rate, layers, width = dimensions(points, space, exact=False)
    assert rate.codes.tolist() == [0, PARTS // 2, PARTS - 1, PARTS - 1]
    assert (layers.atoms, layers.codes.tolist()) == (4, [0, 1, 3, 2])
    assert width.codes[[0, 2]].tolist()[1] == PARTS - 1
    assert dimensions(points, space, exact=True)[0].atoms == 4


def test_what_never_varies_has_no_effect_and_absence_is_known() -> None:
    points = [{"a": 1, "b": 2, "epochs": 3}, {"a": 2, "epochs": 3}, {"a": 3, "b": 1, "epochs": 3}]
    a, b = dimensions(points, {}, exact=True)
    assert (a.name, b.name) == ("a", "b")
    assert b.codes.tolist() == [1, ABSENT, 0]


def test_a_space_that_no_computer_holds_is_no_grid() -> None:
    # 65,536 values to the fourth power are 2 to the 64th: 0 in a machine's word.
    codes = np.arange(65_536)
    space = [Dimension(name, 65_536, True, codes) for name in "abcd"]
    assert grid_variance.cube_of(space, np.zeros((65_536, 2))) is None


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (np.zeros((1, 3)), "needs two or more configurations scored on all folds; there are 1"),
        (np.zeros((0, 3)), "there are 0"),
        (np.arange(5.0)[:, None], "two or more folds"),
        (np.tile([0.7, 0.8, 0.9], (5, 1)), "all configurations score the same"),
        (np.random.default_rng(0).normal(size=(5, 3)), "12 configurations scored on all folds for"),
    ],
)
def test_too_little_is_said_to_be_too_little(scores: Any, text: str) -> None:
    points = drawn(len(scores), {"a": UNIT, "b": UNIT})
    found = importance_of(points, scores, {"a": UNIT, "b": UNIT})
    assert text in found.needed
    assert found.effects.empty
    assert found.method == ""


def test_a_study_says_what_its_scores_were_made_of_and_half_of_it_what_is_missing(
    tmp_path: Path,
) -> None:
    space = {"batch_size": [256, 1024], "learning_rate": [0.001, 0.01], "epochs": [2, 4]}

    def scores(point: Point, fold: int) -> dict[str, float]:
        effect = 0.05 * (point["batch_size"] == 1024) + 0.02 * (point["learning_rate"] == 0.01)
        return {"roc_auc": 0.8 + effect + 0.001 * fold}

    journals.simulate(tmp_path / "whole", space, scores=scores)
    found = importance(journal.read(tmp_path / "whole" / "journal.jsonl"))
    assert share(found)["batch_size"] == pytest.approx(25 / 29)
    assert share(found)["learning_rate"] == pytest.approx(4 / 29)
    assert found.effects["effect"].iloc[-1] == MORE
    assert (found.configurations, found.planned) == (8, 8)
    journals.simulate(tmp_path / "half", space, scores=scores, stops=(90.0,), go_on=False)
    entries = journal.read(tmp_path / "half" / "journal.jsonl")
    half = importance(entries)
    assert half.configurations < half.planned
    with pytest.raises(UserError, match=r"^importance: needs .*$"):
        importance_frame(entries)
