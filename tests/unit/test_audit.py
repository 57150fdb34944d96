"""The audit: if these fail, a leak looks harmless, or an honest protocol looks like a leak."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.config.study import StudyFile
from stormsweep.data.prepared import Part
from stormsweep.errors import DataError
from stormsweep.records import Entry, RunPlanned, TaskDone
from stormsweep.results.audit import flattery, folds, half_width
from stormsweep.results.frames import t_quantile
from stormsweep.study.audit import _configuration, possible, variants
from stormsweep.study.protocol import flaws
from stormsweep.work import identity
from tests import journals

POINT = {"batch_size": 512, "learning_rate": 0.005, "epochs": 15}


def study(**tables):
    return StudyFile.model_validate({"study": {"name": "x"}, **tables})


def test_an_honest_study_is_compared_with_three_leaky_protocols():
    made = {one.name: one.file for one in variants(study(), POINT)}
    assert list(made) == ["study", "random-folds", "balanced-first", "2019-as-coded"]
    assert not flaws(made["study"])
    assert all(flaws(made[name]) for name in list(made)[1:])
    for file in made.values():
        assert {name: values for name, (values,) in file.search.space.items()} == POINT
    coded = made["2019-as-coded"]
    assert (coded.validation.split, coded.validation.folds) == ("consecutive", 3)
    assert (coded.balance.method, coded.balance.repeats) == ("repeat", 18)
    assert coded.balance.scope == "before-split"
    assert coded.search.metric == "accuracy"
    # Only the protocol differs: the same data, model and engine.
    assert {file.data.model_dump_json() for file in made.values()} == {
        study().data.model_dump_json()
    }


def test_a_leaky_study_is_compared_with_an_honest_protocol_too():
    leaky = study(
        validation={"split": "consecutive"},
        balance={"method": "repeat", "scope": "before-split"},
        search={"metric": "accuracy"},
    )
    names = [one.name for one in variants(leaky, POINT)]
    assert names == ["study", "grouped", "random-folds", "balanced-first"]


@pytest.mark.parametrize(
    "search",
    [
        {"strategy": "nsga2", "objectives": ["roc_auc", "loss"], "trials": 8},
        {"strategy": "asha", "sampler": "sobol", "reduction": 2, "first_folds": 1, "trials": 8},
    ],
)
def test_an_audit_of_any_strategy_can_go_on(search):
    # Its studies are written down, and read when it goes on: each must be one by itself.
    space = {"batch_size": [256, 512], "learning_rate": [0.001, 0.005], "epochs": [5, 15]}
    for one in variants(study(search=search | {"space": space}), POINT):
        again = StudyFile.model_validate(one.file.model_dump(mode="json", exclude_none=True))
        assert {name: value for name, (value,) in again.search.space.items()} == POINT


def test_any_configuration_on_record_can_be_audited(tmp_path):
    # A strategy that learns plans something else once it has been told scores.
    on_record = {"batch_size": 8, "epochs": 1}
    path = tmp_path / "journal.jsonl"
    path.touch()
    told = SimpleNamespace(
        journal_path=path,
        entries=lambda: journal([{"roc_auc": 0.9}], [{}]),
        plan=lambda: SimpleNamespace(configurations=[POINT]),
    )
    assert _configuration(told, identity(on_record)) == on_record
    assert _configuration(told, identity(POINT)) == POINT


def journal(validation, test, metric="roc_auc", errors=None):
    begun = journals.about({"epochs": [1]}, len(validation), metric=metric)
    records = [begun]
    for fold, (scores, on_test) in enumerate(zip(validation, test, strict=True)):
        records.append(RunPlanned(f"r{fold}", {"batch_size": 8}, fold, [1]))
        done = TaskDone(
            f"r{fold}", 0, 1, scores, "0", 1, 0.0, 0.0, 1.0, {}, [0.1], 8, 1, 100.0, 17, on_test
        )
        done = dataclasses.replace(done, test_errors=errors or {})
        records.append(done)
    return [Entry(float(n), record) for n, record in enumerate(records)]


def test_flattery_is_the_paired_difference_with_its_interval():
    honest = journal(
        [{"roc_auc": 0.90, "loss": 0.3}, {"roc_auc": 0.92, "loss": 0.2}],
        [{"roc_auc": 0.91, "loss": 0.3}, {"roc_auc": 0.91, "loss": 0.3}],
        errors={"roc_auc": 0.0, "loss": 0.0},
    )
    leaky = journal(
        [{"roc_auc": 0.98}, {"roc_auc": 0.99}],
        [{"roc_auc": 0.9}, {"roc_auc": 0.89}],
        errors={"roc_auc": 0.0},
    )
    table = flattery({"honest": honest, "leaky": leaky}).set_index(["protocol", "score"])
    row = table.loc["honest", "roc_auc"]
    assert row["flattery"] == pytest.approx(0)
    assert row["flattery_low"] < 0 < row["flattery_high"]
    # A smaller loss on the validation flatters as well.
    assert table.loc[("honest", "loss"), "flattery"] == pytest.approx(0.05)
    row = table.loc["leaky", "roc_auc"]
    assert row["flattery"] == pytest.approx(0.09)
    # t-interval of two differences, 0.08 and 0.10, for overlapping training sets.
    half = 12.7062 * np.std([0.08, 0.10], ddof=1) * np.sqrt(1 / 2 + 1)
    assert row["flattery_high"] == pytest.approx(0.09 + half, abs=1e-4)


def test_the_error_of_the_test_part_is_in_every_fold_alike():
    scored = [{"roc_auc": 0.9}, {"roc_auc": 0.9}], [{"roc_auc": 0.8}, {"roc_auc": 0.8}]
    row = flattery({"p": journal(*scored, errors={"roc_auc": 0.03})}).iloc[0]
    # It is known from many resamples: the few folds do not make it less sure.
    assert row["flattery_high"] == pytest.approx(0.1 + 1.95996 * 0.03, abs=1e-4)
    unknown = flattery({"p": journal(*scored)}).iloc[0]
    assert unknown["flattery"] == pytest.approx(0.1)
    assert np.isnan(unknown["flattery_high"])


@given(st.floats(0.001, 0.1), st.floats(0.0, 0.1), st.integers(2, 10))
def test_the_interval_lies_between_those_of_few_folds_and_of_none(scatter, shared, folds):
    half = half_width(scatter**2, folds - 1, shared**2)
    error = np.hypot(scatter, shared)
    assert 1.9599 * error <= half <= float(t_quantile(folds)) * error * (1 + 1e-9)
    # Another error never makes the interval shorter than the folds alone would have it.
    assert half >= 1.9599 * scatter


def test_a_fold_of_one_class_leaves_no_mean_but_its_test_score():
    coded = journal(
        [{"accuracy": 0.9, "roc_auc": 0.9}, {"accuracy": 1.0}],
        [{"accuracy": 0.8, "roc_auc": 0.8}, {"accuracy": 0.8, "roc_auc": 0.82}],
        metric="accuracy",
    )
    table = flattery({"2019": coded}).set_index("score")
    assert np.isnan(table.loc["roc_auc", "validation"])
    assert np.isnan(table.loc["roc_auc", "flattery"])
    assert table.loc["roc_auc", "test"] == pytest.approx(0.81)
    assert table.loc["accuracy", "flattery"] == pytest.approx(0.15)
    assert len(folds({"2019": coded})) == 4


def test_a_protocol_that_the_data_do_not_allow_is_left_out_and_said():
    # With a third of the cases events, all others fall into the first of three consecutive folds
    # once events are appended 18 times.
    labels = (np.arange(90) % 3 == 0).astype(np.uint8)
    part = Part(
        np.zeros((90, 1), np.float32),
        labels,
        np.zeros(90, np.float32),
        {"run_date": np.repeat(np.arange(9), 10).astype(np.int32)},
    )
    notes = []
    watcher = SimpleNamespace(note=notes.append)
    kept = possible(variants(study(), POINT), part, watcher)
    assert [one.name for one in kept] == ["study", "random-folds", "balanced-first"]
    assert len(notes) == 1
    assert "left out: 2019 as coded, which these data do not allow (validation.folds: " in notes[0]
    # Whoever reads it did not choose this protocol: no advice on how to make it possible.
    assert re.search(r"\(\d+ events in \d+ cases\)\)$", notes[0])
    # The study's own protocol is not left out: that would be no audit of it.
    with pytest.raises(DataError, match="at most 9"):
        possible(variants(study(validation={"folds": 10}), POINT), part, watcher)
