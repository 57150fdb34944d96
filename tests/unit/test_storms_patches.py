"""Reading storm files: a wrong pairing of tables and pictures would poison every score unseen."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest

from stormsweep.errors import DataError
from stormsweep.storms import schema, twin, writing
from stormsweep.storms.patches import PatchFile
from stormsweep.storms.runs import RunReader, find_runs

DATE = dt.date(2011, 4, 14)
INPUTS = ("REFL_COM_curr", "U10_curr", "V10_curr")
TARGET = "RVORT1_MAX_future"
UNITS = {
    "lon": "degrees_east",
    "lat": "degrees_north",
    "x": "m",
    "y": "m",
    "time": "hours since 2011-04-14 00:00:00",
    "centroid_lon": "degrees_east",
    "centroid_lat": "degrees_north",
}


@pytest.fixture(scope="module")
def run():
    return twin.simulate(DATE, 60, 1)


@pytest.fixture
def folder(tmp_path, run):
    arrays, columns = run
    for place in (schema.table_path, schema.patch_path):
        place(tmp_path, DATE).parent.mkdir()
    writing.write_patches(schema.patch_path(tmp_path, DATE), DATE, arrays)
    writing.write_table(schema.table_path(tmp_path, DATE), columns)
    return tmp_path


def read(folder: Path, inputs=INPUTS, target=TARGET, size=25):
    (files,) = find_runs(folder)
    with RunReader(files, inputs, target) as reader:
        blocks = list(reader.blocks(size))
    keys = ("inputs", "target", "mask", "mask_max", "patch_max", "track", "step", "hour")
    return {key: np.concatenate([getattr(block, key) for block in blocks]) for key in keys}


def refused(folder: Path, *words: str, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


def edit_table(folder: Path, change) -> Path:
    path = schema.table_path(folder, DATE)
    table = change(pd.read_csv(path, dtype=str, keep_default_na=False))
    table.to_csv(path, index=False)
    return path


def test_what_is_written_reads_back(folder, run):
    arrays, columns = run
    got = read(folder, inputs=("T2_curr", "U10_curr"))
    assert got["inputs"].shape == (60, 32, 32, 2)
    assert got["inputs"].dtype == np.float32
    assert np.array_equal(got["inputs"][..., 0], arrays["T2_curr"])
    assert np.array_equal(got["target"], arrays[TARGET])
    assert np.array_equal(got["mask"], arrays["masks"] == 1)
    assert np.array_equal(got["step"], arrays["track_step"])
    assert np.array_equal(got["patch_max"], arrays[TARGET].max(axis=(1, 2)))
    assert np.allclose(got["mask_max"], columns["RVORT1_MAX-future_max"], atol=5.1e-6)


@pytest.mark.parametrize("layout", ["unpacked", "directly"])
def test_a_file_written_by_hand_reads_alike(tmp_path, run, layout):
    """By the facts of the archive alone: nothing of this project's writer takes part."""
    arrays, columns = run
    whole = ["i", "j", "masks", "time", "track_id", "track_step"]
    names = ["lon", "lat", "i", "j", "x", "y", "masks", "time", "centroid_lon", "centroid_lat"]
    names += ["centroid_i", "centroid_j", "track_id", "track_step", "REFL_COM_curr", "U10_curr"]
    names += ["V10_curr", "T2_curr", "RVORT1_MAX_future", "HAIL_MAXK1_future"]
    nc = tmp_path / "track_data_ncar_ams_3km_nc_small"
    csv = tmp_path / "track_data_ncar_ams_3km_csv_small"
    if layout == "directly":
        nc = csv = tmp_path
    nc.mkdir(exist_ok=True)
    csv.mkdir(exist_ok=True)
    with netCDF4.Dataset(nc / "NCARSTORM_20110414-0000_d01_model_patches.nc", "w") as file:
        file.createDimension("p", 60)
        file.createDimension("row", 32)
        file.createDimension("col", 32)
        for name, size in (("p", 60), ("row", 32), ("col", 32)):
            file.createVariable(name, "i4", (name,))[:] = np.arange(size)
        for name in names:
            dims = ("p", "row", "col") if arrays[name].ndim == 3 else ("p",)
            variable = file.createVariable(
                name, "i4" if name in whole else "f4", dims, zlib=True, complevel=1
            )
            variable[:] = arrays[name]
            variable.setncatts(
                {
                    "long_name": name.split("_curr")[0].split("_future")[0],
                    "units": UNITS.get(name, ""),
                }
            )
        file.Conventions = "CF-1.6"
        file.title = "NCARSTORM Storm Patches for run 20110414-0000 member d01"
        file.object_variable = "REFL_COM"
    lines = [",".join(columns)]
    for k in range(60):
        cells = (columns[name][k] for name in columns)
        lines.append(",".join(x if isinstance(x, str) else f"{float(x):.5f}" for x in cells))
    table = csv / "track_step_NCARSTORM_d01_20110414-0000.csv"
    table.write_text("\n".join(lines) + "\n")

    ours = tmp_path / "ours"
    ours.mkdir()
    writing.write_patches(ours / schema.patch_path(ours, DATE).name, DATE, arrays)
    writing.write_table(ours / schema.table_path(ours, DATE).name, columns)
    first, second = read(tmp_path), read(ours)
    for key in first:
        assert np.array_equal(first[key], second[key]), key


