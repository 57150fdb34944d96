"""Read a run of the forecast model: a file of patches and its table, checked against each other.

Nothing in either file says so, but row k of the table belongs to patch k of the NetCDF file; every
fact that both of them hold is compared before a label from the one meets a picture from the other.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from stormsweep.errors import DataError, nearest
from stormsweep.storms import schema
from stormsweep.storms.patches import Bools, Floats, PatchBlock, PatchFile, check_fields

_USED = ("Step_ID", "Track_ID", "Run_Date", "Forecast_Hour", "Duration")
_STEP_ID = r"^(?P<track>.+_(?P<run>\d{8}-\d{4})_\d+_\d+_(?P<number>\d+))_(?P<step>\d+)$"


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The pair of files of one run."""

    date: dt.date
    table: Path
    patches: Path


@dataclass(frozen=True, slots=True)
class Block(PatchBlock):
    """Some consecutive patches of a run, with what the table says of them.

    Attributes
    ----------
    target : ndarray of float32, shape (n, 32, 32)
        The target variable.
    mask_max : ndarray of float64, shape (n,)
        Greatest target value over the storm's own cells, from the table (five decimals).
    patch_max : ndarray of float32, shape (n,)
        Greatest target value of the whole patch.
    """

    target: Floats
    mask_max: npt.NDArray[np.float64]
    patch_max: Floats


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


class RunReader:
    """Reads one run; a context manager. Opening it checks all that takes no reading of fields.

    Parameters
    ----------
    files : RunFiles
        The pair.
    inputs : sequence of str
        Weather fields that become channels; none where all inputs are columns of the table.
    target : str
        The weather field that is predicted.
    columns : sequence of str, optional
        Columns of the table to read as numbers.
    allow_missing : bool, optional
        Whether fields and columns may have missing values; `complete` then says where they have
        none. By default such a run is refused.

    Attributes
    ----------
    patches : PatchFile
        The file of patches, with the identity and the place of each.
    count : int
        How many patches.
    columns : ndarray of float64, shape (count, columns)
        The columns asked for.
    mask_max : ndarray of float64, shape (count,)
        Greatest target value over the storm's own cells.
    complete : ndarray of bool, shape (count,)
        Where no value of the table that is read is missing.

    Raises
    ------
    DataError
        In one line, if a file cannot be read, is cut short, lacks what is needed, has other
        dimensions or units, or does not belong to the other.
    """

    def __init__(
        self,
        files: RunFiles,
        inputs: Sequence[str],
        target: str,
        *,
        columns: Sequence[str] = (),
        allow_missing: bool = False,
    ) -> None:
        check_fields([*inputs, target], str(files.patches))
        self.files = files
        fields = tuple(dict.fromkeys((*inputs, target)))
        table = read_table(files, fields, columns, allow_missing=allow_missing)
        self._table = table
        self.count = len(table)
        self.columns = table[list(columns)].to_numpy(dtype="f8")
        self.mask_max = table[schema.column(target, "max")].to_numpy(dtype="f8")
        numbers = table.select_dtypes("number").to_numpy(dtype="f8")
        self.complete: Bools = np.isfinite(numbers).all(axis=1)
        self.patches = PatchFile(
            files.patches, inputs, target, date=files.date, allow_missing=allow_missing
        )
        try:
            if self.patches.count != self.count:
                raise DataError(
                    f"{files.table}: {self.count} rows, but {files.patches.name} has "
                    f"{self.patches.count} patches; one of the two is cut short"
                )
            self._check_rows()
        except BaseException:
            self.patches.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.patches.close()

    def blocks(self, size: int | None = None) -> Iterator[Block]:
        """Yield the patches in blocks, of at most `size` if that is given.

        Raises
        ------
        DataError
            If a field cannot be read, has missing or not finite values that are not allowed, or a
            statistic of the table lies outside of its patch.
        """
        for block in self.patches.blocks(size):
            complete = block.complete & self.complete[block.rows]
            self._check_statistics(block, complete)
            target = str(self.patches.target)
            yield Block(
                **{one.name: getattr(block, one.name) for one in dataclasses.fields(PatchBlock)}
                | {"complete": complete},
                target=block.fields[target],
                mask_max=self.mask_max[block.rows],
                patch_max=block.high[target],
            )

    def _check_rows(self) -> None:
        """Compare what both files say of each patch."""
        table, patches = self._table, self.patches
        for column, variable, given, expected in (
            ("number in Step_ID", "track_id", table["number"], patches.track),
            ("step in Step_ID", "track_step - 1", table["step"], patches.step - 1),
            ("Duration", "track_step", table["Duration"], patches.step),
            ("Forecast_Hour", "time", table["Forecast_Hour"], patches.hour),
        ):
            wrong = np.flatnonzero(given.to_numpy() != expected)
            if len(wrong):
                k = int(wrong[0])
                raise DataError(
                    f"{self.files.table}: row {k} has {column} {given.iloc[k]:g}, but patch {k} of "
                    f"{self.files.patches.name} has {variable} {expected[k]}; rows and patches "
                    f"must be in the same order ({len(wrong)} differ)"
                )

    def _check_statistics(self, block: PatchBlock, complete: Bools) -> None:
        """Check that the extremes over the mask lie within the patch's.

        A storm that reaches the patch's edge may have cells outside of it, and so is left out.
        """
        own, rows = block.mask, block.rows
        edge = own[:, [0, -1]].any(axis=(1, 2)) | own[:, :, [0, -1]].any(axis=(1, 2))
        for name in block.fields:
            for statistic, sign, found in (("max", 1, block.high), ("min", -1, block.low)):
                column = schema.column(name, statistic)
                inner = self._table[column].to_numpy()[rows]
                outer = found[name].astype("f8")
                # Five decimals in the table, 24 bits in the patch.
                beyond = sign * (inner - outer) > 6e-6 + 1e-6 * np.abs(outer)
                wrong = np.flatnonzero(beyond & ~edge & complete)
                if len(wrong):
                    k = int(wrong[0])
                    raise DataError(
                        f"{self.files.table}: row {rows.start + k} has {column} {inner[k]:.5f}, "
                        f"but {name} of patch {rows.start + k} of {self.files.patches.name} is "
                        f"{'at most' if sign > 0 else 'at least'} {outer[k]:.5f}; "
                        "the row belongs to another patch"
                    )


