"""What mattered, from the command line: if it fails, a user is told nonsense, or nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

from stormsweep import Study
from tests import journals

from .conftest import called


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return journals.simulate(tmp_path_factory.mktemp("runs") / "study")


def test_importance_says_what_it_is_of_and_adds_up(study: Path, tmp_path: Path) -> None:
    text = called(tmp_path, "results", study, "--what", "importance").stdout
    first, *_ = text.splitlines()[1:]
    assert first.split()[0] == "batch_size"
    assert "exact, of 54 of 54 configurations, a whole grid, on 3 folds" in text
    assert "not distinguishable from noise" in text
    assert "% of the variance of the mean scores" in text
    csv = called(tmp_path, "results", study, "--what", "importance", "--format", "csv").stdout
    frame = pd.read_csv(io.StringIO(csv))
    assert frame["share"].sum() == pytest.approx(1)
    made = Study.from_toml(study).importance()
    assert made["effect"].tolist() == frame["effect"].tolist()
    assert made.attrs["method"] == "grid"
    file = tmp_path / "importance.parquet"
    called(tmp_path, "results", study, "--what", "importance", "--format", "parquet", "-o", file)
    assert pd.read_parquet(file)["share"].tolist() == made["share"].tolist()


def test_contenders_name_the_cheapest(study: Path, tmp_path: Path) -> None:
    text = called(tmp_path, "results", study, "--what", "contenders").stdout
    assert sum(line.endswith("cheapest") for line in text.splitlines()) == 1
    assert "cannot be told from the best in roc_auc" in text
    said = called(tmp_path, "results", study, "--what", "contenders", "--format", "json").stdout
    rows = json.loads(said)
    assert 1 < len(rows) < 54
    assert rows[0]["rank"] == 1
    assert all(row["contender"] for row in rows)
    assert Study.from_toml(study).contenders()["rank"].tolist() == [row["rank"] for row in rows]


def test_a_study_that_has_too_little_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    single = {"points": [{"batch_size": 64}], "milestones": [4]}
    study = journals.simulate(tmp_path / "study", {}, **single)
    for what in ("importance", "contenders"):
        done = called(tmp_path, "results", study, "--what", what)
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.strip().splitlines()
        assert "needs two or more configurations scored on all folds" in line
