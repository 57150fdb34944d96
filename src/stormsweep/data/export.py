"""Prepared data for other tools: NumPy files under the 2019 study's names, or NetCDF."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stormsweep import files
from stormsweep.data.layout import PARTS
from stormsweep.data.prepared import Part, PreparedData
from stormsweep.errors import DataError

Format = Literal["npy", "netcdf"]
FORMATS: tuple[Format, ...] = ("npy", "netcdf")
#: Called with how many of how many bytes are written.
Progress = Callable[[int, int], None]
_BLOCK_BYTES = 1 << 26


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
    format : {"npy", "netcdf"}
        ``npy``: ``train_norm_2d`` and ``test_norm_2d`` (float32, scaled inputs, shape (n, height,
        width, channels) or (n, columns)), ``train_out`` and ``test_out`` (uint8, shape (n,)), and
        with `balanced` also ``train_norm_2d_new`` and ``train_out_new``: the names that the scripts
        of the 2019 study use. ``netcdf``: ``train.nc`` and ``test.nc`` with inputs, labels,
        targets, groups, and the mean and standard deviation that the inputs were scaled with.
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
        If the format is not known, the folder exists, or the disk has no room.
    """
    if format not in FORMATS:
        raise DataError(f"format: given {format!r}; must be one of {', '.join(FORMATS)}")
    if destination.exists():
        raise DataError(f"{destination}: exists already; name a folder that does not")
    parts = {name: data.part(name) for name in PARTS}
    total = sum(part.inputs.nbytes for part in parts.values())
    if format == "npy" and balanced is not None:
        total += len(balanced) * parts["train"].inputs[:1].nbytes
    files.check_space(destination, total)
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(done, total)

    with files.replacing_folder(destination) as folder:
        if format == "npy":
            for name, part in parts.items():
                _write_npy(folder, name, "", part, None, tell)
            if balanced is not None:
                _write_npy(folder, "train", "_new", parts["train"], balanced, tell)
        else:
            for name, part in parts.items():
                _write_netcdf(folder / f"{name}.nc", data, name, part, tell)
        names = sorted(file.name for file in folder.iterdir())
    return [destination / name for name in names]


def _blocks(count: int, row_bytes: int) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _write_npy(
    folder: Path,
    name: str,
    suffix: str,
    part: Part,
    rows: NDArray[np.int64] | None,
    tell: Callable[[int], None],
) -> None:
    labels = part.labels if rows is None else part.labels[rows]
    np.save(folder / f"{name}_out{suffix}.npy", labels)
    shape = (len(labels), *part.inputs.shape[1:])
    with open(folder / f"{name}_norm_2d{suffix}.npy", "wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": part.inputs.dtype.str, "fortran_order": False, "shape": shape}
        )
        for block in _blocks(len(labels), part.inputs[:1].nbytes):
            values = part.inputs[block if rows is None else rows[block]]
            stream.write(np.ascontiguousarray(values).data)
            tell(values.nbytes)


def _write_netcdf(
    path: Path, data: PreparedData, name: str, part: Part, tell: Callable[[int], None]
) -> None:
    import netCDF4

    target, inputs = data.manifest["target"], data.manifest["inputs"]
    space = ("row", "column") if part.inputs.ndim == 4 else ()
    dimensions = ("case", *space, "variable")
    with netCDF4.Dataset(path, "w") as file:
        file.title = f"{name} part of data prepared by Stormsweep"
        file.source = ("synthetic, " if data.synthetic else "") + data.manifest["source"]
        file.fingerprint = data.fingerprint
        for dimension, size in zip(dimensions, part.inputs.shape, strict=True):
            file.createDimension(dimension, size)

        def write(called: str, over: str, values: Any, **about: str) -> None:
            kind = str if values.dtype == object else values.dtype
            variable = file.createVariable(called, kind, (over,))
            variable.setncatts(about)
            variable[:] = values

        for key in ("name", "units"):
            write(f"variable_{key}", "variable", _texts([each[key] for each in inputs]))
        for key, what in (("mean", "mean"), ("std", "standard deviation")):
            values = np.array([each[key] for each in inputs])
            write(f"variable_{key}", "variable", values, long_name=f"{what} of the training part")
        event = (
            f"{target['event']} {target['threshold']}"
            if target["threshold"] is not None
            else "is 1"
        )
        write("label", "case", part.labels, long_name=f"1 where {target['name']} {event}, else 0")
        write("target", "case", part.targets, long_name=target["name"], units=target["units"])
        for group, codes in part.groups.items():
            write(f"group_{group}", "case", _texts(data.manifest["groups"][group])[codes])
        scaled = file.createVariable("inputs", part.inputs.dtype, dimensions)
        scaled.long_name = "inputs, less their mean, over their standard deviation"
        scaled.units = "1"
        for block in _blocks(len(part.labels), part.inputs[:1].nbytes):
            scaled[block] = part.inputs[block]
            tell(part.inputs[block].nbytes)


def _texts(values: list[str]) -> NDArray[np.object_]:
    return np.array(values, dtype=object)
