"""`submit`: a study that a cluster's walltimes cut into jobs must end as if there were none."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stormsweep.cluster.slurm import Slurm
from stormsweep.study.directory import study_key
from tests.slurm.cluster import MiniSlurm

from .conftest import called, digits_study, stormsweep, tasks

SITES = """
[site.mine]
scheduler = "slurm"
partition = "{partition}"
walltime = "{walltime}"
nodes = {nodes}
memory_gb = {memory}
workers_per_node = {workers}
{more}
"""
#: One run of a fold, one task: the smallest that there is.
TINY = {"search__space": "batch_size = [32]\nepochs = [2]"}


def write_site(place: Path, more: str = "", **values: object) -> None:
    given = {"partition": "batch", "walltime": "00:20:00", "nodes": 1, "memory": 2, "workers": 1}
    (place / "sites.toml").write_text(SITES.format(**given | values, more=more), encoding="utf-8")


def submit(folder: Path, study: Path | str, *more: str) -> str:
    """Submit a study to the site and return the job's number."""
    done = called(folder, "submit", study, "--site", "mine", *more)
    assert done.returncode == 0, (done.stdout, done.stderr)
    found = re.match(r"Job (\d+) on mine: Job \d+ to start at", done.stdout)
    assert found is not None, done.stdout
    return found[1]


def queue(slurm: MiniSlurm) -> dict[str, str]:
    """Return what is in the queue: number and state."""
    lines = slurm.run("squeue", "--noheader", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def until(true: Callable[[], bool], directory: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, said(directory)
        time.sleep(0.1)


def said(directory: Path) -> str:
    """Return all that the study's jobs said."""
    return "".join(
        f"--- {file.name}\n{file.read_text(errors='replace')}"
        for file in sorted((directory / "logs").glob("*"))
        if file.name.startswith(("slurm-", "driver"))
    )


def test_a_study_is_done_and_leaves_nothing_in_the_queue(slurm: MiniSlurm, tmp_path: Path) -> None:
    write_site(tmp_path)
    job = submit(tmp_path, digits_study(tmp_path, **TINY))
    directory = tmp_path / "runs" / "digits"
    until(lambda: not queue(slurm), directory)
    assert len(tasks(directory)) == 2, said(directory)
    assert (directory / "report" / "index.html").exists()
    jobs = Slurm().jobs_of(study_key(directory))
    assert sorted(one.state for one in jobs.values()) == ["CANCELLED", "COMPLETED"]
    log = (directory / "logs" / "slurm-mine.out").read_text()
    assert f"job {job}, number 1 of at most 100, on n2013-" in log
    assert "Best: " in log
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ", x) for x in log.splitlines())
