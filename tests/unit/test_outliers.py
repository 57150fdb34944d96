"""Losing this: one task that other work starved has advice speak of weeks instead of minutes."""

from __future__ import annotations

import itertools
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormsweep import Study
from stormsweep.cli.foretell import seconds_of
from stormsweep.config.study import EngineTable
from stormsweep.records import StudyBegun
from stormsweep.results import frames, journal
from stormsweep.scaling import runtime
from stormsweep.scaling.advice import why
from stormsweep.scaling.durations import Durations, Lost
from stormsweep.scaling.foretold import foretell
from stormsweep.scaling.machine import Machine, Wait
from stormsweep.scaling.simulated_journal import journal as simulated
from stormsweep.scaling.simulation import simulate
from stormsweep.search.bundling import Bundling
from stormsweep.search.plan import make_plan, structure
from stormsweep.search.space import grid
from stormsweep.study import machines
from stormsweep.study.foretelling import Outlook
from tests import journals
from tests.unit.test_scaling_runtime import table

#: What a machine under load added to the first task of a process, in seconds.
STARVED = {"open": 91.0, "build": 281.0, "compile": 220.0}


def slower(one: pd.DataFrame, row: int, more: dict[str, float]) -> pd.DataFrame:
    """Return stretches of which one took longer in some phases."""
    one = one.copy()
    for phase, seconds in more.items():
        one.loc[row, [f"{phase}_seconds", "seconds"]] += seconds
    return one


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("phases", [("open", "build", "compile"), ("build",), ("train",)])
def test_a_starved_start_moves_neither_the_terms_nor_the_scatter(
    workers: int, phases: tuple[str, ...]
) -> None:
    """Losing this: each of ten thousand tasks is foretold to build its model for six seconds."""
    plain = table(workers, noise=0.05)
    row = int(np.flatnonzero(plain["opens"])[-1])
    more = {phase: sum(STARVED.values()) / len(phases) for phase in phases}
    one = slower(plain, row, more)
    found, rest = runtime.fit(one), plain.drop(index=row)
    assert found.foretold(rest).sum() == pytest.approx(rest["seconds"].sum(), rel=0.02)
    clean = runtime.fit(plain)
    assert found.scatter.tasks == pytest.approx(clean.scatter.tasks, rel=0.2)
    assert found.scatter.workers < clean.scatter.workers + 0.05
    assert found.scatter.ratios.max() < 1.5
    assert runtime.check(one).median < 0.06
    (out,) = found.scatter.outliers
    assert out.run == plain["run"][row]
    assert out.delay == pytest.approx(592.0, abs=3.0)
    # What was lost at a start is lost at a start, and what in training, by any task.
    starts = out.starting
    assert starts == (phases != ("train",))
    drawn = found.scatter.starting if starts else found.scatter.working
    assert drawn.share == pytest.approx(1 / (workers if starts else len(one)))
    assert drawn.seconds == (out.delay,)


def test_what_is_lost_by_a_task_that_started_nothing_is_lost_by_any() -> None:
    plain = table(2)
    row = int(np.flatnonzero(plain["builds"] & ~plain["opens"])[9])
    found = runtime.fit(slower(plain, row, {"build": 100.0})).scatter
    assert found.working == Lost(1 / len(plain), (found.outliers[0].delay,))
    assert found.starting == Lost()


def test_a_stretch_that_is_the_only_one_to_start_is_not_taken_at_its_word() -> None:
    """One worker, and its first task starved: what others built and compiled for is known."""
    plain = table(1)
    found = runtime.fit(slower(plain, 0, STARVED))
    assert found.terms["build/model"] == pytest.approx(0.08, rel=0.1)
    assert found.terms["compile/program"] == pytest.approx(0.4, rel=0.1)
    assert found.scatter.starting.share == 1.0


def test_tasks_that_are_slower_now_and_then_stay_among_the_others() -> None:
    """Losing this: half a dozen tasks that took three times as long are called a mishap."""
    one = table(4, noise=0.05, repeats=12)
    slow = np.random.default_rng(5).random(len(one)) < 0.05
    columns = [name for name in one if name.endswith("seconds")]
    one.loc[slow, columns] *= 3.0
    found = runtime.fit(one).scatter
    assert found.outliers == ()
    assert (found.ratios > 2).mean() == pytest.approx(slow.mean(), abs=0.005)
    assert found.ratios.mean() == pytest.approx(1.0)


