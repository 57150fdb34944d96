"""Losing these: training lost or changed when the time of a worker or of the driver is over."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stormsweep.records import SessionEnded, TaskPaused, TaskRetried, WorkerEvent
from stormsweep.results import frames, summary
from stormsweep.results.facts import stretches
from stormsweep.results.journal import of_kind, read
from tests.checkpoints import kept, last, planned

from .conftest import called, digits_study, scores, stormsweep, tasks

pytestmark = pytest.mark.usefixtures("no_orphans")

HERE = Path(__file__).parent
#: Half of the study `digits`.
SPACE = "batch_size = [32]\nlearning_rate = [0.003, 0.01]\nepochs = [6, 12, 18]"


def drive(folder: Path, study: Path, what: str) -> tuple[int, dict[str, Any]]:
    """Have a driver work on a study whose workers are in a hurry; see hurried_driver.py."""
    done = subprocess.run(
        [sys.executable, HERE / "hurried_driver.py", study, what],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, json.loads(done.stdout or "{}")


def each_epoch_once(directory: Path, epochs: int) -> None:
    counts = Counter(
        (one.run, epoch)
        for one in stretches(read(directory / "journal.jsonl"))
        for epoch in range(one.start + 1, one.to_epoch + 1)
    )
    assert len(counts) == epochs
    assert set(counts.values()) == {1}


@pytest.mark.slow
def test_a_study_whose_time_is_over_again_and_again_ends_with_the_same_scores_and_losses(
    digits: Path, tmp_path: Path
) -> None:
    """A driver is killed before a pause is on record, one leaves; a worker dies between pauses."""
    model = f'build = "{HERE / "hurried_models.py"}:digits_cnn"'
    study = digits_study(tmp_path, model=model, search__space=SPACE)
    directory = tmp_path / "runs" / "digits"
    code, _ = drive(tmp_path, study, "die")
    assert code == -signal.SIGKILL
    assert not of_kind(read(directory / "journal.jsonl"), TaskPaused)

    code, said = drive(tmp_path, study, "leave")
    assert code == 0
    assert said["unfinished"]
    assert said["epochs"] > 0
    entries = read(directory / "journal.jsonl")
    assert of_kind(entries, SessionEnded)[-1].outcome == "walltime"
    pauses = of_kind(entries, TaskPaused)
    assert any(pause.to_epoch % 6 for pause in pauses)
    status = called(tmp_path, "status", directory).stdout
    assert "stopped; go on with: stormsweep run" in status

    (tmp_path / "die").touch()
    code, said = drive(tmp_path, study, "replace")
    assert not said["unfinished"]
    entries = read(directory / "journal.jsonl")
    assert len(of_kind(entries, TaskRetried)) == 1, "no worker died, or more than one"
    pauses = of_kind(entries, TaskPaused)
    assert any(pause.session == 1 for pause in pauses), "what the killed driver had is lost"
    events = Counter(event.event for event in of_kind(entries, WorkerEvent))
    assert events["lost"] == 1
    assert events["left"] > 0

    found, expected = scores(directory), scores(digits)
    assert len(found) == 4 * 3
    assert found == {key: expected[key] for key in found}
    losses = {(task.run, task.to_epoch): task.epoch_loss for task in tasks(digits)}
    for task in tasks(directory):
        assert task.epoch_loss == losses[task.run, task.to_epoch]
    each_epoch_once(directory, 4 * 18)
    assert kept(directory) == last(planned(directory))

    look, table = summary.summary(entries), frames.tasks(entries)
    assert look.finished
    assert look.epochs_trained == look.epochs_planned == 4 * 18
    whole = frames.tasks(read(digits / "journal.jsonl"))
    whole = whole[whole["run"].isin(table["run"]) & (whole["to_epoch"] <= 18)]
    assert table["patches"].sum() == whole["patches"].sum()
    assert table["updates"].sum() == whole["updates"].sum()
    assert stormsweep(tmp_path, "report", directory).returncode == 0


@pytest.mark.slow
def test_a_verification_is_paused_and_comes_to_the_same_model(tmp_path: Path) -> None:
    data = 'source = "npz"\npath = "digits.npz"\ntarget = "labels"\ntest_fraction = 0.2\n'
    found = {}
    for name, file in {"calm": "small_models.py", "hurried": "hurried_models.py"}.items():
        study = digits_study(
            tmp_path,
            name,
            data=data + f'cache = "{tmp_path}/data"',
            model=f'build = "{HERE / file}:digits_cnn"',
            search__space="batch_size = [32]\nlearning_rate = [0.003]\nepochs = [24]",
            site="workers = 1",
        )
        assert not drive(tmp_path, study, "replace")[1]["unfinished"]
        _, found[name] = drive(tmp_path, tmp_path / "runs" / name, "verify")
    assert found["calm"].pop("gone") == 0
    assert found["hurried"].pop("gone") > 0
    assert found["hurried"] == found["calm"]
    assert len(found["calm"]["losses"]) == 24