def read_table(
    files: RunFiles,
    fields: Sequence[str],
    columns: Sequence[str] = (),
    *,
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Read and check the columns of a run's table that go with `fields`.

    Parameters
    ----------
    files : RunFiles
        The pair.
    fields : sequence of str
        Weather fields whose extremes are wanted.
    columns : sequence of str, optional
        Further columns, of numbers.
    allow_missing : bool, optional
        Whether those columns and the extremes may be missing (NaN) or infinite.

    Returns
    -------
    pandas.DataFrame
        ``number`` and ``step`` (from Step_ID, both from 0), Duration, Forecast_Hour, the greatest
        and least value of each field over the mask, and `columns`.

    Raises
    ------
    DataError
        If the table cannot be read, is cut short, lacks a column, has missing values in those
        columns that are not allowed, or is of another run.
    """
    path = files.table
    extremes = [schema.column(name, statistic) for name in fields for statistic in ("max", "min")]
    numbers = dict.fromkeys([*extremes, *columns])
    header = _check_whole(path)
    for column in (*_USED, *numbers):
        if column not in header:
            raise DataError(f"{path}: column {column!r} is missing{nearest(column, header)}")
    text = {"Step_ID": str, "Track_ID": str, "Run_Date": str}
    try:
        table = pd.read_csv(path, usecols=list(dict.fromkeys([*_USED, *numbers])), dtype=text)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{path}: cannot be read as a table ({reason})") from None
    for column in dict.fromkeys(["Forecast_Hour", "Duration", *numbers]):
        values = pd.to_numeric(table[column], errors="coerce")
        if allow_missing and column in numbers:
            wrong = np.flatnonzero(values.isna() & table[column].notna())
        else:
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
