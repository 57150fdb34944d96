"""From storm files to prepared arrays: the order of channels, the labels and the split."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from itertools import product
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.config.load import load_study
from stormsweep.config.study import DataTable
from stormsweep.data.prepared import PreparedData
from stormsweep.data.scaling import scale, unscale
from stormsweep.errors import DataError, StudyFileError
from stormsweep.storms import find_runs, prepare_storms, schema, synthesize
from stormsweep.storms.originals import originals
from stormsweep.storms.regions import BOXES, region
from stormsweep.storms.runs import RunReader
from stormsweep.study.problem import prepare
from tests.marks import slow

INPUTS = ("V10_curr", "REFL_COM_curr")


@pytest.fixture(scope="module", autouse=True)
def few_runs():
    """Have twins of six runs instead of eighteen, four before 2015: each takes time to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stormsweep.storms.twin._LEAST_BEFORE", 4)
        patch.setattr("stormsweep.storms.twin._LEAST_AFTER", 2)
        yield


@pytest.fixture(scope="module")
def storms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storms") / "twin"
    synthesize(folder, 400, 5)
    return folder


def table(folder, **keys) -> DataTable:
    # A few hundred storms have none as strong as the default asks for.
    given = {"inputs": list(INPUTS), "threshold": 0.002} | keys
    return DataTable(source="ncar-storms", path=folder, **given)


def values(folder, before=True):
    """Inputs, mask maximum and patch maximum straight from the files."""
    inputs, mask, patch, tracks = [], [], [], []
    for run in find_runs(folder):
        if (run.date < dt.date(2015, 1, 1)) == before:
            with RunReader(run, INPUTS, "RVORT1_MAX_future") as reader:
                for block in reader.blocks():
                    inputs.append(block.inputs)
                    mask.append(block.mask_max)
                    patch.append(block.patch_max)
                    tracks += [f"{run.date:%Y%m%d}-0000_{k:03d}" for k in block.track]
    return np.concatenate(inputs), np.concatenate(mask), np.concatenate(patch), tracks


@pytest.mark.parametrize("label_from", ["mask", "patch"])
def test_prepared_arrays_are_the_files(storms, tmp_path, label_from):
    told = []
    data = prepare_storms(
        table(storms, label_from=label_from), 1, tmp_path / "out", lambda *done: told.append(done)
    )
    assert told[-1][0] == told[-1][1], "the progress ends short of all"
    assert told == sorted(told)
    inputs, mask, patch, tracks = values(storms)
    part = data.part("train")
    mean, std = inputs.mean(axis=(0, 1, 2), dtype="f8"), inputs.std(axis=(0, 1, 2), dtype="f8")
    assert np.allclose(part.inputs, (inputs - mean) / std, atol=1e-4)
    value = mask if label_from == "mask" else patch
    assert np.array_equal(part.targets, value.astype("f4"))
    assert np.array_equal(part.labels, value > 0.002)
    names = data.manifest["groups"]
    assert [names["track"][k] for k in part.groups["track"]] == tracks
    dates = [names["run_date"][k] for k in part.groups["run_date"]]
    assert [date.replace("-", "") for date in dates] == [track[:8] for track in tracks]
    assert max(dates) < "2015" <= names["run_date"][data.part("test").groups["run_date"].min()]
    assert data.synthetic
    assert data.manifest["target"]["label_from"] == label_from
    assert [entry["name"] for entry in data.manifest["inputs"]] == list(INPUTS)
    assert [entry["units"] for entry in data.manifest["inputs"]] == ["m s-1", "dBZ"]
    assert data.summary()["units"] == "s-1"
    provenance = data.manifest["provenance"]
    assert len(provenance["files"]) == 12
    assert provenance["twin"]["seed"] == 5
    data.verify()


def test_real_files_are_not_called_synthetic(storms, tmp_path):
    shutil.copytree(storms, tmp_path / "real")
    (tmp_path / "real" / "twin.json").unlink()
    data = prepare_storms(table(tmp_path / "real"), 1, tmp_path / "out")
    assert not data.synthetic
    assert "twin" not in data.manifest["provenance"]


def test_the_twin_is_made_once(tmp_path):
    config = DataTable(source="twin", patches=120, cache=tmp_path, threshold=0.001)
    first = prepare_storms(config, 9, tmp_path / "a")
    mark = tmp_path / "twin-120-9" / "twin.json"
    written = mark.stat().st_mtime_ns
    second = prepare_storms(config, 9, tmp_path / "b")
    assert mark.stat().st_mtime_ns == written
    assert first.fingerprint == second.fingerprint
    other = prepare_storms(config, 10, tmp_path / "c")
    assert other.fingerprint != first.fingerprint
    assert isinstance(PreparedData.open(tmp_path / "c"), PreparedData)


