"""Searches through the command line that learn, and studies that grow.

Losing these: trials proposed or trained twice after a kill, scores that depend on when a study was
asked for, work done again that is on record.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from stormsweep import Study
from stormsweep.cluster import machine
from stormsweep.files import sha256
from stormsweep.models.source import check_source
from stormsweep.records import Proposed, SearchEnded, StudyBegun, TaskDone
from stormsweep.results.journal import JournalWriter, of_kind, read
from tests.journals import carried_out

from .conftest import called, digits_study, family, gone, scores, start, stormsweep, tasks, wait_for

RANGES = "batch_size = [32]\nlearning_rate = {low = 1e-4, high = 0.1, log = true}\nepochs = [1, 2]"


def proposals(directory: Path) -> list[tuple[int, int, int]]:
    found = of_kind(read(directory / "journal.jsonl"), Proposed)
    return [(one.trial, one.epochs, one.folds) for one in found]


def by_structure(directory: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Return the scores by structure, fold and epoch, whichever run they are of."""
    return {(run.partition(".")[0], at): found for (run, at), found in scores(directory).items()}


@pytest.mark.slow
def test_a_search_whose_driver_is_killed_goes_on_with_the_trials_it_had(tmp_path: Path) -> None:
    study = digits_study(
        tmp_path,
        search='strategy = "asha"\ntrials = 6\nfirst_folds = 1\nreduction = 2',
        search__space=RANGES,
        site="workers = 1",
    )
    directory = tmp_path / "runs" / "digits"
    shown = called(tmp_path, "plan", study)
    assert "trials                     6   at most" in shown.stdout
    driver = start(tmp_path, "run", study)
    wait_for(lambda: (directory / "journal.jsonl").is_file() and len(tasks(directory)) > 2, driver)
    workers = family(driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    assert not gone(workers)
    before = proposals(directory)
    assert called(tmp_path, "verify", directory).returncode == 2, "half a search was verified"
    done = stormsweep(tmp_path, "run", "--no-report", directory)
    assert done.returncode == 0, done.stderr
    after = proposals(directory)
    assert after[: len(before)] == before
    assert len(after) == len(set(after)), "proposed twice"
    assert {trial for trial, _, _ in after} == set(range(6))
    assert any(epochs == 2 and folds == 2 for _, epochs, folds in after), "none went to the end"
    trained = [(task.run, task.to_epoch) for task in tasks(directory)]
    assert len(trained) == len(set(trained)), "trained twice"
    assert len(trained) < 6 * 2 * 2, "nothing was left out"
    assert len(of_kind(read(directory / "journal.jsonl"), SearchEnded)) == 1
    assert "finished" in called(tmp_path, "status", directory).stdout
    again = called(tmp_path, "run", directory, "--no-report")
    assert again.returncode == 0
    assert proposals(directory) == after


def test_a_plan_says_how_many_known_points_are_of_the_space(tmp_path: Path) -> None:
    """Losing this: a search begins cold, because a hyperparameter has another name there."""
    lines = [
        {"hyperparameters": {"batch_size": 32, "learning_rate": 0.01}, "epochs": 2},
        {"hyperparameters": {"batch_size": 32, "learning_rate": 0.01}, "epochs": 3},
        {"hyperparameters": {"batch_size": 32, "lr": 0.01}, "epochs": 2},
    ]
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for strategy, inside in (("tpe", 1), ("asha", 2)):
        search = f'strategy = "{strategy}"\nknown = "known.jsonl"'
        study = digits_study(tmp_path, strategy, search=search, search__space=RANGES)
        said = called(tmp_path, "plan", study).stdout
        assert f"known points               3   {inside} of them in the space" in said


def test_a_plan_says_why_no_known_point_is_of_the_space(tmp_path: Path) -> None:
    """Losing this: a search begins cold, and nobody knows what to do about it."""
    said = {}
    for name, point in (
        ("renamed", {"batch": 32, "lr": 0.01}),
        ("outside", {"batch_size": 512, "learning_rate": 0.01}),
    ):
        line = json.dumps({"hyperparameters": point, "epochs": 2}) + "\n"
        (tmp_path / f"{name}.jsonl").write_text(2 * line)
        search = f'strategy = "asha"\nknown = "{name}.jsonl"'
        study = digits_study(tmp_path, name, search=search, search__space=RANGES)
        said[name] = called(tmp_path, "plan", study).stdout
        assert "known points               2   0 of them in the space" in said[name]
    assert (
        "batch_size is missing in all of them, learning_rate is missing in all of them; batch, lr "
        "are no hyperparameters of this study (import them anew: stormsweep import SOURCE --rename "
        "batch=batch_size --rename lr=learning_rate)"
    ) in said["renamed"]
    assert "batch_size: 512 in all of them; the space has " in said["outside"]
    done = called(
        *(tmp_path, "import", "renamed.jsonl", "--rename", "batch=batch_size"),
        *("--rename", "lr=learning_rate", "-o", "ours.jsonl"),
    )
    assert done.returncode == 0, done.stderr
    study = tmp_path / "renamed.toml"
    study.write_text(study.read_text().replace("renamed.jsonl", "ours.jsonl"))
    assert "2 of them in the space" in called(tmp_path, "plan", study).stdout


@pytest.mark.parametrize("strategy", ["asha", "grid"])
def test_a_plan_of_a_study_that_grew_says_how_long_the_rest_takes(
    tmp_path: Path, strategy: str
) -> None:
    """Losing this: "nothing is left to train", where `run` then trains for hours."""
    source = check_source("stormsweep.models:storm_cnn", ["batch_size", "learning_rate", "epochs"])
    assert source is not None
    text = (
        '[study]\nname = "grown"\n[data]\nsource = "twin"\n'
        f'[search]\nstrategy = "{strategy}"\n[search.space]\nbatch_size = [16, 32, 64]\n'
        "learning_rate = [0.003, 0.01, 0.03]\nepochs = [1, 3, 9]\n"
        "[site]\nworkers = 1\nthreads_per_worker = 1\n"
    )
    file, directory = tmp_path / "mine.toml", tmp_path / "runs" / "grown"
    directory.mkdir(parents=True)
    for path in (file, directory / "study.toml"):
        path.write_text(text)
    model = {"build": "stormsweep.models:storm_cnn", "sha256": sha256(source)}
    with JournalWriter(directory / "journal.jsonl") as out:
        out.write(carried_out(Study.from_toml(file).file, model=model))
    told = {"session": 1, "processor": machine.processor(), "precision": "float32", "packing": True}
    (directory / "environment.json").write_text(json.dumps(told))
    entries = carried_out(Study.from_toml(file).file)
    trained = sum(one.to_epoch - one.from_epoch for one in of_kind(entries, TaskDone))
    done = called(tmp_path, "plan", file)
    assert "\ntime: nothing is left to train\n" in done.stdout, (done.stdout, done.stderr)
    assert f"\nepochs on record {trained:>11}   nothing is left to train\n" in done.stdout
    runs = tmp_path / "runs"
    assert Study.from_toml(file, runs).again() == [directory]
    file.write_text(text.replace("[1, 3, 9]", "[1, 3, 9, 18]"))
    # Until it runs, only its own file has what it has grown to.
    assert Study.from_toml(file, runs).again() == [file, "--runs", runs]
    done = called(tmp_path, "plan", file)
    # Of the grid all 27 runs go on for 9 epochs; of asha those that are the best so far.
    left = "243, of 27 runs, are" if strategy == "grid" else r"about \d+, of \d+ runs, are"
    assert re.search(rf"\nepochs on record {trained:>11}   {left} left to train\n", done.stdout)
    assert re.search(
        r"\ntime: \S+ (s|min|h) .*, from \d+ runs of runs/grown on this kind of machine\n",
        done.stdout,
    ), (
        done.stdout,
        done.stderr,
    )


@pytest.mark.slow
def test_a_study_that_grows_trains_what_is_new_and_scores_as_one_that_was_whole(
    tmp_path: Path,
) -> None:
    def study(rates: str, epochs: str, name: str = "digits", search: str = "") -> Path:
        space = f"batch_size = [32]\nlearning_rate = {rates}\nepochs = {epochs}"
        return digits_study(tmp_path, name, search=search, search__space=space)

    directory = tmp_path / "runs" / "digits"
    assert stormsweep(tmp_path, "run", "--no-report", study("[0.01]", "[2]")).returncode == 0
    assert (
        stormsweep(tmp_path, "run", "--no-report", study("[0.01, 0.03]", "[1, 2, 3]")).returncode
        == 0
    )
    spans = [(task.run, task.from_epoch, task.to_epoch) for task in tasks(directory)]
    assert len(spans) == len(set(spans))
    first = {run for run, _, epoch in spans[:2] if epoch == 2}
    for run in first:
        # From the checkpoint on; and what nobody scored on the way, from the start.
        assert {span[1:] for span in spans if span[0] == run} == {(0, 2), (2, 3)}
        assert {span[1:] for span in spans if span[0] == f"{run}.1"} == {(0, 1)}
    assert (directory / "study.1.toml").is_file()
    whole = study("[0.01, 0.03]", "[1, 2, 3]", "whole")
    assert stormsweep(tmp_path, "run", "--no-report", whole).returncode == 0
    assert by_structure(directory) == by_structure(tmp_path / "runs" / "whole")

    # What would take something away is one line, and changes nothing.
    before = (directory / "study.toml").read_bytes()
    lost = called(tmp_path, "run", study("[0.03]", "[1, 2, 3]"))
    assert lost.returncode == 2
    assert "search.space.learning_rate was [0.01, 0.03], is [0.03]" in lost.stderr
    assert "a study may only grow" in lost.stderr
    assert len(lost.stderr.strip().splitlines()) == 1
    assert (directory / "study.toml").read_bytes() == before


@pytest.mark.slow
def test_results_show_what_no_other_configuration_beats_in_both_scores(tmp_path: Path) -> None:
    search = 'strategy = "nsga2"\ntrials = 3\nobjectives = ["roc_auc", "brier_score"]'
    space = RANGES.replace("[1, 2]", "[1]")
    study = digits_study(tmp_path, search=search, search__space=space)
    done = stormsweep(tmp_path, "run", "--no-report", study)
    assert done.returncode == 0, done.stderr
    header, *rows = called(tmp_path, "results", study).stdout.splitlines()
    columns = header.split()
    assert {"front", "roc_auc_mean", "brier_score_mean"} <= set(columns)
    assert "loss_mean" not in columns
    # Who is best in one of them is beaten by nobody.
    assert len(rows) == 3
    assert rows[0].split()[columns.index("front")] == "True"


@pytest.mark.slow
def test_a_strategy_that_takes_over_knows_what_the_grid_has(tmp_path: Path) -> None:
    def study(rates: str, search: str = "") -> Path:
        space = f"batch_size = [32]\nlearning_rate = {rates}\nepochs = [1, 2]"
        return digits_study(tmp_path, search=search, search__space=space)

    directory = tmp_path / "runs" / "digits"
    assert stormsweep(tmp_path, "run", "--no-report", study("[0.01, 0.03]")).returncode == 0
    grown = study("{low = 0.01, high = 0.1}", 'strategy = "tpe"\ntrials = 3')
    done = stormsweep(tmp_path, "run", "--no-report", grown)
    assert done.returncode == 0, done.stderr
    entries = read(directory / "journal.jsonl")
    assert [begun.strategy for begun in of_kind(entries, StudyBegun)] == ["grid", "tpe"]
    assert len({trial for trial, _, _ in proposals(directory)}) == 3
    trained = [(task.run, task.to_epoch) for task in tasks(directory)]
    assert len(trained) == len(set(trained))
    lost = called(
        tmp_path, "run", study("{low = 0.02, high = 0.1}", 'strategy = "tpe"\ntrials = 3')
    )
    assert lost.returncode == 2
    assert "search.space.learning_rate was" in lost.stderr


@pytest.mark.slow
def test_what_an_earlier_study_knows_is_told_to_a_search_and_kept_with_it(tmp_path: Path) -> None:
    earlier = digits_study(
        tmp_path,
        "earlier",
        search__space="batch_size = [32]\nlearning_rate = [0.001, 0.01]\nepochs = [1]",
    )
    assert stormsweep(tmp_path, "run", "--no-report", earlier).returncode == 0
    study = digits_study(
        tmp_path,
        search=f'strategy = "tpe"\ntrials = 2\nknown = "{tmp_path}/runs/earlier"',
        search__space=RANGES,
    )
    done = stormsweep(tmp_path, "run", "--no-report", study)
    assert done.returncode == 0, done.stderr
    kept = (tmp_path / "runs" / "digits" / "known.jsonl").read_text().splitlines()
    assert len(kept) == 2
    missing = digits_study(
        tmp_path,
        "missing",
        search='strategy = "tpe"\nknown = "nowhere.jsonl"',
        search__space=RANGES,
    )
    wrong = called(tmp_path, "run", missing)
    assert wrong.returncode == 2
    assert "nowhere.jsonl" in wrong.stderr
    assert len(wrong.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs" / "missing").exists()
