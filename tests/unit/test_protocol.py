"""The protocol of a study: if these fail, leaks go unnoticed, or 2019's folds are not theirs."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stormsweep.config.study import StudyFile
from stormsweep.data.prepared import Part
from stormsweep.errors import DataError
from stormsweep.records import Protocol
from stormsweep.study.protocol import check_metric, fold_rows, leaks, protocol_of, whole_rows


def study(**tables):
    return StudyFile.model_validate({"study": {"name": "x"}, **tables})


def part(labels, groups):
    n = len(labels)
    return Part(
        np.zeros((n, 1), np.float32),
        np.asarray(labels, np.uint8),
        np.zeros(n, np.float32),
        {"run_date": np.asarray(groups, np.int32)},
    )


def protocol(**changes):
    plain = {
        "folds": 3,
        "split": "grouped",
        "group_by": "run_date",
        "balance": "oversample",
        "ratio": 1.0,
        "repeats": 18,
        "before_split": False,
        "augmentation": None,
        "seed": 0,
    }
    return Protocol(**(plain | changes))


@st.composite
def cases(draw):
    n = draw(st.integers(12, 120))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = (rng.random(n) < draw(st.floats(0.1, 0.6))).astype(np.uint8)
    return part(labels, rng.integers(0, draw(st.integers(3, 12)), n))


@given(
    cases(),
    st.sampled_from(["grouped", "stratified-grouped", "chronological"]),
    st.sampled_from(["none", "oversample", "undersample", "class-weight", "repeat"]),
    st.booleans(),
)
def test_no_group_and_no_copy_is_on_both_sides_of_a_fold(data, split, balance, before):
    asked = protocol(split=split, balance=balance, before_split=before, repeats=3)
    try:
        rows = fold_rows(data, asked)
    except DataError:
        assume(False)
    groups = data.groups["run_date"]
    for fold in rows:
        assert not set(fold.train) & set(fold.validation)
        assert not set(groups[fold.train]) & set(groups[fold.validation])


def test_the_folds_of_2019_are_as_they_really_were():
    # 76,377 storms, 3,477 of them events, all events appended 18 times, three consecutive folds.
    labels = np.zeros(76_377, np.uint8)
    labels[np.linspace(0, 76_376, 3_477).astype(int)] = 1
    asked = protocol(
        split="consecutive", group_by="none", balance="repeat", repeats=18, before_split=True
    )
    data = part(labels, np.zeros(len(labels)))
    rows = fold_rows(data, asked)
    assert [len(fold.validation) for fold in rows] == [46_321] * 3
    shares = [float(labels[fold.validation].mean()) for fold in rows]
    assert shares[0] == pytest.approx(0.0455, abs=0.001)
    assert shares[1] == pytest.approx(0.38, abs=0.01)
    assert shares[2] == 1.0
    # Copies of every event of the last fold were trained on.
    assert set(rows[2].validation) <= set(rows[2].train)
    assert len(whole_rows(data, asked)) == 138_963
    check_metric(data, rows, "accuracy")
    with pytest.raises(DataError, match=r"search.metric: given 'roc_auc'.* fold 2 .*46321 events"):
        check_metric(data, rows, "roc_auc")


def test_the_default_protocol_of_storms_does_not_leak():
    assert leaks(study()) == []
    assert leaks(study(balance={"method": "oversample"})) == []
    assert leaks(study(validation={"split": "chronological"})) == []


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"validation": {"split": "k-fold"}}, ["run date are on both sides"]),
        ({"validation": {"group_by": "track"}}, ["same run date"]),
        (
            {
                "balance": {"method": "oversample", "scope": "before-split"},
                "validation": {"split": "stratified"},
            },
            ["copies of one case", "run date are on both sides"],
        ),
    ],
)
def test_every_leak_is_said(tables, words):
    said = leaks(study(**tables))
    assert len(said) == len(words)
    for line, word in zip(said, words, strict=True):
        assert word in line


def test_a_study_that_says_nothing_gets_the_honest_protocol():
    asked = protocol_of(study())
    assert (asked.split, asked.group_by, asked.before_split) == ("grouped", "run_date", False)
    assert asked.augmentation is None
    plain = protocol_of(study(validation={"split": "k-fold"}))
    assert plain.group_by == "none"
    tables = protocol_of(study(data={"source": "npz", "path": "x.npz"}))
    assert (tables.split, tables.group_by) == ("stratified", "none")