def test_a_slow_node_is_a_slow_node_and_no_row_of_mishaps() -> None:
    one = table(8, noise=0.05, repeats=8)
    slow = one["worker"].isin(["worker-2", "worker-5"])
    one.loc[slow, [name for name in one if name.endswith("seconds")]] *= 6.0
    found = runtime.fit(one).scatter
    assert found.outliers == ()
    assert found.workers > 0.5
    assert found.tasks < 0.1


@pytest.mark.parametrize("name", ["batch_size", "parameters"])
def test_a_model_that_follows_no_line_is_no_mishap(name: str) -> None:
    one = table(models=(4_000, 16_000, 64_000), sizes=(64, 256, 1024), noise=0.05)
    level = {"batch_size": 256, "parameters": 16_000}[name]
    slow = one[name] == level
    more = 9 * one.loc[slow, "train_seconds"]
    one.loc[slow, "train_seconds"] += more
    one.loc[slow, "seconds"] += more
    assert runtime.fit(one).scatter.outliers == ()


def drawn_from_ranges(noise: float, seed: int = 0) -> pd.DataFrame:
    """Return what three folds of configurations take of which no two have anything in common.

    Every fifth is of another kind: fewer parameters, and ten times the work.
    """
    sizes = tuple(range(64, 1024, 32))
    one = table(3, sizes=sizes, noise=noise, seed=seed, repeats=1)
    one = one[one["builds"]].reset_index(drop=True)
    place = (one["batch_size"] - 64) // 32
    other = place % 5 == 4
    more = 9 * one["train_seconds"].where(other, 0.0)
    return one.assign(
        parameters=np.where(other, 4_000, 60_000) + place,
        train_seconds=one["train_seconds"] + more,
        seconds=one["seconds"] + more,
    )


@pytest.mark.parametrize("alike", [False, True])
def test_of_a_search_over_ranges_one_kind_of_models_is_no_mishap(alike: bool) -> None:
    """Losing this: all CNNs are called disturbed, and foretold ten times too short."""
    one = drawn_from_ranges(0.05)
    if alike:
        # One stretch of each batch size, and models of two kinds.
        one = one.assign(parameters=one["parameters"].where(one["parameters"] > 9_999, 4_000))
        one = one.drop_duplicates("batch_size").reset_index(drop=True)
    found = runtime.fit(one)
    assert found.scatter.outliers == ()
    other = one[one["parameters"] < 10_000]
    assert found.foretold(other).sum() == pytest.approx(other["seconds"].sum(), rel=0.1)
    # One of them that was starved is.
    row = int(other.index[1])
    (out,) = runtime.fit(slower(one, row, {"train": 100.0})).scatter.outliers
    assert out.run == one["run"][row]


@pytest.mark.parametrize("noise", [0.3, 0.7])
def test_chance_makes_no_outliers_of_three_alike(noise: float) -> None:
    tables = [drawn_from_ranges(noise, seed) for seed in range(12)]
    counts = [len(runtime.fit(one).scatter.outliers) for one in tables]
    assert sum(counts) <= 0.002 * sum(map(len, tables))


def test_a_bundle_of_three_that_was_starved_is_not_what_is_usual_of_them() -> None:
    """Losing this: runs that lost their time together are one another's excuse."""
    one = drawn_from_ranges(0.05)
    one = one[one["parameters"] > 9_999].reset_index(drop=True)
    at = one.groupby("batch_size")[["started", "worker"]].transform("first")
    shares = [name for name in one if name.endswith("seconds")]
    one = one.assign(bundle=3, started=at["started"], worker=at["worker"])
    one[shares] = one.groupby("batch_size")[shares].transform("mean") / 3
    for row in np.flatnonzero(one["batch_size"] == 128):
        one = slower(one, int(row), {"train": 50.0})
    (out,) = runtime.fit(one).scatter.outliers
    assert out.delay == pytest.approx(150.0, abs=2.0)


@pytest.mark.parametrize("noise", [0.02, 0.3, 0.7])
def test_chance_makes_no_outliers(noise: float) -> None:
    tables = [table(3, noise=noise, seed=seed, repeats=5) for seed in range(8)]
    counts = [len(runtime.fit(one).scatter.outliers) for one in tables]
    assert sum(counts) <= 0.001 * sum(map(len, tables))


