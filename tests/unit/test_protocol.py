"""The protocol of a study: if these fail, flaws go unnoticed, or 2019's folds are not theirs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stormsweep.config.study import StudyFile
from stormsweep.data.prepared import Part
from stormsweep.errors import DataError
from stormsweep.study.problem import prepare
from stormsweep.study.protocol import (
    check_metric,
    flaws,
    fold_rows,
    folds_of,
    protocol_of,
    whole_rows,
    why_no_skill,
)
from stormsweep.work import Protocol


def study(**tables):
    return StudyFile.model_validate({"study": {"name": "x"}, **tables})


def part(labels, groups):
    n = len(labels)
    return Part(
        np.zeros((n, 1), np.float32),
        np.asarray(labels, np.uint8),
        np.zeros(n, np.float32),
        {"run_date": np.asarray(groups, np.int32)},
        {"run_date": [f"{2000 + code}-01-01" for code in range(1 + max(map(int, groups)))]},
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


@pytest.mark.parametrize(("label", "what"), [(0, "no event .0 events"), (1, "events only .6")])
@pytest.mark.parametrize("before", [False, True])
def test_a_part_of_one_class_is_not_blamed_on_folds(label, what, before):
    """Losing this: a user tries other folds, which cannot help; the threshold is to blame."""
    data = part([label] * 6, np.arange(6) % 3)
    with pytest.raises(DataError, match=f"^data: the training part has {what}") as caught:
        fold_rows(data, protocol(balance="oversample", before_split=before))
    assert "data.threshold" in str(caught.value)
    assert "fold" not in str(caught.value)


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
    assert flaws(study()) == []
    assert flaws(study(balance={"method": "oversample"})) == []
    assert flaws(study(validation={"split": "chronological"})) == []
    # A share is drawn in whole run dates, too; by date it is of other dates whatever the folds are.
    assert flaws(study(data=DRAWN)) == []
    dated = study(data=DRAWN | {"test_from": "2015-01-01"}, validation={"split": "k-fold"})
    assert not any("test part" in line for line in flaws(dated))


BEFORE = {"method": "oversample", "scope": "before-split"}
DRAWN = {
    "source": "csv",
    "path": "x.csv",
    "groups": {"station": "name", "run_date": "date"},
    "test_fraction": 0.2,
}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"validation": {"split": "k-fold"}}, ["run_date are on both sides"]),
        ({"validation": {"group_by": "track"}}, ["same run date"]),
        (
            {"balance": BEFORE, "validation": {"split": "stratified"}},
            ["copies of one case", "balanced too", "run_date are on both sides"],
        ),
        ({"balance": BEFORE}, ["balanced too"]),
        ({"balance": {"method": "undersample", "scope": "before-split"}}, ["balanced too"]),
        (
            {
                "data": {"source": "csv", "path": "x.csv", "groups": {"station": "name"}},
                "validation": {"split": "k-fold"},
            },
            ["cases of one station are on both sides"],
        ),
        (
            {"data": DRAWN, "validation": {"split": "k-fold"}},
            ["run_date are on both sides", "single cases are drawn, so that cases of one run_date"],
        ),
        (
            {"data": DRAWN, "validation": {"group_by": "station"}},
            ["same run date", "whole groups of station are drawn, so that cases of one run_date"],
        ),
    ],
)
def test_everything_that_is_not_honest_is_said(tables, words):
    said = flaws(study(**tables))
    assert len(said) == len(words)
    for line, word in zip(said, words, strict=True):
        assert word in line


def test_groups_that_only_a_function_knows_are_looked_at_once_its_data_are_there():
    """Losing this: digits of one writer train and test, and the score is called one of unseen."""
    asked = study(
        data={"source": "mine.py:load", "test_fraction": 0.2}, validation={"split": "stratified"}
    )
    assert flaws(asked) == []
    manifest = {"groups": {"writer": ["a", "b"]}, "split": {"test_fraction": 0.2}}
    folds, test = flaws(asked, manifest)
    assert "cases of one writer are on both sides of a fold" in folds
    assert "cases of one writer are in the training and in the test part" in test
    # In an audit, the data of a study that draws whole groups are split at random.
    drawn = {"test_fraction": 0.2, "group": "writer"}
    assert flaws(asked, manifest | {"split": drawn}) == [folds]


def labelled(labels, of_case):
    """Cases whose group codes follow the order of the labels as text, as on disk."""
    known = sorted(labels)
    events = np.arange(len(of_case)) % 2
    cases = part(events, [known.index(labels[case]) for case in of_case])
    return Part(
        *(getattr(cases, f) for f in ("inputs", "labels", "targets", "groups")), {"run_date": known}
    )


@pytest.mark.parametrize(
    "labels",
    [
        ["2014-11-30", "2014-12-01", "2015-01-01"],
        ["20141130-0000_007", "20141130-0000_012", "20150101-0000_001"],
    ],
)
def test_chronological_folds_follow_the_dates(labels):
    data = labelled(labels, [2, 2, 1, 1, 0, 0])
    first, second = fold_rows(data, protocol(split="chronological", folds=2, balance="none"))
    assert (first.train.tolist(), first.validation.tolist()) == ([4, 5], [2, 3])
    assert (second.train.tolist(), second.validation.tolist()) == ([2, 3, 4, 5], [0, 1])


def test_chronological_folds_of_what_is_no_date_are_refused():
    # As text, October would come before February.
    data = labelled(["2/1/2014", "10/1/2014", "11/1/2014"], [0, 0, 1, 1, 2, 2])
    with pytest.raises(DataError, match=r"'10/1/2014' of the group 'run_date' is no date"):
        fold_rows(data, protocol(split="chronological", folds=2, balance="none"))


def test_a_study_that_says_nothing_gets_the_honest_protocol():
    asked = protocol_of(study())
    assert (asked.split, asked.group_by, asked.before_split) == ("grouped", "run_date", False)
    assert asked.augmentation is None
    plain = protocol_of(study(validation={"split": "k-fold"}))
    assert plain.group_by == "none"
    tables = protocol_of(study(data={"source": "npz", "path": "x.npz"}))
    assert (tables.split, tables.group_by) == ("stratified", "none")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, r"is 'run_date', the default; must be one that the data have: day, none"),
        ({"group_by": "run_date"}, r"is 'run_date'; must be one that the data have: day, none"),
        ({"group_by": "dai"}, r"is 'dai' \(did you mean 'day'\?\); must be one"),
    ],
)
def test_a_group_that_nobody_asked_for_is_said_to_be_the_default(given, words, tmp_path):
    # Else a user whose groups are called otherwise looks for a key that is not in the file.
    data = part([0, 1] * 6, range(12))
    data = replace(data, groups={"day": data.groups["run_date"]})
    with pytest.raises(DataError, match=words):
        folds_of(data, study(data={"source": "mine.py:load"}, validation=given))
    # A test part of whole groups is drawn before there are folds.
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\ndef load():\n"
        "    x = np.arange(12.0)\n"
        '    return {"inputs": x[:, None], "target": x % 2, "groups": {"day": x.astype(int)}}\n'
    )
    drawn = {"source": f"{tmp_path}/mine.py:load", "test_fraction": 0.3, "cache": tmp_path}
    with pytest.raises(DataError, match=words):
        prepare(study(data=drawn, validation=given))


@pytest.mark.parametrize(
    ("balance", "events", "skill", "on_test", "said"),
    [
        ({"method": "oversample"}, 50, -2.0, False, True),
        ({"method": "class-weight"}, 50, -2.0, True, True),
        ({"method": "repeat", "scope": "before-split"}, 50, -2.0, True, True),
        # Otherwise balancing is not why: the validation is balanced too, nothing was balanced, the
        # classes are as alike as asked for, or events are the common class.
        ({"method": "repeat", "scope": "before-split"}, 50, -2.0, False, False),
        ({"method": "none"}, 50, -2.0, False, False),
        ({"method": "undersample", "ratio": 0.05}, 50, -2.0, False, False),
        ({"method": "oversample"}, 950, -2.0, False, False),
        ({"method": "oversample"}, 50, 0.1, False, False),
        ({"method": "oversample"}, 50, float("nan"), False, False),
    ],
)
def test_a_score_below_zero_has_its_reason_where_it_is_one(balance, events, skill, on_test, said):
    # Else "the best" has a skill score of -2, and nobody knows what to make of it.
    why = why_no_skill(study(balance=balance), 1000, events, skill, on_test)
    assert bool(why) == said


def test_balanced_training_makes_probabilities_too_high_and_leaves_ranks_alone():
    """What `why_no_skill` says is so, by a model whose probabilities are known to be sound."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    event = rng.random(20_000) < 0.05
    x = (rng.normal(size=20_000) + event).reshape(-1, 1)
    plain = LogisticRegression().fit(x, event).predict_proba(x)[:, 1]
    balanced = LogisticRegression(class_weight="balanced").fit(x, event).predict_proba(x)[:, 1]
    climate = np.mean((event - event.mean()) ** 2)
    assert np.mean((plain - event) ** 2) < climate < np.mean((balanced - event) ** 2)
    assert balanced.mean() > 4 * event.mean()
    assert roc_auc_score(event, balanced) == pytest.approx(roc_auc_score(event, plain))
