"""Scores of probability forecasts, against hand-computed values and brute force."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from stormsweep.config.study import METRICS
from stormsweep.errors import DivergedError, RunError
from stormsweep.training.scores import csi, scores

LABELS = np.array([0, 1, 1, 0, 0])
PROBABILITIES = np.array([0.1, 0.8, 0.4, 0.6, 0.2], np.float32)


def test_every_score_has_its_hand_computed_value():
    result = scores(LABELS, PROBABILITIES, climatology=0.25)
    p = PROBABILITIES.astype(float)
    assert result["loss"] == pytest.approx(
        -(math.log(0.9) + math.log(0.8) + math.log(0.4) + math.log(0.4) + math.log(0.8)) / 5
    )
    assert result["accuracy"] == pytest.approx(3 / 5)
    assert result["f1"] == pytest.approx(2 / (2 + 1 + 1))
    assert result["roc_auc"] == pytest.approx(5 / 6)
    assert result["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    brier = (0.01 + 0.04 + 0.36 + 0.36 + 0.04) / 5
    reference = (3 * 0.25**2 + 2 * 0.75**2) / 5
    assert result["brier_score"] == pytest.approx(brier)
    assert result["brier_skill_score"] == pytest.approx(1 - brier / reference)
    assert result["csi"] == pytest.approx(2 / 3)
    assert result["csi_threshold"] == p[2]


def test_every_metric_of_the_study_file_is_scored():
    assert set(METRICS) <= set(scores(LABELS, PROBABILITIES, 0.25))


def test_a_constant_forecast_of_climatology_has_no_skill():
    result = scores(LABELS, np.full(5, 0.25), climatology=0.25)
    assert result["brier_skill_score"] == pytest.approx(0)
    assert result["roc_auc"] == 0.5


def test_certainty_that_is_wrong_is_a_finite_loss():
    # Float32 sigmoids reach 1.0 exactly; one such case must not make the loss infinite.
    assert math.isfinite(scores(LABELS, np.array([1.0, 0, 0, 1, 0]), 0.4)["loss"])


def test_scores_agree_with_scikit_learn_on_many_cases():
    generator = np.random.default_rng(0)
    labels = generator.random(500) < 0.1
    p = np.clip(generator.random(500).astype(np.float32) + 0.2 * labels, 0, 1)
    result = scores(labels, p, 0.1)
    assert result["roc_auc"] == metrics.roc_auc_score(labels, p.astype(np.float64))
    assert result["brier_score"] == pytest.approx(np.mean((p.astype(np.float64) - labels) ** 2))


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0.1, 0.25, 0.5, 0.5001, 1])), min_size=1)
)
def test_the_best_csi_is_that_of_brute_force(cases):
    event = np.array([happened for happened, _ in cases])
    p = np.array([probability for _, probability in cases], np.float64)
    if not event.any():
        event[0] = True

    def index(threshold):
        forecast = p >= threshold
        return np.sum(forecast & event) / np.sum(forecast | event)

    best, threshold = csi(event, p)
    assert best == max(index(value) for value in p)
    assert index(threshold) == best
    assert threshold == max(value for value in p if index(value) == best)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_a_diverged_run(bad):
    with pytest.raises(DivergedError, match="1 of 5"):
        scores(LABELS, np.array([bad, 0.1, 0.2, 0.3, 0.4]), 0.4)


def test_a_prediction_that_is_no_probability_says_so():
    with pytest.raises(RunError, match=r"from -1 to 2; .*sigmoid"):
        scores(LABELS, np.array([-1, 0.1, 0.2, 0.3, 2]), 0.4)


def test_cases_of_one_class_get_the_scores_that_mean_something_there():
    result = scores(np.ones(3), np.array([0.4, 0.6, 0.9]), 0.5)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["brier_score"] == pytest.approx((0.36 + 0.16 + 0.01) / 3)
    assert result["f1"] == pytest.approx(4 / 5)
    assert not {"roc_auc", "average_precision", "csi", "csi_threshold"} & set(result)
    without_events = scores(np.zeros(3), np.full(3, 0.5), 0.5)
    assert without_events["loss"] == pytest.approx(math.log(2))
    assert "f1" not in without_events


def test_no_cases_cannot_be_scored():
    with pytest.raises(RunError, match="no validation cases"):
        scores(np.zeros(0), np.zeros(0), 0.5)
