"""Contenders: if these fail, a user pays for a difference that is not there, or misses one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from stormsweep.errors import UserError
from stormsweep.results import frames, journal
from stormsweep.results.contenders import LEAST_FOR_USUAL, against, contenders, contest, holm
from tests import journals

SMALL: dict[str, Any] = {
    "batch_size": [256, 1024],
    "learning_rate": [0.001, 0.01],
    "epochs": [2, 4],
}


def test_two_configurations_are_compared_as_nadeau_and_bengio_do() -> None:
    scores = np.array([[0.91, 0.90, 0.95], [0.90, 0.87, 0.94]])
    tests = against(0, scores)
    gaps = scores[0] - scores[1]
    t = gaps.mean() / math.sqrt(gaps.var(ddof=1) * (1 / 3 + 1 / 2))
    assert tests.freedom == 2
    assert tests.chance[0] == pytest.approx(2 * stats.t.sf(t, 2))
    assert tests.adjusted[0] == tests.chance[0]
    assert tests.half[0] == pytest.approx(gaps.mean() / t * stats.t.ppf(0.975, 2))


@given(
    arrays.arrays(float, st.integers(1, 12), elements=st.floats(0, 1)),
)
def test_adjusted_chances_are_those_of_holms_steps(chances: Any) -> None:
    adjusted, count = holm(chances), len(chances)
    for at, chance in enumerate(chances):
        smaller = [c for c in chances if c <= chance]
        # The largest of the steps up to it; equal ones stand together at their first.
        steps = [min(1.0, (count - sum(d < c for d in chances)) * c) for c in smaller]
        assert adjusted[at] == pytest.approx(max(steps))
    assert (adjusted >= chances).all()


def related(random: Any, count: int, folds: int, correlation: float) -> Any:
    """Scores of configurations all equally good, whose errors on folds hang together."""
    shared = random.normal(size=(count, 1)) * math.sqrt(correlation)
    own = random.normal(size=(count, folds)) * math.sqrt(1 - correlation)
    return shared + own + 3 * random.normal(size=(1, folds))


@pytest.mark.parametrize("folds", [3, 5, 10])
def test_the_level_is_kept_where_training_sets_are_shared(folds: int) -> None:
    random = np.random.default_rng(folds)
    naive = corrected = 0
    for _ in range(2000):
        # What Nadeau and Bengio take the folds' correlation to be: the validation's share.
        scores = related(random, 2, folds, 1 / folds)
        gaps = scores[0] - scores[1]
        t = gaps.mean() / math.sqrt(gaps.var(ddof=1) / folds)
        naive += abs(t) > stats.t.ppf(0.975, folds - 1)
        corrected += against(0, scores).chance[0] < 0.05
    assert 0.035 <= corrected / 2000 <= 0.065
    assert naive / 2000 > 0.09


def test_the_true_best_is_seldom_lost_and_steadying_costs_no_level() -> None:
    random = np.random.default_rng(11)
    lost, wrong = 0.0, 0
    for _ in range(400):
        scores = related(random, 3 * LEAST_FOR_USUAL, 3, 1 / 3)
        best = int(scores.mean(axis=1).argmax())
        # All are equally good, each of them a true best.
        lost += float((against(best, scores).adjusted < 0.05).mean())
        wrong += bool((against(0, scores).adjusted < 0.05).any())
    assert wrong / 400 <= 0.07
    # The one they are compared with was chosen for its luck, among 30.
    assert lost / 400 <= 0.05


def cross_validated(random: Any, folds: int) -> Any:
    """Scores of least squares on one feature each, of three that are worth the same."""
    cases = random.normal(size=(60, 3))
    target = cases.sum(axis=1) + random.normal(size=60)
    fold = np.arange(60) % folds
    scores = np.empty((3, folds))
    for number in range(folds):
        train, test = fold != number, fold == number
        slope = (cases[train] * target[train, None]).sum(axis=0) / (cases[train] ** 2).sum(axis=0)
        scores[:, number] = -((target[test, None] - cases[test] * slope) ** 2).mean(axis=0)
    return scores


def test_real_cross_validation_of_equal_models_seldom_tells_them_apart() -> None:
    random = np.random.default_rng(5)
    apart = [against(0, cross_validated(random, 5)).chance[0] < 0.05 for _ in range(600)]
    assert np.mean(apart) <= 0.06


def test_what_is_usual_among_many_tells_more_than_three_folds() -> None:
    random = np.random.default_rng(2)
    merit = np.repeat([0.0, 12.0], 20)[:, None]
    scores = merit + random.normal(size=(40, 3))
    best = int(scores.mean(axis=1).argmax())
    steadied = against(best, scores)
    assert steadied.freedom > 4
    assert (steadied.adjusted[:20] < 0.05).all()
    alone = [against(0, scores[[best, at]]).chance[0] for at in range(20)]
    assert (holm(np.array([*alone, *[1.0] * 19]))[:20] < 0.05).mean() < 0.5


def test_configurations_that_vary_differently_are_not_taken_for_alike() -> None:
    random = np.random.default_rng(4)
    spread = np.repeat([0.01, 3.0], 15)[:, None]
    wild = against(0, spread * random.normal(size=(30, 3)))
    alike = against(0, random.normal(size=(30, 3)))
    assert wild.freedom < 4 < 5 < alike.freedom


def test_every_complete_configuration_is_compared_and_the_cheapest_named(tmp_path: Path) -> None:
    def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
        good = point["learning_rate"] == 0.01
        noise = 0.001 * journals.bell(sorted(point.items()), fold)
        return {"roc_auc": 0.8 + 0.1 * good + 0.01 * fold + noise}

    entries = journal.read(journals.simulate(tmp_path, SMALL, scores=scores) / "journal.jsonl")
    table, whole = contest(entries), frames.configurations(entries)
    assert table["configuration"].tolist() == whole["configuration"].tolist()
    assert table["contender"].tolist() == [True] * 4 + [False] * 4
    assert (table["difference"] >= 0).all()
    first = table.iloc[0]
    assert first["difference"] == 0
    assert math.isnan(first["p"])
    alike = contenders(entries)
    assert len(alike) == 4
    assert alike["cheapest"].sum() == 1
    assert alike.loc[alike["cheapest"], "seconds"].item() == alike["seconds"].min()
    assert alike["learning_rate"].unique().tolist() == [0.01]


def test_less_is_better_where_it_is(tmp_path: Path) -> None:
    def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
        bad = point["learning_rate"] == 0.01
        return {"brier_score": 0.05 + 0.01 * bad + 0.0001 * journals.bell(str(point), fold)}

    directory = journals.simulate(tmp_path, SMALL, scores=scores, metric="brier_score")
    table = contest(journal.read(directory / "journal.jsonl"))
    assert (table["difference"] >= 0).all()
    assert set(table.loc[table["contender"], "learning_rate"]) == {0.001}


def test_equal_scores_are_all_contenders_and_one_needs_another(tmp_path: Path) -> None:
    same = journals.simulate(tmp_path / "same", SMALL, scores=lambda p, f: {"roc_auc": 0.8 + f / 9})
    table = contest(journal.read(same / "journal.jsonl"))
    assert table["contender"].all()
    assert (table["p"].iloc[1:] == 1).all()
    one = journals.simulate(tmp_path / "one", {}, points=[{"batch_size": 64}], milestones=[4])
    entries = journal.read(one / "journal.jsonl")
    assert len(contest(entries)) == 1
    with pytest.raises(UserError, match=r"needs two or more configurations .* there is 1"):
        contenders(entries)


def test_folds_of_further_rounds_are_not_taken_for_new_cases() -> None:
    """Twelve folds of one round tell more than four rounds of three."""
    random = np.random.default_rng(4)
    scores = random.normal(size=(2, 12)) + np.array([[0.5], [0.0]])
    one, four = against(0, scores), against(0, scores, rounds=4)
    assert one.difference == four.difference
    ratio = (1 / 12 + 1 / 2) / (1 / 12 + 1 / 11)
    assert (four.half / one.half) ** 2 == pytest.approx(ratio)
