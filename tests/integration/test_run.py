"""Losing these: the main job itself, from the command line to results and report."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stormsweep import Study
from stormsweep.cluster import machine
from stormsweep.config.load import load_study
from stormsweep.errors import JournalError
from stormsweep.models.checksum import checksum
from stormsweep.records import LayoutTried, SessionBegun, TaskDone
from stormsweep.results import facts
from stormsweep.results.journal import of_kind, read
from stormsweep.study import doctor
from stormsweep.study.directory import StudyDirectory
from tests.checkpoints import kept, last, planned
from tests.marks import slow

from .conftest import MODELS, SHARED, Finished, called, digits_study, scores, stormsweep

HAIL = SHARED / "data" / "hagelslag-ssef-2015"


def test_a_study_leaves_everything_the_design_promises(digits: Path) -> None:
    assert {path.name for path in digits.iterdir()} == {
        "study.toml",
        "environment.json",
        "journal.jsonl",
        "checkpoints",
        "logs",
        "report",
    }
    assert kept(digits) == last(planned(digits)), "more is kept than a study needs to grow"
    report = digits / "report"
    assert (report / "index.html").stat().st_size > 10_000
    figures = {path.stem for path in (report / "figures").glob("*.png")}
    assert figures == {path.stem for path in (report / "figures").glob("*.pdf")}
    assert {"timeline", "training-time-batch-size"} <= figures
    assert list((report / "tables").glob("*.csv"))
    assert list((report / "tables").glob("*.tex"))
    environment = json.loads((digits / "environment.json").read_text())
    assert environment["packages"]["keras"]
    assert environment["cores"] >= 1


def test_a_study_is_for_its_owner_and_group_only(digits: Path) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in [digits, *digits.rglob("*")]}
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o027} == {}
    assert modes[digits] == 0o750
    assert {modes[digits / "journal.jsonl"], modes[digits / "logs" / "worker-0.log"]} == {0o640}


def test_a_users_own_cnn_learns_real_digits(digits: Path) -> None:
    table = Study.from_toml(digits).results()
    assert len(table) == 16
    assert table["complete"].all()
    assert table["roc_auc_mean"].iloc[0] == table["roc_auc_mean"].max()
    assert table["roc_auc_mean"].iloc[0] > 0.9


def test_results_come_in_every_format(digits: Path, tmp_path: Path) -> None:
    runs = ("--runs", digits.parent)
    table = stormsweep(tmp_path, "results", digits, *runs)
    assert table.returncode == 0
    assert "roc_auc_mean" in table.stdout
    csv = tmp_path / "results.csv"
    assert called(tmp_path, "results", digits, "--format", "csv", "-o", csv).returncode == 0
    frame = pd.read_csv(csv)
    parquet = tmp_path / "results.parquet"
    done = called(tmp_path, "results", digits, "--format", "parquet", "-o", parquet)
    assert done.returncode == 0, done.stderr
    assert list(pd.read_parquet(parquet)["roc_auc_mean"]) == list(frame["roc_auc_mean"])
    text = called(tmp_path, "results", digits, "--format", "json", "--folds").stdout
    assert len(json.loads(text)) == 32


def test_what_a_study_took_is_shown_and_adds_up(digits: Path, tmp_path: Path) -> None:
    spent = Study.from_toml(digits).account()
    entries = read(digits / "journal.jsonl")
    done, (session,) = of_kind(entries, TaskDone), of_kind(entries, SessionBegun)
    assert session.allotment["cores_per_node"] == 2
    busy = sum(task.stopped - task.started for task in done)
    assert spent.busy_seconds == pytest.approx(busy)
    assert spent.core_hours_used == pytest.approx(busy / 3600)
    assert spent.core_hours_used < spent.core_hours_granted == spent.core_hours_asked
    parts = ("busy", "lost", "travel", "waiting", "rest", "underway")
    spent_on = sum(getattr(spent, f"{part}_seconds") for part in parts)
    assert spent_on == pytest.approx(spent.worker_seconds, abs=0.01)
    assert 0.5 < spent.utilisation <= 1
    assert 0 < spent.parallel_efficiency < spent.utilisation
    assert 0 < spent.overhead_seconds < spent.wall_seconds
    assert spent.longest_chain_seconds < spent.wall_seconds
    said = called(tmp_path, "status", digits).stdout
    assert f"workers busy {100 * spent.utilisation:.0f} % of the time" in said
    assert "core-hours used of" in said
    text = called(tmp_path, "results", digits, "--what", "tasks", "--format", "csv").stdout
    frame = pd.read_csv(io.StringIO(text))
    assert len(frame) == len(done)
    assert (frame["queued"] <= frame["submitted"]).all()
    assert (frame["returned"] > frame["stopped"]).all(), "one clock, on one machine"
    for what, rows in (("workers", 2), ("sessions", 1), ("account", 1)):
        text = called(tmp_path, "results", digits, "--what", what, "--format", "json").stdout
        assert len(json.loads(text)) == rows
        assert called(tmp_path, "results", digits, "--what", what).returncode == 0
    wrong = called(tmp_path, "results", digits, "--what", "tasks", "--folds")
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1


def test_status_and_a_second_run_say_that_nothing_is_left(digits: Path, tmp_path: Path) -> None:
    before = (digits / "journal.jsonl").read_bytes()
    said = called(tmp_path, "status", digits)
    assert said.returncode == 0
    assert "finished" in said.stdout
    assert "32 of 32" in said.stdout
    again = called(tmp_path, "run", digits, "--no-report")
    assert again.returncode == 0
    assert "Nothing was left to train" in again.stdout
    assert (digits / "journal.jsonl").read_bytes() == before


def test_what_a_killed_driver_left_for_nobody_goes_also_where_nothing_is_left_to_train(
    digits: Path, tmp_path: Path
) -> None:
    """A driver that is killed when all is done, before it took its certificates away."""
    directory = tmp_path / "runs" / "digits"
    shutil.copytree(digits, directory)
    private = directory / ".private" / "0a1b2c"
    private.mkdir(parents=True)
    (private / "key.pem").write_text("secret")
    logs = directory / "logs"
    (logs / "slurm-17.out").write_text("before\n")
    (logs / ".node-17-2.err").write_text("srun: error: Node failure on n2\n")
    (logs / ".worker-n2-2-0-99.farewell.json").write_text("{}")
    done = called(tmp_path, "run", directory, "--no-report")
    assert "Nothing was left to train" in done.stdout, done.stderr
    assert not (directory / ".private").exists()
    assert (logs / "slurm-17.out").read_text() == "before\nsrun: error: Node failure on n2\n"
    assert [path.name for path in logs.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_moved_to_with_its_files(digits: Path, tmp_path: Path) -> None:
    """Losing this: scratch space is purged, a project moves, and all that was trained is void."""
    directory = tmp_path / "runs" / "digits"
    shutil.copytree(digits, directory)
    shutil.copy(MODELS, tmp_path)
    space = "batch_size = [16, 32]\nlearning_rate = [0.003, 0.01]\nepochs = [6, 12, 18, 24, 25]"
    study = digits_study(tmp_path, model=f'build = "{MODELS.name}:digits_cnn"', search__space=space)
    with np.load(tmp_path / "digits.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "digits.npz", inputs=arrays["inputs"], labels=1 - arrays["labels"])
    other = called(tmp_path, "run", study, "--no-report")
    assert (other.returncode, "the data changed since the study was begun" in other.stderr) == (
        2,
        True,
    )
    np.savez(tmp_path / "digits.npz", **arrays)
    shutil.rmtree(tmp_path / "data")

    before = scores(directory)
    done = stormsweep(tmp_path, "run", study, "--no-report")
    assert done.returncode == 0, done.stderr
    assert before.items() < scores(directory).items()
    trained = of_kind(read(directory / "journal.jsonl"), TaskDone)
    new = [task for task in trained if task.to_epoch == 25]
    assert len(new) == 8
    patches = {task.run: task.patches // 6 for task in trained if task.to_epoch == 24}
    assert {task.run: task.patches for task in new} == patches, "checkpoints were not taken up"


@pytest.mark.slow
@pytest.mark.usefixtures("no_orphans")
def test_a_layout_left_open_gives_the_same_scores_and_is_kept(digits: Path, tmp_path: Path) -> None:
    study = digits_study(tmp_path, site='workers = "auto"')
    done = stormsweep(tmp_path, "run", study, "--no-report")
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "runs" / "digits"
    entries = read(directory / "journal.jsonl")
    (found,) = of_kind(entries, LayoutTried)
    (session,) = of_kind(entries, SessionBegun)
    assert (session.workers, session.threads_per_worker) == (found.workers, found.threads)
    assert found.why in done.stderr
    if found.threads == 1:  # a trial may find another on a machine of many cores
        assert scores(directory) == scores(digits)
    cores = [tuple(task.cores) for task in of_kind(entries, TaskDone)]
    assert {task.threads for task in of_kind(entries, TaskDone)} == {found.threads}
    full = found.workers * found.threads == len(machine.allowed())
    assert all(map(bool, cores)) if full else not any(cores)
    layout = Study.from_toml(study, directory.parent).layout()
    assert layout is not None
    assert (layout.workers, layout.threads) == (found.workers, found.threads)
    planned = called(tmp_path, "plan", study)
    assert "nothing is left to train" in planned.stdout


def test_the_twin_runs_and_is_said_to_be_synthetic(twin_study: Finished) -> None:
    assert "synthetic" in twin_study.said
    described = called(twin_study.folder, "data", "describe", "twin.toml")
    assert "synthetic data from twin" in described.stdout
    assert "U10_curr" in described.stdout


def test_data_that_change_under_a_study_are_found_before_anything_is_trained_on_them(
    twin_study: Finished, tmp_path: Path
) -> None:
    journal = twin_study.copied(tmp_path) / "journal.jsonl"
    before = journal.read_bytes()
    inputs = next((tmp_path / "data" / "prepared").glob("*/train/inputs.npy"))
    raw = bytearray(inputs.read_bytes())
    raw[-1] ^= 1
    inputs.write_bytes(raw)
    refused = called(tmp_path, "run", "twin.toml")
    assert refused.returncode == 2
    assert "inputs.npy: changed since it was prepared" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert journal.read_bytes() == before


@pytest.mark.skipif(not HAIL.is_dir(), reason="the real storm tables (shared data) are not here")
def test_real_hail_storms_from_csv_to_report_with_skill_on_other_dates(tmp_path: Path) -> None:
    (tmp_path / "hail.toml").write_text(
        f'[study]\nname = "hail"\nseed = 1\n[data]\nsource = "csv"\npath = "{HAIL}"\n'
        'inputs = ["*_mean", "*_max"]\ntarget = "Hail_Size"\nthreshold = 25\nevent = ">="\n'
        'groups = {run_date = "file:(\\\\d{8})"}\ntest_from = 2015-06-02\n'
        '[model]\nbuild = "stormsweep.models:storm_dnn"\n'
        "[search.space]\nbatch_size = [32]\nlearning_rate = [0.01]\nepochs = [5, 10]\n"
        "[site]\nworkers = 1\n",
        encoding="utf-8",
    )
    done = stormsweep(tmp_path, "run", "hail.toml")
    assert done.returncode == 0, done.stderr
    table = Study.from_toml(tmp_path / "runs" / "hail").results()
    assert table["roc_auc_mean"].iloc[0] > 0.65
    began = read(tmp_path / "runs/hail/journal.jsonl")[0].record
    assert getattr(began, "data")["synthetic"] is False  # noqa: B009
    assert "synthetic" not in done.stdout
    page = (tmp_path / "runs/hail/report/index.html").read_text(encoding="utf-8")
    assert "synthetic data" not in page.lower()


def test_data_are_exported_balanced_for_other_tools(digits: Path, tmp_path: Path) -> None:
    study = digits / "study.toml"
    done = called(tmp_path, "data", "export", study, "arrays")
    assert done.returncode == 0, done.stderr
    arrays = {path.stem: np.load(path) for path in (tmp_path / "arrays").iterdir()}
    assert len(arrays) == 6
    assert arrays["train_out"].mean() < 0.2
    assert arrays["train_out_new"].mean() == 0.5
    assert arrays["train_norm_2d_new"].shape == (len(arrays["train_out_new"]), 8, 8, 1)
    assert "balance.method" not in done.stdout
    again = called(tmp_path, "data", "export", study, "arrays")
    assert again.returncode == 2
    assert again.stderr == "stormsweep: arrays: exists already; name a folder that does not\n"
    other = called(tmp_path, "data", "export", study, "files", "--format", "netcdf")
    assert other.returncode == 0, other.stderr
    assert {path.name for path in (tmp_path / "files").iterdir()} == {"train.nc", "test.nc"}
    assert "balance.method" not in other.stdout


@pytest.mark.parametrize("method", ["none", "class-weight"])
def test_an_export_without_balanced_arrays_says_why(tmp_path: Path, method: str) -> None:
    """Losing this: a script of 2019 looks for six arrays, and nobody knows why there are four."""
    study = digits_study(tmp_path, balance=f'method = "{method}"')
    done = called(tmp_path, "data", "export", study, "arrays")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "arrays").iterdir())) == 4
    assert f"No train_norm_2d_new and train_out_new: balance.method is '{method}'" in done.stdout


def test_a_report_is_drawn_anew_from_the_journal_alone(
    digits: Path, tmp_path: Path, only_sections: Callable[..., None]
) -> None:
    only_sections("answer")
    copy = tmp_path / "digits"
    shutil.copytree(digits, copy)
    shutil.rmtree(copy / "report")
    done = called(tmp_path, "report", copy)
    assert done.returncode == 0, done.stderr
    assert (copy / "report" / "index.html").is_file()


def test_init_writes_a_study_that_plans_and_refuses_to_overwrite(tmp_path: Path) -> None:
    assert called(tmp_path, "init", "mine").returncode == 0
    planned = called(tmp_path, "plan", "mine/study.toml")
    assert planned.returncode == 0
    assert "instead of" in planned.stdout
    again = called(tmp_path, "init", "mine")
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_plan_of_the_2019_study_needs_no_data(tmp_path: Path) -> None:
    study = Path(__file__).parents[2] / "studies" / "taki-2019.toml"
    said = called(tmp_path, "plan", study).stdout
    numbers = {line.split("  ")[0]: line.split()[-1] for line in said.splitlines() if line}
    assert numbers
    for words in ("configurations            54", "162", "810", "1,620"):
        assert words in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("both", [False, slow(True)])
def test_doctor_says_what_this_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    """TensorFlow is really imported; JAX, which takes as long, among the slow tests only."""
    imported = doctor._import
    if not both:
        monkeypatch.setattr(
            doctor, "_import", lambda name: (None, "") if name == "jax" else imported(name)
        )
    said = called(tmp_path, "doctor")
    names = ("Python", "cores", "memory", "instruction sets", "TensorFlow", "JAX", "Slurm", "disk")
    for name in names:
        assert f"{name} " in said.stdout
    assert "importing it, once" in said.stdout
    assert said.returncode == 0, said.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("def net(input_shape):\n    raise RuntimeError('no such layer')\n", "no such layer"),
        (
            "import keras\nLAST = keras.layers.Dense(1, 'sigmoid')\n"
            "def net():\n    return keras.Sequential([keras.layers.Flatten(), LAST])\n",
            "dense/kernel with one that it returned before",
        ),
    ],
    ids=["raises", "shares a layer"],
)
def test_a_model_that_nothing_could_be_trained_with_is_mended_and_goes_on(
    tmp_path: Path, wrong: str, words: str
) -> None:
    """Else one worker trains some folds, and what they came to keeps the file from being mended."""
    shutil.copy(MODELS, tmp_path)
    right = "from small_models import dense\ndef net(input_shape):\n    return dense(input_shape)\n"
    (tmp_path / "model.py").write_text(wrong)
    space = "batch_size = [64]\nepochs = [1]"
    model = 'build = "model.py:net"'
    study = digits_study(tmp_path, model=model, search__space=space, site="workers = 1")
    failed = stormsweep(tmp_path, "run", study, "--no-report")
    assert failed.returncode == 1, failed.stderr
    assert words in failed.stdout
    (tmp_path / "model.py").write_text(right)
    mended = stormsweep(tmp_path, "run", "runs/digits", "--retry-failed", "--no-report")
    assert mended.returncode == 0, mended.stderr
    directory = tmp_path / "runs" / "digits"
    assert len(scores(directory)) == 2
    about = facts.study(read(directory / "journal.jsonl"))
    model = tmp_path / "model.py"
    assert about.model["sha256"] == checksum(f"{model}:net", model)
    # It is the file's own if nothing beside it is imported: older studies have it on record.
    assert about.model["sha256"] != hashlib.sha256(right.encode()).hexdigest()
    kept = StudyDirectory(load_study(study), study, directory)
    with pytest.raises(JournalError, match="what was trained with it is on record"):
        kept.refuse_other_model("another")
