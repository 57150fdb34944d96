"""The format of the NCAR storm archive: run dates, file names, NetCDF variables, table columns.

One run of the forecast model is one pair of files: a CSV table with a row per storm patch and a
NetCDF file with the patches themselves, row k of the one belonging to patch k of the other. The
twin writes this format and the reader checks it; both take it from here.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path

#: Cells along each side of a patch, and the size of a cell in metres.
SIDE = 32
CELL_M = 3000.0
#: Index of the cell, in rows and columns, that the storm's centroid lies in.
CENTRE = 16
#: Forecast hours of a 00 UTC run in which storms are looked for.
FIRST_HOUR, LAST_HOUR = 12, 35
#: The field that storms are found in, and the least value of a storm's own cells (dBZ).
OBJECT_VARIABLE = "REFL_COM"
OBJECT_DBZ = 40.0
#: Fewest cells of a storm.
LEAST_CELLS = 4
ENSEMBLE, MEMBER = "NCARSTORM", "d01"

#: Folder names as the two archives unpack, under one data folder.
TABLE_FOLDER = "track_data_ncar_ams_3km_csv_small"
PATCH_FOLDER = "track_data_ncar_ams_3km_nc_small"
TABLE_NAME = re.compile(r"track_step_NCARSTORM_d01_(\d{8})-0000\.csv")
PATCH_NAME = re.compile(r"NCARSTORM_(\d{8})-0000_d01_model_patches\.nc")

#: Patches of the archive whose run date is before 2015 and in or after it.
ARCHIVE_BEFORE, ARCHIVE_AFTER = 76_377, 44_760
SPLIT_DATE = dt.date(2015, 1, 1)

_DATES = {
    2010: "1024 1122",
    2011: "0201 0308 0326 0404 0414 0420 0425 0509 0522 0527 0605 0610 0615 0620 0625 0704 0712"
    " 1116",
    2012: "0218 0315 0323 0401 0409 0426 0503 0510 0529 0606 0622 0701 0706 0715 1225",
    2013: "0318 0331 0411 0429 0513 0519 0527 0602 0613 0619 0625 0701 0708 0715",
    2014: "0220 0328 0407 0425 0508 0514 0526 0604 0609 0617 0622 0628 0705 0710 1123",
    2015: "0331 0416 0422 0505 0510 0523 0528 0605 0612 0620 0625 0630 0706 0712 1031 1227",
    2016: "0224 0323 0401 0415 0429 0505 0511 0522 0528 0608 0616 0622 0628 0707 0712 1129",
    2017: "0121 0228 0323 0329",
}
#: The 100 run dates of the archive, ascending.
RUN_DATES: tuple[dt.date, ...] = tuple(
    dt.date(year, int(day[:2]), int(day[2:]))
    for year, days in _DATES.items()
    for day in days.split()
)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the NetCDF files.

    Attributes
    ----------
    name : str
        As in the file.
    dtype : str
        ``i4`` or ``f4``.
    dims : tuple of str
        Of ``p`` (patch), ``row`` (northward), ``col`` (eastward).
    units : str or None
        The units attribute; None: the variable has no attributes. For ``time`` the reference date
        is that of the run: see `time_units`.
    long_name : str
        The long_name attribute.
    """

    name: str
    dtype: str
    dims: tuple[str, ...]
    units: str | None
    long_name: str = ""


