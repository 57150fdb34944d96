"""Scores against independent computations: a user believes these numbers without checking them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics

from stormsweep.errors import DataError
from stormsweep.verification import contingency, reliability, resampling
from stormsweep.verification import scores as verification
from stormsweep.verification.forecasts import Forecasts, forecasts


@st.composite
def some_forecasts(draw: st.DrawFn) -> Forecasts:
    """Forecasts with ties, exact 0 and 1, few and many blocks."""
    n = draw(st.integers(4, 60))
    steps = draw(st.sampled_from([1, 4, 20, 1000]))
    values = draw(st.lists(st.integers(0, steps), min_size=n, max_size=n))
    labels = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    assume(0 < sum(labels) < n)
    blocks = draw(st.lists(st.sampled_from("abcdefg"), min_size=n, max_size=n))
    climatology = draw(st.floats(0.01, 0.99))
    return forecasts(np.array(values) / steps, np.array(labels), climatology, blocks, "run_date")


def repeated(known: Forecasts, weights: np.ndarray) -> Forecasts:
    """Return the cases of a sample one by one, as a patient person would write them down."""
    rows = np.repeat(np.arange(len(known)), weights[known.block].astype(int))
    return Forecasts(
        known.probability[rows],
        known.event[rows],
        known.climatology,
        known.block[rows],
        known.blocks,
        known.block_name,
        known.groups,
    )


@settings(max_examples=50, deadline=None)
@given(some_forecasts(), st.floats(0, 1))
def test_point_scores_are_those_of_scikit_learn_and_of_counting(known, threshold):
    found = verification.point_scores(known, threshold)
    p, event = known.probability, known.event
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(event, p))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(event, p))
    assert found["brier_score"] == pytest.approx(metrics.brier_score_loss(event, p))
    pairs = (p[event][:, None] - p[~event][None, :]).ravel()
    assert found["roc_auc"] == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    yes = p >= threshold
    a, b = np.sum(yes & event), np.sum(yes & ~event)
    c, d = np.sum(~yes & event), np.sum(~yes & ~event)
    n = a + b + c + d
    chance = ((a + b) * (a + c) + (c + d) * (b + d)) / n
    by_hand = {
        "csi": (a, a + b + c),
        "pod": (a, a + c),
        "far": (b, a + b),
        "pofd": (b, b + d),
        "hss": (a + d - chance, n - chance),
        "bias": (a + b, a + c),
        "peirce": (a * d - b * c, (a + c) * (b + d)),
    }
    for name, (above, below) in by_hand.items():
        expected = above / below if below else np.nan
        assert found[name] == pytest.approx(expected, nan_ok=True, abs=1e-12), name


@settings(max_examples=25, deadline=None)
@given(some_forecasts(), st.integers(0, 2**32 - 1))
def test_resampled_scores_are_those_of_the_cases_written_down_again(known, seed):
    weights = resampling.resampled(known.blocks, 3, seed)
    assert (weights.sum(axis=1) == known.blocks).all()
    samples = verification.resampled_scores(known, 0.4, weights)
    for number, sample in enumerate(weights):
        again = repeated(known, sample)
        if again.events in (0, len(again)):
            assert np.isnan(samples["roc_auc"][number])
            continue
        for name, value in verification.point_scores(again, 0.4).items():
            assert samples[name][number] == pytest.approx(value, nan_ok=True, abs=1e-9), name


@given(some_forecasts(), st.sampled_from([2, 3, 10]))
def test_the_parts_of_the_brier_score_add_up_to_it(known, count):
    edges = np.linspace(0, 1, count + 1)
    binned = reliability.bins(known, edges)
    parts = reliability.decomposition(binned.weighted(np.ones((1, known.blocks))))
    part = {name: float(values[0]) for name, values in parts.items()}
    total = (
        part["reliability"]
        - part["resolution"]
        + part["uncertainty"]
        + part["within_bin_variance"]
        - part["within_bin_covariance"]
    )
    assert total == pytest.approx(metrics.brier_score_loss(known.event, known.probability))
    assert min(part["reliability"], part["resolution"]) >= 0
    assert part["within_bin_variance"] >= -1e-12


def test_forecasts_of_few_values_have_murphys_three_parts():
    # Murphy's own case: all forecasts of a bin are the same.
    p = np.repeat([0.05, 0.35, 0.75], [50, 30, 20])
    event = np.concatenate([np.arange(50) < 2, np.arange(30) < 12, np.arange(20) < 15])
    parts = reliability.decomposition(
        reliability.bins(forecasts(p, event, 0.3)).weighted(np.ones((1, 100)))
    )
    weights, means, base = np.array([0.5, 0.3, 0.2]), np.array([0.04, 0.4, 0.75]), 0.29
    assert parts["reliability"][0] == pytest.approx(
        weights @ (np.array([0.05, 0.35, 0.75]) - means) ** 2
    )
    assert parts["resolution"][0] == pytest.approx(weights @ (means - base) ** 2)
    assert parts["uncertainty"][0] == pytest.approx(base * (1 - base))
    assert parts["within_bin_variance"][0] == pytest.approx(0, abs=1e-12)
    assert parts["within_bin_covariance"][0] == pytest.approx(0, abs=1e-12)


@given(some_forecasts(), st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_tables_count_every_case_once_at_every_threshold(known, thresholds):
    levels = np.sort(thresholds)
    counted = contingency.tables(known, levels)
    n = counted.hits + counted.false_alarms + counted.misses + counted.correct_negatives
    sizes = np.bincount(known.block, minlength=known.blocks)
    assert (n == sizes[:, None]).all()
    assert (np.diff(counted.total().hits) <= 0).all()
    for place, level in enumerate(levels):
        yes = known.probability >= level
        assert counted.total().hits[place] == np.sum(yes & known.event)
        assert counted.total().false_alarms[place] == np.sum(yes & ~known.event)


def test_climatology_has_no_skill_and_truth_has_all():
    event = np.arange(100) < 20
    flat = verification.point_scores(forecasts(np.full(100, 0.2), event, 0.2), 0.5)
    assert flat["brier_skill_score"] == pytest.approx(0)
    assert flat["roc_auc"] == 0.5
    assert np.isnan(flat["far"]), "a ratio of forecasts that were never made is no number"
    sure = verification.point_scores(forecasts(event.astype(float), event, 0.2), 0.5)
    assert sure["brier_skill_score"] == sure["roc_auc"] == sure["csi"] == sure["hss"] == 1
    assert sure["far"] == sure["pofd"] == 0


def weather(days: int, per_day: int, seed: int, spread: float) -> tuple[np.ndarray, ...]:
    """Cases whose forecasts are off together on each day, by `spread` on the logit scale."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(days), per_day)
    signal = draw.normal(size=days * per_day)
    event = draw.random(days * per_day) < 1 / (1 + np.exp(-(1.5 * signal - 1.5)))
    off = draw.normal(size=days)[day] * spread
    return 1 / (1 + np.exp(-(1.5 * signal - 1.5 + off))), event, day