def test_each_step_to_the_data_is_named_and_only_goes_forward(tmp_path):
    """Losing this: "preparing data: 70%", and after it "preparing data: 28%"."""
    (tmp_path / "s.toml").write_text(
        '[study]\nname = "s"\n[data]\nsource = "twin"\npatches = 400\nthreshold = 0.002\n'
        f'cache = "{tmp_path / "cache"}"\n[search.space]\nepochs = [1]\n'
    )
    told = {}
    prepare(
        load_study(tmp_path / "s.toml"), lambda what, share: told.setdefault(what, []).append(share)
    )
    assert list(told) == ["synthesizing the twin", "preparing data"]
    for shares in told.values():
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


def refused(tmp_path, config, *words) -> None:
    with pytest.raises(DataError) as caught:
        prepare_storms(config, 5, tmp_path / "out")
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"first_date": dt.date(2018, 1, 1)},
            (
                "data.first_date 2018-01-01: no run has such a date",
                "6 from 2010-10-24 to 2017-03-29",
            ),
        ),
        (
            {"last_date": dt.date(2014, 12, 31)},
            ("data.test_from: 2015-01-01", "of 4 chosen by date", "test part"),
        ),
        (
            {"threshold": 0.5},
            (
                "data.threshold: 0.5 s-1 leaves no event",
                "training part",
                "goes from",
                "of the mask",
            ),
        ),
        (
            {"threshold": -1.0, "label_from": "patch"},
            ("data.threshold: -1.0 s-1 leaves only events", "RVORT1_MAX_future", "of the patch"),
        ),
        ({"test_from": dt.date(2010, 1, 1)}, ("data.test_from", "training part")),
        ({"test_from": dt.date(2020, 1, 1)}, ("data.test_from", "test part", "2017-03-29")),
        ({"inputs": ["U10"]}, ("data.inputs", "'U10' is unknown", "allowed:")),
        ({"inputs": ["U10_curr", "U10_curr"]}, ("data.inputs", "twice")),
        ({"inputs": ["RVORT1_MAX_future"]}, ("data.inputs", "is the target")),
        ({"inputs": ["HAIL_MAXK1_future"]}, ("data.inputs", "tell the model the answer")),
        ({"inputs": ["RVORT1_MAX-future_mean"]}, ("data.inputs", "tell the model the answer")),
        ({"inputs": ["U10_meen"]}, ("data.inputs", "did you mean 'U10_mean'?")),
        ({"inputs": ["Storm_Motion_U"]}, ("data.inputs", "a column, but no predictor")),
        ({"inputs": ["*-future_*"]}, ("data.inputs", "no column fits the pattern '*-future_*'")),
        ({"inputs": ["U10_curr", "area"]}, ("data.inputs", "'U10_curr'", "'area'", "one kind")),
        ({"target": "RVORT1_MAX"}, ("data.target", "did you mean 'RVORT1_MAX_future'?")),
        # Five millimetres of hail would be read out of 0.005 per second.
        ({"target": "HAIL_MAXK1_future"}, ("data.threshold: not given", "needs one, in m")),
        (
            {"target": "REFL_COM_curr", "threshold": 55, "inputs": ["T2_mean", "*_max"]},
            ("data.inputs: 'REFL_COM_max' is of REFL_COM_curr, the target", "the answer"),
        ),
        ({"groups": {"day": "Run_Date"}}, ("data.groups", "run_date, track, hour, region")),
        ({"test_fraction": 0.2}, ("data.test_fraction", "test_from")),
    ],
)
def test_settings_that_do_not_fit_are_refused(storms, tmp_path, keys, words):
    config = DataTable(**({"source": "ncar-storms", "path": storms} | keys))
    refused(tmp_path, config, *words)


def test_a_folder_is_needed(tmp_path):
    refused(tmp_path, DataTable(source="ncar-storms"), "data.path", "not given")


