"""Losing these: who watches a study sees a time left that is wrong, or not who does what."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from stormsweep import Study
from stormsweep.cli import follow, show, watch
from stormsweep.cluster import machine
from stormsweep.records import (
    Entry,
    PlaceRefused,
    RunPlanned,
    SearchEnded,
    SessionBegun,
    TaskDone,
    TaskRetried,
)
from stormsweep.results import facts
from stormsweep.results.journal import JournalWriter, encode, read
from stormsweep.study import jobs, lock
from stormsweep.study.follow import Following
from stormsweep.study.lock import DriverLock
from stormsweep.study.pace import Pace
from stormsweep.study.tally import Tally
from stormsweep.work import Run
from tests import journals

SMALL = {"batch_size": [256, 1024], "learning_rate": [0.001, 0.01], "epochs": [2, 4]}


def trained(seed: int, workers: int, tasks: int, scatter: float, at: float) -> tuple[float, ...]:
    """Let workers do tasks; return what is foretold when a share is done, and what it was."""
    rng = random.Random(seed)
    free = [0.0] * workers
    ends = []
    for _ in range(tasks):
        n = free.index(min(free))
        seconds = 10 * math.exp(rng.gauss(0, scatter))
        free[n] += seconds
        ends.append((free[n], seconds))
    ends.sort()
    pace, done = Pace(0.0), int(at * tasks)
    for when, seconds in ends[:done]:
        pace.take(when, 1.0, seconds)
    now = ends[done - 1][0]
    return (*pace.left(now, tasks - done, workers), ends[-1][0] - now)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 16), st.floats(0.0, 0.5), st.floats(0.3, 0.8))
def test_the_time_left_is_near_what_it_comes_to(
    seed: int, workers: int, scatter: float, at: float
) -> None:
    tasks = 60 * workers
    middle, low, high, truth = trained(seed, workers, tasks, scatter, at)
    assert low <= middle <= high
    # What was seen and what is to come are both a draw: five deviations of what that makes.
    done, each = int(at * tasks), math.sqrt(math.expm1(scatter**2))
    chance = 5 * each * math.sqrt(1 / done + 1 / (tasks - done))
    # The last tasks of all workers do not end together.
    assert middle == pytest.approx(truth, rel=0.1 + chance, abs=40)


def test_the_interval_of_the_time_left_holds_the_truth_about_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(300):
        _, low, high, truth = trained(seed, 4, 240, 0.4, 0.5)
        inside += low - 15 <= truth <= high + 15
    assert 0.82 <= inside / 300 <= 1.0
    widths = []
    for scatter in (0.05, 0.6):
        _, low, high, _ = trained(1, 4, 240, scatter, 0.5)
        widths.append(high - low)
    assert widths[0] < widths[1]


def test_the_longest_run_bounds_the_time_left_from_below() -> None:
    pace = Pace(0.0)
    for n in range(1, 21):
        pace.take(10.0 * n, 4.0, 40.0)
    middle, low, _ = pace.left(200.0, 8.0, 4, [8.0])
    assert low == middle == pytest.approx(80.0), "one worker alone trains the last run"
    assert pace.left(200.0, 0.0, 4) == (0.0, 0.0, 0.0)
    assert all(map(math.isnan, Pace(0.0).left(5.0, 8.0, 4)))


def test_a_worker_whose_clock_was_set_back_ends_no_study() -> None:
    pace = Pace(0.0)
    pace.take(60.0, 4.0, -240.0)
    assert all(map(math.isnan, pace.left(60.0, 8.0, 1, [8.0])))
    pace.take(100.0, 4.0, 40.0)
    assert pace.left(100.0, 8.0, 1, [8.0])[0] == pytest.approx(100.0)


def test_a_long_study_is_not_kept_result_by_result() -> None:
    pace = Pace(0.0)
    for n in range(1, 20_001):
        pace.take(float(n), 1.0, 1.0)
    assert len(pace._gained) <= 1024
    assert pace.left(20_000.0, 500.0, 1)[0] == pytest.approx(500.0, rel=0.01)
    assert math.fsum(gained for _, gained in pace._gained) == 20_000, "a result was dropped"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A study at work: half of its journal is written."""
    made = journals.simulate(
        tmp_path / "runs" / "half", SMALL, lose=(3,), fail={2: ("error", "no memory", "")}
    )
    (made / "study.toml").write_text(
        '[study]\nname = "half"\n[data]\nsource = "twin"\n[search.space]\n'
        "batch_size = [256, 1024]\nlearning_rate = [0.001, 0.01]\nepochs = [2, 4]\n"
    )
    entries = read(made / "journal.jsonl")
    half = entries[: 2 * len(entries) // 3]
    (made / "journal.jsonl").write_text("".join(map(encode, half)))
    run = next(entry.record for entry in entries if entry.record.kind == "run")
    last = half[-1].time
    driver = {
        "host": "n1",
        "pid": 1,
        "token": "t",
        "beat": 3,
        "seen": "now",
        "started": 0.0,
        "work": {"clock": last + 5, "tasks": [["worker-0", run.run, 2, 4, 3, last]]},
    }
    (made / "driver.json").write_text(json.dumps(driver))
    return made


def test_who_follows_sees_who_does_what_and_what_failed(directory: Path) -> None:
    state = Following(Study.from_toml(directory)).look()
    assert state is not None
    entries = read(directory / "journal.jsonl")
    done = sum(isinstance(entry.record, TaskDone) for entry in entries)
    assert 0 < state.share < 1
    assert state.tasks == 24
    (one,) = state.at_work
    assert (one.worker, one.from_epoch, one.to_epoch, one.bundle) == ("worker-0", 2, 4, 3)
    assert 5.0 <= one.seconds < 8.0
    assert (state.busy, state.workers) == (1, 2)
    assert done
    assert any("was lost" in line for line in state.failures)
    assert state.seconds_left > 0
    (directory / "driver.json").unlink()
    gone = Following(Study.from_toml(directory)).look()
    assert gone is not None
    assert (gone.busy, gone.at_work) == (None, ())


LEARNING = """[study]
name = "half"
[data]
source = "twin"
[search]
strategy = "asha"
sampler = "random"
trials = 40
first_folds = 3
[search.space]
batch_size = [256, 512, 1024]
learning_rate = {low = 0.0001, high = 0.1, log = true}
epochs = [1, 3, 9]
[validation]
folds = 3
"""


def test_a_strategy_that_learns_is_not_nearly_done_because_few_runs_are_open(
    tmp_path: Path,
) -> None:
    """Only what workers are at is proposed at a time: the rest of the search is yet to come."""
    points = [{"batch_size": 512, "learning_rate": 0.001 * n} for n in (1, 2, 3, 4)]
    directory = journals.simulate(
        tmp_path / "runs" / "half", points=points, milestones=[1], strategy="asha"
    )
    entries = read(directory / "journal.jsonl")[:-4]
    (directory / "journal.jsonl").write_text("".join(map(encode, entries)))
    (directory / "study.toml").write_text(LEARNING)
    study = Study.from_toml(directory)
    following = Following(study)
    state = following.look()
    assert state is not None
    plan = study.plan()
    # What `run` shows of the same records.
    runs = [e.record for e in entries if isinstance(e.record, RunPlanned)]
    own = [Run(one.run, one.hyperparameters, one.fold, (1,)) for one in runs]
    patches = [int(size["epoch_patches"]) for size in entries[0].record.fold_sizes]  # type: ignore[union-attr]
    tally = Tally(dataclasses.replace(plan, runs=tuple(own)), "roc_auc", patches, 1, plan)
    for entry in entries:
        tally.take(entry, now=True)
    shown = tally.state(2, 0)
    assert (state.tasks, state.tasks_done) == (shown.tasks, shown.tasks_done)
    assert state.share == pytest.approx(shown.share)
    assert state.share < 0.2
    assert state.tasks == plan.tasks > 40
    assert state.seconds_left > 5 * state.seconds
    with JournalWriter(directory / "journal.jsonl") as out:
        out.append(SearchEnded(4))
    over = following.look()
    assert over is not None
    assert (over.tasks, over.tasks_done) == (12, shown.tasks_done)
    # The study file says another search than the journal: no time left rather than a wrong one.
    (directory / "journal.jsonl").write_text("".join(map(encode, entries)))
    (directory / "study.toml").write_text(LEARNING.replace('"asha"', '"halving"') + "rounds = 2\n")
    other = Following(Study.from_toml(directory)).look()
    assert other is not None
    assert math.isnan(other.seconds_left)
    assert "left" not in watch._left(other)


def test_the_speed_is_of_what_the_data_are_made_of(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losing this: a user of a table reads of patches, which it has none of."""
    state = Following(Study.from_toml(directory)).look()
    assert state is not None
    assert state.speed.endswith(" patches/s")
    file = directory / "study.toml"
    table = 'source = "csv"\npath = "x.csv"\ninputs = ["x"]\ntarget = "y"'
    file.write_text(file.read_text().replace('source = "twin"', table))
    of_table = Following(Study.from_toml(directory)).look()
    assert of_table is not None
    assert of_table.speed == state.speed.replace("patches", "cases")
    watch.Plain(every=-1.0).state(of_table)
    assert f", {of_table.speed}, " in capsys.readouterr().err
    tally = Tally(Study.from_toml(directory).plan(), "roc_auc", [1000] * 3, 1, cases="patches")
    assert tally.state(1, 0).cases == "patches"


def test_a_new_session_forgets_the_workers_and_the_pace_of_the_last(directory: Path) -> None:
    following = Following(Study.from_toml(directory))
    before = following.look()
    assert before is not None
    with JournalWriter(directory / "journal.jsonl") as out:
        out.append(SessionBegun(2, "n2", 5, "local", 2, 1))
    after = following.look()
    assert after is not None
    assert (after.workers, after.patches_per_second) == (0, 0.0)
    assert math.isnan(after.seconds_left)
    assert after.share == before.share


def test_what_an_earlier_session_left_in_a_checkpoint_is_no_pace_of_this_one(
    directory: Path,
) -> None:
    entries = read(directory / "journal.jsonl")
    found = next(e.record for e in reversed(entries) if isinstance(e.record, TaskDone))
    last = entries[-1].time
    following = Following(Study.from_toml(directory))
    before = following.look()
    assert before is not None
    planned = [entry.record for entry in entries if isinstance(entry.record, RunPlanned)]
    done = {entry.record.run for entry in entries if isinstance(entry.record, TaskDone)}
    run = next(one for one in planned if one.run not in done)
    late = dataclasses.replace(found, run=run.run, from_epoch=0, to_epoch=2)
    tally = Tally(Study.from_toml(directory).plan(), "roc_auc", [1000] * 3, 1)
    tally.runs = {r.run: Run(r.run, r.hyperparameters, r.fold, (2, 4)) for r in planned}
    tally.begin(2)
    with JournalWriter(directory / "journal.jsonl") as out:
        out.append(SessionBegun(2, "n2", 5, "local", 2, 1))
        out.append(late)
    tally.take(Entry(last + 1, late), now=True)
    after = following.look()
    assert after is not None
    assert after.share > before.share
    for state in (after, tally.state(1, 0)):
        assert state.patches_per_second == 0
        assert math.isnan(state.seconds_left)
    own = dataclasses.replace(late, run=planned[-1].run, session=2)
    tally.take(Entry(last + 2, own), now=True)
    assert tally.state(1, 0).patches_per_second > 0


def test_a_bad_node_that_a_new_session_gives_work_again_is_bad_no_more(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losing this: for ever after, users are told to see to a node that was mended long ago."""
    following, journal = Following(Study.from_toml(directory)), directory / "journal.jsonl"

    def told() -> tuple[bool, bool]:
        state = following.look()
        assert state is not None
        show.status(directory)
        return any("n1: " in line for line in state.failures), "n1: " in capsys.readouterr().out

    why = "n1: JAX sees no GPU on n1"
    with JournalWriter(journal) as out:
        out.append(PlaceRefused(1, "n1", why))
    assert told() == (True, True)
    assert facts.refused(read(journal)) == [why]
    with JournalWriter(journal) as out:
        out.append(SessionBegun(2, "n2", 5, "local", 2, 1))
    assert told() == (False, False)
    # The report is about all of the study.
    assert facts.refused(read(journal)) == [f"{why} (session 1)"]
    with JournalWriter(journal) as out:
        out.append(PlaceRefused(2, "n1", why))
    assert told() == (True, True)


def test_of_a_run_that_raised_nobody_is_told_that_its_worker_was_lost(directory: Path) -> None:
    following = Following(Study.from_toml(directory))
    with JournalWriter(directory / "journal.jsonl") as out:
        out.append(TaskRetried("r", 2, 2, "no space left", "n1-1-0", 1))
    state = following.look()
    assert state is not None
    said = "run r is tried again; it came to nothing on worker n1-1-0 (no space left)"
    assert state.failures[-1] == said


def test_who_stops_watching_is_told_whether_the_study_goes_on(directory: Path) -> None:
    study = Study.from_toml(directory)
    (directory / "driver.json").unlink()
    stopped = follow.no_longer(study, finished=False)
    assert stopped.startswith("nothing trains the study; go on with: stormsweep run")
    assert follow.no_longer(study, finished=True) == "the study is finished"
    with DriverLock(directory):
        assert follow.no_longer(study, finished=False) == "the study goes on"


@pytest.mark.parametrize("height", [8, 40])
def test_the_live_view_shows_all_of_it_and_keeps_to_the_terminal(
    directory: Path, height: int
) -> None:
    state = Following(Study.from_toml(directory)).look()
    assert state is not None
    view = watch.Full()
    out = io.StringIO()
    view._console = Console(file=out, width=110, height=height)
    view.state(state)
    view._console.print(view._all())
    said = out.getvalue()
    assert "worker-0" in said
    assert "and 2 more" in said
    assert "2-4" in said
    assert "best roc_auc" in said
    assert " left" in said
    assert f"{state.tasks_done}/24 tasks" in said
    assert all(f"failed: {line[:40]}" in said for line in state.failures)


@pytest.mark.parametrize("value", ["[relu]", "[/x]", "[red]"])
def test_values_in_brackets_are_shown_as_they_are(directory: Path, value: str) -> None:
    """Rich takes them for markup: they vanish from the line, or end the display with an error."""
    state = Following(Study.from_toml(directory)).look()
    assert state is not None
    assert state.leader is not None
    point = {"activation": value}
    odd = dataclasses.replace(
        state,
        leader=dataclasses.replace(state.leader, hyperparameters=point),
        at_work=(dataclasses.replace(state.at_work[0], hyperparameters=point),),
    )
    view = watch.Full()
    out = io.StringIO()
    view._console = Console(file=out, width=160, height=40)
    view.stage(f"training {value}", 0.5)
    view.state(odd)
    view._console.print(view._all())
    assert out.getvalue().count(value) == 3


def test_plain_lines_say_each_failure_once(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = Following(Study.from_toml(directory)).look()
    assert state is not None
    view = watch.Following()
    view._every = -1.0
    for _ in range(3):
        view.state(state)
    said = capsys.readouterr().err
    assert said.count(state.failures[0]) == 1
    assert said.count("1/2 workers busy") == 3


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's commands, as on machines where no Slurm runs; the file says which were called."""
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    tools.mkdir()
    for name in ("sbatch", "squeue", "scancel", "sinfo"):
        text = f"#!/bin/sh\necho {name} >> {calls}\necho 'Unable to contact slurm controller' >&2\n"
        (tools / name).write_text(f"{text}exit 1\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return calls


def test_slurm_is_not_asked_about_a_study_of_this_machine(
    directory: Path,
    asked: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Losing this: where only its commands are, no local study is sure to be over."""
    (directory / "driver.json").unlink()
    with monkeypatch.context() as patient:
        patient.setattr(follow.time, "sleep", lambda _: pytest.fail("it waits for jobs"))
        follow.watch(directory)
    show.status(directory)
    told = capsys.readouterr().out
    assert told.count("stopped; go on with: stormsweep run") == 2
    assert "Slurm" not in told
    remember = '{"site": "mine", "scheduler": "pbs"}'
    (directory / "site.json").write_text(remember)
    show.status(directory)
    assert "Slurm" not in capsys.readouterr().out
    assert not asked.exists()
    # Such a study is ended without a word of Slurm, too: `cancel` asks, to be sure.
    assert jobs.cancel(directory) == []

    doubt = "Slurm does not answer: whether jobs run or wait is not known"
    (directory / "site.json").write_text(remember.replace("pbs", "slurm"))
    show.status(directory)
    assert doubt in capsys.readouterr().out
    # It ran here, and its first job on a site may wait.
    (directory / "site.json").unlink()
    (directory / ".private").mkdir()
    show.status(directory)
    assert doubt in capsys.readouterr().out


def test_the_dashboard_is_where_a_browser_finds_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = {"host": machine.host(), "space": machine.process_space(), "pid": os.getpid()}
    driver |= {"started": machine.process_started(os.getpid()), "seen": "now", "token": "t"}
    (directory / "driver.json").write_text(json.dumps(driver | {"beat": 1, "dashboard": 8787}))
    page = "http://127.0.0.1:8787"
    tunnel = f"ssh -N -L 8787:127.0.0.1:8787 {machine.host()}"

    def shown() -> str:
        show.status(directory)
        lines = capsys.readouterr().out.splitlines()
        return next(line for line in lines if line.startswith("  dashboard  "))[13:]

    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert shown() == page
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    assert shown() == f"{page} (from elsewhere: {tunnel})"
    monkeypatch.setattr(lock, "host", lambda: "login2")
    monkeypatch.setattr(lock, "is_alive", lambda *_: True)
    assert shown() == f"{tunnel} (then {page})"
