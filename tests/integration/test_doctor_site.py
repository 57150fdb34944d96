"""`doctor --site`: without it, what is wrong with a site is found after a night in the queue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pbs.fake import FakePbs
from tests.slurm.cluster import MiniSlurm

from .conftest import called

SITES = """
[site.mine]
scheduler = "slurm"
partition = "{partition}"
walltime = "{walltime}"
nodes = {nodes}
memory_gb = {memory}
shared_folder = "{folder}"
{more}
"""


def write(place: Path, more: str = "", **values: object) -> None:
    given = {"partition": "batch", "walltime": "01:00:00", "nodes": 1, "memory": 1}
    text = SITES.format(**given | {"folder": place} | values, more=more)
    (place / "sites.toml").write_text(text, encoding="utf-8")


def test_a_site_that_is_ready_sends_its_probe_back(slurm: MiniSlurm, tmp_path: Path) -> None:
    write(tmp_path, 'gres = "gpu:2"\nworkers_per_node = 2\nsetup = ["true # \'"]', partition="gpu")
    done = called(tmp_path, "doctor", "--site", "mine")
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "gpu: 1 of 1 nodes up, at most 04:00:00" in done.stdout
    assert re.search(
        r"ok probe job +\d+: back from n2018-2 .*\(2 by Slurm\), 1\.0 GiB, GPUs 0,1", done.stdout
    )
    assert [path.name for path in tmp_path.iterdir()] == ["sites.toml"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"partition": "bach"}, "site.mine.partition: given 'bach' (did you mean 'batch'?)"),
        ({"partition": "gpu", "walltime": "05:00:00"}, "site.mine.walltime: given 05:00:00"),
        ({"memory": 64}, "site.mine.memory_gb: given 64; the largest node"),
        ({"nodes": 3}, "site.mine.nodes: given 3; partition 'batch' has 2"),
        ({"folder": "/nowhere/at/all"}, "site.mine.shared_folder: given '/nowhere/at/all'"),
        ({"more": "setup = ['echo \"']"}, "site.mine.setup: bash cannot read it"),
    ],
)
def test_a_site_that_is_not_as_the_file_says(
    slurm: MiniSlurm, tmp_path: Path, values: dict[str, str], said: str
) -> None:
    write(tmp_path, **values)
    done = called(tmp_path, "doctor", "--site", "mine")
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert slurm.run("squeue", "--noheader") == ""


def test_a_job_that_would_only_wait_is_not_sent(slurm: MiniSlurm, tmp_path: Path) -> None:
    """Losing this: a site said to be wrong while its nodes are drained, or minutes of waiting."""
    write(tmp_path, nodes=2)
    slurm.run("scontrol", "update", "nodename=n2013-1", "state=drain", "reason=disk")
    done = called(tmp_path, "doctor", "--site", "mine")
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "ok partition         batch: 1 of 2 nodes up" in done.stdout
    gone = "1 of the 2 nodes that fit are down or drained (n2013-1)"
    assert re.search(
        rf"NO probe job +not submitted\n +jobs wait in the queue: {re.escape(gone)}", done.stdout
    )
    write(tmp_path)
    slurm.run("scontrol", "update", "partitionname=batch", "state=down")
    done = called(tmp_path, "doctor", "--site", "mine")
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "batch: down, 1 of 2 nodes up" in done.stdout
    assert "jobs wait in the queue: partition 'batch' is down" in done.stdout
    assert slurm.run("squeue", "--noheader") == ""
    assert [path.name for path in tmp_path.iterdir()] == ["sites.toml"]


def test_a_job_that_dies_says_its_last_line(slurm: MiniSlurm, tmp_path: Path) -> None:
    write(tmp_path, 'setup = ["source /nowhere/bin/activate", "true"]')
    done = called(tmp_path, "doctor", "--site", "mine")
    assert done.returncode == 1, (done.stdout, done.stderr)
    said = "stormsweep: set-up line failed (exit code 1): source /nowhere/bin/activate"
    assert f"FAILED without an answer; its last line: {said}" in done.stdout


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("hyperthreads = true", "; hyperthreads = false gets whole ones"),
        ("", "; workers_per_node x threads_per_worker should be no more"),
    ],
)
def test_hyperthreads_given_for_cores_are_named(
    slurm: MiniSlurm, tmp_path: Path, more: str, said: str
) -> None:
    """This machine's own processors are told to be of one core."""
    (tmp_path / "sitecustomize.py").write_text(
        "from stormsweep.cluster import topology\n"
        "one = topology.Topology({}, dict.fromkeys(range(4096), 0))\n"
        "topology.read_topology = lambda: one\n"
    )
    own = f'setup = ["export PYTHONPATH={tmp_path}:$PYTHONPATH"]'
    write(tmp_path, f"workers_per_node = 2\n{own}\n{more}")
    done = called(tmp_path, "doctor", "--site", "mine")
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert f"2 cores were asked for, and hyperthreads of 1 given{said}" in done.stdout