def test_a_changed_twin_is_refused(storms, tmp_path):
    shutil.copytree(storms, tmp_path / "twin")
    path = next((tmp_path / "twin" / schema.TABLE_FOLDER).glob("*20101024*"))
    path.write_text(path.read_text().replace("0.0", "0.1", 1))
    refused(tmp_path, table(tmp_path / "twin"), str(path), "changed since")
    for file in (path, schema.patch_path(tmp_path / "twin", dt.date(2010, 10, 24))):
        file.unlink()
    refused(tmp_path, table(tmp_path / "twin"), "missing since")
    (tmp_path / "twin" / "twin.json").write_text(json.dumps({"synthetic": True})[:-3])
    refused(tmp_path, table(tmp_path / "twin"), "twin.json", "not a whole")


def test_another_twin_than_asked_for_is_refused(storms, tmp_path):
    config = DataTable(source="twin", path=storms, patches=500)
    refused(tmp_path, config, "patches 400", "asks for", "patches 500")
    (tmp_path / "real").mkdir()
    config = DataTable(source="twin", path=tmp_path / "real", patches=500)
    refused(tmp_path, config, "no twin here", "ncar-storms")


def kept(tmp_path) -> dict[str, int]:
    """Runs that need not be read again, and when they were read."""
    found = (tmp_path / ".out.pieces").glob("*/piece.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def test_one_bad_file_or_a_full_disk_costs_no_other_file_its_reading(real, tmp_path, monkeypatch):
    last = sorted((real / schema.PATCH_FOLDER).iterdir())[-1]
    content = last.read_bytes()
    with netCDF4.Dataset(last, "a") as file:
        file["V10_curr"][0] = np.nan
    says = "5 of 6 runs are kept", "goes on from there", str(tmp_path / ".out.pieces")
    refused(tmp_path, table(real), str(last), "V10_curr has 1024 missing", *says)
    read = kept(tmp_path)
    assert len(read) == 5
    # The disk has filled up meanwhile: no real one can be filled here.
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        patch.setattr(shutil, "disk_usage", lambda _path: usage)
        for _ in range(2):
            refused(tmp_path, table(real), "out: needs", *says)
    assert kept(tmp_path) == read
    # Put right, but not to be had for a moment, as on a shared disk.
    last.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr("stormsweep.storms.staging.of_file", unreadable)
        refused(tmp_path, table(real), f"{last.parents[1]}", "cannot be read (Stale file", *says)
    assert kept(tmp_path) == read
    prepare_storms(table(real), 5, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "real"]


def unreadable(_folder, path):
    raise DataError(f"{path}: cannot be read (Stale file handle)")


def test_a_damaged_file_leaves_nothing_behind(real, tmp_path):
    last = sorted((real / schema.PATCH_FOLDER).iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-3000])
    refused(tmp_path, table(real), str(last), "cut short")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real"]


def tables(folder, before=True) -> pd.DataFrame:
    """All tables of a data folder, as pandas reads them."""
    runs = [run for run in find_runs(folder) if (run.date < dt.date(2015, 1, 1)) == before]
    return pd.concat([pd.read_csv(run.table) for run in runs], ignore_index=True)


@pytest.fixture
def real(storms, tmp_path):
    """Files that may be changed: a copy that no longer says it is a twin."""
    folder = tmp_path / "real"
    shutil.copytree(storms, folder)
    (folder / "twin.json").unlink()
    return folder


def test_new_data_are_scaled_as_the_training_part_was(storms, tmp_path):
    data = prepare_storms(table(storms), 1, tmp_path / "out")
    for part, before in (("train", True), ("test", False)):
        raw = values(storms, before)[0]
        assert np.array_equal(scale(raw, data.manifest["inputs"]), data.part(part).inputs)
    with pytest.raises(DataError, match=r"inputs have shape \(5, 32, 32, 9\)"):
        scale(np.zeros((5, 32, 32, 9)), data.manifest["inputs"])


def test_the_wind_is_known_as_a_vector(storms, tmp_path):
    config = table(storms, inputs=["T2_curr", "V10_curr", "U10_curr"])
    data = prepare_storms(config, 1, tmp_path / "out")
    assert [one["vector"] for one in data.manifest["inputs"]] == ["", "wind:y", "wind:x"]


def test_storms_can_be_scored_by_hour_and_region(storms, tmp_path):
    data = prepare_storms(table(storms), 1, tmp_path / "out")
    for name, before in (("train", True), ("test", False)):
        rows, part = tables(storms, before), data.part(name)
        labels = {key: np.array(found) for key, found in data.manifest["groups"].items()}
        hours = [f"{hour:02d}" for hour in rows["Valid_Hour_UTC"]]
        assert labels["hour"][part.groups["hour"]].tolist() == hours
        found = labels["region"][part.groups["region"]]
        # The table's centre lies in the patch's centre cell, a border may part the two.
        assert np.mean(found == region(rows["Centroid_Lon"], rows["Centroid_Lat"])) > 0.99
        assert len(set(found)) > 2


