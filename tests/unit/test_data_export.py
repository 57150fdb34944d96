"""Exported data: if these fail, another tool trains on other data than Stormsweep does."""

import shutil

import numpy as np
import pytest
import xarray as xr

from stormsweep.data import export as export_module
from stormsweep.data.export import export
from stormsweep.errors import DataError

from .test_data_prepared import cases, write


@pytest.fixture
def prepared(tmp_path):
    return write(tmp_path / "prepared", cases())


@pytest.fixture(params=[1 << 26, 300], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    for name in ("_BLOCK_BYTES", "_CHUNK_BYTES"):
        monkeypatch.setattr(export_module, name, request.param)


@pytest.mark.usefixtures("blocks")
def test_the_scripts_of_2019_find_their_six_arrays(prepared, tmp_path):
    train, test = prepared.part("train"), prepared.part("test")
    rows = np.array([*range(len(train.labels)), 3, 3, 1])
    told = []
    written = export(prepared, tmp_path / "out", "npy", rows, lambda *each: told.append(each))
    arrays = {path.stem: np.load(path) for path in written}
    expected = {
        "train_norm_2d": train.inputs,
        "train_out": train.labels,
        "test_norm_2d": test.inputs,
        "test_out": test.labels,
        "train_norm_2d_new": train.inputs[rows],
        "train_out_new": train.labels[rows],
    }
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert told[-1][0] == told[-1][1], "the progress ends short of all or beyond"


def opened(folder, name, format):
    if format == "zarr":
        return xr.open_zarr(folder / f"{name}.zarr")
    return xr.open_dataset(folder / f"{name}.nc")


def test_without_zarr_one_line_says_how_to_get_it(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "find_spec", lambda _name: None)
    with pytest.raises(DataError, match=r'install it in the checkout: pip install -e "\.\[zarr\]"'):
        export(prepared, tmp_path / "out", "zarr")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("format", ["netcdf", "zarr"])
def test_everything_is_there_and_gives_the_inputs_back_in_their_units(prepared, tmp_path, format):
    export(prepared, tmp_path / "out", format)
    data = cases()
    for name, mask in (("train", ~data["is_test"]), ("test", data["is_test"])):
        part = prepared.part(name)
        with opened(tmp_path / "out", name, format) as file:
            np.testing.assert_array_equal(file["inputs"], part.inputs)
            np.testing.assert_array_equal(file["label"], part.labels)
            np.testing.assert_array_equal(file["target"], part.targets)
            np.testing.assert_array_equal(file["group_day"], np.array(data["groups"]["day"])[mask])
            given = file["inputs"] * file["variable_std"] + file["variable_mean"]
            np.testing.assert_allclose(given, data["inputs"][mask], rtol=1e-6)
            assert list(file["variable_units"].values) == ["K", "K"]
            assert file.attrs["source"].startswith("synthetic")
            assert file["label"].attrs["long_name"] == "1 where y > 0.5, else 0"


@pytest.mark.parametrize("format", ["netcdf", "zarr"])
def test_a_table_is_exported_too(tmp_path, format):
    prepared = write(tmp_path / "prepared", cases(shape=(5,)))
    export(prepared, tmp_path / "out", format)
    with opened(tmp_path / "out", "test", format) as file:
        assert file["inputs"].dims == ("case", "variable")
        np.testing.assert_array_equal(file["inputs"], prepared.part("test").inputs)


def test_what_lies_there_is_not_overwritten(prepared, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="out: exists already; name a folder that does not"):
        export(prepared, tmp_path / "out", "npy")


def test_an_unknown_format_is_refused(prepared, tmp_path):
    with pytest.raises(DataError, match="given 'mat'; must be one of npy, netcdf, zarr"):
        export(prepared, tmp_path / "out", "mat")


@pytest.mark.parametrize("format", ["npy", "netcdf", "zarr"])
def test_an_interrupted_export_leaves_nothing(prepared, tmp_path, format):
    def interrupt(_done, _total):
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        export(prepared, tmp_path / "out", format, progress=interrupt)
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_is_seen_before_anything_is_written(prepared, tmp_path, monkeypatch):
    # No real disk can be filled here: what the system says of it is replaced.
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DataError, match=r"needs .*, and the disk has 1.0 kB free"):
        export(prepared, tmp_path / "far" / "out", "npy")
    assert not (tmp_path / "far").exists()
