"""What is verified, how often, and which cases are shown: decided without training anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.cli.verify import _tell
from stormsweep.config.study import StudyFile
from stormsweep.data.prepared import Part
from stormsweep.errors import DataError, UserError
from stormsweep.files import sha256
from stormsweep.records import RunFailed, TaskDone, Verified
from stormsweep.report import tested_words, write, write_report
from stormsweep.report.material import Material
from stormsweep.results import journal
from stormsweep.results.summary import summary
from stormsweep.study import verify
from stormsweep.study.choice import Choice, choose, stops
from stormsweep.study.delivery import group_columns, read_facts, telling_cases, write_delivery
from stormsweep.study.study import Study
from stormsweep.work import Delivered
from tests import journals

SPACE = {"batch_size": [256], "learning_rate": [0.001, 0.01], "epochs": [2, 4]}


def begun(folder: Path, **changes: object) -> tuple[Path, list]:
    directory = journals.simulate(folder / "study", SPACE, **changes)
    return directory, journal.read(directory / "journal.jsonl")


def test_the_best_configuration_is_chosen_with_the_mean_threshold_of_its_folds(tmp_path):
    directory, entries = begun(tmp_path)
    choice = choose(directory, entries)
    best = summary(entries).best
    assert isinstance(choice, Choice)
    assert choice.configuration == best.configuration
    assert choice.threshold == pytest.approx(best.scores["csi_threshold"][0], rel=1e-12)
    assert choice.threshold_folds == (3, 3)
    assert choice.stops[-1] == best.hyperparameters["epochs"]
    assert (choice.look, choice.finished) == (1, True)


def test_a_look_stands_until_another_is_asked_for(tmp_path):
    directory, entries = begun(tmp_path)
    path = directory / "journal.jsonl"
    for number in (1, 2):
        look = looked(number, **deliver(directory, look=number))
        with journal.JournalWriter(path) as writer:
            writer.append(look)
        entries = journal.read(path)
        assert choose(directory, entries) == look
        assert choose(directory, entries, again=True).look == number + 1


def deliver(directory: Path, **changes: object) -> dict[str, str]:
    """Write the files of a ``model/`` that a look is checked against; return their checksums."""
    folder = directory / "model"
    folder.mkdir(exist_ok=True)
    (folder / "model.keras").write_text(f"a model {changes}", encoding="utf-8")
    (folder / "test_predictions.parquet").write_text("predictions", encoding="utf-8")
    sums = {
        "model_sha256": sha256(folder / "model.keras"),
        "predictions_sha256": sha256(folder / "test_predictions.parquet"),
    }
    facts = {"format": 1, "model": "model.keras", "look": 1, "made_again": False}
    (folder / "model.json").write_text(json.dumps(facts | sums | changes), encoding="utf-8")
    return sums


@pytest.mark.parametrize("lost", ["model", "model.json", "model.keras", "test_predictions.parquet"])
def test_a_lost_or_changed_model_is_made_again_and_is_no_second_look(tmp_path, lost):
    directory, _ = begun(tmp_path)
    # Chosen from a study that has another best by now: the model is that of the look all the same.
    look = looked(1, **deliver(directory))
    with journal.JournalWriter(directory / "journal.jsonl") as writer:
        writer.append(look)
    entries = journal.read(directory / "journal.jsonl")
    assert choose(directory, entries) == look
    if lost == "model":
        shutil.rmtree(directory / "model")
    else:
        (directory / "model" / lost).write_text("{}", encoding="utf-8")
    choice = choose(directory, entries)
    assert isinstance(choice, Choice)
    assert choice.recorded == look
    assert (choice.configuration, choice.hyperparameters) == ("abc", look.hyperparameters)
    assert (choice.look, choice.threshold, choice.stops[-1]) == (1, 0.4, 4)

    # On another processor it predicts otherwise; it is not made again for ever.
    deliver(directory, made_again=True)
    assert choose(directory, entries) == look
    deliver(directory, look=2)
    assert choose(directory, entries) != look, "the model is of another look"


@pytest.mark.parametrize("without", [(1,), (0, 1, 2)])
def test_folds_of_one_class_leave_the_threshold_to_the_others(tmp_path, without):
    def scores(point: dict[str, object], fold: int) -> dict[str, float]:
        given = journals.plausible_scores(point, fold)
        return {n: v for n, v in given.items() if n != "csi_threshold" or fold not in without}

    directory, entries = begun(tmp_path, scores=scores)
    choice = choose(directory, entries)
    assert isinstance(choice, Choice)
    found = {
        task.scores["csi_threshold"]
        for task in journal.of_kind(entries, TaskDone)
        if "csi_threshold" in task.scores
    }
    assert choice.threshold_folds == (3 - len(without), 3)
    if found:  # the simulated threshold is the fold's alone
        assert choice.threshold == pytest.approx(sum(found) / len(found))
    else:
        assert choice.threshold == 0.5


@pytest.mark.parametrize(
    ("folds", "says"),
    [
        ([3, 3], "the mean over the folds of the threshold"),
        ([2, 3], "the mean over the 2 of 3 folds with cases of both classes of the threshold"),
        ([0, 3], "Nothing chose that threshold"),
    ],
)
def test_the_report_says_where_the_threshold_comes_from(tmp_path, folds, says):
    directory, _ = begun(tmp_path)
    with journal.JournalWriter(directory / "journal.jsonl") as writer:
        writer.append(looked(1, threshold_folds=folds))
    material = Material(journal.read(directory / "journal.jsonl"), directory)
    assert material.tested is not None
    assert says in " ".join(tested_words.remarks(material, material.tested))


@pytest.mark.parametrize("method", ["none", "oversample"])
def test_the_report_says_why_balanced_training_costs_skill(tmp_path, method):
    directory, _ = begun(tmp_path)
    scores = looked(1).scores | {"brier_skill_score": [-2.0, -2.1, -1.9]}
    with (directory / "study.toml").open("a", encoding="utf-8") as file:
        file.write(f"[balance]\nmethod = '{method}'\n")
    with journal.JournalWriter(directory / "journal.jsonl") as writer:
        writer.append(looked(1, scores=scores))
    material = Material(journal.read(directory / "journal.jsonl"), directory)
    text = " ".join(tested_words.remarks(material, material.tested))
    assert ("balanced for training" in text) == (method == "oversample")


def test_an_unfinished_study_is_verified_on_request_only(tmp_path):
    directory, entries = begun(tmp_path, stops=(90.0,), go_on=False)
    look = summary(entries)
    assert look.best is not None, "the simulated study must have a score"
    assert not look.finished
    with pytest.raises(UserError, match="runs are done; finish it with `stormsweep run") as refused:
        choose(directory, entries)
    assert "--unfinished" in str(refused.value)
    choice = choose(directory, entries, unfinished=True)
    assert not choice.finished


def test_what_cannot_be_verified_is_said_in_one_line(tmp_path):
    no_test = {"data": journals.about(SPACE, 3).data | {"test": 0, "test_positives": 0}}
    directory, entries = begun(tmp_path / "none", **no_test)
    with pytest.raises(UserError, match=r"keeps no cases as a test part.*data\.test_from"):
        choose(directory, entries)
    for events, both in ((0, False), (44_760, False), (1, True)):
        data = {"data": no_test["data"] | {"test": 44_760, "test_positives": events}}
        directory, entries = begun(tmp_path / f"{events}", **data)
        assert Study.from_toml(directory).awaits_verification() == both
        if not both:
            # Else the best is trained on all cases first, and then cannot be scored.
            with pytest.raises(UserError, match=f"happened in {events} of 44760 cases of the test"):
                choose(directory, entries)
    why = ("diverged", "the training loss is nan", "")
    directory, entries = begun(tmp_path / "all", fail=dict.fromkeys(range(6), why))
    # They fail on the way to the second milestone; had they failed before the first, this is left.
    bare = [entry for entry in entries if not isinstance(entry.record, TaskDone)]
    with pytest.raises(UserError, match="all 6 runs failed; there is no model to verify"):
        choose(directory, bare)
    planned = [entry for entry in bare if not isinstance(entry.record, RunFailed)]
    with pytest.raises(UserError, match="no configuration has a score yet; run the study first"):
        choose(directory, planned)


def looked(number: int, predictions: str = "0" * 64, **changes: object) -> Verified:
    names = [*tested_words.LABELS]
    known = {
        "look": number,
        "configuration": "abc",
        "hyperparameters": {"batch_size": 256, "epochs": 4},
        "finished": True,
        "threshold": 0.4,
        "threshold_folds": [3, 3],
        "climatology": 0.05,
        "cases": 100,
        "events": 9,
        "block": "run_date",
        "blocks": 12,
        "resamples": 100,
        "level": 0.95,
        "scores": {name: [0.5, 0.4, 0.6] for name in names},
        "model_sha256": "1" * 64,
        "predictions_sha256": predictions,
        "epoch_loss": [0.3, 0.2, 0.2, 0.1],
        "seconds": 12.0,
    }
    return Verified(**(known | changes))


def test_the_page_says_how_often_the_test_set_was_looked_at(tmp_path, monkeypatch):
    # No figure tells of it, and drawing them takes seconds.
    shown = [section for section in write.SECTIONS if section.name in ("verification", "data")]
    monkeypatch.setattr(write, "SECTIONS", shown)
    directory, _ = begun(tmp_path)
    texts = []
    for number in (1, 2, 3):
        with journal.JournalWriter(directory / "journal.jsonl") as writer:
            writer.append(looked(number))
        if number != 2:
            texts.append(write_report(directory).read_text("utf-8"))
    once, thrice = texts
    assert "Test set, scored once" in once
    assert "is no longer that of unseen data" not in once
    assert "The test set has been looked at 3 times" in thrice
    assert "Test set, untouched" not in thrice
    # The model's folder is not there: what the journal has is shown, and that it is all.
    assert "model/ are missing or not those of this look" in once
    assert "0.5000" in once
    assert "0.4000 to 0.6000" in once


def test_predictions_of_another_look_are_not_drawn(tmp_path):
    import pandas as pd

    directory, _ = begun(tmp_path)
    (directory / "model").mkdir()
    file = directory / "model" / "test_predictions.parquet"
    draw = np.random.default_rng(0)
    pd.DataFrame(
        {
            "probability": draw.random(100).astype("f4"),
            "event": (np.arange(100) < 9).astype("u1"),
            "target": draw.random(100).astype("f4"),
            "run_date": np.repeat([f"2015-05-{day:02d}" for day in range(1, 11)], 10),
        }
    ).to_parquet(file)
    for sha, drawn in ((sha256(file), True), ("0" * 64, False)):
        with journal.JournalWriter(directory / "journal.jsonl") as writer:
            writer.append(looked(1, sha, blocks=10))
        material = Material(journal.read(directory / "journal.jsonl"), directory)
        assert material.tested is not None
        assert (material.tested.forecasts is not None) == drawn
        assert (len(tested_words.threshold_rows(material.tested)[1]) > 0) == drawn


@given(st.integers(1, 500), st.integers(1, 12))
def test_checkpoints_of_the_final_fit_end_with_its_last_epoch(epochs, most):
    found = stops(epochs, most)
    assert found[-1] == epochs
    assert list(found) == sorted(set(found))
    assert found[0] >= 1
    assert len(found) <= most


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 5)), max_size=40),
    st.floats(0, 1),
)
def test_telling_cases_are_the_surest_of_their_kind_one_of_a_track(cases, threshold):
    p, event, track = (
        (np.array(column) for column in zip(*cases, strict=True))
        if cases
        else (
            np.zeros(0),
            np.zeros(0, bool),
            np.zeros(0, int),
        )
    )
    found = telling_cases(p, event, threshold, track, most=3)
    for kind, sign in (("hit", -1), ("miss", 1), ("false alarm", -1)):
        rows = found[kind]
        assert len({track[row] for row in rows}) == len(rows) <= 3
        assert all(event[row] == (kind != "false alarm") for row in rows)
        assert all((p[row] >= threshold) == (kind != "miss") for row in rows)
        assert [sign * p[row] for row in rows] == sorted(sign * p[row] for row in rows)
        if rows:
            alike = [r for r in range(len(p)) if event[r] == event[rows[0]]]
            alike = [r for r in alike if (p[r] >= threshold) == (p[rows[0]] >= threshold)]
            assert sign * p[rows[0]] == min(sign * p[r] for r in alike)


GROUPS = ["event", "probability", "target", "case", "group_event", "group_group_event", "run_date"]


@given(st.lists(st.sampled_from([*GROUPS, "track", "Probability"]), unique=True))
def test_no_group_takes_a_column_of_the_predictions_or_of_another_group(names):
    found = group_columns(names)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    assert not {"probability", "event", "target", "case"} & set(found.values())
    kept = {name for name in names if found[name] == name}
    assert kept == set(names) - {"probability", "event", "target", "case"}


def test_predictions_stand_beside_groups_of_the_same_name(tmp_path):
    import pandas as pd

    p, event = np.float32([0.9, 0.2, 0.4, 0.1]), np.uint8([1, 0, 1, 0])
    codes = np.int32([0, 0, 1, 1])
    names = ["event", "probability", "case"]
    part = Part(np.zeros((4, 2), np.float32), event, np.float32(event), dict.fromkeys(names, codes))
    manifest = {
        "source": "csv",
        "input_shape": [2],
        "inputs": [],
        "target": {},
        "groups": {name: [f"{name} a", f"{name} b"] for name in names},
        "parts": {"train": {"count": 4, "positives": 2}},
    }
    data: Any = SimpleNamespace(
        manifest=manifest, part=lambda _: part, fingerprint="f", synthetic=False
    )
    study = StudyFile.model_validate({"study": {"name": "s"}})
    (tmp_path / "model.keras").touch()
    directory, entries = begun(tmp_path)
    choice = choose(directory, entries)
    assert isinstance(choice, Choice)
    delivered = Delivered("model.keras", "keras", 1.0)
    write_delivery(tmp_path, study, data, choice, delivered, p, "0" * 64)
    frame = pd.read_parquet(tmp_path / "test_predictions.parquet")
    assert (frame["probability"] == p).all()
    assert (frame["event"] == event).all()
    assert list(frame["group_probability"]) == ["probability a"] * 2 + ["probability b"] * 2

    # What the folds are grouped by is resampled, though it is called as single cases are.
    known = verify.test_forecasts(p, data, "case")
    assert (known.block_name, known.blocks) == ("group_case", 2)
    assert verify.test_forecasts(p, data, "none").block_name == "case"


def test_a_damaged_or_foreign_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no verified model here; make one with"):
        read_facts(tmp_path)
    (tmp_path / "model.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        read_facts(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"format": 99}), encoding="utf-8")
    with pytest.raises(DataError, match="another version"):
        read_facts(tmp_path)


def test_a_study_awaits_its_look_at_the_test_part_until_there_was_one(tmp_path):
    """Losing this: `run` ends without a word of the score that counts, or asks for it for ever."""
    directory, _ = begun(tmp_path)
    study = Study.from_toml(directory)
    assert study.awaits_verification()
    with journal.JournalWriter(directory / "journal.jsonl") as writer:
        writer.append(looked(1))
    assert not study.awaits_verification()
    stopped, _ = begun(tmp_path / "stopped", stops=(90.0,), go_on=False)
    assert not Study.from_toml(stopped).awaits_verification()


def test_a_test_part_whose_like_was_trained_on_is_said_with_its_score(tmp_path, capsys):
    """Losing this: the score of cases of known writers is taken for that of new ones."""
    data = journals.about(SPACE, 3).data | {"groups": {"writer": 9}}
    directory, _ = begun(tmp_path, data=data)
    text = '[study]\nname = "s"\n[data]\nsource = "m.py:f"\ntest_fraction = 0.2\n'
    for group_by, said in (("none", True), ("writer", False)):
        lines = f'{text}[validation]\ngroup_by = "{group_by}"\n'
        (directory / "study.toml").write_text(lines, encoding="utf-8")
        _tell(Study.from_toml(directory), looked(1), recorded=False)
        out = capsys.readouterr().out
        assert ("cases of one writer are in the training and in the test part" in out) == said
