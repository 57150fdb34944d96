"""Losing this: a night's download, to a closed laptop; or a data folder that nobody can trust."""

from __future__ import annotations

import signal
import tarfile
from pathlib import Path

import pytest

from stormsweep.storms import find_runs, synthesize
from tests.archive_server import FOLDERS, NAMES, Site, header, packed, serving, tar_of

from .conftest import called, start, wait_for

PATCHES = NAMES[1]
STUDY = """
[study]
name = "real"
[data]
source = "ncar-storms"
path = "data/ncar-storms"
inputs = ["REFL_COM_curr", "U10_curr", "V10_curr"]
target = "RVORT1_MAX_future"
threshold = 0.003
test_from = 2015-01-01
[model]
build = "stormsweep.models:storm_cnn"
[search.space]
epochs = [1]
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Both archives, of a small twin: without its ``twin.json`` it reads as real files do."""
    folder = tmp_path_factory.mktemp("storms") / "twin"
    synthesize(folder, 300, 5)
    return packed(folder)


def stop_in_the_middle(folder: Path, site: Site, number: signal.Signals) -> tuple[int, str]:
    """Start a download, stop it by a signal when half of the patches came; return how it ended."""
    site.holds = {PATCHES: len(site.files[PATCHES]) // 2}
    process = start(folder, "data", "fetch", "--from", site.base)
    half = folder / "data" / "ncar-storms" / f"{PATCHES}.part"
    wait_for(lambda: half.exists() and half.stat().st_size > 1_000_000, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    site.holds = {}
    return process.returncode, errors


def test_killed_in_the_middle_the_same_command_goes_on_and_the_storms_can_be_used(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    folder = tmp_path / "data" / "ncar-storms"
    (tmp_path / "real.toml").write_text(STUDY)
    missing = called(tmp_path, "data", "describe", "real.toml")
    assert missing.returncode == 2
    assert f"fetch them with: stormsweep data fetch {folder}" in missing.stderr
    assert not folder.exists()

    with serving(files=archives) as site:
        code, _ = stop_in_the_middle(tmp_path, site, signal.SIGKILL)
        assert code == -signal.SIGKILL
        had = (folder / f"{PATCHES}.part").stat().st_size
        assert not (folder / FOLDERS[1]).exists()
        done = called(tmp_path, "data", "fetch", "--from", site.base)
        assert done.returncode == 0, done.stderr
        first, second = site.gets(PATCHES)
        assert second.headers["range"] == f"bytes={had}-"
        assert second.sent == len(archives[PATCHES]) - had < first.sent + had
        assert len(site.gets(NAMES[0])) == 1, "the tables were whole already"
    assert {path.name for path in folder.iterdir()} == {*NAMES, *FOLDERS, "archives.json"}
    assert f"{len(find_runs(folder))} of the archive's 100 runs" in done.stdout

    # The server is gone: nothing more is asked of anybody.
    again = called(tmp_path, "data", "fetch")
    assert "Nothing was left to fetch" in again.stdout, again.stderr

    described = called(tmp_path, "data", "describe", "real.toml")
    assert described.returncode == 0, described.stderr
    assert "real data from ncar-storms" in described.stdout
    assert f"in {folder}" in described.stdout
    assert "the test part is run_date 2015-01-01 and later" in described.stdout


def test_ctrl_c_keeps_what_came_and_says_how_to_go_on(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    with serving(files=archives) as site:
        code, errors = stop_in_the_middle(tmp_path, site, signal.SIGINT)
        assert code == 130
        last = errors.splitlines()[-1]
        assert last.startswith("stormsweep: interrupted; 1.")
        assert f"of {PATCHES} are kept" in last
        assert last.endswith(f"go on with: stormsweep data fetch --from {site.base}")
        assert "Traceback" not in errors
        assert called(tmp_path, "data", "fetch", "--from", site.base).returncode == 0
        assert site.gets(PATCHES)[-1].status == 206


def test_an_evil_archive_is_one_line_and_leaves_nothing(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    evil = tar_of(header(f"{FOLDERS[0]}/out", tarfile.SYMTYPE, "../../.."))
    with serving(files=archives | {NAMES[0]: evil}) as site:
        done = called(tmp_path, "data", "fetch", "storms", "--from", site.base)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("stormsweep: ")]
    assert len(lines) == 1, done.stderr
    assert "is a symbolic link; only plain files and folders under" in lines[0]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
