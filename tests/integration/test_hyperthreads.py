"""Losing this: on nodes with hyperthreads a study pays for all cores and computes on half of them.

On a real Slurm, whose nodes have two cores of two threads each, as far as it knows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stormsweep.cluster.commands import wait
from stormsweep.cluster.jobscript import Order, job_script
from stormsweep.cluster.partitions import misfit
from stormsweep.cluster.slurm import Slurm
from stormsweep.config.sites import Site
from tests.slurm.cluster import MiniSlurm, why_not

pytestmark = pytest.mark.cluster

#: A driver's job: it starts a node's step, which says what it has, as does the job.
JOB = """
import sys, time
from pathlib import Path
from stormsweep.study.staff import _memory_of_the_job
from stormsweep.cluster.launchers import StepLauncher, own_job
launcher = StepLauncher(*own_job(), int(sys.argv[1]), Path(sys.argv[2]))
says = "scontrol show job $SLURM_JOB_ID; scontrol show step $SLURM_JOB_ID.$SLURM_STEP_ID; "
launcher.start("1", ["bash", "-c", says + 'echo "hint=$SLURM_HINT per task=$SLURM_CPUS_PER_TASK"'])
while not (ended := launcher.ended()):
    time.sleep(0.1)
print(ended, f"memory={_memory_of_the_job() * 1024:.0f}M")
"""


@pytest.fixture(scope="module")
def hyperthreads() -> Iterator[MiniSlurm]:
    reason = why_not()
    if reason is not None:
        pytest.skip(f"no Slurm can be started here: {reason}")
    with MiniSlurm(threads=2) as cluster:
        yield cluster


@pytest.mark.parametrize("taken", [False, True])
def test_a_core_is_a_core_for_jobs_and_steps_unless_hyperthreads_are_taken_for_cores(
    hyperthreads: MiniSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(hyperthreads.conf))
    (tmp_path / "job.py").write_text(JOB)
    site = Site(scheduler="slurm", workers_per_node=2, walltime="5", hyperthreads=taken)
    command = [sys.executable, str(tmp_path / "job.py"), "2", str(tmp_path)]
    commands = Slurm()
    assert misfit(site, commands.partitions()) is None
    order = Order("cores", command, f"{tmp_path}/slurm-%j.out")
    id = commands.submit(job_script(site, order), tmp_path)
    over = wait(lambda: commands.jobs([id])[id].over, 60)
    said = (tmp_path / f"slurm-{id}.out").read_text()
    assert over, said
    assert commands.jobs([id])[id].state == "COMPLETED", said
    # Two cores are four threads; two threads are one core.
    count = 2 if taken else 4
    assert f"NumCPUs={count} " in said
    assert f" CPUs={count} Tasks=1 Name=node-1 " in said
    assert f"hint={'' if taken else 'nomultithread'} per task=2" in said
    assert "srun: " not in said
    # Of each processor that the job may use, whichever way they are counted.
    assert "mem=2000M,node=1" in said
    assert "memory=2000M" in said


def test_more_workers_than_cores_are_refused_with_what_would_take_them(
    hyperthreads: MiniSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(hyperthreads.conf))
    partitions = Slurm().partitions()
    site = Site(scheduler="slurm", workers_per_node=3)
    assert misfit(site, partitions) == (
        "workers_per_node",
        "given 3 x 1 threads = 3; the largest node of partition 'batch' has 2 "
        "(4 with hyperthreads = true)",
    )
    assert misfit(site.model_copy(update={"hyperthreads": True}), partitions) is None