def test_whole_days_make_wider_intervals_than_single_cases_where_days_differ():
    p, event, day = weather(30, 200, 1, spread=1.5)
    by_day = verification.estimate(forecasts(p, event, 0.25, day, "run_date"), 0.5)["brier_score"]
    by_case = verification.estimate(forecasts(p, event, 0.25), 0.5, resamples=200)["brier_score"]
    assert by_day.low < by_day.value < by_day.high
    assert by_day.high - by_day.low > 1.5 * (by_case.high - by_case.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    truth = verification.point_scores(forecasts(*weather(20_000, 20, 5, 0.7)[:2], 0.25), 0.5)
    inside = 0
    for seed in range(50):
        p, event, day = weather(40, 20, 100 + seed, 0.7)
        known = forecasts(p, event, 0.25, day, "run_date")
        found = verification.estimate(known, 0.5, seed=seed, resamples=150)["brier_score"]
        inside += found.low <= truth["brier_score"] <= found.high
    assert 42 <= inside <= 50


def test_the_same_seed_gives_the_same_intervals_and_few_days_give_none():
    p, event, day = weather(12, 30, 4, spread=1)
    known = forecasts(p, event, 0.25, day, "run_date")
    one, two = (verification.estimate(known, 0.5, seed=7, resamples=50) for _ in range(2))
    assert one == two
    assert one != verification.estimate(known, 0.5, seed=8, resamples=50)
    few = verification.estimate(known.of(day < 4), 0.5, resamples=50)
    assert all(np.isnan(score.low) for score in few.values())
    assert np.isfinite(few["roc_auc"].value)


@pytest.mark.parametrize(
    ("probabilities", "labels", "blocks", "says"),
    [
        ([0.1, np.nan], [0, 1], None, "1 of 2 are no probabilities"),
        ([0.1, 1.5], [0, 1], None, "1 of 2 are no probabilities"),
        ([0.1, 0.2], [1, 1], None, "happened in 2 of 2 cases"),
        ([], [], None, "happened in 0 of 0 cases"),
        ([0.1, 0.2, 0.3], [0, 1], None, "3 probabilities"),
        ([0.1, 0.2], [0, 1], ["a"], "2 probabilities"),
    ],
)
def test_what_cannot_be_verified_is_refused(probabilities, labels, blocks, says):
    with pytest.raises(DataError, match=says):
        forecasts(np.array(probabilities), np.array(labels), 0.1, blocks)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_resampled_blocks_are_all_drawn_alike(seed):
    weights = resampling.resampled(6, 2000, seed)
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.12)


def test_many_groups_are_resampled_in_bounded_blocks_with_the_same_width():
    p, event, day = weather(3000, 3, 9, spread=1)
    known = forecasts(p, event, 0.25, day, "run_date")
    assert (known.blocks, known.groups) == (1000, 3000)
    for number in range(0, 3000, 300):
        assert len(set(known.block[day == number])) == 1, "a group was torn apart"
    assert np.bincount(known.block).max() == 9
    whole = Forecasts(p, event, 0.25, day, 3000, "run_date", 3000)
    bounded, exact = (
        verification.estimate(forecast, 0.5, resamples=300)["brier_score"]
        for forecast in (known, whole)
    )
    assert bounded.high - bounded.low == pytest.approx(exact.high - exact.low, rel=0.25)
