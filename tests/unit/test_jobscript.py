"""Job scripts: a value that is read as something else runs what nobody asked for."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stormsweep.cluster.jobscript import (
    Order,
    command_line,
    driver_logs,
    job_script,
    pattern,
    setup_mistake,
    worker_logs,
)
from stormsweep.cluster.slurm import Slurm
from stormsweep.config.sites import Site, load_sites
from stormsweep.errors import UserError
from tests.slurm.cluster import MiniSlurm

ROOT = Path(__file__).parents[2]
#: What can be quoted, what means something to a shell or to Slurm the more often.
TEXT = st.text(
    st.one_of(
        st.sampled_from("'\"\\ $`;&|<>(){}[]*?!#~%=-,:\u00e9"),
        st.characters(exclude_categories=("Cs", "Cc")),
    ),
    min_size=1,
    max_size=30,
)


@given(st.lists(TEXT, min_size=1, max_size=5))
@settings(max_examples=200)
def test_a_command_is_read_back_as_it_was(command: list[str]) -> None:
    assert shlex.split(command_line(command)) == command


@given(st.lists(TEXT, min_size=60, max_size=60))
@settings(max_examples=5)
def test_bash_reads_a_command_back_as_it_was(arguments: list[str]) -> None:
    site = Site(scheduler="slurm", setup=["set -u"])
    text = job_script(site, Order("try", ["printf", r"%s\0", *arguments], "/tmp/o"))
    done = subprocess.run(["bash", "-s"], input=text.encode(), capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == arguments


@pytest.mark.parametrize("bad", ["a\nb", "a\0b", "a\x1bb", "a\udcffb", "a\rb"])
def test_what_no_quoting_helps_is_refused(bad: str) -> None:
    with pytest.raises(UserError):
        command_line(["echo", bad])
    with pytest.raises(UserError):
        pattern(Path("/runs") / bad)


@pytest.mark.parametrize("bad", ["echo 'a", "if true", "cat <<E", "echo \\", "}; {", "(", "a | "])
def test_setup_lines_that_would_swallow_the_command_are_told(bad: str) -> None:
    assert setup_mistake(Site(scheduler="slurm", setup=["true", bad])) is not None


def test_sound_setup_lines_are_taken() -> None:
    lines = ["export A='b; c'", "source /etc/profile # it's", "if true; then", "  :", "fi"]
    assert setup_mistake(Site(scheduler="slurm", setup=lines)) is None


def test_a_comment_in_a_setup_line_is_no_option_for_sbatch() -> None:
    site = Site(scheduler="slurm", setup=["#SBATCH --nodes=9"])
    lines = job_script(site, Order("a", ["b"], "/o")).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("true"))
    assert first < lines.index("#SBATCH --nodes=9")


def test_the_scripts_of_2019_are_met() -> None:
    site = load_sites(ROOT / "studies" / "taki-2019.toml")["taki-2018"]
    out, err = driver_logs(Path("/runs/taki/logs"), "taki-2018")
    text = job_script(site, Order("taki", ["a"], out, err, after="7", warning_s=120))
    for option in (
        "--account=pi_gobbert",
        "--partition=high_mem",
        "--qos=normal+",
        "--time=03:00:00",
        "--nodes=4",
        "--mem=49152M",
        "--constraint=hpcf2018",
        "--exclusive",
        "--cpus-per-task=36",
        "--dependency=afterany:7",
        "--signal=B:USR1@120",
        "--output=/runs/taki/logs/slurm-taki-2018.out",
        "--error=/runs/taki/logs/slurm-taki-2018.err",
    ):
        assert f"#SBATCH {option}" in text.splitlines()


@given(name=TEXT.filter(lambda text: "/" not in text and "\\" not in text), argument=TEXT)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_real_sbatch_takes_what_is_quoted(
    slurm: MiniSlurm, tmp_path: Path, name: str, argument: str
) -> None:
    site = Site(scheduler="slurm", partition="high_mem", walltime="00:10:00", memory_gb=1)
    order = Order("try", ["echo", argument], worker_logs(tmp_path / name))
    assert "to start at" in Slurm().test_only(job_script(site, order), tmp_path)


def test_a_log_lies_where_a_name_of_odd_marks_says(slurm: MiniSlurm, tmp_path: Path) -> None:
    site = Site(scheduler="slurm", walltime="00:10:00")
    folders = [tmp_path / name for name in ("a b'c", '50% "j" %j', "$HOME;id", "#x é")]
    ids = {}
    for folder in folders:
        folder.mkdir()
        order = Order("try", ["echo", folder.name], worker_logs(folder))
        ids[folder] = Slurm().submit(job_script(site, order), tmp_path)
    until = time.monotonic() + 60
    while set(Slurm().states(ids.values()).values()) != {"COMPLETED"}:
        assert time.monotonic() < until, (Slurm().jobs(ids.values()), slurm.logs())
        time.sleep(0.1)
    for folder, id in ids.items():
        log = folder / f"slurm-{id}.out"
        assert log.read_text(encoding="utf-8") == f"{folder.name}\n"
    assert {path.name for path in tmp_path.iterdir()} == {folder.name for folder in folders}