@given(st.floats(-125, -66), st.floats(24, 50))
def test_every_place_has_one_region(lon, lat):
    (found,) = region([lon], [lat])
    west, east, south, north = next(box for name, *box in BOXES if name == found)
    assert west <= lon <= east
    assert south <= lat <= north


def test_other_dates_can_be_chosen(storms, tmp_path):
    dates = {"first_date": dt.date(2012, 1, 1), "last_date": dt.date(2016, 1, 1)}
    data = prepare_storms(table(storms, **dates), 1, tmp_path / "out")
    runs = [run.date for run in find_runs(storms)]
    expected = [str(d) for d in runs if dates["first_date"] <= d <= dates["last_date"]]
    assert data.manifest["groups"]["run_date"] == expected
    assert 0 < len(expected) < len(runs)
    assert len(data.manifest["provenance"]["files"]) == 2 * len(expected)
    assert data.manifest["split"]["last_date"] == "2016-01-01"


@pytest.mark.parametrize("label_from", ["mask", "patch"])
def test_inputs_can_be_columns_of_the_table(storms, tmp_path, label_from):
    asked = ["T2_mean", "*_std", "area"]
    columns = ["T2_mean", "REFL_COM_std", "U10_std", "V10_std", "T2_std", "area"]
    config = table(storms, inputs=asked, label_from=label_from)
    data = prepare_storms(config, 1, tmp_path / "out")
    variables = data.manifest["inputs"]
    assert [one["name"] for one in variables] == columns
    assert [one["units"] for one in variables] == ["K", "dBZ", "m s-1", "m s-1", "K", "cell"]
    for name, before in (("train", True), ("test", False)):
        part, rows = data.part(name), tables(storms, before)
        assert part.inputs.shape == (len(rows), 6)
        assert np.array_equal(part.inputs, scale(rows[columns].to_numpy(), data.manifest["inputs"]))
        maxima = values(storms, before)[1 if label_from == "mask" else 2]
        assert np.array_equal(part.targets, maxima.astype("f4"))


def spoil(folder) -> None:
    """Take away one wind, one maximum and one mean, of three storms of the first run."""
    path = schema.patch_path(folder, dt.date(2010, 10, 24))
    with netCDF4.Dataset(path, "a") as file:
        file.set_auto_mask(False)
        file["V10_curr"][2, 7, 7] = netCDF4.default_fillvals["f4"]
        file["T2_curr"][3] = np.nan
    path = schema.table_path(folder, dt.date(2010, 10, 24))
    rows = pd.read_csv(path, dtype=str)
    rows.loc[4, "RVORT1_MAX-future_max"] = "nan"
    rows.loc[5, "T2_mean"] = ""
    rows.to_csv(path, index=False)


@pytest.mark.parametrize(
    ("inputs", "lost"),
    [(INPUTS, [2, 4]), slow(["T2_curr"], [3, 4]), (["T2_mean"], [4, 5]), slow(["T2_max"], [4])],
)
def test_storms_with_missing_values_are_left_out_and_counted(storms, real, tmp_path, inputs, lost):
    whole = prepare_storms(table(storms, inputs=list(inputs)), 1, tmp_path / "whole")
    spoil(real)
    config = table(real, inputs=list(inputs))
    refused(tmp_path, config, "20101024")
    data = prepare_storms(config.model_copy(update={"missing": "drop"}), 1, tmp_path / "out")
    parts = data.manifest["parts"]
    assert parts["train"]["left_out"] == len(lost)
    assert parts["test"]["left_out"] == 0
    first, second = whole.part("train"), data.part("train")
    assert np.array_equal(np.delete(first.targets, lost), second.targets)
    tracks = [
        [one.manifest["groups"]["track"][code] for code in part.groups["track"]]
        for one, part in ((whole, first), (data, second))
    ]
    assert np.delete(tracks[0], lost).tolist() == tracks[1]
    given = first.inputs * np.array([v["std"] for v in whole.manifest["inputs"]])
    given = given + np.array([v["mean"] for v in whole.manifest["inputs"]])
    rescaled = scale(np.delete(given, lost, axis=0), data.manifest["inputs"])
    assert np.allclose(rescaled, second.inputs, atol=1e-4)


