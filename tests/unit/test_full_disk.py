"""Losing this: a full disk ends hours of work in a traceback about HDF, or leaves half a file.

A limit on the size of files stands in for the disk: writing fails in the same place.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stormsweep import files
from stormsweep.data.probabilities import ProbabilityWriter
from stormsweep.errors import DataError
from tests.marks import slow

BEGIN = """
import resource, sys
from pathlib import Path
import numpy as np
from stormsweep import files
from stormsweep.data.export import export
from stormsweep.data.prepared import PreparedData, PreparedWriter, Target, Variable
from stormsweep.data.probabilities import ProbabilityWriter
from stormsweep.data.turned import write_turned
from stormsweep.errors import DataError
from stormsweep.work import Augmentation
from stormsweep.storms import synthesize

out = Path("out")
noise = np.random.default_rng(0).random((3000, 4, 4, 2), dtype="f4")

def data():
    with PreparedWriter(
        Path("out"), source="s", synthetic=True, inputs=[Variable("a"), Variable("b")],
        target=Target("y"),
    ) as writer:
        writer.append(noise, np.arange(3000) % 2)
    return PreparedData.open(Path("out"))

def predict():
    with (
        files.replacing(out / "p.nc") as beside,
        ProbabilityWriter(beside, 10**5, ["a"], 0.5, "e", {}, False) as writer,
    ):
        for part in range(2):
            writer.append(noise.ravel()[:50_000], 0, part * 50_000)
"""
END = """
for limit in map(int, sys.argv[1:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        act()
    except DataError as error:
        print(error)
"""
#: What is written, what is needed for it, and what the line must name.
WRITTEN = {
    "probabilities": ("act = predict", "out/p.nc"),
    "turned patches": (
        "d = data()\nact = lambda: write_turned(d, Augmentation('physical', 5.0, False, 1), 0)",
        "out-turned-",
    ),
    "a twin": ("act = lambda: synthesize(out / 'twin', 100, 0)", "out/twin"),
    **{
        format: (f"d = data()\nact = lambda: export(d, out / 'e', {format!r})", "out/e: ")
        for format in ("npy", "netcdf", "zarr")
    },
}


@pytest.mark.parametrize(
    "what", [what if what in ("a twin", "netcdf") else slow(what) for what in WRITTEN]
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    """Whether the disk is full at the first byte or in the midst of it."""
    act, named = WRITTEN[what]
    if what == "zarr":
        pytest.importorskip("zarr", reason="zarr is not installed: it is an extra")
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", f"{BEGIN}\n{act}\n{END}", "20000", "100"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2
    for line in done.stdout.splitlines():
        assert line.startswith(named)
        assert "cannot be written; is the disk full? (" in line
        assert "partial" not in line
    assert not list(tmp_path.rglob("*.partial"))
    left = {path.name for path in (tmp_path, tmp_path / "out") for path in path.iterdir()}
    assert left <= {"out", "train", "test", "manifest.json"}


def test_probabilities_that_have_no_room_are_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No real disk can be filled here: what the system says of it is replaced.
    usage = shutil.disk_usage(tmp_path)._replace(free=12_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    path = tmp_path / "p.nc"
    with (
        pytest.raises(DataError, match=r"p\.nc: needs 13\.0 kB, and the disk has 12\.0 kB free"),
        files.replacing(path) as beside,
    ):
        ProbabilityWriter(beside, 1000, ["a"], 0.5, "e", {}, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "begin",
    [
        "sys.argv = ['stormsweep', '--version']; from stormsweep.cli import main as begin",
        "from stormsweep.cluster.worker_log import begin",
    ],
)
def test_a_log_that_finds_no_room_says_nothing_in_its_place(begin: str) -> None:
    """Losing this: a traceback a line, in the one log that still takes something."""
    code = f"""
import logging, sys
{begin}
try:
    begin()
except SystemExit:
    pass
logging.getLogger().addHandler(logging.FileHandler("/dev/full"))
logging.error("worth a line")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "No space left" not in done.stderr
