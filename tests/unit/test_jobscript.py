"""Job scripts: a value that is read as something else runs what nobody asked for."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stormsweep.cluster.jobscript import (
    Order,
    command_line,
    driver_logs,
    environment_told,
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


def test_a_command_is_told_what_its_job_began_with() -> None:
    """Losing this: set-up lines run on top of themselves in every job of a chain."""
    site = Site(scheduler="slurm", setup=["set -eu", "export A=2 C=3", "unset B", "wait"])
    saying = "import sys; print(sys.stdin.read(), repr(dict(__import__('os').environ)), sep='\\n')"
    order = Order("try", [sys.executable, "-c", saying], "/tmp/o", environment=True)
    # More than a pipe takes at once; values of several lines, as exported functions are.
    before = os.environ | {"A": "1", "B": "x=y\n}", "LARGE": "x" * 100_000}
    script = ["bash", "-c", job_script(site, order)]
    done = subprocess.run(script, env=before, capture_output=True, text=True, timeout=60)
    told, _, now = done.stdout.partition("\n")
    own = {"_", "SHLVL"}  # Of bash.
    found = environment_told(told.encode())
    assert {k: v for k, v in found.items() if k not in own} == {
        k: v for k, v in before.items() if k not in own
    }
    mine = ast.literal_eval(now)
    assert (mine["A"], mine["C"], "B" in mine) == ("2", "3", False)
    assert not any("stormsweep_" in name for name in mine)
    for cut in ("", "####", told[:-5], told[:-8]):
        assert environment_told(cut.encode()) == {}


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
        "--hint=nomultithread",
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


#: What stands where a site's names do, line breaks and quotes the more often.
WILD = st.text(
    st.one_of(
        st.sampled_from("'\"\\ $`;&|<>(){}[]*?!#~%=-,:+@._/\t\n\r\0\x1b\u2028\u00e9aZ7"),
        st.characters(exclude_categories=("Cs",)),
    ),
    min_size=1,
    max_size=20,
)
#: And what may stand there, so that both are tried.
TAME = st.text("abZ7_.-+@:,=&|*()[]", min_size=1, max_size=12)
NAMES = ("account", "partition", "qos", "gres", "constraint")


def options(script: str) -> list[str]:
    """Return the names of the options in the lines that sbatch reads them from."""
    lines = script.splitlines()
    asked = itertools.takewhile(lambda line: not line or line.startswith("#"), lines)
    return [line.partition("=")[0] for line in asked if line.startswith("#SBATCH")]


@given(key=st.sampled_from(NAMES), value=WILD | TAME)
@settings(max_examples=300)
def test_a_name_of_any_marks_is_refused_or_one_value_of_one_option(key: str, value: str) -> None:
    try:
        site = Site.model_validate({"scheduler": "slurm", key: value})
    except ValidationError:
        return
    text = job_script(site, Order("try", ["a"], "/o"))
    plain = Site.model_validate({"scheduler": "slurm", key: "x"})
    assert options(text) == options(job_script(plain, Order("try", ["a"], "/o")))
    (line,) = [line for line in text.splitlines() if line.startswith(f"#SBATCH --{key}=")]
    given = line.partition("=")[2]
    assert shlex.split(given) == [value]
    assert not re.search(r"[^\x21-\x7e]", value), "what Slurm may read otherwise"


@given(account=WILD | TAME)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_account_of_any_marks_does_the_real_sbatch_no_harm(
    slurm: MiniSlurm, tmp_path: Path, account: str
) -> None:
    try:
        site = Site(scheduler="slurm", account=account, walltime="00:10:00")
    except ValidationError:
        return
    said = Slurm().test_only(job_script(site, Order("try", ["true"], "/o")), tmp_path)
    assert "to start at" in said
    assert "using 1 processors" in said


@pytest.mark.parametrize("account", ["a", "uni-bonn_4711@hpc", "UABC0001.x+y"])
def test_accounts_as_clusters_have_them_are_taken(
    slurm: MiniSlurm, tmp_path: Path, account: str
) -> None:
    site = Site(scheduler="slurm", account=account, walltime="00:10:00")
    assert "to start at" in Slurm().test_only(job_script(site, Order("try", ["a"], "/o")), tmp_path)


#: Shell lines that do nothing but be read: no letters of commands, nothing in the background.
LINES = st.lists(
    st.text(st.sampled_from("'\"\\ $#;|<é\u2028\u00a0ab\n%{}`!"), max_size=12).map(
        lambda text: f": {text}"
    ),
    min_size=1,
    max_size=3,
)


@given(lines=LINES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_set_up_lines_are_refused_or_end_the_job_or_leave_the_command_alone(
    tmp_path: Path, lines: list[str]
) -> None:
    try:
        site = Site(scheduler="slurm", setup=lines)
    except ValidationError:
        assert any("\n" in line for line in lines)
        return
    if setup_mistake(site) is not None:
        return
    text = job_script(site, Order("try", ["printf", "%s", "it's done; $HOME"], "/o"))
    done = subprocess.run(
        ["bash"], input=text.encode(), cwd=tmp_path, capture_output=True, timeout=20
    )
    if done.returncode:
        assert b"stormsweep: set-up line failed" in done.stderr, (lines, done.stderr)
        return
    assert done.stdout == b"it's done; $HOME", (lines, done.stderr)


@pytest.mark.parametrize(
    ("line", "goes_on"),
    [
        ("source /nowhere/bin/activate", False),
        ("conda-that-is-not-there activate storm", False),
        ("[ -d /nowhere ] && cd /nowhere", True),
        ("ulimit -s nonsense || true", True),
        # As the start files of modules and conda are written: what fails inside is their affair.
        ("a() { false; true; }; a", True),
        ("source ./benign", True),
    ],
)
def test_a_job_does_not_train_after_a_set_up_line_that_failed(
    tmp_path: Path, line: str, goes_on: bool
) -> None:
    (tmp_path / "benign").write_text("false\ntrue\n")
    text = job_script(Site(scheduler="slurm", setup=[line, "true"]), Order("try", ["id"], "/o"))
    (tmp_path / "script").write_text(text)
    done = subprocess.run(["bash", "script"], cwd=tmp_path, capture_output=True, text=True)
    assert bool(done.stdout) == goes_on, done.stderr
    if not goes_on:
        assert done.stderr.splitlines()[-1].endswith(f": {line}")


@given(lines=LINES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_set_up_lines_ask_the_real_sbatch_for_nothing(
    slurm: MiniSlurm, tmp_path: Path, lines: list[str]
) -> None:
    wild = ["#SBATCH --nodes=2", *lines, "#SBATCH --cpus-per-task=2"]
    try:
        site = Site(scheduler="slurm", walltime="00:10:00", setup=wild)
    except ValidationError:
        return
    said = Slurm().test_only(job_script(site, Order("try", ["true"], "/o")), tmp_path)
    assert "using 1 processors" in said


@pytest.mark.parametrize(
    "line",
    [
        "export A='b; c'",
        'export A="it\'s"',
        "export A=größe B=\u96e8",
        "a() { echo \"$1;\"; }; a 'x y'",
        "true; true # it's",
        "cd 'a folder' || true",
    ],
)
def test_set_up_lines_as_people_write_them_reach_the_real_job(
    slurm: MiniSlurm, tmp_path: Path, line: str
) -> None:
    (tmp_path / "a folder").mkdir()
    site = Site(scheduler="slurm", walltime="00:10:00", setup=[line])
    assert setup_mistake(site) is None
    order = Order("try", ["touch", str(tmp_path / "it's done")], str(tmp_path / "log"))
    id = Slurm().submit(job_script(site, order), tmp_path)
    until = time.monotonic() + 60
    while Slurm().states([id]) != {id: "COMPLETED"}:
        assert time.monotonic() < until, (Slurm().jobs([id]), slurm.logs())
        time.sleep(0.1)
    assert (tmp_path / "it's done").exists()


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