def test_runs_of_a_bundle_lose_their_time_once() -> None:
    one = table(1, noise=0.01, repeats=4).assign(bundle=1)
    again = pd.concat([one.assign(run=one["run"] + f"-{n}", bundle=4) for n in range(4)])
    shares = [name for name in one if name.endswith("seconds")]
    again[shares] /= 4
    again = again.sort_values("started", kind="stable").reset_index(drop=True)
    alike = again["started"] == again["started"][40]
    for row in np.flatnonzero(alike):
        again = slower(again, row, {"train": 25.0})
    found = runtime.fit(again).scatter
    (out,) = found.outliers
    assert out.delay == pytest.approx(100.0, abs=1.0)
    assert found.working == Lost(1 / len(one), (out.delay,))
    assert found.stretches == len(one)


PLAN = make_plan(grid({"batch_size": [128], "learning_rate": [0.1, 0.2], "epochs": [2, 4]}), {}, 3)


def lasting(**changes: Any) -> Durations:
    count = len(PLAN.runs)
    values: dict[str, Any] = {
        "epoch": [60.0] * count,
        "before": [1.0] * count,
        "ending": [1.0] * count,
        "compiling": [5.0] * count,
        "program": [structure(run) for run in PLAN.runs],
        "opening": 0.2,
    }
    return Durations(**values | changes)


def test_seconds_are_lost_as_often_as_they_were_seen_and_ratios_drawn_as_they_were() -> None:
    known = lasting(
        ratios=(0.5, 0.9, 1.6), starting=Lost(0.25, (600.0,)), working=Lost(0.1, (40.0, 80.0))
    )
    made = [
        simulate(PLAN, [1000] * 3, known, Machine.local(3, 1), n, trace=True) for n in range(300)
    ]
    stints = [stint for one in made for stint in one.stints]
    factors, counts = np.unique([stint.factor for stint in stints], return_counts=True)
    assert factors.tolist() == [0.5, 0.9, 1.6]
    assert (counts / len(stints)).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    first = [stint.delay for stint in stints if stint.opened]
    assert np.mean([delay >= 600 for delay in first]) == pytest.approx(0.25, abs=0.05)
    later = [stint.delay for stint in stints if not stint.opened]
    assert set(later) == {0.0, 40.0, 80.0}
    assert np.mean(later) == pytest.approx(0.1 * 60.0, rel=0.15)
    plain = simulate(PLAN, [1000] * 3, lasting(), Machine.local(3, 1))
    lost = np.mean([one.busy for one in made]) - plain.busy
    # Three starts and twelve tasks.
    assert lost == pytest.approx(3 * 0.25 * 600 + 12 * 6.0, rel=0.2)


def test_a_simulated_journal_has_what_was_lost_in_its_tasks() -> None:
    known, machine = lasting(starting=Lost(1.0, (600.0,))), Machine.local(2, 1)
    made = simulate(PLAN, [1000] * 3, known, machine, trace=True)
    about = StudyBegun("x", 0, "0", "grid", "roc_auc", 3, "run_date", {}, {}, {}, [])
    tasks = frames.tasks(simulated(about, PLAN, [1000] * 3, known, machine, made))
    assert tasks["seconds"].sum() == pytest.approx(made.busy)
    assert (tasks["build_seconds"] > 600).sum() == 2


def test_a_walltime_is_too_short_for_what_is_lost_too() -> None:
    known, site = lasting(working=Lost(1.0, (200.0,))), Machine("mine", walltime=400.0, chain=False)
    made = simulate(PLAN, [1000] * 3, known, site, trace=True)
    plain = simulate(PLAN, [1000] * 3, lasting(), site)
    assert made.finished
    assert made.jobs > plain.jobs
    assert all(stint.stopped - stint.started <= 400 for stint in made.stints)


# The figures of a reason.

_OF = re.compile(r"takes (.+?) of (.+)$")


def consistent(line: str) -> bool:
    """Say whether each part that a line names is at most the whole."""
    shares = [int(share) for share in re.findall(r"(\d+) %", line)]
    spans = [tuple(seconds_of(each, "") for each in found) for found in _OF.findall(line)]
    return all(share <= 100 for share in shares) and all(part <= whole for part, whole in spans)


rough = st.fixed_dictionaries(
    {
        "scatter": st.sampled_from([0.0, 0.5, 3.0]),
        "workers": st.sampled_from([0.0, 1.5]),
        "common": st.sampled_from([0.0, 2.0]),
        "dispatch": st.sampled_from([0.0, 100.0]),
        "driver": st.sampled_from([0.0, 1.0, 200.0]),
        "starting": st.sampled_from([Lost(), Lost(0.3, (5000.0,))]),
        "working": st.sampled_from([Lost(), Lost(0.05, (1e4, 1e5))]),
        "ratios": st.sampled_from([(), (0.01, 0.02, 2.97)]),
        "epoch": st.sampled_from([1.0, 60.0]),
    }
)


