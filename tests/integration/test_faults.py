"""Losing these: hours of training, to a Ctrl-C, a kill or one bad configuration."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from stormsweep.records import RunFailed, TaskRetried, WorkerEvent
from stormsweep.results.journal import of_kind, read

from .conftest import MODELS, digits_study, family, gone, scores, start, stormsweep, tasks, wait_for

pytestmark = pytest.mark.usefixtures("no_orphans")


def _more_tasks(directory: Path, than: int) -> bool:
    return len(tasks(directory)) > than


def test_a_driver_killed_at_ten_random_instants_ends_with_the_same_scores(
    digits: Path, tmp_path: Path
) -> None:
    study, directory = digits_study(tmp_path), tmp_path / "runs" / "digits"
    chance = random.Random(20190522)
    for kill in range(10):
        # The number of workers may change from session to session.
        workers = "2" if kill in (3, 6) else "1"
        before = len(tasks(directory))
        process = start(tmp_path, "run", study, "--no-report", "--workers", workers)
        # Half of the kills strike at any moment, from start-up on; half right after a result.
        # None comes later than two results, or a fast machine would be done before the tenth.
        if kill % 2:
            wait_for(partial(_more_tasks, directory, before), process)
            end = time.monotonic() + chance.uniform(0, 0.3)
        else:
            end = time.monotonic() + chance.uniform(0.5, 9)
        while time.monotonic() < end and not _more_tasks(directory, before + 1):
            time.sleep(0.01)
        children = family(process)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert gone(children) == [], "workers outlived their driver"
    assert 0 < len(tasks(directory)) < len(tasks(digits))
    ended = stormsweep(tmp_path, "run", study, "--no-report")
    assert ended.returncode == 0, ended.stderr
    assert scores(directory) == scores(digits)


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(digits: Path, tmp_path: Path) -> None:
    study, directory = digits_study(tmp_path), tmp_path / "runs" / "digits"
    process = start(tmp_path, "run", study, "--no-report")
    wait_for(lambda: len(tasks(directory)) >= 3, process)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    last = stderr.strip().splitlines()[-1]
    assert "interrupted" in last
    assert last.endswith("stormsweep run runs/digits")
    assert "Traceback" not in stderr
    kept = len(tasks(directory))
    assert kept >= 3
    status = stormsweep(tmp_path, "status", directory)
    assert "stopped; go on with: stormsweep run" in status.stdout
    ended = stormsweep(tmp_path, "run", "runs/digits", "--no-report")
    assert ended.returncode == 0, ended.stderr
    assert scores(directory) == scores(digits)


def test_a_killed_worker_costs_nothing_but_time(digits: Path, tmp_path: Path) -> None:
    study, directory = digits_study(tmp_path), tmp_path / "runs" / "digits"
    process = start(tmp_path, "run", study, "--no-report")
    wait_for(lambda: len(tasks(directory)) >= 2, process)
    family(process)[0].kill()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert scores(directory) == scores(digits)
    events = of_kind(read(directory / "journal.jsonl"), WorkerEvent)
    assert [event.event for event in events].count("lost") == 1


def test_each_bad_configuration_is_one_failed_run_and_the_others_finish(tmp_path: Path) -> None:
    study = digits_study(
        tmp_path,
        model=f'build = "{MODELS}:troubled"',
        search__space='trouble = ["none", "raise", "diverge", "memory", "kill"]\nepochs = [1, 2]',
        site="workers = 2\nmemory_gb = 1.5",
    )
    done = stormsweep(tmp_path, "run", study)
    assert done.returncode == 1, done.stderr
    directory = tmp_path / "runs" / "digits"
    entries = read(directory / "journal.jsonl")
    failures = of_kind(entries, RunFailed)
    kinds = sorted(failure.failure for failure in failures)
    assert kinds == sorted(["error", "diverged", "out-of-memory", "killed"] * 2)
    reasons = {failure.failure: failure.reason for failure in failures}
    assert "this builder always raises" in reasons["error"]
    assert "loss is" in reasons["diverged"]
    assert "allowed are 1.50 GiB" in reasons["out-of-memory"]
    assert "died" in reasons["killed"]
    for failure in failures:
        assert failure.run in done.stdout
    assert len(scores(directory)) == 4  # the sound one: two folds, two milestones
    assert len(of_kind(entries, TaskRetried)) >= 2
    html = (directory / "report" / "index.html").read_text()
    assert "this builder always raises" in html
    again = stormsweep(tmp_path, "run", study)
    assert again.returncode == 1
    assert "Nothing was left to train" in again.stdout


def test_a_second_driver_is_refused_by_name(tmp_path: Path) -> None:
    study, directory = digits_study(tmp_path), tmp_path / "runs" / "digits"
    process = start(tmp_path, "run", study, "--no-report", "--workers", "1")
    wait_for(lambda: len(tasks(directory)) >= 1, process)
    second = stormsweep(tmp_path, "run", study)
    assert second.returncode == 2
    assert f"process {process.pid} on" in second.stderr
    assert "last sign of life" in second.stderr
    running = stormsweep(tmp_path, "status", directory)
    assert f"running: process {process.pid}" in running.stdout
    process.communicate(timeout=300)
    assert process.returncode == 0
