"""Losing this: the test set is scored twice without a word, or a model predicts something else."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import psutil
import pytest

from stormsweep.data.scaling import unscale
from stormsweep.errors import UserError
from stormsweep.files import sha256
from stormsweep.records import Verified
from stormsweep.results.journal import of_kind, read
from stormsweep.storms import schema, synthesize
from stormsweep.study.choice import Choice
from stormsweep.study.delivery import read_facts, write_delivery
from stormsweep.study.predict import predict
from stormsweep.study.study import Study
from stormsweep.study.watching import Silent
from stormsweep.work import Delivered
from tests.checkpoints import kept, last, planned
from tests.integration.conftest import (
    Finished,
    called,
    digits_study,
    family,
    gone,
    start,
    stormsweep,
    wait_for,
)


def looks(directory: Path) -> list[Verified]:
    return of_kind(read(directory / "journal.jsonl"), Verified)


@pytest.fixture(scope="module")
def twin(twin_study: Finished, tmp_path_factory) -> Path:
    """The directory of a small study of the twin, verified after its verification was killed."""
    folder = tmp_path_factory.mktemp("verified")
    directory = twin_study.copied(folder)
    process = start(folder, "verify", directory, "--no-report")
    wait_for(lambda: len(list((directory / "checkpoints").glob("*-whole-e*.npz"))) > 1, process)
    workers = family(process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert gone(workers) == []
    assert looks(directory) == []
    assert not (directory / "model").exists()
    (directory / "checkpoints" / ".half.npz.partial").touch()

    done = stormsweep(folder, "verify", directory, "--no-report")
    assert done.returncode == 0, done.stderr
    assert not (directory / "report").exists()
    (look,) = looks(directory)
    says = f"there the event is forecast {look.scores['bias'][0]:.2g} times as often as it happens"
    assert says in done.stdout
    return directory


def test_a_killed_verification_goes_on(twin):
    (look,) = looks(twin)
    assert look.look == 1
    assert len(look.epoch_loss) == 16, "an epoch's loss was lost with the kill"
    predictions = pd.read_parquet(twin / "model" / "test_predictions.parquet")
    assert len(predictions) == look.cases > 0
    assert predictions["event"].sum() == look.events
    facts = json.loads((twin / "model" / "model.json").read_text())
    assert facts["model_sha256"] == look.model_sha256
    assert sha256(twin / "model" / facts["model"]) == look.model_sha256
    assert kept(twin) == last(planned(twin)), "what trained the final model is left"


@pytest.mark.slow
def test_a_lost_model_is_made_again_and_a_second_look_is_counted(twin, tmp_path):
    directory = tmp_path / "twin"
    shutil.copytree(twin, directory)
    (look,), journal = looks(directory), (directory / "journal.jsonl").read_bytes()
    study, watcher = Study.from_toml(directory), Noting()
    assert study.verify(watcher) == look, "the recorded look stands"
    assert watcher.notes == []
    shutil.rmtree(directory / "model")
    assert study.verify(watcher) == look
    (note,) = watcher.notes
    assert "made again: its predictions of the test part are those of the recorded look" in note
    assert (directory / "journal.jsonl").read_bytes() == journal, "it was counted as another look"
    # Trained in one go this time: the kill changed nothing.
    assert read_facts(directory / "model")["predictions_sha256"] == look.predictions_sha256
    assert study.verify(watcher) == look
    assert watcher.notes == [note], "it was made again for nothing"

    again = stormsweep(tmp_path, "verify", directory, "--again", "--no-report")
    assert "The test set has been looked at 2 times" in again.stdout
    one, two = looks(directory)
    assert two.look == 2
    assert (two.predictions_sha256, two.scores) == (one.predictions_sha256, one.scores)
    assert gone(working_in(tmp_path)) == [], "worker processes were left behind"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict with one thread, as other tests train in this process: TensorFlow keeps to the first.

    A user's process has all cores for a prediction.
    """
    monkeypatch.setattr("stormsweep.cluster.machine.cores", lambda: 1)


DRAWN = """
from pathlib import Path
import keras
import numpy as np

SHIFT = np.random.normal(size=16).astype("float32")

class Features(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        unseeded = Path(__file__).with_name("unseeded").exists()
        draw = np.random.default_rng().normal if unseeded else np.random.normal
        self.mixing = draw(size=(64, 16)).astype("float32") / 8

    def call(self, x):
        return keras.ops.tanh(keras.ops.matmul(x, self.mixing) + SHIFT)

def net(input_shape):
    layers = [keras.layers.Input(input_shape), keras.layers.Flatten(), Features()]
    return keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])
"""


