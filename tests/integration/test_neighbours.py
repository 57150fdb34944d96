"""Losing these: commands that print what cannot be typed, or fail in more than one line."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from stormsweep.neighbours.points import known_points
from stormsweep.study.study import Study
from tests.integration.conftest import called
from tests.journals import simulate

SPACE = {"batch_size": [256, 1024], "learning_rate": [0.001, 0.01], "epochs": [2, 4]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neighbours")
    simulate(folder / "runs" / "my storms", SPACE)
    return folder


def test_export_says_where_and_how_to_open_it(folder: Path) -> None:
    done = called(folder, "export", "runs/my storms", "--to", "tensorboard")
    assert done.returncode == 0, done.stderr
    written, opens = done.stdout.splitlines()
    assert written == "Written: runs/my storms/export/tensorboard"
    typed = shlex.split(opens.removeprefix("Open it: "))
    assert typed == ["tensorboard", "--logdir", "runs/my storms/export/tensorboard"]
    again = called(folder, "export", "runs/my storms", "--to", "csv", "-o", "tables")
    assert (again.returncode, again.stdout) == (0, "Written: tables\n")
    assert (folder / "tables" / "configurations.csv").is_file()


def test_a_study_is_exported_imported_and_known(folder: Path) -> None:
    assert (
        called(folder, "export", "runs/my storms", "--to", "optuna", "-o", "o.db").returncode == 0
    )
    done = called(folder, "import", "o.db", "-o", "points.jsonl", "--rename", "batch_size=batch")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Optuna study 'taki-2019': 8 points, 8 with a score (roc_auc)",
        "Written: points.jsonl",
    ]
    assert set(known_points(folder / "points.jsonl")[0].hyperparameters) == {
        "batch",
        "learning_rate",
    }


def test_an_import_says_how_many_trials_it_passed_over(tmp_path: Path) -> None:
    for number, rate in enumerate(("0.1", "NaN", "Infinity")):
        trial = tmp_path / "ray" / f"trial_{number}"
        trial.mkdir(parents=True)
        (trial / "params.json").write_text(f'{{"lr": {rate}}}')
        (trial / "result.json").write_text('{"loss": 0.5, "training_iteration": 3}\n')
    done = called(tmp_path, "import", "ray")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Ray Tune, 3 trials: 1 points, 1 with a score (loss)",
        "Passed over: 2 with hyperparameters that are infinite or NaN",
        "Written: points.jsonl",
    ]
    # A file of somebody else's is not written over.
    (tmp_path / "points.jsonl").write_text("mine\n")
    refused = called(tmp_path, "import", "ray")
    assert refused.returncode == 2
    assert "no file of known points that import wrote" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "runs/my storms", "--to", "optuna", "-o", "runs"], "is there already"),
        (["export", "runs/my storms", "--to", "csv", "-o", "http://x"], "only --to mlflow"),
        (["export", "runs/my storms", "--to", "onnx"], "there is no verified model here"),
        (["export", "runs", "--to", "csv"], "is no study's directory"),
        (["export", "runs/my storms", "--to", "keras"], "'keras'"),
        (["import", "missing.db"], "missing.db: there is no such file or folder"),
        (["import", "runs"], "neither a study's directory nor a result folder"),
        (["import", "runs/my storms", "--metric", "=x"], "given '=x'; must be NAME=NAME"),
        (["import", "runs/my storms", "-o", "runs"], "runs: is a folder"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, folder: Path) -> None:
    before = sorted(path for path in folder.rglob("*"))
    done = called(folder, *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert sorted(path for path in folder.rglob("*")) == before


def test_a_study_not_begun_has_nothing_to_export(folder: Path, tmp_path: Path) -> None:
    study = Study.from_toml(folder / "runs" / "my storms" / "study.toml", tmp_path / "other")
    with pytest.raises(Exception, match="has not been begun"):
        study.export_to("csv")
    assert not (tmp_path / "other").exists()
