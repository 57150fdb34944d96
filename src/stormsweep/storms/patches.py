"""Read storm files run by run, block by block, and check them instead of trusting them.

A run is a CSV table and a NetCDF file of patches. Nothing in either says so, but row k of the one
belongs to patch k of the other; every fact that both of them hold is compared before a label from
the table meets a picture from the NetCDF file.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import netCDF4
import numpy as np
import numpy.typing as npt
import pandas as pd

from stormsweep.errors import DataError, nearest
from stormsweep.storms import schema

Ints = npt.NDArray[np.int64]
_IDENTITY = ("track_id", "track_step", "time")
_USED = ("Step_ID", "Track_ID", "Run_Date", "Forecast_Hour", "Duration")
_STEP_ID = r"^(?P<track>.+_(?P<run>\d{8}-\d{4})_\d+_\d+_(?P<number>\d+))_(?P<step>\d+)$"
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The pair of files of one run."""

    date: dt.date
    table: Path
    patches: Path


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive patches of a run.

    Attributes
    ----------
    start : int
        Number of the first patch within its run.
    inputs : ndarray of float32, shape (n, 32, 32, channels)
        The input variables, in the order asked for.
    target : ndarray of float32, shape (n, 32, 32)
        The target variable.
    mask : ndarray of bool, shape (n, 32, 32)
        The storm's own cells.
    mask_max : ndarray of float64, shape (n,)
        Greatest target value over the storm's own cells, from the table (five decimals).
    patch_max : ndarray of float32, shape (n,)
        Greatest target value of the whole patch.
    track, step, hour : ndarray of int64, shape (n,)
        Track number from 0, step in the track from 1, forecast hour.
    """

    start: int
    inputs: npt.NDArray[np.float32]
    target: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    mask_max: npt.NDArray[np.float64]
    patch_max: npt.NDArray[np.float32]
    track: Ints
    step: Ints
    hour: Ints


def find_runs(folder: Path) -> list[RunFiles]:
    """Find the pairs of storm files under a data folder, ascending by run date.

    They lie in the two folders that the archives unpack to, or in `folder` itself.

    Raises
    ------
    DataError
        If there are none, one lacks its partner, one is there twice, or a name is not of the
        archive's pattern.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of storm files")
    tables = _dated(folder, schema.TABLE_FOLDER, "track_step*.csv", schema.TABLE_NAME)
    patches = _dated(folder, schema.PATCH_FOLDER, "*.nc", schema.PATCH_NAME)
    if not tables and not patches:
        raise DataError(
            f"{folder}: no storm files; expected {schema.table_path(Path(), dt.date.min).parent}/"
            f"track_step_NCARSTORM_d01_YYYYMMDD-0000.csv and {schema.PATCH_FOLDER}/"
            "NCARSTORM_YYYYMMDD-0000_d01_model_patches.nc"
        )
    for date in sorted(tables.keys() ^ patches.keys()):
        if date in tables:
            partner = schema.patch_path(folder, date).name
            raise DataError(f"{tables[date]}: its patch file {partner} is missing")
        partner = schema.table_path(folder, date).name
        raise DataError(f"{patches[date]}: its table {partner} is missing")
    return [RunFiles(date, tables[date], patches[date]) for date in sorted(tables)]


def _dated(folder: Path, name: str, glob: str, pattern: re.Pattern[str]) -> dict[dt.date, Path]:
    found: dict[dt.date, Path] = {}
    for place in (folder / name, folder):
        for path in sorted(place.glob(glob)):
            match = pattern.fullmatch(path.name)
            try:
                date = dt.datetime.strptime(match[1] if match else "", "%Y%m%d").date()
            except ValueError:
                allowed = pattern.pattern.replace("\\", "").replace("(d{8})", "YYYYMMDD")
                raise DataError(
                    f"{path}: not a name of the archive; expected {allowed}, with a date"
                ) from None
            if date in found:
                raise DataError(f"{path}: there is also {found[date]}; keep one of the two")
            found[date] = path
    return found


def check_fields(names: Iterable[str], key: str) -> None:
    """Refuse names that are no weather field of the patch files.

    Parameters
    ----------
    names : iterable of str
        What was asked for.
    key : str
        Where it was asked for, for the error message.
    """
    for name in names:
        if name not in schema.FIELDS:
            raise DataError(
                f"{key}: unknown variable {name!r}{nearest(name, schema.FIELDS)}; "
                f"allowed: {', '.join(schema.FIELDS)}"
            )