@pytest.mark.parametrize("kind", ["rows", "ids kept"])
def test_a_shuffled_table_is_refused(folder, kind):
    def shuffle(table):
        mixed = table.sample(frac=1, random_state=1)
        if kind == "ids kept":
            head = list(schema.COLUMNS[:15])
            mixed = pd.concat(
                [table[head], mixed.drop(columns=head).reset_index(drop=True)], axis=1
            )
        return mixed

    path = edit_table(folder, shuffle)
    refused(folder, str(path), "row")


def test_shuffled_patches_are_refused(folder, run):
    arrays, _ = run
    order = np.random.default_rng(0).permutation(60)
    path = schema.patch_path(folder, DATE)
    writing.write_patches(path, DATE, {key: value[order] for key, value in arrays.items()})
    refused(folder, path.name, "same order")
    fields = {key: arrays[key][order] for key in schema.FIELDS}
    writing.write_patches(path, DATE, arrays | fields)
    refused(folder, "another patch")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_netcdf_file_cut_short_is_refused(folder, share):
    path = schema.patch_path(folder, DATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(folder, str(path), "cut short")


def test_a_table_cut_short_is_refused(folder):
    path = schema.table_path(folder, DATE)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(folder, str(path), "cut short", "of 80 columns")
    path.write_bytes(b"\n".join(content.split(b"\n")[:41]) + b"\n")
    refused(folder, str(path), "40 rows", "60 patches")
    path.write_bytes(content.split(b"\n")[0] + b"\n")
    refused(folder, str(path), "no rows")
    path.write_bytes(b"")
    refused(folder, str(path), "no rows")


def test_a_renamed_run_is_refused(folder):
    other = dt.date(2011, 4, 20)
    schema.patch_path(folder, DATE).rename(schema.patch_path(folder, other))
    refused(folder, "is missing", "20110414")
    schema.table_path(folder, DATE).rename(schema.table_path(folder, other))
    refused(folder, "20110420-0000.csv", "must be an id of run 20110420")
    table = schema.table_path(folder, other)
    table.write_text(
        table.read_text().replace("20110414", "20110420").replace("2011-04-14", "2011-04-20")
    )
    refused(folder, "title", "must be 'NCARSTORM Storm Patches for run 20110420")


def test_a_name_without_a_date_is_refused(folder):
    path = schema.patch_path(folder, DATE)
    path.rename(path.with_name("NCARSTORM_patches.nc"))
    refused(folder, "NCARSTORM_patches.nc", "NCARSTORM_YYYYMMDD-0000_d01_model_patches.nc")


@pytest.mark.parametrize("units", [None, "knots"])
@pytest.mark.parametrize("name", ["U10_curr", "RVORT1_MAX_future", "time", "masks"])
def test_other_units_are_refused(folder, name, units):
    path = schema.patch_path(folder, DATE)
    with netCDF4.Dataset(path, "a") as file:
        file[name].delncattr("units")
        if units:
            file[name].units = units
    given = f"units {units!r}" if units else "no units"
    refused(folder, str(path), name, given, repr(UNITS.get(name, "")))


def test_units_of_a_variable_that_is_not_read_do_not_matter(folder):
    with netCDF4.Dataset(schema.patch_path(folder, DATE), "a") as file:
        file["T2_curr"].delncattr("units")
    assert len(read(folder)["track"]) == 60


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("U10_curr", netCDF4.default_fillvals["f4"]),
        ("V10_curr", np.nan),
        ("RVORT1_MAX_future", np.inf),
        ("time", netCDF4.default_fillvals["i4"]),
    ],
)
def test_missing_values_are_refused(folder, name, bad):
    with netCDF4.Dataset(schema.patch_path(folder, DATE), "a") as file:
        file.set_auto_mask(False)
        file[name][(31,) + (5,) * (file[name].ndim - 1)] = bad
    refused(folder, name, "1 missing or not finite", "patch 31")