@pytest.mark.slow
def test_a_model_with_drawn_constants_predicts_what_it_was_verified_by(tmp_path):
    """Losing this: who draws features in a layer gets other probabilities at each prediction."""
    (tmp_path / "nets.py").write_text(DRAWN)
    changes = {
        "data": f'source = "npz"\npath = "{tmp_path}/digits.npz"\ntarget = "labels"\n'
        f'test_fraction = 0.3\ncache = "{tmp_path}/data"',
        "model": f'build = "{tmp_path}/nets.py:net"',
        "search.space": "batch_size = [32]\nlearning_rate = [0.01]\nepochs = [3]",
        "site": "workers = 1",
    }
    path, directory = digits_study(tmp_path, **changes), tmp_path / "runs" / "digits"
    assert stormsweep(tmp_path, "run", path, "--no-report").returncode == 0
    done = stormsweep(tmp_path, "verify", directory, "--no-report")
    assert (done.returncode, "cannot be loaded" in done.stdout + done.stderr) == (0, False)
    assert read_facts(directory / "model")["form"] == "weights"

    prepared = Study.from_toml(path).prepare()
    test = unscale(prepared.part("test").inputs, prepared.manifest["inputs"])
    np.savez(tmp_path / "new.npz", inputs=test)
    known = pd.read_parquet(directory / "model" / "test_predictions.parquet")["probability"]
    for name in ("one", "two"):
        predict(directory, [tmp_path / "new.npz"], tmp_path / f"{name}.nc")
        with netCDF4.Dataset(tmp_path / f"{name}.nc") as file:
            np.testing.assert_allclose(file["probability"][:], known, atol=1e-5)

    (tmp_path / "unseeded").touch()
    done = stormsweep(tmp_path, "verify", directory, "--again", "--no-report")
    assert done.returncode == 0, done.stderr
    assert "model.weights.h5 cannot be loaded to predict what is scored here" in (
        done.stdout + done.stderr
    )
    with pytest.raises(UserError, match="predicts otherwise than when it was verified"):
        predict(directory, [tmp_path / "new.npz"], tmp_path / "three.nc")


class Noting(Silent):
    """Keeps what a user is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def working_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that were started in a folder and still live."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()) == folder:
                found.append(process)
    return found


def delivered_untrained(study, directory, monkeypatch):
    """Deliver a model that keeps what it is given; return its folder, the test inputs and that."""
    prepared, model = study.prepare(), directory / "model"
    model.mkdir(parents=True)
    (model / "model.keras").touch()
    test = prepared.part("test").inputs
    choice = Choice("c", {"epochs": 1}, (1,), 0.5, (2, 2), 1, True)
    delivered, p = Delivered("model.keras", "keras", 1.0), np.zeros(len(test), np.float32)
    write_delivery(model, study.file, prepared, choice, delivered, p, "")
    given: list[np.ndarray] = []
    monkeypatch.setattr("stormsweep.study.predict._predictor", lambda *_: recorder(given))
    return model, test, given


def test_new_arrays_reach_the_model_scaled_as_the_test_part_was(tmp_path, monkeypatch):
    data = (
        f'source = "npz"\npath = "{tmp_path}/digits.npz"\ntarget = "labels"\n'
        f'test_fraction = 0.3\ncache = "{tmp_path}/data"'
    )
    study = Study.from_toml(digits_study(tmp_path, data=data))
    model, test, given = delivered_untrained(study, tmp_path / "study", monkeypatch)
    done = predict(model.parent, [tmp_path / "digits.npz"], tmp_path / "new.nc")
    assert done.cases == 1797
    everything = {case.tobytes() for case in np.concatenate(given)}
    assert all(case.tobytes() in everything for case in test)


def test_rows_of_storm_tables_keep_their_time_and_place(tmp_path, monkeypatch):
    """Losing this: probabilities of storms, and nobody can tell when and where these are."""
    synthesize(tmp_path / "storms", 200, 5)
    study = tmp_path / "dnn.toml"
    study.write_text(
        '[study]\nname = "dnn"\n[data]\nsource = "ncar-storms"\npath = "storms"\n'
        f'threshold = 0.001\ninputs = ["T2_mean", "area"]\ncache = "{tmp_path}/data"\n'
    )
    chosen = Study.from_toml(study)
    model, test, given = delivered_untrained(chosen, tmp_path / "study", monkeypatch)
    tables = sorted((tmp_path / "storms" / schema.TABLE_FOLDER).glob("*.csv"))[-2:]
    rows = pd.concat([pd.read_csv(path) for path in tables], ignore_index=True)
    assert predict(model.parent, tables, tmp_path / "out.nc").cases == len(rows)
    assert np.array_equal(np.concatenate(given), test[-len(rows) :])
    with netCDF4.Dataset(tmp_path / "out.nc") as file:
        file.set_auto_mask(False)
        for name, column in (
            ("lat", rows["Centroid_Lat"].astype("f4")),
            ("lon", rows["Centroid_Lon"].astype("f4")),
            ("track_id", rows["Track_ID"].str[-3:].astype(int)),
            ("track_step", rows["Duration"]),
        ):
            assert (file[name][:] == column).all(), name
        for name, column in (("time", "Valid_Date"), ("forecast_reference_time", "Run_Date")):
            told = netCDF4.num2date(file[name][:], file[name].units, file[name].calendar)
            assert list(map(str, told)) == list(map(str, pd.to_datetime(rows[column])))

    # One that has the inputs alone will do, in whatever order.
    bare, odd = tmp_path / "bare.csv", tmp_path / "odd.csv"
    rows[["area", "T2_mean"]].to_csv(bare, index=False)
    given.clear()
    predict(model.parent, [*tables, bare], tmp_path / "bare.nc")
    assert np.array_equal(np.concatenate(given)[len(rows) :], test[-len(rows) :])
    with netCDF4.Dataset(tmp_path / "bare.nc") as file:
        assert "time" not in file.variables
    rows.assign(Track_ID="the big one").to_csv(odd, index=False)
    with pytest.raises(UserError, match="row 1 has Track_ID 'the big one'; must be an id"):
        predict(model.parent, [odd], tmp_path / "odd.nc")


def recorder(given: list[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a stand-in for a model, which keeps what it is asked."""

    def ask(cases: np.ndarray) -> np.ndarray:
        given.append(cases)
        return np.full(len(cases), 0.25, np.float32)

    return ask


