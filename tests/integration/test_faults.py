"""Losing these: hours of training, to a Ctrl-C, a kill or one bad configuration."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from stormsweep.records import RunFailed, TaskRetried, WorkerEvent
from stormsweep.results.journal import of_kind, read
from stormsweep.results.summary import summary

from .conftest import (
    MODELS,
    called,
    digits_study,
    family,
    gone,
    scores,
    start,
    stormsweep,
    tasks,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("no_orphans")

#: Half of the study `digits`.
SPACE = "batch_size = [16]\nlearning_rate = [0.003, 0.01]\nepochs = {}"


def _more_tasks(directory: Path, than: int) -> bool:
    return len(tasks(directory)) > than


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_study_stopped_again_and_again_ends_with_the_same_scores(
    digits: Path, tmp_path: Path, kills: int
) -> None:
    """Its driver is killed, then interrupted, then one of its workers is killed.

    Ten kills strike in more places than one, and take two minutes; for one, half of the study does.
    """
    half = {"search__space": SPACE.format("[6, 12, 18, 24]")}
    study = digits_study(tmp_path, **(half if kills == 1 else {}))
    directory, shared = tmp_path / "runs" / "digits", scores(digits)
    chance = random.Random(20190522)
    for kill in range(kills):
        # The number of workers may change from session to session.
        workers = "2" if kill in (3, 6) else "1"
        before = len(tasks(directory))
        process = start(tmp_path, "run", study, "--no-report", "--workers", workers)
        # Half of the kills strike at any moment, from start-up on; half right after a result.
        # None comes later than a second result, or a fast machine would be done before the tenth.
        if kill % 2:
            end, most = time.monotonic() + chance.uniform(0.5, 9), before
        else:
            wait_for(partial(_more_tasks, directory, before), process)
            end, most = time.monotonic() + chance.uniform(0, 0.3), before + 1
        while time.monotonic() < end and not _more_tasks(directory, most):
            time.sleep(0.01)
        children = family(process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert gone(children) == [], "workers outlived their driver"
    assert 0 < len(tasks(directory)) < (16 if kills == 1 else 32)

    kept = _interrupted(start(tmp_path, "run", study, "--no-report"), directory)
    status = called(tmp_path, "status", directory)
    assert "stopped; go on with: stormsweep run" in status.stdout

    process = start(tmp_path, "run", "runs/digits", "--no-report")
    wait_for(partial(_more_tasks, directory, kept), process)
    family(process)[0].kill()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    events = of_kind(read(directory / "journal.jsonl"), WorkerEvent)
    assert [event.event for event in events].count("lost") == 1
    found = scores(directory)
    assert len(found) == (16 if kills == 1 else 32)
    assert found == {key: shared[key] for key in found}


def _interrupted(process: subprocess.Popen[str], directory: Path) -> int:
    """Press Ctrl-C after a result; return how many were kept."""
    before = len(tasks(directory))
    wait_for(partial(_more_tasks, directory, before), process)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    last = stderr.strip().splitlines()[-1]
    assert "interrupted" in last
    assert last.endswith("stormsweep run runs/digits")
    assert "Traceback" not in stderr
    kept = len(tasks(directory))
    assert kept > before
    return kept


def test_each_bad_configuration_is_one_failed_run_and_the_others_finish(tmp_path: Path) -> None:
    study = digits_study(
        tmp_path,
        model=f'build = "{MODELS}:troubled"',
        search__space='trouble = ["none", "raise", "diverge", "memory", "kill"]\nepochs = [1, 2]',
        site="workers = 2\nmemory_gb = 1.5",
    )
    done = stormsweep(tmp_path, "run", study, "--no-report")
    assert done.returncode == 1, done.stderr
    directory = tmp_path / "runs" / "digits"
    entries = read(directory / "journal.jsonl")
    failures = of_kind(entries, RunFailed)
    # Those that cost a worker its life strike in one fold only: the other one is trained.
    kinds = sorted(failure.failure for failure in failures)
    assert kinds == sorted(["error", "diverged"] * 2 + ["out-of-memory", "killed"])
    reasons = {failure.failure: failure.reason for failure in failures}
    assert "this builder always raises" in reasons["error"]
    assert "loss is" in reasons["diverged"]
    assert "allowed are 1.50 GiB" in reasons["out-of-memory"]
    assert "died" in reasons["killed"]
    for failure in failures:
        assert failure.run in done.stdout
    assert len(scores(directory)) == 8  # four runs of two milestones
    assert len(of_kind(entries, TaskRetried)) >= 2
    again = called(tmp_path, "run", study, "--no-report")
    assert again.returncode == 1
    assert "Nothing was left to train" in again.stdout
    # What a constraint shuts out failed for nobody any more: there is no other way to be rid of it.
    digits_study(
        tmp_path,
        model=f'build = "{MODELS}:troubled"',
        search="constraints = [\"trouble == 'none'\"]",
        search__space='trouble = ["none", "raise", "diverge", "memory", "kill"]\nepochs = [1, 2]',
        site="workers = 2\nmemory_gb = 1.5",
    )
    shut_out = called(tmp_path, "run", study, "--no-report")
    assert shut_out.returncode == 0, shut_out.stdout + shut_out.stderr
    look = summary(read(directory / "journal.jsonl"))
    assert (look.finished, look.runs_failed) == (True, 0)


class Alone(NamedTuple):
    """A study that one worker trained, and what others were told while it did."""

    directory: Path
    driver: int
    errors: str
    refused: subprocess.CompletedProcess[str]
    status: str


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """The digits by one worker, with one number of epochs: nothing is shared."""
    folder = tmp_path_factory.mktemp("alone")
    study = digits_study(folder, search__space=SPACE.format("[24]"), site="workers = 1")
    directory = folder / "runs" / "digits"
    process = start(folder, "run", study, "--no-report")
    wait_for(partial(_more_tasks, directory, 0), process)
    refused = called(folder, "run", study)
    status = called(folder, "status", directory).stdout
    workers = family(process)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert gone(workers) == [], "workers outlived their driver"
    return Alone(directory, process.pid, errors, refused, status)


def test_one_worker_and_separate_epochs_give_the_scores_of_two_workers_and_shared_ones_to_the_bit(
    alone: Alone, digits: Path
) -> None:
    """Sharing passed three milestones on the way to these epochs."""
    found, shared = scores(alone.directory), scores(digits)
    assert len(found) == 4
    assert found == {key: shared[key] for key in found}
    assert "distributed" not in alone.errors, "Dask's own messages reached the terminal"


def test_a_second_driver_is_refused_by_name(alone: Alone) -> None:
    assert alone.refused.returncode == 2
    assert f"process {alone.driver} on" in alone.refused.stderr
    assert "last sign of life" in alone.refused.stderr
    assert f"running: process {alone.driver}" in alone.status