def rewritten(folder: Path, run, change) -> None:
    """Write the patch file anew with other facts."""
    arrays, _ = run
    path = schema.patch_path(folder, DATE)
    facts = {"dims": {}, "dtype": {}, "drop": (), "side": 32} | change
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("p", 60), ("row", facts["side"]), ("col", facts["side"])):
            file.createDimension(name, size)
        for name, array in arrays.items():
            if name in facts["drop"]:
                continue
            known = schema.VARIABLES[name]
            dims = facts["dims"].get(name, known.dims)
            variable = file.createVariable(name, facts["dtype"].get(name, known.dtype), dims)
            variable.units = schema.units_of(name, DATE)
            if array.ndim == 3:
                variable[:] = array[:, : facts["side"], : facts["side"]]
            else:
                variable[:] = array
        file.title = schema.title(DATE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"drop": ("V10_curr",)}, ("variable 'V10_curr' is missing",)),
        ({"drop": ("masks",)}, ("variable 'masks' is missing",)),
        ({"dims": {"U10_curr": ("p", "col", "row")}}, ("U10_curr", "p, col, row", "p, row, col")),
        ({"dtype": {"U10_curr": "i2"}}, ("U10_curr", "int16", "floating-point")),
        ({"dtype": {"track_id": "f4"}}, ("track_id", "float32", "an integer")),
        ({"side": 30}, ("dimension row is 30", "must be 32")),
    ],
)
def test_other_shapes_and_types_are_refused(folder, run, change, words):
    rewritten(folder, run, change)
    refused(folder, str(schema.patch_path(folder, DATE)), *words)


def test_a_mask_maximum_above_the_patch_is_refused(folder):
    def raise_one(table):
        table.loc[12, "RVORT1_MAX-future_max"] = "0.09000"
        return table

    with netCDF4.Dataset(schema.patch_path(folder, DATE), "a") as file:
        file["masks"][12, 0] = file["masks"][12, -1] = 0
        file["masks"][12, :, 0] = file["masks"][12, :, -1] = 0
    edit_table(folder, raise_one)
    refused(folder, "row 12", "RVORT1_MAX-future_max 0.09000", "at most")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="Duration"), ("column 'Duration' is missing",)),
        (lambda t: t.assign(Run_Date="2011-04-15"), ("Run_Date", "must be 2011-04-14")),
        (
            lambda t: t.assign(**{"RVORT1_MAX-future_max": "nan"}),
            ("row 0", "RVORT1_MAX-future_max", "finite"),
        ),
        (lambda t: t.assign(Duration="once"), ("Duration 'once'",)),
        (lambda t: t.assign(Step_ID=t["Step_ID"].iloc[0]), ("Track_ID",)),
        (lambda t: t.assign(Forecast_Hour="13"), ("Forecast_Hour 13", "time")),
    ],
)
def test_tables_with_other_content_are_refused(folder, change, words):
    refused(folder, str(edit_table(folder, change)), *words)