def test_a_site_beside_the_study_is_found_and_what_is_not_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    (tmp_path / "studies").mkdir()
    write(tmp_path / "studies")
    (tmp_path / "studies" / "a.toml").touch()
    done = called(tmp_path, "doctor", "studies/a.toml", "--site", "mine")
    assert "there is no Slurm here" in done.stderr
    done = called(tmp_path, "doctor", "--site", "mine")
    assert f"looked at {tmp_path}/sites.toml (not there), {tmp_path}/own/" in done.stderr
    write(tmp_path, '[site.local]\nscheduler = "slurm"')
    done = called(tmp_path, "doctor", "--site", "mine")
    assert f"{tmp_path}/sites.toml: site.local: is this machine" in done.stderr


def test_no_slurm_and_no_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no Slurm here" in called(tmp_path, "doctor", "--site", "mine").stderr
    for name in ("mime", "local"):
        done = called(tmp_path, "doctor", "--site", name)
        assert done.returncode == 2
        assert f"--site: given {name!r}" in done.stderr


PBS_SITE = """
[site.mine]
scheduler = "pbs"
partition = "{queue}"
walltime = "01:00:00"
exclusive = true
setup = ["{setup}"]
"""


@pytest.mark.parametrize(
    ("queue", "setup", "code", "said"),
    [
        ("main", "true", 0, r"ok probe job +1000\.desched1: back from .*, [12] cores \(2 by PBS\)"),
        ("main", "echo no such licence; exit 3", 1, "FAILED without an answer; its last line: no"),
        ("nowhere", "true", 2, r"site\.mine\.\*: PBS refuses it: Unknown queue"),
        ("main", "echo '", 2, r"site\.mine\.setup: bash cannot read it"),
    ],
)
def test_a_site_with_pbs_is_tried_as_far_as_pbs_tells(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    queue: str,
    setup: str,
    code: int,
    said: str,
) -> None:
    # A mock; tests/pbs/fake.py says why.
    place, work = tmp_path / "pbs", tmp_path / "work"
    place.mkdir()
    work.mkdir()
    pbs = FakePbs(place, monkeypatch)
    (work / "sites.toml").write_text(PBS_SITE.format(queue=queue, setup=setup))
    try:
        done = called(work, "doctor", "--site", "mine")
    finally:
        pbs.end()
    assert done.returncode == code, (done.stdout, done.stderr)
    assert re.search(said, done.stdout + done.stderr)
    if code < 2:
        assert re.search(r"ok PBS +PBS 20\.0\.1", done.stdout)
        assert re.search(r"ok partition +main: not checked", done.stdout)
    assert [path.name for path in work.iterdir()] == ["sites.toml"]


def test_no_pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sites.toml").write_text(PBS_SITE.format(queue="main", setup="true"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no PBS here" in called(tmp_path, "doctor", "--site", "mine").stderr
