"""Comparing real studies: if these fail, the same work done elsewhere looks like another result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import called, digits_study, stormsweep
from .test_wrong_use import refused

pytestmark = pytest.mark.usefixtures("sketched")


@pytest.mark.slow
def test_one_worker_or_two_is_no_difference_in_scores(digits: Path, tmp_path: Path) -> None:
    """Part of the grid of the session's study, on one worker: named by its study file."""
    space = "batch_size = [16, 32]\nlearning_rate = [0.01]\nepochs = [6, 12]"
    study = digits_study(tmp_path, "alone", search__space=space, site="workers = 1")
    done = stormsweep(tmp_path, "run", study)
    assert done.returncode == 0, done.stderr
    told = called(tmp_path, "compare", study, digits, "--format", "json", "-o", "comparison")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["baseline"] == "alone"
    assert len(found["differences"]) == 4
    assert {row["pairing"] for row in found["differences"]} == {"paired"}
    assert all(row["difference"] == 0 and not row["beyond"] for row in found["differences"])
    speedups = {row["batch_size"]: row for row in found["speedups"]}
    assert set(speedups) == {16, 32, None}
    assert all(row["fits"] == 4 for size, row in speedups.items() if size)
    assert all(row["remark"] == "" and row["speedup"] > 0 for row in speedups.values())
    assert (tmp_path / "comparison" / "index.html").is_file()
    assert (tmp_path / "comparison" / "figures" / "time-batch-size.png").is_file()


def test_the_published_figures_are_drawn_without_any_study(tmp_path: Path) -> None:
    done = called(tmp_path, "compare", "published:umbc-2019")
    assert done.returncode == 0, done.stderr
    assert "a node of umbc-2019, 2018 nodes was 1.88 times as fast" in done.stdout
    assert (tmp_path / "runs" / "compare-umbc-2019" / "index.html").is_file()


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([], "name two studies or more"),
        (["digits"], "is the same study"),
        (["empty"], "there is no journal.jsonl here"),
        (["published:umbc-2019"], "ranked by different scores"),
        (["published:umbc-2019", "--metric", "accuracy"], "share nothing that could be compared"),
        (["published:umbc-2020"], "no such numbers ship"),
    ],
)
def test_wrong_use(digits: Path, tmp_path: Path, others: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    given = [str(digits) if name == "digits" else name for name in others]
    assert said in refused(tmp_path, "compare", digits, *given)