class RunReader:
    """Reads one run; a context manager. Opening it checks all that takes no reading of fields.

    Parameters
    ----------
    files : RunFiles
        The pair.
    inputs : sequence of str
        Weather fields that become channels.
    target : str
        The weather field that is predicted.

    Raises
    ------
    DataError
        In one line, if a file cannot be read, is cut short, lacks what is needed, has other
        dimensions or units, or does not belong to the other.
    """

    def __init__(self, files: RunFiles, inputs: Sequence[str], target: str) -> None:
        check_fields([*inputs, target], str(files.patches))
        self.files = files
        self.inputs = tuple(inputs)
        self.target = target
        #: Every field that is read, each once.
        self.fields = tuple(dict.fromkeys((*inputs, target)))
        self._table = read_table(files, self.fields)
        self.count = len(self._table)
        try:
            self._file = netCDF4.Dataset(files.patches)
        except OSError as error:
            raise DataError(
                f"{files.patches}: cannot be read as NetCDF; damaged or cut short "
                f"({error.strerror or error})"
            ) from None
        try:
            self._file.set_auto_maskandscale(False)
            self._check_file()
            self.track, self.step, self.hour = (
                self._read(name, slice(None)).astype(np.int64) for name in _IDENTITY
            )
            self._check_rows()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def blocks(self, size: int = _BLOCK) -> Iterator[Block]:
        """Yield the patches in blocks of at most `size`.

        Raises
        ------
        DataError
            If a field cannot be read, has missing or not finite values, or a statistic of the
            table lies outside of its patch.
        """
        for start in range(0, self.count, size):
            rows = slice(start, min(start + size, self.count))
            mask = self._read("masks", rows)
            if not np.isin(mask, (0, 1)).all():
                raise DataError(f"{self.files.patches}: masks has values other than 0 and 1")
            own = mask.astype(bool)
            fields = {name: self._read(name, rows) for name in self.fields}
            for name, field in fields.items():
                self._check_statistics(name, field, own, rows)
            target = fields[self.target]
            yield Block(
                start,
                np.stack([fields[name] for name in self.inputs], axis=-1),
                target,
                own,
                self._table[schema.column(self.target, "max")].to_numpy()[rows],
                target.max(axis=(1, 2)),
                self.track[rows],
                self.step[rows],
                self.hour[rows],
            )

    def _check_file(self) -> None:
        path, date = self.files.patches, self.files.date
        title = getattr(self._file, "title", None)
        if title != schema.title(date):
            raise DataError(
                f"{path}: its title is {title!r}; by its name it must be {schema.title(date)!r}"
            )
        for name, expected in (("row", schema.SIDE), ("col", schema.SIDE), ("p", self.count)):
            dimension = self._file.dimensions.get(name)
            size = None if dimension is None else dimension.size
            if size == expected:
                continue
            if name == "p" and size is not None:
                raise DataError(
                    f"{self.files.table}: {self.count} rows, but {path.name} has {size} patches; "
                    "one of the two is cut short"
                )
            raise DataError(
                f"{path}: dimension {name} is {'missing' if size is None else size}; "
                f"must be {expected}"
            )
        for name in (*_IDENTITY, "masks", *self.fields):
            self._check_variable(name)

    def _check_variable(self, name: str) -> None:
        path, expected = self.files.patches, schema.VARIABLES[name]
        if name not in self._file.variables:
            raise DataError(
                f"{path}: variable {name!r} is missing{nearest(name, self._file.variables)}"
            )
        variable = self._file.variables[name]
        if variable.dimensions != expected.dims:
            raise DataError(
                f"{path}: {name} has dimensions {', '.join(variable.dimensions)}; "
                f"must be {', '.join(expected.dims)}"
            )
        kinds = "f" if expected.dtype == "f4" else "iu"
        if getattr(variable.dtype, "kind", "") not in kinds:
            raise DataError(
                f"{path}: {name} has type {variable.dtype}; must be "
                f"{'a floating-point' if kinds == 'f' else 'an integer'} type"
            )
        given, wanted = getattr(variable, "units", None), schema.units_of(name, self.files.date)
        if given != wanted:
            raise DataError(
                f"{path}: {name} has {'no units' if given is None else f'units {given!r}'}; "
                f"must be {wanted!r}"
            )
        chunks = variable.chunking()
        if chunks != "contiguous":
            # A chunk larger than the cache would be unpacked again for every block.
            held = int(np.prod(chunks)) * variable.dtype.itemsize
            variable.set_var_chunk_cache(size=max(held, 1 << 20))

    def _read(self, name: str, rows: slice) -> npt.NDArray[Any]:
        path = self.files.patches
        variable = self._file.variables[name]
        try:
            values = np.asarray(variable[rows])
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{path}: {name} cannot be read; the file is damaged or cut short ({error})"
            ) from None
        bad = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        fills = {netCDF4.default_fillvals.get(values.dtype.str[1:])}
        fills |= {getattr(variable, key, None) for key in ("_FillValue", "missing_value")}
        for fill in fills - {None}:
            bad |= values == np.asarray(fill, dtype=values.dtype)
        if bad.any():
            patch = (rows.start or 0) + int(np.argwhere(bad)[0][0])
            raise DataError(
                f"{path}: {name} has {int(bad.sum())} missing or not finite values, the first in "
                f"patch {patch}; none are allowed"
            )
        return values if values.dtype.kind != "f" else values.astype("f4", copy=False)

    def _check_rows(self) -> None:
        """Compare what both files say of each patch."""
        table = self._table
        for column, variable, given, expected in (
            ("number in Step_ID", "track_id", table["number"], self.track),
            ("step in Step_ID", "track_step - 1", table["step"], self.step - 1),
            ("Duration", "track_step", table["Duration"], self.step),
            ("Forecast_Hour", "time", table["Forecast_Hour"], self.hour),
        ):
            wrong = np.flatnonzero(given.to_numpy() != expected)
            if len(wrong):
                k = int(wrong[0])
                raise DataError(
                    f"{self.files.table}: row {k} has {column} {given.iloc[k]:g}, but patch {k} of "
                    f"{self.files.patches.name} has {variable} {expected[k]}; rows and patches "
                    f"must be in the same order ({len(wrong)} differ)"
                )

    def _check_statistics(
        self, name: str, field: npt.NDArray[np.float32], own: npt.NDArray[np.bool_], rows: slice
    ) -> None:
        """Check that the extremes over the mask lie within the patch's.

        A storm that reaches the patch's edge may have cells outside of it, and so is left out.
        """
        edge = own[:, [0, -1]].any(axis=(1, 2)) | own[:, :, [0, -1]].any(axis=(1, 2))
        for statistic, sign in (("max", 1), ("min", -1)):
            column = schema.column(name, statistic)
            inner = self._table[column].to_numpy()[rows]
            outer = sign * (sign * field).max(axis=(1, 2)).astype("f8")
            # Five decimals in the table, 24 bits in the patch.
            beyond = sign * (inner - outer) > 6e-6 + 1e-6 * np.abs(outer)
            wrong = np.flatnonzero(beyond & ~edge)
            if len(wrong):
                k = int(wrong[0])
                raise DataError(
                    f"{self.files.table}: row {rows.start + k} has {column} {inner[k]:.5f}, but "
                    f"{name} of patch {rows.start + k} of {self.files.patches.name} is "
                    f"{'at most' if sign > 0 else 'at least'} {outer[k]:.5f}; "
                    "the row belongs to another patch"
                )


