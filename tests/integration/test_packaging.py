"""What is handed out. Losing this: an install that lacks a file, or brings the workshop along."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDIES = {f"studies/{path.name}" for path in (ROOT / "studies").glob("*.toml")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both distributions, by the locked build tool."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def sources() -> set[str]:
    """Every file of the package, as git would have it."""
    return {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "stormsweep").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_the_examples_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    facts = {name for name in names if ".dist-info/" in name}
    shared = {name for name in names if ".data/" in name}
    assert names - facts - shared == sources()
    assert {name.partition("/data/share/stormsweep/")[2] for name in shared} == STUDIES
    # Types, templates of the report, the published numbers: what is easily forgotten.
    assert {
        "stormsweep/py.typed",
        "stormsweep/report/templates/page.html",
        "stormsweep/scaling/published/umbc-2019.toml",
    } <= names
    assert "studies/sites.toml" in STUDIES
    assert sum(info.compress_size for info in wheel.infolist()) < 3_000_000


def test_the_sdist_holds_what_builds_the_wheel_and_no_workshop(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    about = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    build = {"pyproject.toml", "PKG-INFO", ".gitignore"}  # hatchling brings the last by itself
    assert names == {f"src/{name}" for name in sources()} | STUDIES | about | build


def test_the_facts_name_extras_and_the_command(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    facts = Parser().parsestr(wheel.read(metadata).decode())
    extras = set(facts.get_all("Provides-Extra") or [])
    assert {"gpu", "docs", "benchmarks", "mlflow", "tensorboard", "zarr"} <= extras
    assert "Typing :: Typed" in (facts.get_all("Classifier") or [])
    assert facts["Requires-Python"] == "<3.14,>=3.11"
    assert facts["License-Expression"] == "MIT"
    (entries,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "stormsweep = stormsweep.cli:main" in wheel.read(entries).decode()


def test_the_package_of_the_wheel_works_as_a_module(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}

    def python(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    where = python("-c", "import stormsweep; print(stormsweep.__file__)").strip()
    assert Path(where).is_relative_to(tmp_path / "installed")
    assert python("-m", "stormsweep", "--version").startswith("stormsweep ")
    python("-m", "stormsweep", "init", "mine")
    assert "configurations" in python("-m", "stormsweep", "plan", "mine/study.toml")
