"""Frames: if these fail, users read wrong numbers of their study in tables, status and report."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stormsweep.errors import JournalError
from stormsweep.records import (
    Entry,
    RunFailed,
    SessionBegun,
    StudyBegun,
    TaskDone,
    TaskPaused,
    WorkerEvent,
)
from stormsweep.report.answer import costs
from stormsweep.report.material import Material
from stormsweep.report.tables import configuration_rows
from stormsweep.report.timeline import timeline_picture
from stormsweep.report.timings import train_time_picture
from stormsweep.results import facts, frames, journal
from stormsweep.results.front import front
from stormsweep.results.summary import differences, summary
from stormsweep.scaling.accounts import account
from stormsweep.scaling.observed import observations
from stormsweep.scaling.timings import worker_time
from stormsweep.work import identity
from tests import journals

SMALL: dict[str, Any] = {
    "batch_size": [256, 1024],
    "learning_rate": [0.001, 0.01],
    "epochs": [2, 4],
}
ALL_FRAMES = [
    frames.fits,
    frames.configurations,
    frames.tasks,
    frames.sessions,
    frames.workers,
    frames.failures,
    frames.retries,
    differences,
    worker_time,
]


def entries_of(directory: Path) -> list[Entry]:
    return journal.read(directory / "journal.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    return entries_of(journals.simulate(tmp_path_factory.mktemp("whole"), SMALL))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Two sessions, a failed run, a lost worker."""
    directory = tmp_path_factory.mktemp("troubled")
    fail = {2: ("diverged", "the loss is nan", "Traceback ...")}
    return entries_of(journals.simulate(directory, SMALL, stops=(60.0,), fail=fail, lose=(3,)))


@pytest.fixture(scope="module")
def bare() -> list[Entry]:
    """A study that is planned and nothing else."""
    runs = journals.plan(journals.points_of(SMALL), 3, [2, 4])
    return [Entry(journals.START, record) for record in (journals.about(SMALL, 3), *runs)]


def test_every_fit_is_one_row_with_its_scores(whole: list[Entry]) -> None:
    table = frames.fits(whole)
    assert len(table) == 2 * 2 * 2 * 3
    names = ["batch_size", "learning_rate", "epochs"]
    for row in table.to_dict("records"):
        point = {name: row[name] for name in names}
        assert row["configuration"] == identity(point)
        for name, score in journals.plausible_scores(point, row["fold"]).items():
            assert row[name] == score


def test_seconds_of_a_fit_add_up_from_the_start_of_its_run(whole: list[Entry]) -> None:
    table = frames.fits(whole)
    spent: dict[str, float] = {}
    for task in sorted(journal.of_kind(whole, TaskDone), key=lambda done: done.to_epoch):
        spent[task.run] = spent.get(task.run, 0.0) + task.stopped - task.started
        row = table[(table["run"] == task.run) & (table["epochs"] == task.to_epoch)]
        assert row["seconds"].item() == pytest.approx(spent[task.run])


def test_means_deviations_and_intervals_are_those_of_the_folds(whole: list[Entry]) -> None:
    fits, table = frames.fits(whole), frames.configurations(whole)
    assert table["complete"].all()
    assert table["roc_auc_mean"].is_monotonic_decreasing
    assert table["rank"].tolist() == list(range(1, 9))
    for row in table.to_dict("records"):
        own = fits.loc[fits["configuration"] == row["configuration"], "roc_auc"]
        low, high = stats.t.interval(0.95, 2, own.mean(), stats.sem(own))
        expected = (own.mean(), own.std(ddof=1), low, high)
        given = tuple(row[f"roc_auc_{name}"] for name in ("mean", "sd", "low", "high"))
        assert given == pytest.approx(expected)


def test_a_metric_to_be_minimized_ranks_upwards(tmp_path: Path) -> None:
    entries = entries_of(journals.simulate(tmp_path, SMALL, metric="brier_score"))
    table = frames.configurations(entries)
    assert table["brier_score_mean"].is_monotonic_increasing
    look = summary(entries)
    assert look.best is not None
    assert look.best.mean == table["brier_score_mean"].min()
    assert (differences(entries)["difference"] >= 0).all()


