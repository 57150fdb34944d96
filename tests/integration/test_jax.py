"""Losing these: the JAX engine from the command line, from the study file to the report."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stormsweep.records import TaskPaused
from stormsweep.results import frames
from stormsweep.results.journal import of_kind, read
from tests.checkpoints import kept, last, planned

from .conftest import digits_study, family, scores, start, stormsweep, tasks, wait_for
from .test_walltime import HERE, drive

pytest.importorskip("jax", reason="JAX is not installed")

ENGINE = 'use = "jax"\nbundle = {}'
SPACE = "batch_size = [32]\nlearning_rate = [0.003, 0.01]\nepochs = [2, 4]"


@pytest.fixture(autouse=True)
def quickly_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")


def jax_study(folder: Path, name: str, bundle: str = '"auto"', **changes: str) -> Path:
    given: dict[str, Any] = {
        "search__space": SPACE,
        "engine": ENGINE.format(bundle),
        "site": "workers = 1",
    }
    return digits_study(folder, name, **(given | changes))


@pytest.mark.slow
def test_a_study_of_bundles_runs_to_its_report(tmp_path: Path) -> None:
    done = stormsweep(tmp_path, "run", jax_study(tmp_path, "bundled"))
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "runs" / "bundled"
    assert [task.bundle for task in tasks(directory)] == [4] * 8
    assert (directory / "report" / "index.html").is_file()
    assert kept(directory) == last(planned(directory))
    environment = json.loads((directory / "environment.json").read_text())
    assert environment["engine"] == "jax"
    assert environment["packages"]["jax"]
    assert len(environment["devices"]) == 1
    assert f"on JAX on {environment['devices'][0]}" in (
        directory / "logs" / "worker-0.log"
    ).read_text(errors="replace")
    session = frames.sessions(read(directory / "journal.jsonl")).iloc[0]
    assert session["busy_seconds"] <= session["seconds"]
    table = pd.read_csv(directory / "report" / "tables" / "configurations.csv")
    assert table["roc_auc_mean"].iloc[0] > 0.9


@pytest.mark.slow
def test_a_gpu_that_jax_cannot_use_is_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing this: a study trains on the cores for days, and says that a GPU does."""
    if importlib.util.find_spec("jax_plugins"):
        pytest.skip("JAX has CUDA here")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    study = jax_study(tmp_path, "hidden")
    done = stormsweep(tmp_path, "run", study)
    assert done.returncode == 2
    assert "JAX sees no GPU, although CUDA_VISIBLE_DEVICES" in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = stormsweep(tmp_path, "run", study, "--no-report")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("no_orphans")
def test_a_killed_bundle_goes_on_alone_and_comes_to_the_same_scores(tmp_path: Path) -> None:
    space = "batch_size = [32]\nlearning_rate = [0.003, 0.01]\nepochs = [5, 60, 61]"
    study = jax_study(tmp_path, "killed", search__space=space)
    whole = jax_study(tmp_path, "whole", search__space=space)
    directory = tmp_path / "runs" / "killed"
    process = start(tmp_path, "run", study, "--no-report")
    wait_for(lambda: len(tasks(directory)) == 4, process)
    (worker,) = family(process)
    os.kill(worker.pid, signal.SIGKILL)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "was lost" in said[1] + said[0]

    process = start(tmp_path, "run", whole, "--no-report")
    wait_for(lambda: len(tasks(tmp_path / "runs" / "whole")) >= 4, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    alone = jax_study(tmp_path, "whole", "1", search__space=space)
    done = stormsweep(tmp_path, "run", alone, "--no-report")
    assert done.returncode == 0, done.stderr
    assert {task.bundle for task in tasks(tmp_path / "runs" / "whole")} == {1, 4}
    expected = scores(directory)
    for key, found in scores(tmp_path / "runs" / "whole").items():
        assert found["brier_score"] == pytest.approx(expected[key]["brier_score"], abs=0.02), key


@pytest.mark.slow
def test_bundles_whose_time_is_over_again_and_again_come_to_the_same_scores_to_the_bit(
    tmp_path: Path,
) -> None:
    found = {}
    for name, file in {"calm": "small_models.py", "hurried": "hurried_models.py"}.items():
        study = jax_study(
            tmp_path,
            name,
            model=f'build = "{HERE / file}:digits_cnn"',
            search__space="batch_size = [32]\nlearning_rate = [0.003, 0.01]\nepochs = [5, 18]",
        )
        assert not drive(tmp_path, study, "replace")[1]["unfinished"]
        done = tasks(tmp_path / "runs" / name)
        found[name] = {(one.run, one.to_epoch): (one.scores, one.epoch_loss) for one in done}
    assert found["hurried"] == found["calm"]
    pauses = of_kind(read(tmp_path / "runs" / "hurried" / "journal.jsonl"), TaskPaused)
    assert [pause.bundle for pause in pauses] == [4] * 4
    # All at one epoch, which one is for the engine to say: it asks for the time beside epochs, too.
    ((began, ended),) = {(pause.from_epoch, pause.to_epoch) for pause in pauses}
    assert began == 5 < ended < 18
    assert len({(pause.started, pause.stopped) for pause in pauses}) == 1


@pytest.mark.slow
def test_a_verified_jax_model_predicts_on_tensorflow(tmp_path: Path) -> None:
    data = 'source = "npz"\npath = "digits.npz"\ntarget = "labels"\ntest_fraction = 0.2\n'
    study = jax_study(tmp_path, "checked", data=data + f'cache = "{tmp_path}/data"')
    directory = tmp_path / "runs" / "checked"
    assert stormsweep(tmp_path, "run", study, "--no-report").returncode == 0
    done = stormsweep(tmp_path, "verify", directory)
    assert done.returncode == 0, done.stderr
    facts = json.loads((directory / "model" / "model.json").read_text())
    assert facts["form"] == "keras"
    known = pd.read_parquet(directory / "model" / "test_predictions.parquet")["probability"]
    done = stormsweep(tmp_path, "predict", directory, "digits.npz", "-o", "p.nc")
    assert done.returncode == 0, done.stderr
    with xr.open_dataset(tmp_path / "p.nc") as data_set:
        predicted = data_set["probability"].to_numpy()
    for probability in known:
        assert np.abs(predicted - probability).min() < 1e-5


def test_without_jax_a_study_says_in_one_line_what_to_install(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys; find = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'jax' else find(name, *a);"
        "from stormsweep.cli import main; sys.argv = ['stormsweep', 'run', 'none.toml']; main()"
    )
    jax_study(tmp_path, "none")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "engine.use: given 'jax', which is not installed here; pip install" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
