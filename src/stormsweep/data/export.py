"""Prepared data for other tools: NumPy files under the 2019 study's names, NetCDF, or Zarr."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stormsweep import files
from stormsweep.data.layout import PARTS, PartName
from stormsweep.data.prepared import Part, PreparedData
from stormsweep.errors import DataError

Format = Literal["npy", "netcdf", "zarr"]
FORMATS: tuple[Format, ...] = ("npy", "netcdf", "zarr")
#: Called with how many of how many bytes are written.
Progress = Callable[[int, int], None]
_BLOCK_BYTES = 1 << 26
#: A chunk of a Zarr array: small enough to fetch for a few cases, large enough to be few files.
_CHUNK_BYTES = 1 << 23
_ENTRIES = 1 << 16


def export(
    data: PreparedData,
    destination: Path,
    format: Format,
    balanced: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write prepared data as files that other tools read.

    Memory stays small whatever the size: arrays go from disk to disk in blocks of 64 MiB.

    Parameters
    ----------
    data : PreparedData
    destination : Path
        A folder that does not exist; it appears when all is written.
    format : {"npy", "netcdf", "zarr"}
        What the files hold is said in `stormsweep.Study.export`.
    balanced : ndarray of int64, shape (m,), optional
        Rows of the training part after balancing, copies among them. Only ``npy`` writes them.
    progress : callable, optional
        Told how many of how many bytes are written.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    DataError
        If the format is not known or its package not installed, the folder exists, or the disk
        has no room or takes no more.
    """
    if format not in FORMATS:
        raise DataError(f"format: given {format!r}; must be one of {', '.join(FORMATS)}")
    if format == "zarr" and find_spec("zarr") is None:
        raise DataError(
            'format: "zarr" needs the package zarr; install it in the checkout: '
            'pip install -e ".[zarr]"'
        )
    if destination.exists():
        raise DataError(f"{destination}: exists already; name a folder that does not")
    count = sum(data.manifest["parts"][part]["count"] for part in PARTS)
    if format == "npy" and balanced is not None:
        count += len(balanced)
    total = count * 4 * math.prod(data.manifest["input_shape"])
    files.check_space(destination, total)
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, total)

    with files.writing(destination), files.replacing_folder(destination) as folder:
        for name in PARTS:
            if format == "npy":
                _write_npy(folder, name, "", data, None, tell)
            elif format == "netcdf":
                _write_netcdf(folder / f"{name}.nc", data, name, tell)
            else:
                _write_zarr(folder / f"{name}.zarr", data, name, tell)
        if format == "npy" and balanced is not None:
            _write_npy(folder, "train", "_new", data, balanced, tell)
        names = sorted(file.name for file in folder.iterdir())
    return [destination / name for name in names]


