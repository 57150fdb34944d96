"""From storm files to prepared arrays: the order of channels, the labels and the split."""

from __future__ import annotations

import datetime as dt
import json
import shutil

import numpy as np
import pytest

from stormsweep.config.study import DataTable
from stormsweep.data.prepared import PreparedData
from stormsweep.errors import DataError
from stormsweep.storms import find_runs, prepare_storms, schema, synthesize
from stormsweep.storms.runs import RunReader

INPUTS = ("V10_curr", "REFL_COM_curr")


@pytest.fixture(scope="module")
def storms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storms") / "twin"
    synthesize(folder, 400, 5)
    return folder


def table(folder, **keys) -> DataTable:
    return DataTable(source="ncar-storms", path=folder, inputs=list(INPUTS), **keys)


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
    assert told[-1] == (400, 400)
    inputs, mask, patch, tracks = values(storms)
    part = data.part("train")
    mean, std = inputs.mean(axis=(0, 1, 2), dtype="f8"), inputs.std(axis=(0, 1, 2), dtype="f8")
    assert np.allclose(part.inputs, (inputs - mean) / std, atol=1e-4)
    value = mask if label_from == "mask" else patch
    assert np.array_equal(part.targets, value.astype("f4"))
    assert np.array_equal(part.labels, value > 0.005)
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
    assert len(provenance["files"]) == 36
    assert provenance["twin"]["seed"] == 5
    data.verify()


def test_real_files_are_not_called_synthetic(storms, tmp_path):
    shutil.copytree(storms, tmp_path / "real")
    (tmp_path / "real" / "twin.json").unlink()
    data = prepare_storms(table(tmp_path / "real"), 1, tmp_path / "out")
    assert not data.synthetic
    assert "twin" not in data.manifest["provenance"]


def test_the_twin_is_made_once(tmp_path):
    config = DataTable(source="twin", patches=120, cache=tmp_path)
    first = prepare_storms(config, 9, tmp_path / "a")
    mark = tmp_path / "twin-120-9" / "twin.json"
    written = mark.stat().st_mtime_ns
    second = prepare_storms(config, 9, tmp_path / "b")
    assert mark.stat().st_mtime_ns == written
    assert first.fingerprint == second.fingerprint
    other = prepare_storms(config, 10, tmp_path / "c")
    assert other.fingerprint != first.fingerprint
    assert isinstance(PreparedData.open(tmp_path / "c"), PreparedData)


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
        ({"test_from": dt.date(2010, 1, 1)}, ("data.test_from", "training part")),
        ({"test_from": dt.date(2020, 1, 1)}, ("data.test_from", "test part", "2017-03-29")),
        ({"inputs": ["U10"]}, ("data.inputs", "'U10'", "allowed:")),
        ({"inputs": ["U10_curr", "U10_curr"]}, ("data.inputs", "twice")),
        ({"inputs": ["RVORT1_MAX_future"]}, ("data.inputs", "is the target")),
        ({"target": "RVORT1_MAX"}, ("data.target", "did you mean 'RVORT1_MAX_future'?")),
        ({"groups": {"day": "Run_Date"}}, ("data.groups", "run_date and track")),
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


def test_a_damaged_file_leaves_nothing_behind(storms, tmp_path):
    shutil.copytree(storms, tmp_path / "real")
    (tmp_path / "real" / "twin.json").unlink()
    last = sorted((tmp_path / "real" / schema.PATCH_FOLDER).iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-3000])
    refused(tmp_path, table(tmp_path / "real"), str(last), "cut short")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real"]