_CELLS = ("p", "row", "col")
_PATCH = ("p",)
_TABLE: tuple[tuple[str, str, tuple[str, ...], str | None], ...] = (
    ("p", "i4", ("p",), None),
    ("row", "i4", ("row",), None),
    ("col", "i4", ("col",), None),
    ("lon", "f4", _CELLS, "degrees_east"),
    ("lat", "f4", _CELLS, "degrees_north"),
    ("i", "i4", _CELLS, ""),
    ("j", "i4", _CELLS, ""),
    ("x", "f4", _CELLS, "m"),
    ("y", "f4", _CELLS, "m"),
    ("masks", "i4", _CELLS, ""),
    ("time", "i4", _PATCH, "hours since {date} 00:00:00"),
    ("centroid_lon", "f4", _PATCH, "degrees_east"),
    ("centroid_lat", "f4", _PATCH, "degrees_north"),
    ("centroid_i", "f4", _PATCH, ""),
    ("centroid_j", "f4", _PATCH, ""),
    ("track_id", "i4", _PATCH, ""),
    ("track_step", "i4", _PATCH, ""),
    ("REFL_COM_curr", "f4", _CELLS, ""),
    ("U10_curr", "f4", _CELLS, ""),
    ("V10_curr", "f4", _CELLS, ""),
    ("T2_curr", "f4", _CELLS, ""),
    ("RVORT1_MAX_future", "f4", _CELLS, ""),
    ("HAIL_MAXK1_future", "f4", _CELLS, ""),
)
#: Every variable by name, in the order of the files.
VARIABLES: dict[str, Variable] = {
    name: Variable(name, dtype, dims, units, name.removesuffix("_curr").removesuffix("_future"))
    for name, dtype, dims, units in _TABLE
}
#: The weather fields, in the order of the table's statistics.
FIELDS: tuple[str, ...] = tuple(name for name in VARIABLES if name.endswith(("_curr", "_future")))
#: Physical units of the weather fields; the files leave them empty.
PHYSICAL_UNITS = {
    "REFL_COM_curr": "dBZ",
    "U10_curr": "m s-1",
    "V10_curr": "m s-1",
    "T2_curr": "K",
    "RVORT1_MAX_future": "s-1",
    "HAIL_MAXK1_future": "m",
}
#: Which fields are components of a vector: along x (columns, eastward) and y (rows, northward).
VECTORS = {"U10_curr": "wind:x", "V10_curr": "wind:y"}

STATISTICS = (
    "mean",
    "max",
    "min",
    "std",
    *(f"percentile_{percent}" for percent in (10, 25, 50, 75, 90)),
)
SHAPES = ("area", "eccentricity", "major_axis_length", "minor_axis_length", "orientation")
_HEAD = (
    "Step_ID Track_ID Ensemble_Name Ensemble_Member Run_Date Valid_Date Forecast_Hour "
    "Valid_Hour_UTC Duration Centroid_Lon Centroid_Lat Centroid_X Centroid_Y Storm_Motion_U "
    "Storm_Motion_V"
)
_HAIL = "Matched Max_Hail_Size Num_Matches Shape Location Scale"


def column(field: str, statistic: str) -> str:
    """Return the table's name for a statistic of a field over the storm's mask.

    Examples
    --------
    >>> column("RVORT1_MAX_future", "max")
    'RVORT1_MAX-future_max'
    >>> column("U10_curr", "std")
    'U10_std'
    """
    name = field.removesuffix("_curr")
    if name.endswith("_future"):
        name = name.removesuffix("_future") + "-future"
    return f"{name}_{statistic}"


#: The 80 columns of the tables, in order.
COLUMNS: tuple[str, ...] = (
    *_HEAD.split(),
    *(column(field, statistic) for field in FIELDS for statistic in STATISTICS),
    *SHAPES,
    *_HAIL.split(),
)


def table_path(folder: Path, date: dt.date) -> Path:
    """Return where the CSV table of a run lies, under a data folder as the archives unpack."""
    return folder / TABLE_FOLDER / f"track_step_{ENSEMBLE}_{MEMBER}_{date:%Y%m%d}-0000.csv"


def patch_path(folder: Path, date: dt.date) -> Path:
    """Return where the NetCDF patches of a run lie, under a data folder as the archives unpack."""
    return folder / PATCH_FOLDER / f"{ENSEMBLE}_{date:%Y%m%d}-0000_{MEMBER}_model_patches.nc"


def title(date: dt.date) -> str:
    """Return the title attribute of a run's NetCDF file."""
    return f"{ENSEMBLE} Storm Patches for run {date:%Y%m%d}-0000 member {MEMBER}"


def units_of(name: str, date: dt.date) -> str | None:
    """Return the units attribute that a variable has in the file of a run."""
    units = VARIABLES[name].units
    return units if units is None else units.format(date=f"{date:%Y-%m-%d}")
