"""The twin: what is built on it stands only if it looks like the archive and stays the same."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from stormsweep import files
from stormsweep.errors import DataError
from stormsweep.storms import days, grid, schema, statistics, twin

DATE = dt.date(2012, 5, 10)
EVENT = 0.005


@pytest.fixture(scope="module")
def simulated():
    """Six thousand patches of forty runs, as the files would hold them."""
    counts = twin.run_counts(6000, 7)
    climate = days.climate(counts, 7)
    runs = {date: twin.simulate(date, n, 7, climate) for date, n in counts.items()}
    arrays = {key: np.concatenate([a[key] for a, _ in runs.values()]) for key in schema.FIELDS}
    arrays["masks"] = np.concatenate([a["masks"] for a, _ in runs.values()]) == 1
    columns = {
        key: np.concatenate([c[key] for _, c in runs.values()])
        for key in schema.COLUMNS
        if key != "Valid_Date"
    }
    columns["event"] = np.round(columns["RVORT1_MAX-future_max"], 5) > EVENT
    columns["later"] = columns["Run_Date"].astype(str) >= "2015"
    return arrays, columns


def same(first, second) -> bool:
    return all(
        a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(first, second, strict=True)
    )


def test_the_format_is_the_archives():
    assert len(schema.COLUMNS) == len(set(schema.COLUMNS)) == 80
    assert schema.COLUMNS[15] == "REFL_COM_mean"
    assert schema.COLUMNS[68] == "HAIL_MAXK1-future_percentile_90"
    assert (len(schema.VARIABLES), len(schema.RUN_DATES)) == (23, 100)
    per_year = pd.Series([date.year for date in schema.RUN_DATES]).value_counts().sort_index()
    assert list(per_year) == [2, 18, 15, 14, 15, 16, 16, 4]


def test_the_grid_is_the_models():
    where = grid.grid()
    assert where.lon[660, 758] == pytest.approx(-98.4621, abs=1e-4)
    assert where.lat[660, 758] == pytest.approx(42.9266, abs=3e-4)
    assert (where.lon[-1, -1], where.lat[-1, -1]) == pytest.approx((-65.02124, 46.88567), abs=1e-3)
    back = grid.unproject(*grid.project(np.array([-120.0, -75]), np.array([25.0, 48])))
    assert np.allclose(back, [[-120, -75], [25, 48]])


def test_a_seed_gives_the_same_bits_in_another_process():
    first = twin.simulate(DATE, 150, 3)
    # Other runs before it must not matter.
    twin.simulate(dt.date(2011, 6, 5), 40, 3)
    assert same(first, twin.simulate(DATE, 150, 3))
    code = (
        "import datetime, hashlib; from stormsweep.storms import twin;"
        "a, _ = twin.simulate(datetime.date(2012, 5, 10), 150, 3);"
        "print(hashlib.sha256(b''.join(a[k].tobytes() for k in sorted(a))).hexdigest())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    here = hashlib.sha256(b"".join(first[0][key].tobytes() for key in sorted(first[0])))
    assert told == here.hexdigest()


def test_another_seed_or_date_gives_other_storms():
    first = twin.simulate(DATE, 30, 3)[0]["U10_curr"]
    assert not np.array_equal(first, twin.simulate(DATE, 30, 4)[0]["U10_curr"])
    assert not np.array_equal(first, twin.simulate(dt.date(2012, 5, 3), 30, 3)[0]["U10_curr"])


@pytest.mark.parametrize("patches", [100, 1000, 6000, 20_000, 121_137])
def test_runs_lie_on_both_sides_of_2015(patches):
    counts = twin.run_counts(patches, 1)
    before = {date: n for date, n in counts.items() if date.year < 2015}
    assert sum(counts.values()) == patches
    assert list(counts) == sorted(counts)
    assert set(counts) <= set(schema.RUN_DATES)
    assert min(counts.values()) >= 1
    assert len(before) >= 12
    assert len(counts) - len(before) >= 6
    assert sum(before.values()) / patches == pytest.approx(0.63, abs=0.01)
    if patches == 6000:
        assert len(counts) >= 30
    if patches >= 20_000:
        assert len(counts) == 100
        five = list(counts.values())[:5]
        assert five[0] / patches == pytest.approx(1_472 / 121_137, abs=1 / patches)
        assert sum(five) / patches == pytest.approx(5_481 / 121_137, abs=1 / patches)
    if patches == 121_137:
        assert sum(before.values()) == 76_377
        assert (five[0], sum(five)) == (1_472, 5_481)


def test_identities_of_the_table_hold():
    arrays, columns = twin.simulate(DATE, 300, 5)
    ids = pd.Series(columns["Step_ID"]).str.rsplit("_", n=2, expand=True)
    assert (ids[1].astype(int) == arrays["track_id"]).all()
    assert (ids[2].astype(int) == arrays["track_step"] - 1).all()
    assert (columns["Duration"] == arrays["track_step"]).all()
    assert (columns["Forecast_Hour"] == arrays["time"]).all()
    assert arrays["time"].min() >= 12
    assert arrays["time"].max() <= 35
    assert columns["Valid_Date"][0] == f"2012-05-10 {columns['Forecast_Hour'][0]}:00:00"
    order = np.lexsort((arrays["track_step"], arrays["track_id"]))
    assert (order == np.arange(300)).all()
    first = arrays["track_step"] == 1
    assert (columns["Storm_Motion_U"][first] == 0).all()
    assert (columns["Storm_Motion_U"] % 3000 == 0).all()
    assert np.abs(columns["Storm_Motion_V"]).max() <= 96_000
    assert (arrays["centroid_lon"] == arrays["lon"][:, 16, 16]).all()
    assert (np.diff(arrays["i"], axis=1) == 1).all()
    assert (np.diff(arrays["lat"], axis=1) > 0).all()


def test_masks_are_storms(simulated):
    arrays, columns = simulated
    mask, refl = arrays["masks"], arrays["REFL_COM_curr"]
    assert (refl[mask] >= 40).all()
    assert mask.sum(axis=(1, 2)).min() >= 4
    assert mask.any(axis=2).sum(axis=1).min() >= 2
    assert mask.any(axis=1).sum(axis=1).min() >= 2
    # Neighbours of 40 dBZ and more are not the storm's own.
    assert 0.005 < ((refl >= 40) & ~mask).mean() < 0.06
    # The patch is cut around the reflectivity-weighted centroid.
    weight = refl * mask
    axis = np.arange(32)
    row = (weight.sum(axis=2) @ axis) / weight.sum(axis=(1, 2))
    col = (weight.sum(axis=1) @ axis) / weight.sum(axis=(1, 2))
    assert (np.rint([row, col]) == 16).mean() > 0.995
    assert np.median(columns["area"]) == pytest.approx(26.7, abs=6)
    assert np.median(columns["REFL_COM_max"]) == pytest.approx(52, abs=3)


def test_table_statistics_are_those_of_the_fields(simulated):
    arrays, columns = simulated
    for k in (0, 17, 4000):
        for name in schema.FIELDS:
            cells = arrays[name][k][arrays["masks"][k]].astype("f8")
            for statistic, value in {
                "mean": cells.mean(),
                "std": cells.std(),
                "max": cells.max(),
                "min": cells.min(),
                "percentile_10": np.percentile(cells, 10),
                "percentile_75": np.percentile(cells, 75),
            }.items():
                given = columns[schema.column(name, statistic)][k]
                assert given == pytest.approx(value, rel=1e-9, abs=1e-12), (name, statistic)


def test_shapes_are_those_of_regionprops():
    masks = np.zeros((4, 32, 32), bool)
    masks[0, 10:12, 5:15] = True  # along the columns
    masks[1, 5:15, 10:12] = True  # along the rows
    masks[2, 4:8, 4:8] = True
    masks[3, range(8), range(8)] = True
    found = statistics.shapes(masks)
    # From scikit-image: a 2 x 10 bar has axes 4 sqrt(99 / 12) and 4 sqrt(3 / 12).
    assert found["area"].tolist() == [20, 20, 16, 8]
    assert found["major_axis_length"][:2] == pytest.approx([4 * np.sqrt(99 / 12)] * 2)
    assert found["minor_axis_length"][:2] == pytest.approx([2.0, 2.0])
    assert found["eccentricity"] == pytest.approx([np.sqrt(1 - 3 / 99)] * 2 + [0, 1])
    assert np.abs(found["orientation"][0]) == pytest.approx(np.pi / 2)
    assert found["orientation"][[1, 3]] == pytest.approx([0, np.pi / 4])


def test_wind_structure_tells_more_than_reflectivity(simulated):
    """Else a network that sees the wind would be tuned for nothing."""
    arrays, columns = simulated
    event, later = columns["event"], columns["later"]
    u, v = arrays["U10_curr"], arrays["V10_curr"]
    curl = np.gradient(v, axis=2) - np.gradient(u, axis=1)
    mirrored = np.where(arrays["masks"], -curl, -1).max(axis=(1, 2))
    curl = np.where(arrays["masks"], curl, -1).max(axis=(1, 2))
    spread = np.hypot(columns["U10_std"], columns["V10_std"])
    refl = columns["REFL_COM_mean"]

    def auc(*features):
        x = np.log(np.maximum(np.column_stack(features), 0.05))
        x = (x - x[~later].mean(axis=0)) / x[~later].std(axis=0)
        model = LogisticRegression().fit(x[~later], event[~later])
        return roc_auc_score(event[later], model.decision_function(x[later]))

    echo, both, turning = auc(refl), auc(refl, spread), auc(refl, curl)
    means = auc(np.exp(columns["U10_mean"] / 5), np.exp(columns["V10_mean"] / 5))
    assert 0.78 < echo < 0.93
    assert both > echo + 0.01
    assert turning > both
    assert turning < 0.985
    assert means < 0.65
    # The same storms in a mirror turn the other way: anticyclonic couplets mean nothing.
    assert auc(refl, mirrored) < turning - 0.03
    assert auc(refl, curl, mirrored) == pytest.approx(turning, abs=0.01)


def test_strength_persists_along_tracks(simulated):
    _, columns = simulated
    track = pd.Series(columns["Track_ID"])
    value = pd.Series(np.log(columns["RVORT1_MAX-future_max"]))
    before = value.groupby(track).shift(1)
    assert 0.4 < value.corr(before) < 0.95


def test_files_are_marked_beside_them_only(tmp_path):
    told = []
    summary = twin.synthesize(tmp_path / "twin", 200, 11, lambda *done: told.append(done))
    assert told[-1] == (200, 200)
    assert (summary.patches, summary.before + summary.after, summary.runs) == (200, 200, 18)
    mark = json.loads((tmp_path / "twin" / "twin.json").read_text())
    assert mark["synthetic"] is True
    assert (mark["seed"], mark["patches"], mark["events"]) == (11, 200, summary.events)
    assert len(mark["files"]) == 36
    for name, checksum in mark["files"].items():
        assert files.sha256(tmp_path / "twin" / name) == checksum
    name = next(name for name in mark["files"] if name.endswith(".nc"))
    with netCDF4.Dataset(tmp_path / "twin" / name) as file:
        assert list(file.variables) == list(schema.VARIABLES)
        assert file.ncattrs() == ["Conventions", "title", "object_variable"]
        for key, variable in file.variables.items():
            facts = schema.VARIABLES[key]
            assert (variable.dtype.str[1:], variable.dimensions) == (facts.dtype, facts.dims)
            filters = variable.filters()
            assert filters["zlib"] == (facts.units is not None)
            expected = [] if facts.units is None else ["long_name", "units"]
            assert variable.ncattrs() == expected
    name = next(name for name in mark["files"] if name.endswith(".csv"))
    lines = (tmp_path / "twin" / name).read_text().splitlines()
    assert lines[0] == ",".join(schema.COLUMNS)
    assert all(len(line.split(",")) == 80 for line in lines)
    again = twin.synthesize(tmp_path / "again", 200, 11)
    assert again.events == summary.events
    assert json.loads((tmp_path / "again" / "twin.json").read_text()) == mark


def test_a_twin_is_whole_or_not_there(tmp_path):
    def stop(done, total):
        if done > 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        twin.synthesize(tmp_path / "twin", 200, 1, stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("patches", [99, 121_138])
def test_twins_larger_than_the_archive_are_refused(tmp_path, patches):
    with pytest.raises(DataError, match="allowed are 100 to 121137"):
        twin.synthesize(tmp_path / "twin", patches, 1)


def test_other_folders_are_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="exists and is no twin"):
        twin.synthesize(Path(tmp_path), 100, 1)
    assert (tmp_path / "thesis.tex").exists()
