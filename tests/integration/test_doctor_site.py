"""`doctor --site`: without it, what is wrong with a site is found after a night in the queue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
        r"ok probe job +\d+: back from n2018-2 .*\(2 by Slurm\).*GPUs 0,1", done.stdout
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


def test_a_job_that_dies_says_its_last_line(slurm: MiniSlurm, tmp_path: Path) -> None:
    write(tmp_path, 'setup = ["echo no such licence; exit 3"]')
    done = called(tmp_path, "doctor", "--site", "mine")
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "FAILED without an answer; its last line: no such licence" in done.stdout


def test_no_slurm_and_no_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no Slurm here" in called(tmp_path, "doctor", "--site", "mine").stderr
    for name in ("mime", "local"):
        done = called(tmp_path, "doctor", "--site", name)
        assert done.returncode == 2
        assert f"--site: given {name!r}" in done.stderr