def test_the_front_of_several_scores_is_what_no_other_configuration_beats(tmp_path: Path) -> None:
    """Losing this: a search trades scores off, and nobody is shown what for what."""

    def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
        # Smaller batches have the better AUC and the worse loss; 64 is beaten by 128.
        batch = point["batch_size"] if point["batch_size"] != 64 else 4096
        return {"roc_auc": 0.9 - batch / 1e4 + fold / 1e3, "loss": 1 - min(batch, 1024) / 1e4}

    space = {"batch_size": [64, 128, 256, 1024], "epochs": [2]}
    entries = entries_of(journals.simulate(tmp_path, space, scores=scores))
    assert "front" not in frames.configurations(entries).columns
    about = dataclasses.replace(facts.study(entries), objectives=["roc_auc", "loss"])
    entries = [Entry(entries[0].time, about), *entries[1:]]
    table = frames.configurations(entries).set_index("batch_size")
    assert table["front"].to_dict() == {64: False, 128: True, 256: True, 1024: True}
    # What lacks a fold may yet turn out worse.
    run = next(
        r for r, p in facts.planned_runs(entries).items() if p.hyperparameters["batch_size"] == 128
    )
    left = [
        one
        for one in entries
        if getattr(one.record, "run", "") != run or not isinstance(one.record, TaskDone)
    ]
    table = frames.configurations(left).set_index("batch_size")
    assert table["front"].to_dict() == {64: False, 128: False, 256: True, 1024: True}
    # The report shows all of it, however far down by the metric alone.
    header, rows, align = configuration_rows(Material(entries), most=1)
    assert len(header) == len(align) == len(rows[0])
    assert [(row[0], row[header.index("On the front")]) for row in rows] == [
        ("1", "yes"),
        ("2", "yes"),
        ("3", "yes"),
    ]
    assert "Cross-entropy" in header


@given(st.lists(st.tuples(*[st.integers(0, 3) | st.just(math.nan)] * 3), max_size=12))
def test_no_configuration_of_a_front_is_beaten_and_all_others_are(scores: list[Any]) -> None:
    found = front(scores, ["loss", "brier_score", "roc_auc"]).tolist()

    def beats(one: Any, other: Any) -> bool:
        pairs = [(-a, -b) for a, b in zip(one[:2], other[:2], strict=True)] + [(one[2], other[2])]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    for own, inside in zip(scores, found, strict=True):
        beaten = any(beats(other, own) for other in scores if not any(map(math.isnan, other)))
        assert inside == (not beaten and not any(map(math.isnan, own)))


def test_complete_configurations_stand_before_better_incomplete_ones(tmp_path: Path) -> None:
    def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
        return {"roc_auc": 0.5 + point["batch_size"] / 1e4 + fold / 1e3}

    entries = entries_of(
        journals.simulate(tmp_path, SMALL, stops=(75.0,), go_on=False, scores=scores)
    )
    table = frames.configurations(entries)
    states = table["complete"].tolist()
    assert True in states
    assert False in states
    assert states == sorted(states, reverse=True)
    assert table["folds"].is_monotonic_decreasing
    best = summary(entries).best
    assert best is not None
    assert best.complete


def test_a_score_that_is_no_number_takes_its_configuration_to_the_end(tmp_path: Path) -> None:
    def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
        bad = point["learning_rate"] == 0.01 and fold == 1
        return {"roc_auc": math.nan if bad else 0.8 + fold / 100}

    entries = entries_of(journals.simulate(tmp_path, SMALL, scores=scores))
    table = frames.configurations(entries)
    assert table["roc_auc_mean"].isna().tolist() == [False] * 4 + [True] * 4
    assert (table.loc[4:, "learning_rate"] == 0.01).all()
    best = summary(entries).best
    assert best is not None
    assert best.hyperparameters["learning_rate"] == 0.001
    assert len(differences(entries)) == 3


def test_lists_and_mixed_values_go_into_plain_columns(tmp_path: Path) -> None:
    points: list[dict[str, Any]] = [
        {"batch_size": 64, "filters": [8, 16, 32], "l2": 0, "loss": "mse", "pool": "max"},
        {"batch_size": 64, "filters": [16, 32], "l2": 0.01, "loss": "bce", "pool": 2},
        {"batch_size": 64, "filters": [16, 32], "l2": 0.01, "loss": "bce", "pool": True},
    ]
    entries = entries_of(journals.simulate(tmp_path, {}, points=points, milestones=[3]))
    table = frames.fits(entries)
    assert set(table["filters"]) == {"[8, 16, 32]", "[16, 32]"}
    assert table["l2"].dtype == "float64"
    assert set(table["pool"]) == {"max", "2", "true"}
    # A hyperparameter named like a score does not overwrite it.
    assert set(table["hyperparameter_loss"]) == {"mse", "bce"}
    assert table["loss"].dtype == "float64"
    best = summary(entries).best
    assert best is not None
    assert best.hyperparameters["filters"] in ([8, 16, 32], [16, 32])


