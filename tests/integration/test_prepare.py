"""Losing these: an hour of reading storm files to a Ctrl-C, a full disk or a killed process."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import psutil
import pytest

from stormsweep.config.study import DataTable
from stormsweep.data.prepared import PreparedData
from stormsweep.storms import find_runs, prepare_storms, synthesize
from stormsweep.storms.patches import count_patches

from .conftest import called, environment, family, gone, wait_for

RUNS = 18
#: As many processes read as asked for, however few the patches, and slowly enough, where it is to
#: be struck, to be struck in the midst of it.
SCRIPT = """
import os
import sys
import time

from stormsweep.cli import main
from stormsweep.cluster import machine
from stormsweep.data import writer
from stormsweep.storms import staging


def slowly(function):
    def slow(*arguments):
        time.sleep(float(os.environ.get("PAUSE", "0.06")))
        return function(*arguments)

    return slow


staging._write = slowly(staging._write)
writer.standardized = slowly(writer.standardized)
staging._WORTH = 1
machine.cores = lambda: {cores}

if __name__ == "__main__":
    sys.argv[1:] = ["data", "prepare", "study.toml"]
    main()
"""


@pytest.fixture(scope="module")
def storms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storms") / "twin"
    synthesize(folder, 600, 11)
    return folder


@pytest.fixture(scope="module")
def whole(storms: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The arrays as one process prepares them in one go."""
    config = DataTable(source="ncar-storms", path=storms, threshold=0.003)
    data = prepare_storms(config, 0, tmp_path_factory.mktemp("whole") / "prepared")
    return arrays(data.path)


