"""The Tab key, pressed in a real bash. Losing these: names of studies and sites typed by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = shutil.which("bash")
SITES = '[site.fast]\nscheduler = "slurm"\n[site.far]\nscheduler = "slurm"\n'
#: Packages that take tenths of a second to import, or seconds.
SLOW = {
    *("numpy", "scipy", "pandas", "xarray", "pyarrow", "sklearn", "imblearn", "matplotlib"),
    *("tensorflow", "keras", "jax", "distributed", "dask", "bokeh", "optuna", "netCDF4"),
}

pytestmark = pytest.mark.skipif(BASH is None, reason="there is no bash here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with studies and sites, and `stormsweep` on the path."""
    for name in ("taki-2018", "taki-2019", "quick start"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "study.toml").touch()
    (tmp_path / "runs" / "compare-a-b").mkdir()  # no study
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "quickstart.toml").touch()
    (tmp_path / "studies" / "sites.toml").write_text(SITES)
    (tmp_path / "mine.toml").touch()
    program = tmp_path / ".bin" / "stormsweep"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom stormsweep.cli import main\nmain()\n")
    program.chmod(0o755)
    return tmp_path


_SHOWN: list[str] = []


def shown(folder: Path) -> str:
    """Return the script that a user's shell would read; it is the same from every folder."""
    if not _SHOWN:
        assert BASH is not None
        # Which shell it is called from is asked of the processes above it.
        called = f"'{folder / '.bin' / 'stormsweep'}' --show-completion bash; true"
        _SHOWN.append(subprocess.check_output([BASH, "--norc", "-c", called], text=True))
        assert "complete" in _SHOWN[0]
    return _SHOWN[0]


def tab(folder: Path, *words: str) -> list[str]:
    """Return what bash offers for the last word, by the script that `--show-completion` prints."""
    typed = ["stormsweep", *words]
    quoted = " ".join(f"'{word}'" for word in typed)
    script = (
        f'eval "$SHOWN"; COMP_WORDS=({quoted}); '
        f"COMP_CWORD={len(words)}; _stormsweep_completion stormsweep; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert BASH is not None
    path = f"{folder / '.bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [BASH, "--norc", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path, "HOME": str(folder), "SHOWN": shown(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_commands_and_options_are_offered(folder: Path) -> None:
    assert {"results", "report", "run"} <= set(tab(folder, "r"))
    assert tab(folder, "simu") == ["simulate"]
    assert tab(folder, "data", "desc") == ["describe"]
    assert "--retry-failed" in tab(folder, "run", "--re")
    assert tab(folder, "results", "--format", "c") == ["csv"]


def test_studies_on_record_and_study_files_are_offered(folder: Path) -> None:
    assert tab(folder, "status", "runs/taki") == ["runs/taki-2018", "runs/taki-2019"]
    assert tab(folder, "watch", "r") == ["runs/quick start", "runs/taki-2018", "runs/taki-2019"]
    assert tab(folder, "plan", "m") == ["mine.toml"]
    assert tab(folder, "run", "studies/") == ["studies/quickstart.toml"]
    assert tab(folder, "compare", "runs/taki-2018", "runs/taki-2019", "mi") == ["mine.toml"]
    assert tab(folder, "verify", "no-such") == [""]


def test_sites_are_offered_that_the_study_knows(folder: Path) -> None:
    assert tab(folder, "submit", "studies/quickstart.toml", "--site", "f") == ["far", "fast"]
    assert tab(folder, "submit", "mine.toml", "--site", "") == ["local"]
    (folder / "studies" / "sites.toml").write_text("[site.fast\n")
    assert tab(folder, "run", "studies/quickstart.toml", "--site", "") == ["local"]


def test_the_answer_comes_before_anything_slow_is_loaded(folder: Path) -> None:
    """A Tab key that takes seconds is not pressed twice; what takes them is what is imported."""
    done = subprocess.run(
        [folder / ".bin" / "stormsweep"],
        cwd=folder,
        env=os.environ
        | {
            "_STORMSWEEP_COMPLETE": "complete_bash",
            "COMP_WORDS": "stormsweep status runs/ta",
            "COMP_CWORD": "2",
            "PYTHONPROFILEIMPORTTIME": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["runs/taki-2018", "runs/taki-2019"]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "stormsweep.cli" in loaded
    assert {name.partition(".")[0] for name in loaded}.isdisjoint(SLOW)


def test_it_installs_itself(folder: Path) -> None:
    done = subprocess.run(
        [folder / ".bin" / "stormsweep", "--install-completion", "bash"],
        cwd=folder,
        env=os.environ | {"HOME": str(folder), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "stormsweep" in (folder / ".bashrc").read_text()
    assert (folder / ".bash_completions" / "stormsweep.sh").is_file()
