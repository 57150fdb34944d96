"""New cases of tables and arrays: scaled as in training, or refused."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stormsweep.data.npz import input_array
from stormsweep.data.prepared import PreparedData, PreparedWriter, Target, Variable
from stormsweep.data.probabilities import PLACES, ProbabilityWriter
from stormsweep.data.scaling import scale, unscale
from stormsweep.data.tables import input_blocks
from stormsweep.errors import DataError


def test_new_data_are_scaled_as_the_prepared_ones_to_the_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(280, 7, (40, 4, 4, 2)).astype(np.float32)
    with PreparedWriter(
        tmp_path / "data",
        source="npz",
        synthetic=False,
        inputs=[Variable("a"), Variable("b")],
        target=Target("y"),
        groups=[],
        split={},
        provenance={},
        request={},
    ) as writer:
        writer.append(values, np.arange(40) % 2, {}, np.arange(40) >= 30)
    data = PreparedData.open(tmp_path / "data")
    inputs = data.manifest["inputs"]
    assert np.array_equal(scale(values[30:], inputs), data.part("test").inputs)
    assert np.allclose(unscale(data.part("test").inputs, inputs), values[30:], rtol=1e-5)


@given(
    arrays(np.float32, (5, 3), elements=st.floats(-1e3, 1e3, width=32)),
    st.floats(-100, 100),
    st.floats(0.01, 100),
)
def test_unscaling_undoes_scaling(values, mean, std):
    inputs = [{"mean": mean, "std": std}] * 3
    back = unscale(scale(values, inputs), inputs)
    assert np.allclose(back, values, rtol=1e-5, atol=1e-4 * (1 + abs(mean) + std))


def test_columns_are_found_by_name_whatever_else_a_table_has(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("other,b,a\nx,1,2\ny,3,4\n", encoding="utf-8")
    (block,) = input_blocks(path, ["a", "b"])
    assert block.tolist() == [[2, 1], [4, 3]]
    for text, says in (
        ("b,c\n1,2\n", "column 'a' is missing"),
        ("a,b\n1,x\n", "column 'b' is not of numbers"),
        ("a,b\n1,\n", "column 'b' has 1 missing"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=says):
            list(input_blocks(path, ["a", "b"]))
    with pytest.raises(DataError, match="there is no such file"):
        list(input_blocks(tmp_path / "none.csv", ["a"]))


def test_files_without_a_case_are_read_as_such(tmp_path: Path) -> None:
    """A day without storms among others is nothing to end a prediction for."""
    (tmp_path / "new.csv").write_text("a,b\n", encoding="utf-8")
    assert list(input_blocks(tmp_path / "new.csv", ["a", "b"])) == []
    np.savez(tmp_path / "new.npz", inputs=np.ones((0, 8, 8)))
    assert input_array(tmp_path / "new.npz", "inputs", (8, 8, 1)).shape == (0, 8, 8, 1)


@pytest.mark.parametrize("shape", [(0, 2), (0, 4, 4, 2)])
def test_no_case_is_scaled_to_no_case(shape: tuple[int, ...]) -> None:
    inputs = [{"mean": 1.0, "std": 2.0}] * 2
    assert scale(np.ones(shape), inputs).shape == shape
    assert unscale(np.ones(shape), inputs).shape == shape


def test_arrays_of_another_shape_or_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.npz"
    np.savez(
        path, inputs=np.ones((3, 8, 8)), wide=np.ones((3, 8, 9)), odd=np.full((3, 8, 8), np.nan)
    )
    assert input_array(path, "inputs", (8, 8, 1)).shape == (3, 8, 8, 1)
    for name, says in (
        ("wide", r"have shape \(8, 9\); the model takes \(8, 8, 1\)"),
        ("odd", "has missing or infinite values"),
        ("input", "did you mean 'inputs'"),
    ):
        with pytest.raises(DataError, match=says):
            input_array(path, name, (8, 8, 1))


@pytest.mark.parametrize("places", [True, False])
def test_the_file_follows_the_cf_conventions(tmp_path: Path, places: bool) -> None:
    given = {name: np.arange(3).astype(dtype) for name, (dtype, _) in PLACES.items()}
    with ProbabilityWriter(
        tmp_path / "out.nc", 5, ["a.nc", "b.nc"], 0.5, "x > 1", {"title": "t"}, places
    ) as writer:
        first, rest = ({n: v[:k] for n, v in given.items()} if places else None for k in (2, 3))
        writer.append(np.array([0.2, 0.5], np.float32), 0, 0, first)
        writer.append(np.array([0.7, 0.1, 1.0], np.float32), 1, 4, rest)
    with netCDF4.Dataset(tmp_path / "out.nc") as file:
        assert file.Conventions == "CF-1.8"
        assert file["event_forecast"][:].tolist() == [0, 1, 1, 0, 1]
        assert file["file_number"][:].tolist() == [0, 0, 1, 1, 1]
        assert file["row"][:].tolist() == [0, 1, 4, 5, 6]
        # CF 1.8 knows no 64-bit integers; every quantity says what it is and in which units.
        for name, variable in file.variables.items():
            assert variable.dtype is str or variable.dtype.str[1:] in ("i1", "i4", "f4", "f8"), name
            assert variable.long_name
            assert name not in file.dimensions
        assert set(file.variables) >= set(PLACES) if places else "time" not in file.variables
        for name in getattr(file["probability"], "coordinates", "").split():
            assert file[name].standard_name in ("time", "latitude", "longitude")
            assert file[name].units
