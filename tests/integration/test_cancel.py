"""`cancel`, `status` and `watch` of a driver that has not recorded anything yet.

Losing these: a study that was said to be ended and trains on; one that waits in the queue for hours
and answers to no command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stormsweep.cluster.machine import host
from stormsweep.cluster.slurm import Slurm
from stormsweep.study import jobs, lock
from stormsweep.study.directory import study_key
from stormsweep.study.lock import driver_of
from tests.slurm.cluster import MiniSlurm

from .conftest import called, digits_study, gone, start, wait_for

SITE = """
[site.two]
scheduler = "slurm"
partition = "batch"
walltime = "00:10:00"
memory_gb = 2
"""


def test_a_driver_that_a_script_started_in_the_background_ends(
    tmp_path: Path, no_orphans: None
) -> None:
    """Shells have such processes ignore SIGINT."""
    digits_study(tmp_path)
    line = f"{sys.executable} -m stormsweep run digits.toml > said 2>&1 &\n"
    subprocess.run(["bash"], input=line, text=True, cwd=tmp_path, check=True)
    directory, end = tmp_path / "runs" / "digits", time.monotonic() + 60
    while (driver := driver_of(directory)) is None or not (directory / "study.toml").exists():
        assert time.monotonic() < end, (tmp_path / "said").read_text()
        time.sleep(0.02)
    status = called(tmp_path, "status", "runs/digits")
    assert f"digits: starting: process {driver['pid']} on " in status.stdout, status.stderr
    second = called(tmp_path, "run", "digits.toml")
    assert "wait for it, or end it with `stormsweep cancel runs/digits`" in second.stderr
    process = psutil.Process(driver["pid"])
    done = called(tmp_path, "cancel", "runs/digits")
    assert done.returncode == 0, done.stderr
    said = f"process {process.pid} on this machine, the driver: interrupted"
    assert done.stdout.splitlines()[0] == said
    assert driver_of(directory) is None
    assert gone([process]) == []
    assert "go on with: stormsweep run digits.toml" in (tmp_path / "said").read_text()


def test_a_study_that_waits_in_the_queue_answers_and_says_where_it_goes_on(
    tmp_path: Path, slurm: MiniSlurm
) -> None:
    (tmp_path / "sites.toml").write_text(SITE, encoding="utf-8")
    slurm.run("sbatch", "-N2", "--exclusive", "-t5", "-o/dev/null", "--wrap=sleep 300")
    given = [digits_study(tmp_path), "--site", "two", "--nodes", "1:2"]
    driver = start(tmp_path, "run", *given)
    directory = tmp_path / "runs" / "digits"

    def waits() -> bool:
        jobs = Slurm().jobs_of(study_key(directory))
        return any(job.state == "PENDING" for job in jobs.values())

    wait_for(waits, driver)
    status = called(tmp_path, "status", "runs/digits")
    assert f"digits: starting: process {driver.pid} on " in status.stdout, status.stderr
    assert " PENDING (" in status.stdout
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    told = called(tmp_path, "status", "runs/digits").stdout
    assert "go on with: stormsweep run runs/digits --site two --nodes 1:2" in told
    again = start(tmp_path, "run", "runs/digits", "--site", "two", "--nodes", "1:2")
    wait_for(lambda: (driver_of(directory) or {}).get("pid") == again.pid, again)
    done = called(tmp_path, "cancel", "runs/digits")
    assert done.returncode == 0, done.stderr
    assert not waits()
    assert "go on with: stormsweep run runs/digits --site two --nodes 1:2" in again.communicate()[1]


@pytest.mark.slow
def test_a_driver_on_another_login_node_ends_and_none_of_its_jobs_is_asked_for_again(
    tmp_path: Path, slurm: MiniSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: the work of all nodes since their last milestones, and nothing is ended."""
    (tmp_path / "sites.toml").write_text(SITE, encoding="utf-8")
    driver = start(tmp_path, "run", digits_study(tmp_path), "--site", "two", "--nodes", "2")
    directory = tmp_path / "runs" / "digits"

    def states() -> list[str]:
        return [job.state for job in Slurm().jobs_of(study_key(directory)).values()]

    wait_for(lambda: states() == ["RUNNING"] * 2, driver)
    with monkeypatch.context() as elsewhere:
        for module in (jobs, lock):
            elsewhere.setattr(module, "host", lambda: "login2")
        done = called(tmp_path, "cancel", "runs/digits")
    assert done.returncode == 0, done.stderr
    assert f"process {driver.pid} on {host()}, the driver: interrupted" in done.stdout
    said = driver.communicate()[1]
    assert driver.returncode == 130, said
    assert "stormsweep: interrupted; " in said
    assert len(states()) == 2
    assert not {"PENDING", "RUNNING"} & set(states()), states()
    assert not (directory / "stop.json").exists()