def _rows(row_bytes: int, most: int) -> int:
    return max(1, most // max(1, row_bytes))


def _input_blocks(
    data: PreparedData,
    name: PartName,
    most: int,
    tell: Callable[[int], None],
    rows: NDArray[np.int64] | None = None,
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield blocks of the inputs, or of some rows of them, and tell of each when it is done with.

    The array is mapped anew for each: what was read of one mapping would count as memory in use.
    """
    inputs = data.part(name).inputs
    count, step = len(inputs if rows is None else rows), _rows(inputs[:1].nbytes, most)
    for start in range(0, count, step):
        block = slice(start, min(start + step, count))
        inputs = data.part(name).inputs
        values = np.array(inputs[block if rows is None else rows[block]])
        del inputs
        yield block, values
        tell(values.nbytes)


def _write_npy(
    folder: Path,
    name: PartName,
    suffix: str,
    data: PreparedData,
    rows: NDArray[np.int64] | None,
    tell: Callable[[int], None],
) -> None:
    part = data.part(name)
    labels = part.labels if rows is None else part.labels[rows]
    np.save(folder / f"{name}_out{suffix}.npy", labels)
    shape = (len(labels), *part.inputs.shape[1:])
    with open(folder / f"{name}_norm_2d{suffix}.npy", "wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": part.inputs.dtype.str, "fortran_order": False, "shape": shape}
        )
        for _, values in _input_blocks(data, name, _BLOCK_BYTES, tell, rows):
            stream.write(values.data)


def _write_netcdf(
    path: Path, data: PreparedData, name: PartName, tell: Callable[[int], None]
) -> None:
    import netCDF4

    part = data.part(name)
    dimensions = _dimensions(part)
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts(_about(data, name))
        for dimension, size in zip(dimensions, part.inputs.shape, strict=True):
            file.createDimension(dimension, size)
        for called, over, values, about in _small_arrays(data, part):
            kind = str if values.dtype == object else values.dtype
            variable = file.createVariable(called, kind, (over,))
            variable.setncatts(about)
            variable[:] = values
        scaled = file.createVariable("inputs", part.inputs.dtype, dimensions)
        scaled.setncatts(_INPUTS)
        for block, values in _input_blocks(data, name, _BLOCK_BYTES, tell):
            scaled[block] = values


def _write_zarr(
    path: Path, data: PreparedData, name: PartName, tell: Callable[[int], None]
) -> None:
    import zarr

    part = data.part(name)
    # Format 2: format 3 has no settled texts nor consolidated metadata yet. No fill value: it would
    # be read as "missing", and every label 0 with it.
    group = zarr.open_group(path, mode="w", zarr_format=2, attributes=_about(data, name))

    def create(called: str, over: tuple[str, ...], rows: int, values: Any, about: Any) -> Any:
        chunks = (max(1, min(rows, len(values))), *values.shape[1:])
        return group.create_array(
            called,
            shape=values.shape,
            chunks=chunks,
            dtype=str if values.dtype == object else values.dtype,
            fill_value=None,
            attributes={**about, "_ARRAY_DIMENSIONS": list(over)},
        )

    for called, over, values, about in _small_arrays(data, part):
        create(called, (over,), _ENTRIES, values, about)[:] = values
    rows = _rows(part.inputs[:1].nbytes, _CHUNK_BYTES)
    scaled = create("inputs", _dimensions(part), rows, part.inputs, _INPUTS)
    for block, values in _input_blocks(data, name, _CHUNK_BYTES, tell):
        scaled[block] = values
    zarr.consolidate_metadata(group.store)


_INPUTS = {
    "long_name": "inputs, less their mean, over their standard deviation",
    "units": "1",
}


def _dimensions(part: Part) -> tuple[str, ...]:
    return ("case", *(("row", "column") if part.inputs.ndim == 4 else ()), "variable")


def _about(data: PreparedData, name: str) -> dict[str, Any]:
    return {
        "title": f"{name} part of data prepared by Stormsweep",
        "source": ("synthetic, " if data.synthetic else "") + data.manifest["source"],
        "fingerprint": data.fingerprint,
    }


def _small_arrays(
    data: PreparedData, part: Part
) -> Iterator[tuple[str, str, NDArray[Any], dict[str, str]]]:
    """Yield all but the inputs: name, dimension, values and attributes."""
    target, inputs = data.manifest["target"], data.manifest["inputs"]
    for key in ("name", "units"):
        yield f"variable_{key}", "variable", _texts([each[key] for each in inputs]), {}
    for key, what in (("mean", "mean"), ("std", "standard deviation")):
        values = np.array([each[key] for each in inputs])
        yield f"variable_{key}", "variable", values, {"long_name": f"{what} of the training part"}
    event = f"{target['event']} {target['threshold']}"
    if target["threshold"] is None:
        event = "is 1"
    meaning = {"long_name": f"1 where {target['name']} {event}, else 0"}
    yield "label", "case", part.labels, meaning
    yield "target", "case", part.targets, {"long_name": target["name"], "units": target["units"]}
    for group, codes in part.groups.items():
        yield f"group_{group}", "case", _texts(data.manifest["groups"][group])[codes], {}


def _texts(values: list[str]) -> NDArray[np.object_]:
    return np.array(values, dtype=object)
