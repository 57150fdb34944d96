"""Folds and balance: if these fail, validation sees what training saw, and scores flatter."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold

from stormsweep.data.balance import balance
from stormsweep.data.folds import folds
from stormsweep.errors import DataError


@st.composite
def grouped(draw):
    n = draw(st.integers(8, 120))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, draw(st.integers(2, 15)), n) * 3 - 4
    labels = (rng.random(n) < draw(st.floats(0.2, 0.8))).astype(np.uint8)
    return labels, groups, draw(st.integers(2, 5)), seed


def check(split, n, n_folds):
    assert len(split) == n_folds
    validated = np.concatenate([validation for _, validation in split])
    assert sorted(validated.tolist()) == list(range(n))
    for train, validation in split:
        assert sorted([*train.tolist(), *validation.tolist()]) == list(range(n))
        assert train.dtype == validation.dtype == np.int64


@given(grouped())
def test_no_group_is_on_both_sides_and_every_case_is_validated_once(problem):
    labels, groups, n_folds, seed = problem
    try:
        split = folds(labels, groups, n_folds, seed)
    except DataError:
        assume(False)
    check(split, len(labels), n_folds)
    for train, validation in split:
        assert not set(groups[train]) & set(groups[validation])
    for one, other in zip(split, folds(labels, groups, n_folds, seed), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@given(grouped())
def test_groups_are_dealt_out_as_scikit_learn_does(problem):
    labels, groups, n_folds, seed = problem
    try:
        split = folds(labels, groups, n_folds, seed)
    except DataError:
        assume(False)
    theirs = GroupKFold(n_folds).split(labels, labels, groups)
    sizes = [len(validation) for _, validation in split]
    assert sizes == [len(validation) for _, validation in theirs]


@settings(max_examples=50)
@given(grouped())
def test_stratified_folds_keep_the_share_of_events(problem):
    labels, _, n_folds, seed = problem
    assume(n_folds <= min(labels.sum(), (1 - labels.astype(int)).sum()))
    split = folds(labels, None, n_folds, seed)
    check(split, len(labels), n_folds)
    events = [int(labels[validation].sum()) for _, validation in split]
    assert max(events) - min(events) <= 1
    again = folds(labels, None, n_folds, seed)
    assert all((a[1] == b[1]).all() for a, b in zip(split, again, strict=True))


@given(grouped())
def test_stratified_groups_stay_whole(problem):
    labels, groups, n_folds, seed = problem
    try:
        split = folds(labels, groups, n_folds, seed, "stratified-grouped")
    except DataError:
        assume(False)
    check(split, len(labels), n_folds)
    for train, validation in split:
        assert not set(groups[train]) & set(groups[validation])


@given(grouped())
def test_chronological_folds_train_on_the_past_only(problem):
    labels, groups, n_folds, seed = problem
    try:
        split = folds(labels, groups, n_folds, seed, "chronological")
    except DataError:
        assume(False)
    assert len(split) == n_folds
    validated = np.concatenate([validation for _, validation in split])
    assert len(set(validated.tolist())) == len(validated)
    for train, validation in split:
        assert groups[train].max() < groups[validation].min()
    # What was validated trains the next fold.
    for (train, validation), (following, _) in itertools.pairwise(split):
        assert sorted([*train, *validation]) == following.tolist()


def test_consecutive_folds_are_those_of_plain_k_fold_even_with_one_class():
    labels = [0, 1, 0, 0, 1, 0, 1, 1, 1]
    split = folds(labels, None, 3, 0, "consecutive")
    assert [validation.tolist() for _, validation in split] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_k_fold_draws_cases_at_random_and_the_same_each_time():
    labels = np.arange(90) % 3 == 0
    split, again = (folds(labels, None, 3, 5, "k-fold") for _ in range(2))
    check(split, 90, 3)
    assert all((a[1] == b[1]).all() for a, b in zip(split, again, strict=True))
    assert split[0][1].tolist() != list(range(30))


@pytest.mark.parametrize("split", ["grouped", "stratified-grouped", "chronological"])
def test_folds_of_groups_need_groups(split):
    with pytest.raises(DataError, match=f"'{split}', which needs groups"):
        folds([0, 1, 0, 1], None, 2, 0, split)


def test_another_seed_draws_other_stratified_folds():
    labels = np.arange(200) % 2
    one, other = (folds(labels, None, 3, seed)[0][1] for seed in (1, 2))
    assert one.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("labels", "groups", "n_folds", "message"),
    [
        ([0, 1] * 4, [0, 0, 0, 0, 1, 1, 1, 1], 3, "folds: given 3; .* allow at most 2"),
        ([0, 1] * 4, None, 1, "must be 2 or more"),
        ([0, 0, 0, 0, 0, 1, 1], None, 3, "rarer class .* has 2 of 7 cases"),
        ([0, 1, 0, 1, 0, 0], [0, 0, 1, 1, 2, 2], 3, r"validation side of fold 2 .*no event \(0 ev"),
        ([1, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2], 3, r"validation side of fold 0 .*events only \(2"),
        ([0, 1, 0, 0], [0, 0, 1, 1], 2, r"training side of fold 0 .*no event"),
        ([0, 1], [0, 1, 2], 2, "groups have shape"),
    ],
)
def test_folds_that_cannot_be_scored_are_refused_in_one_line(labels, groups, n_folds, message):
    with pytest.raises(DataError, match=message) as caught:
        folds(labels, groups, n_folds, 0)
    assert "\n" not in str(caught.value)


@st.composite
def unbalanced(draw):
    n = draw(st.integers(6, 150))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < draw(st.floats(0.05, 0.95))).astype(np.uint8)
    indices = np.sort(rng.choice(n, draw(st.integers(4, n)), replace=False))
    count = int(labels[indices].sum())
    assume(0 < count < len(indices))
    return indices, labels, draw(st.floats(0.05, 1.0)), seed, draw(st.integers(0, 4))


def counts(indices, labels):
    positives = int(labels[indices].sum())
    return min(positives, len(indices) - positives), max(positives, len(indices) - positives)


@settings(max_examples=60, deadline=None)
@given(unbalanced(), st.sampled_from(["oversample", "undersample"]))
def test_sampling_reaches_the_ratio_from_the_training_cases_only(problem, method):
    indices, labels, ratio, seed, fold = problem
    rare, common = counts(indices, labels)
    drawn, weights = balance(indices, labels, method, ratio, seed, fold)
    assert weights is None
    assert drawn.dtype == np.int64
    assert set(drawn.tolist()) <= set(indices.tolist())
    if rare >= ratio * common:
        np.testing.assert_array_equal(drawn, indices)
        return
    now_rare, now_common = counts(drawn, labels)
    if method == "oversample":
        assert now_common == common
        assert abs(now_rare - ratio * common) <= 1
        assert set(drawn.tolist()) == set(indices.tolist())  # every original is kept
    else:
        assert now_rare == rare
        assert abs(now_common - rare / ratio) <= 1
        assert len(set(drawn.tolist())) == len(drawn)  # no copies
    again, _ = balance(indices, labels, method, ratio, seed, fold)
    np.testing.assert_array_equal(drawn, again)


@given(unbalanced())
def test_class_weights_have_the_ratio_and_keep_the_mean_weight_one(problem):
    indices, labels, ratio, seed, fold = problem
    kept, weights = balance(indices, labels, "class-weight", ratio, seed, fold)
    np.testing.assert_array_equal(kept, indices)
    rare, common = counts(indices, labels)
    if rare >= ratio * common:
        assert weights is None
        return
    sums = [weights[label] * int((labels[indices] == label).sum()) for label in (0, 1)]
    assert min(sums) / max(sums) == pytest.approx(ratio)
    assert sum(sums) == pytest.approx(len(indices))


def test_a_fold_of_its_own_is_drawn_for_each_seed_and_fold():
    labels = (np.arange(400) % 10 == 0).astype(np.uint8)
    draws = {
        tuple(balance(np.arange(400), labels, "oversample", 1.0, seed, fold)[0])
        for seed in (0, 1)
        for fold in (0, 1)
    }
    assert len(draws) == 4


def test_the_rarer_class_may_be_the_event_or_not():
    labels = (np.arange(100) % 4 != 0).astype(np.uint8)
    drawn, _ = balance(np.arange(100), labels, "oversample", 1.0, 0, 0)
    assert (labels[drawn] == 0).sum() == (labels[drawn] == 1).sum() == 75
    _, weights = balance(np.arange(100), labels, "class-weight", 1.0, 0, 0)
    assert weights[0] == pytest.approx(2.0)
    assert weights[1] == pytest.approx(2 / 3)


def test_no_balance_is_no_change():
    drawn, weights = balance([3, 1, 2], [0, 1, 0, 1], "none", 1.0, 0, 0)
    assert drawn.tolist() == [3, 1, 2]
    assert weights is None


@pytest.mark.parametrize(
    ("method", "ratio", "labels", "message"),
    [
        ("smote", 1.0, [0, 1], "balance.method: given 'smote'; must be one of none"),
        ("oversample", 0.0, [0, 1], "balance.ratio: given 0.0"),
        ("oversample", 1.5, [0, 1], "balance.ratio: given 1.5"),
        ("undersample", 1.0, [0, 0], "fold 1 has one class only"),
    ],
)
def test_what_cannot_be_balanced_is_refused(method, ratio, labels, message):
    with pytest.raises(DataError, match=message):
        balance([0, 1], labels, method, ratio, 0, 1)


def test_repeating_appends_the_rare_class_in_order():
    labels = np.array([0, 1, 0, 0, 1, 0, 0])
    drawn, weights = balance([1, 2, 3, 4, 5], labels, "repeat", 1.0, 0, 0, repeats=2)
    assert drawn.tolist() == [1, 2, 3, 4, 5, 1, 4, 1, 4]
    assert weights is None
