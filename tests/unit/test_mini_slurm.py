"""The Slurm that tests and contributors run: losing it leaves daemons behind, or proves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm import cluster, processes
from tests.slurm.cluster import MiniSlurm

ROOT = Path(__file__).parents[2]


def test_a_job_runs_on_two_nodes_and_gets_the_gpus_it_asks_for(slurm: MiniSlurm) -> None:
    nodes = slurm.run("srun", "-N2", "-l", "printenv", "SLURMD_NODENAME")
    assert sorted(line.split(": ")[1] for line in nodes.splitlines()) == ["n2013-1", "n2013-2"]
    gpus = slurm.run("srun", "-p", "gpu", "--gres=gpu:1", "printenv", "CUDA_VISIBLE_DEVICES")
    assert gpus.strip() == "0"


def test_a_controller_that_is_restarted_takes_up_its_jobs(slurm: MiniSlurm) -> None:
    id = slurm.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 300").strip()
    until = time.monotonic() + 30
    while "RUNNING" not in slurm.run("squeue", "-h", "-j", id, "-o", "%T"):
        assert time.monotonic() < until, slurm.logs()
        time.sleep(0.05)
    slurm.kill("slurmctld", signal.SIGTERM)
    slurm.start_slurmctld()
    assert slurm.run("squeue", "-h", "-j", id, "-o", "%T").strip() == "RUNNING"


def test_ctrl_c_and_kill_leave_neither_processes_nor_files(slurm: MiniSlurm) -> None:
    # Beside the one at work, which must not be touched.
    for stop in (signal.SIGINT, signal.SIGKILL):
        made = subprocess.Popen(
            [sys.executable, "-m", "tests.slurm"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert made.stdout is not None
        said = next(line for line in made.stdout if "export SLURM_CONF=" in line)
        conf = said.strip().partition("=")[2]
        folder = Path(conf).parent
        subprocess.run(
            ["sbatch", "--output=/dev/null", "--wrap", "sleep 300 & sleep 300"],
            env=os.environ | {"SLURM_CONF": conf},
            check=True,
            capture_output=True,
        )
        assert len(processes.of_cluster(folder)) >= 6
        made.send_signal(stop)
        assert made.wait(30) == (-9 if stop == signal.SIGKILL else 0)
        if stop == signal.SIGKILL:
            cluster.sweep()
        assert processes.of_cluster(folder) == set()
        assert not folder.exists()
    assert slurm.run("sinfo", "-h", "-p", "batch", "-o", "%D %T").strip() == "2 idle"


def test_a_daemon_that_does_not_start_is_shown_with_its_log(
    slurm: MiniSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = cluster._CONFIGURATION.replace("SelectType=select/cons_tres", "SelectType=select/none")
    monkeypatch.setattr(cluster, "_CONFIGURATION", broken)
    failing = MiniSlurm()
    with pytest.raises(cluster.SlurmFailedError, match=r"(?s)slurmctld ended.*select/none"):
        failing.start()
    assert not failing.folder.exists()
    assert slurm.conf.exists()


def test_one_line_says_why_it_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(cluster, "_which", lambda program: f"/usr/sbin/{program}")
    assert cluster.why_not() == "Slurm's daemons need root"
    monkeypatch.setattr(cluster, "_which", lambda program: None if program == "munged" else "x")
    assert cluster.why_not() == "not installed: munged (Debian: apt install slurm-wlm munge)"