def test_no_files_and_no_partner_are_refused(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    refused(empty, str(empty), "no storm files", "YYYYMMDD")
    refused(empty / "not-there", "no such folder")
    schema.table_path(folder, DATE).unlink()
    refused(folder, "its table track_step_NCARSTORM_d01_20110414-0000.csv is missing")


def test_a_file_in_both_places_is_refused(folder):
    path = schema.patch_path(folder, DATE)
    shutil.copy(path, folder / path.name)
    refused(folder, "there is also")


def test_an_unknown_variable_names_the_nearest(folder):
    refused(folder, "'U10_cur'", "did you mean 'U10_curr'?", inputs=("U10_cur",))


@pytest.fixture
def new(folder, run):
    """A file to predict from: another name and title, no table, nothing of the next hour."""
    arrays, _ = run
    path = folder / "tonight.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("p", 60), ("row", 32), ("col", 32)):
            file.createDimension(name, size)
        for name, array in arrays.items():
            if not name.endswith("_future"):
                known = schema.VARIABLES[name]
                variable = file.createVariable(name, known.dtype, known.dims)
                variable.units = "" if known.units is None else schema.units_of(name, DATE)
                variable[:] = array
        file["time"].units = "hours since 2019-05-20 12:00:00"
        file.title = "Storm patches of tonight"
    return path


def test_a_file_to_predict_from_needs_neither_table_nor_target(new, run):
    arrays, _ = run
    with PatchFile(new, INPUTS) as file:
        assert (file.count, file.start) == (60, dt.datetime(2019, 5, 20, 12))
        blocks = list(file.blocks(25))
    assert [len(block.inputs) for block in blocks] == [25, 25, 10]
    inputs = np.concatenate([block.inputs for block in blocks])
    assert np.array_equal(inputs, np.stack([arrays[name] for name in INPUTS], axis=-1))
    for name, key in (
        ("track", "track_id"),
        ("hour", "time"),
        ("lon", "centroid_lon"),
        ("lat", "centroid_lat"),
    ):
        assert np.array_equal(np.concatenate([getattr(b, name) for b in blocks]), arrays[key])
    assert all(block.complete.all() for block in blocks)


def test_a_day_without_storms_has_no_block(tmp_path, run):
    arrays, _ = run
    path = tmp_path / "calm.nc"
    writing.write_patches(path, DATE, {name: values[:0] for name, values in arrays.items()})
    with PatchFile(path, INPUTS) as file:
        assert file.count == 0
        assert list(file.blocks()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file["U10_curr"].setncattr("units", "knots"), ("U10_curr", "'knots'")),
        (lambda file: file.renameVariable("V10_curr", "V_curr"), ("'V10_curr' is missing",)),
        (lambda file: file["time"].setncattr("units", "days"), ("time has units 'days'",)),
        (lambda file: file["time"].delncattr("units"), ("time has units None",)),
        (lambda file: file.renameDimension("p", "patch"), ("dimension p is missing",)),
    ],
)
def test_a_file_to_predict_from_is_checked_too(new, change, words):
    with netCDF4.Dataset(new, "a") as file:
        change(file)
    with pytest.raises(DataError) as caught, PatchFile(new, INPUTS):
        pass
    for word in (str(new), *words):
        assert word in str(caught.value)


def test_missing_values_are_told_where_they_are_allowed(new):
    with netCDF4.Dataset(new, "a") as file:
        file.set_auto_mask(False)
        file["U10_curr"][31, 4, 4] = netCDF4.default_fillvals["f4"]
        file["V10_curr"][31, 4, 5] = np.nan
        file["V10_curr"][58, 0, 0] = np.inf
        file["T2_curr"][3] = np.nan
    with PatchFile(new, INPUTS, allow_missing=True) as file:
        (block,) = file.blocks(60)
    assert np.flatnonzero(~block.complete).tolist() == [31, 58]


def test_a_pattern_that_nothing_matches_is_no_damaged_file(tmp_path):
    # The shell hands it on as it stands.
    with (
        pytest.raises(DataError, match=r"\*\.nc: there is no such file"),
        PatchFile(tmp_path / "*.nc", INPUTS),
    ):
        pass


def test_how_a_file_is_cut_into_chunks_does_not_matter(new, run, monkeypatch):
    """The archive's files have chunks of part of a patch; some tools write one chunk a file."""
    import stormsweep.storms.patches as module

    arrays, _ = run
    monkeypatch.setattr(module, "_MOST", 16)
    monkeypatch.setattr(module, "_BLOCK", 7)
    for chunks in ((8, 16, 16), (60, 32, 32), (16, 32, 32), (60, 5, 32)):
        with netCDF4.Dataset(new, "a") as file:
            file.renameVariable("U10_curr", f"old_{chunks[0]}_{chunks[1]}")
            made = file.createVariable(
                "U10_curr", "f4", ("p", "row", "col"), zlib=True, chunksizes=chunks
            )
            made.units = ""
            made[:] = arrays["U10_curr"]
        with PatchFile(new, ("U10_curr",)) as file:
            inputs = np.concatenate([block.inputs for block in file.blocks()])
        assert np.array_equal(inputs[..., 0], arrays["U10_curr"])
