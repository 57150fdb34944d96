"""Write one run in the format of the archive: a NetCDF file of patches and a CSV table."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import numpy.typing as npt

from stormsweep.storms import schema


def write_patches(path: Path, date: dt.date, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Write a NetCDF file of patches.

    Parameters
    ----------
    path : Path
        Where to; its folder must exist.
    date : datetime.date
        Run date.
    arrays : dict of str to ndarray
        Every variable of `schema.VARIABLES` but the dimensions' own ``p``, ``row`` and ``col``.
    """
    count = len(arrays["time"])
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        # Every value is written below: no need to fill the file first.
        file.set_fill_off()
        for name, size in (("p", count), ("row", schema.SIDE), ("col", schema.SIDE)):
            file.createDimension(name, size)
        for name, variable in schema.VARIABLES.items():
            own_dimension = variable.units is None
            made = file.createVariable(
                name, variable.dtype, variable.dims, zlib=not own_dimension, complevel=1
            )
            made.set_auto_maskandscale(False)
            if own_dimension:
                made[:] = np.arange(file.dimensions[name].size, dtype=variable.dtype)
                continue
            made.long_name = variable.long_name
            made.units = schema.units_of(name, date)
            made[:] = np.asarray(arrays[name], dtype=variable.dtype)
        file.Conventions = "CF-1.6"
        file.title = schema.title(date)
        file.object_variable = schema.OBJECT_VARIABLE


def write_table(path: Path, columns: dict[str, Any]) -> None:
    """Write a run's CSV table: the 80 columns in order, floats with five decimals."""
    cells = [np.asarray(columns[name]) for name in schema.COLUMNS]
    # One format a row is several times as fast as formatting value by value.
    row = ",".join("%.5f" if cell.dtype.kind == "f" else "%s" for cell in cells) + "\n"
    rows = zip(*(cell.tolist() for cell in cells), strict=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(",".join(schema.COLUMNS) + "\n")
        stream.writelines(row % values for values in rows)