@pytest.fixture
def patches(twin) -> list[Path]:
    """Patch files of the test years, the first two with an event forecast or not."""
    folder = next((twin.parents[1] / "data").glob("twin-*")) / schema.PATCH_FOLDER
    return sorted(path for path in folder.glob("*.nc") if "NCARSTORM_2015" in path.name)


def test_probabilities_of_new_files_are_those_of_the_test_part(twin, patches, tmp_path):
    # As a forecast centre would have it: no target yet, any title, no table beside it.
    bare = tmp_path / "today.nc"
    copy_without(patches[0], bare, {"RVORT1_MAX_future", "HAIL_MAXK1_future"})
    done = stormsweep(tmp_path, "predict", twin, bare, *patches[1:3], "-o", "out.nc")
    assert done.returncode == 0, done.stderr
    assert "trained on synthetic data" in done.stdout
    assert "tensorflow" not in done.stderr.lower()
    assert "onednn" not in done.stderr.lower()
    look, facts = looks(twin)[0], json.loads((twin / "model" / "model.json").read_text())
    known = pd.read_parquet(twin / "model" / "test_predictions.parquet")
    with netCDF4.Dataset(tmp_path / "out.nc") as file:
        file.set_auto_mask(False)
        p = file["probability"][:]
        assert np.abs(p - known["probability"].to_numpy()[: len(p)]).max() < 1e-6
        assert file.Conventions == "CF-1.8"
        assert file.model_sha256 == look.model_sha256
        assert file.decision_threshold == facts["decision_threshold"]
        assert (file.event_threshold, file.event_units) == (0.005, "s-1")
        assert file.study == "twin"
        assert file.training_data.startswith("synthetic")
        assert file["probability"].units == "1"
        assert file["probability"].coordinates == "time lat lon"
        assert (file["event_forecast"][:] == (p >= np.float32(look.threshold))).all()
        counts = np.bincount(file["file_number"][:])
        assert list(file["source_file"][:]) == [str(bare), *map(str, patches[1:3])]
        with netCDF4.Dataset(patches[1]) as source:
            source.set_auto_mask(False)
            own = file["file_number"][:] == 1
            assert counts[1] == source.dimensions["p"].size
            assert (file["row"][:][own] == np.arange(counts[1])).all()
            for name, origin in (
                ("lat", "centroid_lat"),
                ("lon", "centroid_lon"),
                ("track_id", "track_id"),
                ("track_step", "track_step"),
            ):
                assert (file[name][:][own] == source[origin][:]).all(), name
            time, units = file["time"], source["time"]
            told = netCDF4.num2date(time[:][own], time.units, time.calendar)
            expected = netCDF4.num2date(units[:], units.units)
            assert (told == expected).all()