@settings(max_examples=40, deadline=None)
@given(
    rough,
    st.sampled_from([Wait(), Wait(1000.0), Wait(1000.0, 3.0)]),
    st.sampled_from([(0.0,), (1.0, 1.0, 1.0, 1.0, 9000.0)]),
    st.booleans(),
)
def test_no_reason_names_a_part_that_is_longer_than_the_whole(
    changes: dict[str, Any], wait: Wait, start_up: tuple[float, ...], jax: bool
) -> None:
    """Losing this: "the longest run takes 1 h 28 min of 8 min 58 s"."""
    changes = changes | {"epoch": [changes["epoch"]] * len(PLAN.runs)}
    engine = EngineTable(use="jax" if jax else "tensorflow")
    family = [
        foretell(
            PLAN,
            [1000] * 3,
            lasting(**changes),
            Machine(
                "mine",
                nodes=nodes,
                wait=wait,
                start_up=start_up,
                chain=bool(nodes % 3),
            ),
            repeats=5,
            bundling=lambda: Bundling(engine),
        )
        for nodes in (1, 2, 3, 6)
    ]
    for before, after in itertools.combinations(family, 2):
        line = why(before, after)
        assert consistent(line), line


# A study.

SPACE: dict[str, Any] = {
    "batch_size": [128, 512],
    "learning_rate": [0.001, 0.005],
    "epochs": [2, 4],
}


def study_in(folder: Path) -> Study:
    sizes = [{"epoch_patches": 38_000, "validation": 9_000}] * 3
    directory = journals.simulate(folder / "runs" / "taki-2019", SPACE, fold_sizes=sizes)
    return Study.from_toml(journals.with_space(directory, SPACE))


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines.this_machine, "cores", lambda: 8)
    monkeypatch.setattr(machines.this_machine, "memory_gb", lambda: 64.0)


def test_a_task_that_was_starved_widens_what_is_foretold_by_what_it_lost(tmp_path: Path) -> None:
    """Losing this: "19 of 20 by 276 h" of a study that took nine minutes."""
    study = study_in(tmp_path)
    outlook = Outlook(study)
    plain = outlook.foretell(outlook.machines.local(2, 1))
    assert not any("disturb" in note for note in outlook.notes(plain))
    journals.starve(study.directory, {1: STARVED})
    outlook = Outlook(study)
    found = outlook.foretell(outlook.machines.local(2, 1))
    lost = sum(STARVED.values())
    assert found.makespan.low == pytest.approx(plain.makespan.low, rel=0.1)
    assert plain.makespan.high + 0.5 * lost < found.makespan.high < plain.makespan.high + 2 * lost
    (note,) = [note for note in outlook.notes(found) if "disturb" in note]
    assert re.match(
        r"1 of 24 tasks took 10 min \d+ s, 9 min 5\d s of it lost opening, building and compiling, "
        r"where \d+ s is usual \(run \S+, worker worker-0 of session 1\): ",
        note,
    ), note


def test_several_are_told_of_in_one_line(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    journals.starve(study.directory, {1: STARVED, 8: {"train": 300.0}, 12: {"score": 200.0}})
    (note,) = [note for note in notes_of(study) if "disturb" in note]
    assert note.startswith("3 of 24 tasks took ")
    assert " and lost 18 min 13 s opening, building, compiling, training and scoring (" in note
    assert "(the longest 10 min " in note
    assert "\n" not in note


def notes_of(study: Study) -> list[str]:
    outlook = Outlook(study)
    return outlook.notes(outlook.foretell(outlook.machines.local(2, 1), 3))


@settings(max_examples=6, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 23),
        st.dictionaries(
            st.sampled_from(["open", "build", "compile", "train", "score", "checkpoint"]),
            st.floats(0.0, 8.0).map(lambda power: 10**power / 1e4),
            min_size=1,
        ),
        max_size=3,
    )
)
def test_whatever_tasks_lost_advice_speaks_of_such_times_as_were_seen(
    lost: dict[int, dict[str, float]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        study = study_in(Path(folder))
        journals.starve(study.directory, lost)
        seen = frames.tasks(journal.read(study.journal_path))["seconds"].sum()
        found = study.advise()
    for line in found.limits:
        assert consistent(line), line
    for one in found.candidates:
        assert one.longest_chain <= one.makespan.median
        assert one.makespan.high < 6 * seen
