"""Losing this: a finished study that gets more folds trains again what it has, or mixes it up."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from stormsweep.results import facts, frames
from stormsweep.results.journal import read

from .conftest import called, digits_study, scores, stormsweep

SMALL = {
    "search__space": "batch_size = [32]\nlearning_rate = [0.003, 0.01]\nepochs = [1, 2]",
    "site": "workers = 1",
}


@pytest.mark.slow
def test_a_finished_study_gets_more_folds_and_trains_these_only(tmp_path: Path) -> None:
    study = digits_study(tmp_path, **SMALL)
    done = stormsweep(tmp_path, "run", study, "--no-report")
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "runs" / "digits"
    before = scores(directory)
    assert len(before) == 8

    digits_study(tmp_path, **SMALL, validation="folds = 2\nrounds = 2")
    planned = called(tmp_path, "plan", study)
    assert "2 x 2 folds, stratified, split anew each round" in planned.stdout
    done = stormsweep(tmp_path, "run", study, "--no-report")
    assert done.returncode == 0, done.stderr
    assert "over 2 x 2 folds" in done.stdout
    after = scores(directory)
    assert {key: after[key] for key in before} == before
    new = {run for run, _ in set(after) - set(before)}
    assert {run.rpartition("-f")[2] for run in new} == {"2", "3"}
    assert len(after) == 16
    entries = read(directory / "journal.jsonl")
    about = facts.study(entries)
    assert (about.folds, about.rounds, len(about.fold_sizes)) == (4, 2, 4)
    assert frames.configurations(entries)["complete"].all()
    assert tomllib.loads((directory / "study.toml").read_text())["validation"]["rounds"] == 2

    again = called(tmp_path, "run", study, "--no-report")
    assert again.returncode == 0, again.stderr
    assert scores(directory) == after

    for lines, said in (
        ("folds = 2", "validation.rounds was 2, is 1 (a study may only grow)"),
        ("folds = 3\nrounds = 2", "validation.folds was 2, is 3 (every split would be another; "),
    ):
        digits_study(tmp_path, **SMALL, validation=lines)
        wrong = called(tmp_path, "run", study)
        assert wrong.returncode == 2
        (line,) = wrong.stderr.splitlines()
        assert said in line


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("rounds = 0", "validation.rounds: given 0; must be"),
        ('split = "consecutive"\nrounds = 2', "validation.rounds: given 2; must be 1 with"),
    ],
)
def test_rounds_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, lines: str, said: str
) -> None:
    wrong = called(tmp_path, "plan", digits_study(tmp_path, validation=lines))
    assert wrong.returncode == 2
    (line,) = wrong.stderr.splitlines()
    assert said in line
