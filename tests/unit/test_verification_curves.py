"""Curves and groups: what the figures and the tables of the report are drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from stormsweep.verification import curves, groups, resampling
from stormsweep.verification.contingency import curve_thresholds
from stormsweep.verification.forecasts import Forecasts, forecasts
from stormsweep.verification.scores import estimate


def some(n: int = 3000, days: int = 20, steps: int | None = None, seed: int = 0) -> Forecasts:
    draw = np.random.default_rng(seed)
    signal = draw.normal(size=n)
    p = 1 / (1 + np.exp(-(2 * signal - 3)))
    event = draw.random(n) < p
    if steps:
        p = np.round(p * steps) / steps
    return forecasts(p, event, 0.1, draw.integers(days, size=n), "run_date")


@pytest.mark.parametrize("steps", [None, 10])
def test_the_roc_curve_is_scikit_learns(steps):
    known = some(300, steps=steps)
    curve = curves.roc(known, resampling.resampled(known.blocks, 20, 0))
    pofd, pod, _ = metrics.roc_curve(known.event, known.probability, drop_intermediate=False)
    assert curve.x[::-1] == pytest.approx(pofd)
    assert curve.y[::-1] == pytest.approx(pod)


def test_thinned_curves_keep_their_area_and_their_points():
    known = some(5000)
    assert len(curve_thresholds(known)) <= 400
    curve = curves.roc(known, np.ones((1, known.blocks)))
    area = metrics.auc(curve.x, curve.y)
    assert area == pytest.approx(metrics.roc_auc_score(known.event, known.probability), abs=1e-3)
    inside = (curve.x > 0) & (curve.x < 1)
    for x, y, threshold in zip(
        curve.x[inside][::40], curve.y[inside][::40], curve.threshold[inside][::40], strict=True
    ):
        yes = known.probability >= threshold
        assert (x, y) == (yes[~known.event].mean(), yes[known.event].mean())


def test_the_performance_curve_is_precision_and_recall():
    known = some(300)
    curve = curves.performance(known, resampling.resampled(known.blocks, 20, 0))
    precision, recall, _ = metrics.precision_recall_curve(known.event, known.probability)
    assert curve.x == pytest.approx(precision[:-1])
    assert curve.y == pytest.approx(recall[:-1])


def test_bands_hold_the_curve_between_them():
    known = some()
    weights = resampling.resampled(known.blocks, 300, 0)
    roc = curves.roc(known, weights)
    on_curve = np.interp(roc.band.at, roc.x[::-1], roc.y[::-1])
    inner = (roc.band.at > 0) & (roc.band.at < 1)
    held = (roc.band.low <= on_curve) & (on_curve <= roc.band.high)
    assert held[inner].mean() > 0.95
    few = curves.roc(known.of(known.block < 3), resampling.resampled(3, 300, 0))
    assert np.isnan(few.band.low).all()


@given(st.integers(0, 50))
def test_reliability_counts_every_forecast_in_one_bin(seed):
    known = some(200, steps=10 if seed % 2 else None, seed=seed)
    found = curves.reliability_curve(known, np.ones((1, known.blocks)))
    assert found.cases.sum() == len(known)
    for number, count in enumerate(found.cases):
        low, high = found.edges[number : number + 2]
        last = number == len(found.cases) - 1
        own = (known.probability >= low) & (known.probability < (high if not last else 2))
        assert count == own.sum()
        if count:
            assert found.frequency[number] == pytest.approx(known.event[own].mean())
            assert low - 1e-12 <= found.forecast[number] <= high + 1e-12
        else:
            assert np.isnan(found.frequency[number])


def test_groups_are_scored_like_cases_of_their_own():
    known = some()
    hour = np.array(["9", "12", "18"])[np.arange(len(known)) % 3]
    found = groups.by_group(known, "hour", hour, 0.3, resamples=50)
    assert [group.label for group in found] == ["9", "12", "18"]
    assert sum(group.cases for group in found) == len(known)
    assert sum(group.events for group in found) == known.events
    alone = known.of(hour == "12")
    again = forecasts(alone.probability, alone.event, 0.1, alone.block, "run_date")
    expected = estimate(again, 0.3, resamples=50)
    assert found[1].scores == {name: expected[name] for name in groups.SCORES}


def test_groups_with_too_few_events_say_so_instead_of_scoring():
    known = some()
    rows = np.arange(len(known))
    rare = known.event & (rows < 200)
    label = np.where(rare | (rows % 7 == 0), "rare", "rest")
    keep = ~(known.event & (label == "rare") & (rows > 60))
    found = groups.by_group(known.of(keep), "region", label[keep], 0.3, resamples=50)
    assert found[0].scores == {}
    assert "too few to score" in found[0].remark
    assert found[1].scores
    assert not found[1].remark
    small = known.of(known.block < 3)
    alone = groups.by_group(small, "region", np.full(len(small), "here"), 0.3, resamples=50)
    assert alone[0].remark == "3 run dates: no interval"


def test_a_group_of_the_data_may_be_called_month_too():
    assert groups.in_order("month", np.array(["10", "5", "9"])) == ["5", "9", "10"]
    assert groups.in_order("month", np.array(["Sep", "May"])) == ["May", "Sep"]


def test_months_come_from_run_dates_and_codes_too_fine_to_read_are_left_out():
    labels = {
        "run_date": np.array(["2015-12-27", "2015-05-05", "2016-05-11", "2016-06-08"] * 10),
        "track": np.array([f"20150505-0000_{k:03d}" for k in range(40)]),
        "hour": np.array(["12", "13", "9", "9"] * 10),
        "station": np.array(["one"] * 40),
    }
    found = groups.groupings(labels)
    assert list(found) == ["month", "hour"]
    assert groups.in_order("month", found["month"]) == ["May", "Jun", "Dec"]
    assert groups.in_order("hour", found["hour"]) == ["9", "12", "13"]
    assert groups.groupings({}) == {}