def test_kept_storms_are_found_again_in_a_file_of_which_some_were_left_out(real, tmp_path):
    """Losing this: the report draws the hits and misses of such a day without the storm's cells."""
    spoil(real)
    data = prepare_storms(table(real, missing="drop"), 1, tmp_path / "out")
    part, manifest = data.part("train"), data.manifest
    labels = {
        name: np.array(manifest["groups"][name])[part.groups[name]]
        for name in ("run_date", "track")
    }
    own = labels["run_date"] == "2010-10-24"
    inputs = unscale(part.inputs[own], manifest["inputs"])
    looked = originals(manifest, labels["run_date"][own], labels["track"][own], inputs)
    assert len(looked.found) > 10
    assert looked.found.all()
    assert looked.mask.any(axis=(1, 2)).all()
    assert np.isfinite(looked.target).all()


def test_a_part_without_any_whole_storm_is_refused(real, tmp_path):
    for run in find_runs(real):
        if run.date >= dt.date(2015, 1, 1):
            with netCDF4.Dataset(run.patches, "a") as file:
                file["V10_curr"][:] = np.nan
    refused(tmp_path, table(real, missing="drop"), "data.missing", "no storm in the test part")


def test_a_threshold_that_only_one_part_exceeds_is_refused(storms, tmp_path):
    maxima = {"training": values(storms, True)[1], "test": values(storms, False)[1]}
    weaker = min(maxima, key=lambda part: maxima[part].max())
    threshold = float(maxima[weaker].max())
    found = f"no event among {len(maxima[weaker])} storms of the {weaker} part"
    refused(
        tmp_path, table(storms, threshold=threshold), "data.threshold", found, f"{threshold:.5g}"
    )
    assert list(tmp_path.iterdir()) == [], "pieces that no other threshold can use"


@pytest.mark.parametrize("inputs", [INPUTS, ("T2_mean", "area")])
def test_rows_of_other_storms_are_noticed_whatever_the_inputs_are(real, tmp_path, inputs):
    """Losing this: a network learns the label of one storm with the inputs of another."""
    run = find_runs(real)[0]
    rows = pd.read_csv(run.table, dtype=str)
    statistics = [schema.column(*pair) for pair in product(schema.FIELDS, schema.STATISTICS)]
    rows[statistics] = rows[statistics].to_numpy()[::-1]
    rows.to_csv(run.table, index=False)
    config = table(real, inputs=list(inputs))
    refused(tmp_path, config, str(run.table), "the row belongs to another patch")


def test_files_of_two_runs_are_refused(real, tmp_path):
    one, other = find_runs(real)[:2]
    shutil.copy(other.patches, one.patches)
    refused(tmp_path, table(real), str(one.patches), "its title is")


def test_a_place_that_cannot_be_written_to_is_one_line(storms, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"file/out: cannot be written \(.+\)"):
        prepare_storms(table(storms), 1, tmp_path / "file" / "out")


def test_a_full_disk_is_seen_before_anything_is_read(storms, tmp_path, monkeypatch):
    # No real disk can be filled here: what the system says of it is replaced.
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    refused(tmp_path, table(storms), "out: needs", "1.0 kB free")
    assert list(tmp_path.iterdir()) == []


def test_the_study_of_the_dense_network_has_its_four_inputs(storms, tmp_path):
    study = load_study(Path(__file__).parents[2] / "studies" / "storm-dnn.toml")
    config = study.data.model_copy(update={"source": "ncar-storms", "path": storms})
    config = config.model_copy(update={"threshold": 0.002})
    part = prepare_storms(config, study.study.seed, tmp_path / "out").part("train")
    assert part.inputs.shape[1:] == (4,)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("first_date = 2015-02-01\nlast_date = 2015-01-01", "data.last_date: given 2015-01-01"),
        ('missing = "skip"', "data.missing: given 'skip'; must be 'refuse' or 'drop'"),
        ('source = "npz"\nmissing = "drop"', "data.missing: is for storms; source is 'npz'"),
        ('source = "csv"\nlast_date = 2015-01-01', "data.last_date: is for storms"),
    ],
)
def test_mistakes_in_the_choice_of_storms_name_the_key(tmp_path, lines, said):
    path = tmp_path / "study.toml"
    path.write_text(f'[study]\nname = "s"\n[data]\n{lines}\n')
    with pytest.raises(StudyFileError) as caught:
        load_study(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
