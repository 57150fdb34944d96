"""Losing these: halving that trains epochs twice, and replays that no study bears out."""

from __future__ import annotations

from pathlib import Path

import pytest

from stormsweep import Study
from stormsweep.records import Proposed, TaskDone
from stormsweep.results.journal import of_kind
from stormsweep.scaling.replay import Answers, replay
from stormsweep.search.strategies import make

from .conftest import digits_study

SPACE = "batch_size = [16, 32, 64]\nlearning_rate = [0.0003, 0.003, 0.03]\nepochs = [1, 2, 4]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "folds"), [("asha", None), ("asha", 1), ("halving", 1), ("hyperband", None)]
)
def test_a_study_does_what_its_replay_says(
    tmp_path_factory: pytest.TempPathFactory, strategy: str, folds: int | None
) -> None:
    """The same proposals in the same order, the same scores to the bit, the same training."""
    folder = tmp_path_factory.getbasetemp() / "halving"
    folder.mkdir(exist_ok=True)
    changes = {"search__space": SPACE, "site": "workers = 1"}
    grid = _done(digits_study(folder, "grid", **changes))
    keys = f'strategy = "{strategy}"\ntrials = 9\n' + (f"first_folds = {folds}" if folds else "")
    study = _done(digits_study(folder, f"{strategy}-{folds}", search=keys, **changes))
    entries, file = study.entries(), study.file
    fresh = make(file.search, dict(file.model.parameters), 2, file.study.seed)
    told = replay(fresh, Answers.of(grid.entries()))
    assert [(p.trial, p.epochs, p.folds) for p in of_kind(entries, Proposed)] == [
        (outcome.trial, outcome.epochs, outcome.folds) for outcome in told.outcomes
    ]
    tasks = of_kind(entries, TaskDone)
    assert sum(task.to_epoch - task.from_epoch for task in tasks) == told.training
    scores = {(task.run, task.to_epoch): task.scores for task in tasks}
    known = {(task.run, task.to_epoch): task.scores for task in of_kind(grid.entries(), TaskDone)}
    assert scores == {key: known[key] for key in scores}
    assert told.training < Answers.of(grid.entries()).training


def _done(path: Path) -> Study:
    study = Study.from_toml(path, runs=path.parent / "runs")
    outcome = study.run()
    assert not outcome.failed
    assert not outcome.unfinished
    return study