def read_table(files: RunFiles, fields: Sequence[str]) -> pd.DataFrame:
    """Read and check the columns of a run's table that go with `fields`.

    Returns
    -------
    pandas.DataFrame
        ``number`` and ``step`` (from Step_ID, both from 0), Duration, Forecast_Hour, and the
        greatest and least value of each field over the mask.

    Raises
    ------
    DataError
        If the table cannot be read, is cut short, lacks a column, has missing values in those
        columns, or is of another run.
    """
    path = files.table
    extremes = [schema.column(name, statistic) for name in fields for statistic in ("max", "min")]
    header = _check_whole(path)
    for column in (*_USED, *extremes):
        if column not in header:
            raise DataError(f"{path}: column {column!r} is missing{nearest(column, header)}")
    text = {"Step_ID": str, "Track_ID": str, "Run_Date": str}
    try:
        table = pd.read_csv(path, usecols=[*_USED, *extremes], dtype=text)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path}: cannot be read as a table ({reason})") from None
    for column in ("Forecast_Hour", "Duration", *extremes):
        values = pd.to_numeric(table[column], errors="coerce")
        wrong = np.flatnonzero(~np.isfinite(values.to_numpy(dtype="f8")))
        if len(wrong):
            k = int(wrong[0])
            raise DataError(
                f"{path}: row {k} has {column} {table[column].iloc[k]!r}; must be a finite number"
            )
        table[column] = values.astype("f8")

    run = f"{files.date:%Y%m%d}-0000"
    ids = table["Step_ID"].str.extract(_STEP_ID)
    dates = pd.to_datetime(table["Run_Date"], errors="coerce", format="mixed")
    for column, good, allowed in (
        ("Step_ID", (ids["run"] == run), f"an id of run {run}, of the form ..._{run}_SS_EE_NNN_KK"),
        ("Track_ID", ids["track"] == table["Track_ID"], "Step_ID without its last part"),
        ("Run_Date", dates == pd.Timestamp(files.date), f"{files.date}, as the file's name says"),
        ("Step_ID", ~table["Step_ID"].duplicated(), "there only once"),
    ):
        wrong = np.flatnonzero(~good.to_numpy(dtype=bool))
        if len(wrong):
            k = int(wrong[0])
            raise DataError(
                f"{path}: row {k} has {column} {table[column].iloc[k]!r}; must be {allowed}"
            )
    table["number"] = ids["number"].astype("int64")
    table["step"] = ids["step"].astype("int64")
    return table.drop(columns=["Step_ID", "Track_ID", "Run_Date"])


def _check_whole(path: Path) -> list[str]:
    """Return a table's header; refuse a table whose last line is cut."""
    try:
        with path.open("rb") as stream:
            first = stream.readline()
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 16 * len(first) - 4096))
            tail = stream.read()
        header = first.decode("utf-8").strip().split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from None
    if size == len(first):
        raise DataError(f"{path}: the table has no rows")
    last = tail.rstrip(b"\r\n").rpartition(b"\n")[2]
    if not tail.endswith(b"\n") or last.count(b",") != len(header) - 1:
        raise DataError(
            f"{path}: its last line is cut short ({last.count(b',') + 1} of {len(header)} columns"
            f"{'' if tail.endswith(bytes([10])) else ', no line end'})"
        )
    return header