@pytest.mark.parametrize("make", ALL_FRAMES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("state", ["whole", "troubled", "bare"])
def test_frames_go_to_parquet_csv_and_json_and_back(
    make: Any, state: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    entries = request.getfixturevalue(state)
    table = make(entries)
    table.to_parquet(tmp_path / "frame.parquet", index=False)
    again = pd.read_parquet(tmp_path / "frame.parquet")
    pd.testing.assert_frame_equal(again, table)
    assert len(json.loads(table.to_json(orient="records"))) == len(table)
    table.to_csv(tmp_path / "frame.csv", index=False)
    assert pd.read_csv(tmp_path / "frame.csv").columns.tolist() == table.columns.tolist()


def test_a_planned_study_without_any_result_has_a_summary(bare: list[Entry]) -> None:
    look = summary(bare)
    assert (look.runs_planned, look.runs_finished, look.runs_failed) == (12, 0, 0)
    assert (look.fits_planned, look.fits_scored, look.best) == (24, 0, None)
    assert (look.epochs_planned, look.epochs_trained) == (48, 0)
    assert look.wall_seconds == 0
    assert not look.finished


def test_an_empty_journal_is_said_to_be_empty() -> None:
    with pytest.raises(JournalError, match="no study is recorded"):
        summary([])


def test_summary_counts_epochs_fits_and_time(whole: list[Entry]) -> None:
    look, done = summary(whole), journal.of_kind(whole, TaskDone)
    assert look.finished
    assert (look.fits_planned, look.fits_scored) == (24, 24)
    assert (look.configurations_planned, look.configurations_complete) == (8, 8)
    assert (look.epochs_planned, look.epochs_trained, look.epochs_separate) == (48, 48, 72)
    busy = sum(task.stopped - task.started for task in done)
    span = whole[-1].time - next(e.time for e in whole if isinstance(e.record, SessionBegun))
    assert look.task_seconds == pytest.approx(busy)
    assert look.wall_seconds == pytest.approx(span)
    spent = account(whole)
    assert spent.wall_seconds == look.wall_seconds
    assert spent.core_hours_used == pytest.approx(busy / 3600)
    assert spent.core_hours_granted == spent.core_hours_asked == pytest.approx(2 * span / 3600)


def test_pauses_between_sessions_are_not_time_at_work(troubled: list[Entry]) -> None:
    table = frames.sessions(troubled)
    assert table["outcome"].tolist() == ["interrupted", "failed"]
    assert table["seconds"].iloc[0] == pytest.approx(60.0)
    look = summary(troubled)
    assert look.sessions == 2
    assert look.wall_seconds == pytest.approx(table["seconds"].sum())
    assert troubled[-1].time - troubled[0].time > look.wall_seconds + 3500


def test_a_killed_session_counts_until_its_last_record(whole: list[Entry]) -> None:
    cut = [entry for entry in whole if entry.record.kind != "session-end"]
    assert frames.sessions(cut)["outcome"].tolist() == ["open"]
    again = SessionBegun(2, "node18", 7, "local", 2, 1)
    later = [*cut, Entry(cut[-1].time + 900, again)]
    table = frames.sessions(later)
    assert table["outcome"].tolist() == ["killed", "open"]
    assert table["ended"].iloc[0] == cut[-1].time
    assert table["seconds"].iloc[1] == 0


def test_a_failure_is_listed_until_its_run_gets_through(troubled: list[Entry]) -> None:
    table = frames.failures(troubled)
    assert table[["failure", "reason"]].to_numpy().tolist() == [["diverged", "the loss is nan"]]
    assert not table["recovered"].any()
    look = summary(troubled)
    assert (look.runs_failed, look.runs_finished, look.finished) == (1, 11, True)
    assert look.retries == 1
    row = table.iloc[0]
    plan = facts.planned_runs(troubled)[row["run"]]
    late = journals.task(plan, 2, 4, started=troubled[-1].time)
    mended = [*troubled, Entry(late.stopped, late)]
    assert frames.failures(mended)["recovered"].all()
    assert summary(mended).runs_failed == 0
    assert summary(mended).configurations_complete == 8


def test_a_task_recorded_twice_counts_once(whole: list[Entry]) -> None:
    done = next(entry for entry in whole if isinstance(entry.record, TaskDone))
    twice = [*whole, done]
    assert len(frames.fits(twice)) == len(frames.fits(whole))
    assert summary(twice).task_seconds == pytest.approx(summary(whole).task_seconds)


def test_workers_are_ready_busy_and_idle_for_the_whole_session(troubled: list[Entry]) -> None:
    table, spans = frames.workers(troubled), frames.sessions(troubled).set_index("session")
    assert len(table) == 4
    assert table["lost"].sum() == 1
    parts = worker_time(troubled).drop(columns=["session", "worker"])
    assert (parts >= 0).to_numpy().all()
    for index, row in enumerate(table.to_dict("records")):
        away = 7.0 if row["lost"] else 0.0
        whole_span = spans.loc[row["session"], "seconds"]
        assert parts.iloc[index].sum() == pytest.approx(whole_span - away)
    assert table["tasks"].sum() == len(frames.tasks(troubled))
    assert table["busy_share"].between(0, 1).all()


def test_differences_are_the_corrected_paired_t_test(whole: list[Entry]) -> None:
    fits, table = frames.fits(whole), frames.configurations(whole)
    scores = {
        name: own.sort_values("fold")["roc_auc"].to_numpy()
        for name, own in fits.groupby("configuration")
    }
    best = scores[table["configuration"].iloc[0]]
    for row in differences(whole).to_dict("records"):
        gap = best - scores[row["configuration"]]
        half = stats.t.ppf(0.975, 2) * gap.std(ddof=1) * math.sqrt(1 / 3 + 1 / 2)
        assert row["difference"] == pytest.approx(gap.mean())
        assert (row["low"], row["high"]) == pytest.approx((gap.mean() - half, gap.mean() + half))
        assert row["apart"] == (row["low"] > 0)


def test_equal_scores_cannot_be_told_apart(tmp_path: Path) -> None:
    entries = entries_of(
        journals.simulate(tmp_path, SMALL, scores=lambda point, fold: {"roc_auc": 0.8 + fold / 50})
    )
    table = differences(entries)
    assert len(table) == 7
    assert not table["apart"].any()
    assert np.allclose(table["difference"], 0)


def test_failed_runs_without_a_plan_do_no_harm(bare: list[Entry]) -> None:
    stray = RunFailed("unknown", 0, 2, "error", "no such thing", "worker-0", 1)
    table = frames.failures([*bare, Entry(journals.START, stray)])
    assert table["run"].tolist() == ["unknown"]


def test_seconds_of_a_bundle_are_counted_once(whole: list[Entry]) -> None:
    # As if all runs of a stretch and batch size had been trained together.
    first: dict[Any, TaskDone] = {}
    runs = facts.planned_runs(whole)
    kinds = [
        (runs[t.run].hyperparameters["batch_size"], t.to_epoch)
        for t in facts.tasks_done(whole)
    ]  # fmt: skip
    bundled = []
    for entry in whole:
        if isinstance(task := entry.record, TaskDone):
            kind = (runs[task.run].hyperparameters["batch_size"], task.to_epoch)
            lead, size = first.setdefault(kind, task), kinds.count(kind)
            shares = {phase: seconds / size for phase, seconds in lead.phases.items()}
            times = {"started": lead.started, "stopped": lead.stopped, "worker": lead.worker}
            task = dataclasses.replace(task, phases=shares, bundle=size, **times)
            entry = Entry(entry.time, task)
        bundled.append(entry)
    spent = sum(task.stopped - task.started for task in first.values())
    assert frames.tasks(bundled)["seconds"].sum() == pytest.approx(spent)
    assert frames.sessions(bundled)["busy_seconds"].sum() == pytest.approx(spent)
    assert frames.workers(bundled)["busy_seconds"].sum() == pytest.approx(spent)
    assert summary(bundled).task_seconds == pytest.approx(spent)
    assert account(bundled).core_hours_used == pytest.approx(
        (frames.tasks(bundled)["threads"] * frames.tasks(bundled)["seconds"]).sum() / 3600
    )
    table = worker_time(bundled)
    parts = [*facts.PHASES, "other"]
    assert table[parts].to_numpy().sum() == pytest.approx(spent)
    picture = timeline_picture(Material(bundled))
    assert picture is not None
    assert "trained together" in picture.caption
    (axis,) = picture.figure.axes
    assert len(axis.collections[0].get_paths()) == 2 * len(first)


def test_paused_tasks_cost_what_they_cost_and_nothing_is_counted_twice(
    troubled: list[Entry],
) -> None:
    paused = journals.with_pauses(troubled)
    count = sum(isinstance(entry.record, TaskPaused) for entry in paused)
    assert count == len(facts.tasks_done(troubled)) > 0
    before, after = summary(troubled), summary(paused)
    for field in dataclasses.fields(before):
        if field.name == "best":
            continue
        expected = getattr(before, field.name)
        assert getattr(after, field.name) == (
            pytest.approx(expected) if isinstance(expected, float) else expected
        ), field.name
    for view in (frames.fits, frames.configurations, frames.sessions, frames.workers, worker_time):
        pd.testing.assert_frame_equal(view(paused), view(troubled), obj=view.__name__, atol=1e-3)
    table = frames.tasks(paused)
    assert table["paused"].sum() == count
    assert len(table) == 2 * count
    assert (table["to_epoch"] - table["from_epoch"]).tolist() == [1] * len(table)
    lines = [journal.encode(entry) for entry in paused]
    assert [journal.decode(line) for line in lines] == paused
    picture = timeline_picture(Material(paused))
    assert picture is not None
    assert "paused" in picture.caption


def test_a_pause_in_which_nothing_was_trained_is_no_speed(whole: list[Entry]) -> None:
    paused = [
        Entry(entry.time, dataclasses.replace(record, to_epoch=record.from_epoch, patches=0))
        if isinstance(record := entry.record, TaskPaused)
        else entry
        for entry in journals.with_pauses(whole)
    ]
    table = frames.tasks(paused)
    assert table["patches_per_second"].isna().tolist() == table["paused"].tolist()
    assert train_time_picture(Material(paused)) is not None


@pytest.mark.parametrize(("source", "word"), [("ncar-storms", "patches"), ("csv", "cases")])
def test_only_storms_are_called_patches(whole: list[Entry], source: str, word: str) -> None:
    first = whole[0].record
    assert isinstance(first, StudyBegun)
    of_source = dataclasses.replace(first, data=first.data | {"source": source})
    material = Material([Entry(whole[0].time, of_source), *whole[1:]])
    assert dict(row[:2] for row in costs(material))["Speed"].endswith(f" {word}/s")
    picture = train_time_picture(material)
    assert picture is not None
    assert f"below, {word} trained per second by one worker" in picture.caption
    assert picture.figure.axes[1].get_ylabel() == f"{word.capitalize()} per second"


@pytest.mark.parametrize("ahead", [-300.0, 300.0])
def test_workers_whose_clock_is_wrong_are_drawn_when_they_worked(
    troubled: list[Entry], ahead: float
) -> None:
    def elsewhere(entry: Entry) -> Entry:
        record = entry.record
        if isinstance(record, WorkerEvent):
            return dataclasses.replace(entry, record=dataclasses.replace(record, host="far"))
        if isinstance(record, TaskDone):
            times = {"started": record.started + ahead, "stopped": record.stopped + ahead}
            return dataclasses.replace(entry, record=dataclasses.replace(record, **times))
        return entry

    wrong = [elsewhere(entry) for entry in troubled]
    right, shifted = frames.tasks(troubled), frames.tasks(wrong)
    for name in ("started", "stopped", "waited"):
        assert shifted[name].to_numpy() == pytest.approx(right[name].to_numpy(), abs=1, rel=0)
    assert (shifted["waited"] >= 0).all()
    there, seen = observations(troubled), observations(wrong)
    assert seen["opens"].tolist() == there["opens"].tolist()
    pictures = [timeline_picture(Material(entries)) for entries in (troubled, wrong)]
    begun = [picture.data["begun_seconds"].to_numpy() for picture in pictures if picture]
    assert begun[1] == pytest.approx(begun[0], abs=1, rel=0)


@pytest.mark.parametrize(("stops", "said"), [((), "in 1 session"), ((50.0,), "in 2 sessions")])
def test_sessions_are_counted_as_one_speaks(
    stops: tuple[float, ...], said: str, tmp_path: Path
) -> None:
    space = {"batch_size": [256], "epochs": [2, 4]}
    folder = journals.simulate(tmp_path, space, stops=stops)
    page = summary(journal.read(folder / "journal.jsonl"))._repr_html_()
    assert re.search(rf"{said}\b", page)