def arrays(folder: Path) -> dict[str, bytes]:
    PreparedData.open(folder).verify()
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.npy")
    }


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Every session of processes that a test began is empty when the test is over."""
    _sessions.clear()
    yield
    left = [process for process in psutil.process_iter() if _session(process) in _sessions]
    assert gone(left) == [], "processes were left behind"


_sessions: set[int] = set()


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return -1


@pytest.fixture
def place(storms: Path, tmp_path: Path) -> Path:
    """A folder with a study of the storms and a script that prepares it with two processes."""
    (tmp_path / "study.toml").write_text(
        f'[study]\nname = "s"\n[data]\nsource = "ncar-storms"\npath = "{storms}"\n'
        'threshold = 0.003\ncache = "data"\n[search.space]\nepochs = [1]\n'
    )
    for cores in (1, 2):
        (tmp_path / f"prepare{cores}.py").write_text(SCRIPT.format(cores=cores))
    return tmp_path


def begin(place: Path, cores: int, **changes: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, f"prepare{cores}.py"],
        cwd=place,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    _sessions.add(process.pid)
    return process


def ended(place: Path, cores: int = 2) -> Path:
    """Prepare to the end; return the folder, nothing of the work beside it."""
    process = begin(place, cores, PAUSE="0")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.startswith("Prepared: ")
    folder = Path(out.split(": ", 1)[1].strip())
    assert sorted(folder.parent.iterdir()) == [folder]
    return folder


def pieces(place: Path) -> dict[str, int]:
    """Whole pieces, and when each was written."""
    found = (place / "data" / "prepared").glob(".*.pieces/*/piece.json")
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in found
        if not path.parent.name.startswith(".")
    }


def _at_least(place: Path, count: int) -> bool:
    return len(pieces(place)) >= count


def test_what_is_killed_and_taken_up_again_is_the_same(
    place: Path, whole: dict[str, bytes]
) -> None:
    chance = random.Random(4)
    kept: dict[str, int] = {}
    for kill in range(3):
        process = begin(place, 1 + kill % 2)
        # At any moment of the reading; the last while the arrays are written.
        more = chance.randint(1, 3)
        if kill < 2:
            wait_for(partial(_at_least, place, len(kept) + more), process)
        else:
            wait_for(
                lambda: any((place / "data" / "prepared").glob(".*.partial/*/inputs.npy")), process
            )
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert gone(children) == [], "reading processes outlived the one that started them"
        assert not list((place / "data" / "prepared").glob("[!.]*")), "something half is in place"
        now = pieces(place)
        assert now.items() >= kept.items(), "a whole piece was read again"
        kept = now
    assert len(kept) == RUNS
    assert arrays(ended(place, 1)) == whole


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_read(place: Path, whole: dict[str, bytes]) -> None:
    process = begin(place, 2)
    wait_for(partial(_at_least, place, 3), process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    last = "stormsweep: interrupted; go on with: stormsweep data prepare study.toml"
    assert err.strip().splitlines()[-1] == last
    assert 3 <= len(pieces(place)) < RUNS
    assert arrays(ended(place, 1)) == whole


def test_a_reading_process_that_dies_is_one_line_and_what_is_read_is_kept(
    place: Path, whole: dict[str, bytes]
) -> None:
    process = begin(place, 2)
    wait_for(partial(_at_least, place, 2), process)
    family(process)[0].kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    (line,) = (line for line in err.splitlines() if line.startswith("stormsweep: "))
    assert "a process that reads storm files ended unexpectedly" in line
    assert f"of {RUNS} runs are kept, and the same command goes on from there" in line
    assert "Traceback" not in err
    assert len(pieces(place)) >= 2
    assert arrays(ended(place, 1)) == whole


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_is_read_is_kept(
    storms: Path, place: Path, whole: dict[str, bytes]
) -> None:
    """A limit on the size of files stands in for the disk: writing fails in the same place."""
    sizes = sorted(count_patches(run.patches) * 4096 * 3 for run in find_runs(storms))
    limit = (sizes[len(sizes) // 2] + sizes[len(sizes) // 2 - 1]) // 2
    done = subprocess.run(
        [sys.executable, "prepare2.py"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("stormsweep: "))
    assert "cannot be written (File too large)" in line
    assert f"of {RUNS} runs are kept" in line
    assert "Traceback" not in done.stderr
    assert not list((place / "data" / "prepared").glob("[!.]*"))
    kept = pieces(place)
    assert arrays(ended(place)) == whole
    assert len(kept) < RUNS


def test_pieces_of_files_that_changed_are_read_again(
    storms: Path, place: Path, whole: dict[str, bytes]
) -> None:
    shutil.copytree(storms, place / "own")
    (place / "own" / "twin.json").unlink()
    text = (place / "study.toml").read_text()
    (place / "study.toml").write_text(text.replace(str(storms), "own"))
    process = begin(place, 1)
    wait_for(partial(_at_least, place, 3), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    first, second = (run.table for run in find_runs(place / "own")[:2])
    os.utime(first, ns=(1, 1))  # another time, the same content
    rows = pd.read_csv(second)
    rows["RVORT1_MAX-future_max"] = 0.0
    rows.to_csv(second, index=False)
    data = PreparedData.open(ended(place, 1))
    targets = data.part("train").targets
    counts = [count_patches(run.patches) for run in find_runs(storms)]
    before = np.frombuffer(whole["train/targets.npy"][-targets.nbytes :], dtype="f4").copy()
    before[counts[0] : counts[0] + counts[1]] = 0
    assert np.array_equal(targets, before)


def test_the_command_line_counts_what_is_left_out_and_refuses_what_is_unfit(
    storms: Path, place: Path
) -> None:
    shutil.copytree(storms, place / "own")
    (place / "own" / "twin.json").unlink()
    study = place / "study.toml"
    text = study.read_text().replace(str(storms), "own")
    study.write_text(text)
    first = find_runs(place / "own")[0]
    with netCDF4.Dataset(first.patches, "a") as file:
        file["U10_curr"][3:5] = np.nan
    refused = called(place, "data", "prepare", "study.toml")
    assert refused.returncode == 2
    (line,) = (line for line in refused.stderr.splitlines() if line.startswith("stormsweep: "))
    assert f"{first.patches.name}: U10_curr has 2048 missing or not finite values" in line
    assert not list((place / "data" / "prepared").iterdir()), "something is left"

    study.write_text(text.replace("threshold", 'missing = "drop"\nthreshold'))
    described = called(place, "data", "describe", "study.toml")
    assert described.returncode == 0, described.stderr
    (train,) = (line for line in described.stdout.splitlines() if line.startswith("train"))
    dates = {run.date.year < 2015: 0 for run in find_runs(storms)}
    for run in find_runs(storms):
        dates[run.date.year < 2015] += count_patches(run.patches)
    assert f"{dates[True] - 2:,} cases" in train
    assert f"2 of {dates[True]:,} left out: missing values" in train


def test_two_at_once_are_told_apart(place: Path, whole: dict[str, bytes]) -> None:
    process = begin(place, 2)
    wait_for(partial(_at_least, place, 1), process)
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        second = called(place, "data", "prepare", "study.toml")
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    assert second.returncode == 2
    assert "another process is preparing these data; wait for it" in second.stderr
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert arrays(Path(out.split(": ", 1)[1].strip())) == whole, "two prepare otherwise than one"