def copy_without(source: Path, target: Path, names: set[str]) -> None:
    with netCDF4.Dataset(source) as old, netCDF4.Dataset(target, "w") as new:
        for name, dimension in old.dimensions.items():
            new.createDimension(name, dimension.size)
        for name, variable in old.variables.items():
            if name in names:
                continue
            made = new.createVariable(name, variable.dtype, variable.dimensions)
            made.setncatts({key: variable.getncattr(key) for key in variable.ncattrs()})
            made[:] = variable[:]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("units", "U10_curr has units 'kt'; must be ''"),
        ("channel", "variable 'V10_curr' is missing"),
        ("shape", "dimension row is 16; must be 32"),
        ("cut", "cannot be read as NetCDF; damaged or cut short"),
        ("table", "cannot be read as NetCDF"),
    ],
)
def test_a_file_that_does_not_fit_the_model_is_refused_in_one_line(
    twin, patches, tmp_path, change, says
):
    wrong = tmp_path / "wrong.nc"
    shutil.copy(patches[0], wrong)
    if change == "units":
        with netCDF4.Dataset(wrong, "a") as file:
            file["U10_curr"].units = "kt"
    elif change == "channel":
        with netCDF4.Dataset(wrong, "a") as file:
            file.renameVariable("V10_curr", "V_curr")
    elif change == "shape":
        with netCDF4.Dataset(wrong, "w") as file:
            for name, size in (("p", 3), ("row", 16), ("col", 32)):
                file.createDimension(name, size)
    elif change == "cut":
        wrong.write_bytes(wrong.read_bytes()[:5000])
    else:
        wrong.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        predict(twin, [patches[1], wrong], tmp_path / "out.nc")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(wrong) in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.nc"]


def test_a_file_found_wrong_half_way_leaves_nothing_behind(twin, patches, tmp_path, monkeypatch):
    wrong = tmp_path / "wrong.nc"
    shutil.copy(patches[1], wrong)
    with netCDF4.Dataset(wrong, "a") as file:
        file["U10_curr"][1, 2, 3] = np.nan
    given: list[np.ndarray] = []
    monkeypatch.setattr("stormsweep.study.predict._predictor", lambda *_: recorder(given))
    with pytest.raises(UserError, match="has 1 missing or not finite values, the first in patch 1"):
        predict(twin, [patches[0], wrong], tmp_path / "out.nc")
    assert given, "the first file was predicted before the second was found wrong"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.nc"]


def test_what_is_there_is_not_overwritten_and_a_changed_model_not_used(twin, patches, tmp_path):
    out = tmp_path / "out.nc"
    out.write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match="is there already; name another output"):
        predict(twin, patches[:1], out)
    own = tmp_path / "own.nc"
    shutil.copy(patches[0], own)
    with pytest.raises(UserError, match="is one of the files to predict from"):
        predict(twin, [own], own, overwrite=True)
    with pytest.raises(UserError, match="there is no folder"):
        predict(twin, patches[:1], tmp_path / "nowhere" / "out.nc")
    assert out.read_text(encoding="utf-8") == "precious"

    study = tmp_path / "study"
    with pytest.raises(UserError, match="there is no verified model here"):
        predict(study, patches[:1], tmp_path / "new.nc")
    shutil.copytree(twin / "model", study / "model")
    model = study / "model" / json.loads((study / "model" / "model.json").read_text())["model"]
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(UserError, match="changed since the study was verified"):
        predict(study, patches[:1], tmp_path / "new.nc")


@pytest.mark.usefixtures("sketched")
def test_the_report_tells_what_the_test_years_said(twin, only_sections):
    only_sections("verification")
    again = called(twin.parents[1], "verify", twin)
    assert again.returncode == 0, again.stderr
    assert "Verified before; nothing was scored again" in again.stdout
    (look,), report = looks(twin), twin / "report"
    assert f"Report: {report / 'index.html'}" in again.stdout
    page = (report / "index.html").read_text(encoding="utf-8")
    names = {path.stem for path in (report / "figures").glob("verification-*.png")}
    assert names >= {
        "verification-roc",
        "verification-performance",
        "verification-attributes",
        "verification-cases",
    }
    assert "Verification on the test set" in page
    assert "synthetic" in page.lower()
    assert "been looked at" not in page
    assert f"{look.scores['roc_auc'][0]:.4f}" in page
    assert look.block == "run_date"
    scores = pd.read_csv(report / "tables" / "verification-scores.csv").set_index("score")
    assert scores["value"].to_dict() == pytest.approx(
        {name: values[0] for name, values in look.scores.items()}, nan_ok=True
    )
    with np.load(twin / "model" / "test_cases.npz") as cases:
        assert cases["found"].all(), "every case is found again in its patch file"
        reflectivity = np.where(cases["mask"], cases["inputs"][..., 0], np.inf)
        assert (reflectivity.min(axis=(1, 2)) > schema.OBJECT_DBZ - 0.1).all()
