"""Losing this: a benchmark that breaks in silence, so that its figures cannot be taken again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: The grid's journal is written as if it had been trained; the rest is the benchmark itself.
CODE = """
import sys
from pathlib import Path
from unittest import mock

from benchmarks.halving import __main__ as benchmark, grid
from stormsweep.results import journal
from tests.journals import simulate

folder = Path(sys.argv[1])
search = grid.file(1, folder).search

def train(seed, work):
    simulate(work / str(seed), dict(search.space))
    return journal.read(work / str(seed) / "journal.jsonl")

arguments = ["", "--seeds", "1", "2", "--orders", "2", "--work", folder, "--output", folder]
arguments = list(map(str, arguments))
with mock.patch.object(grid, "train", train), mock.patch.object(sys, "argv", arguments):
    benchmark.main()
"""


@pytest.mark.slow
def test_grids_become_tables_and_a_picture(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "halving.json").read_text())
    assert list(found["grids"]) == ["1", "2"]
    rows = {row["name"]: row for row in found["together"]}
    assert 0 < rows["halving"]["training_share"] < rows["Hyperband"]["training_share"] < 1
    assert rows["halving, one fold first"]["training_share"] < rows["halving"]["training_share"]
    # Random search gets as much training, rounded up to whole trials.
    ours, theirs = rows["ASHA"], rows["random search, the training of ASHA"]
    assert 0 <= theirs["training_share"] - ours["training_share"] <= 1 / 48
    assert (tmp_path / "halving.md").read_text() == done.stdout.removesuffix("\n")
    assert (tmp_path / "halving.png").stat().st_size > 10_000
