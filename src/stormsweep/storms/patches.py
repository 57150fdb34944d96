"""Read a NetCDF file of storm patches block by block, and check it instead of trusting it.

`stormsweep.storms.runs` reads such a file together with its table; alone it is what predictions
are made from.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import netCDF4
import numpy as np
import numpy.typing as npt

from stormsweep.errors import DataError, nearest
from stormsweep.storms import schema

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

_IDENTITY = ("track_id", "track_step", "time", "centroid_lon", "centroid_lat")
_TIME_UNITS = re.compile(r"hours since (\d{4}-\d{2}-\d{2})[ T](\d{2}:\d{2}:\d{2})")
#: Patches of a block, and the most where chunks of the file are larger.
_BLOCK, _MOST = 512, 2048


@dataclass(frozen=True, slots=True)
class PatchBlock:
    """Some consecutive patches of a file.

    Attributes
    ----------
    rows : slice
        Which patches of the file they are.
    fields : dict of str to ndarray of float32, shape (n, 32, 32)
        Every weather field that is read, by name.
    low, high : dict of str to ndarray of float32, shape (n,)
        Least and greatest value of each field in each patch; NaN where it has one.
    inputs : ndarray of float32, shape (n, 32, 32, channels)
        The input fields, in the order asked for.
    mask : ndarray of bool, shape (n, 32, 32)
        The storm's own cells.
    complete : ndarray of bool, shape (n,)
        Where no field has missing values. True everywhere unless they were allowed.
    track, step, hour : ndarray of int64, shape (n,)
        Track number from 0, step in the track from 1, hours since the run's start.
    lon, lat : ndarray of float32, shape (n,)
        The storm's centre in degrees east and north.
    """

    rows: slice
    fields: dict[str, Floats]
    low: dict[str, Floats]
    high: dict[str, Floats]
    inputs: Floats
    mask: Bools
    complete: Bools
    track: Ints
    step: Ints
    hour: Ints
    lon: Floats
    lat: Floats


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


def count_patches(path: Path) -> int:
    """Return how many patches a NetCDF file has, without a look at anything else.

    Raises
    ------
    DataError
        If the file cannot be read as NetCDF, or has no dimension of patches.
    """
    with _opened(path) as file:
        if "p" not in file.dimensions:
            raise DataError(f"{path}: dimension p is missing; must be there, the number of patches")
        return int(file.dimensions["p"].size)


def _opened(path: Path) -> netCDF4.Dataset:
    try:
        return netCDF4.Dataset(path)
    except OSError as error:
        if not path.exists():
            raise DataError(f"{path}: there is no such file") from None
        raise DataError(
            f"{path}: cannot be read as NetCDF; damaged or cut short ({error.strerror or error})"
        ) from None


class PatchFile:
    """Reads one NetCDF file of patches; a context manager.

    Opening it checks all that takes no reading of fields: dimensions, types, units, identities.

    Parameters
    ----------
    path : Path
        The file.
    inputs : sequence of str
        Weather fields that become channels.
    target : str, optional
        A further field to read. Files to predict from need none.
    date : datetime.date, optional
        The run date that the title and the units of ``time`` must name. Without it any title will
        do, and the start of the run is what the units of ``time`` say.
    allow_missing : bool, optional
        Whether fields may have missing (NaN, infinite, fill) values; blocks then say which patches
        are complete. By default such a file is refused.

    Attributes
    ----------
    count : int
        How many patches the file has.
    start : datetime.datetime
        When the run starts, in UTC.
    track, step, hour, lon, lat : ndarray, shape (count,)
        As in `PatchBlock`, for the whole file.

    Raises
    ------
    DataError
        In one line, if the file cannot be read, is cut short, lacks what is needed, or has other
        dimensions, types or units.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[str],
        target: str | None = None,
        *,
        date: dt.date | None = None,
        allow_missing: bool = False,
    ) -> None:
        wanted = (*inputs, target) if target else tuple(inputs)
        check_fields(wanted, str(path))
        self.path = path
        self.inputs = tuple(inputs)
        self.target = target
        #: Every field that is read, each once.
        self.fields = tuple(dict.fromkeys(wanted))
        self._allow_missing = allow_missing
        self._any_start = date is None
        self._file = _opened(path)
        try:
            self._file.set_auto_maskandscale(False)
            self._check_title(date)
            self.count = self._check_dimensions()
            self.start = self._check_start(date)
            for name in (*_IDENTITY, "masks", *self.fields):
                self._check_variable(name)
            identity = [self._whole(name, slice(None))[0] for name in _IDENTITY]
            self.track, self.step, self.hour = (one.astype(np.int64) for one in identity[:3])
            self.lon, self.lat = (one.astype(np.float32) for one in identity[3:])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self, size: int | None = None) -> Iterator[PatchBlock]:
        """Yield the patches in blocks.

        Parameters
        ----------
        size : int, optional
            Most patches of a block. By default blocks end where the file's chunks do, so that
            each chunk is unpacked once.

        Raises
        ------
        DataError
            If a field cannot be read, or has missing or not finite values that are not allowed.
        """
        size = self._block_size(size)
        for start in range(0, self.count, size):
            rows = slice(start, min(start + size, self.count))
            mask, low, high = self._whole("masks", rows)
            if low.min(initial=0) < 0 or high.max(initial=1) > 1:
                raise DataError(f"{self.path}: masks has values other than 0 and 1")
            complete = np.ones(len(mask), dtype=bool)
            fields, lows, highs = {}, {}, {}
            for name in self.fields:
                if self._allow_missing:
                    values, low, high = self._read(name, rows)
                    bad = self._missing(name, values, low, high)
                    if bad is not None:
                        complete &= ~bad.reshape(len(bad), -1).any(axis=1)
                else:
                    values, low, high = self._whole(name, rows)
                fields[name] = values.astype("f4", copy=False)
                lows[name], highs[name] = low, high
            shape = (len(mask), schema.SIDE, schema.SIDE, len(self.inputs))
            inputs = np.empty(shape, dtype="f4")
            for channel, name in enumerate(self.inputs):
                inputs[..., channel] = fields[name]
            yield PatchBlock(
                rows,
                fields,
                lows,
                highs,
                inputs,
                mask.astype(bool),
                complete,
                self.track[rows],
                self.step[rows],
                self.hour[rows],
                self.lon[rows],
                self.lat[rows],
            )

    def _check_title(self, date: dt.date | None) -> None:
        title = getattr(self._file, "title", None)
        if date is not None and title != schema.title(date):
            raise DataError(
                f"{self.path}: its title is {title!r}; by its name it must be "
                f"{schema.title(date)!r}"
            )

    def _check_dimensions(self) -> int:
        sizes = {name: dimension.size for name, dimension in self._file.dimensions.items()}
        for name, expected in (("p", None), ("row", schema.SIDE), ("col", schema.SIDE)):
            size = sizes.get(name)
            if size is None or expected not in (None, size):
                raise DataError(
                    f"{self.path}: dimension {name} is {'missing' if size is None else size}; "
                    f"must be {expected or 'there, the number of patches'}"
                )
        return int(sizes["p"])

    def _check_start(self, date: dt.date | None) -> dt.datetime:
        if date is not None:
            return dt.datetime.combine(date, dt.time())
        time = self._file.variables.get("time")
        units = getattr(time, "units", None)
        found = _TIME_UNITS.fullmatch(units) if isinstance(units, str) else None
        try:
            return dt.datetime.fromisoformat(f"{found[1]} {found[2]}" if found else "")
        except ValueError:
            raise DataError(
                f"{self.path}: "
                + ("variable 'time' is missing" if time is None else f"time has units {units!r}")
                + "; must be 'hours since YYYY-MM-DD HH:MM:SS', from the start of the run"
            ) from None

    def _check_variable(self, name: str) -> None:
        path, expected = self.path, schema.VARIABLES[name]
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
        given, wanted = getattr(variable, "units", None), schema.units_of(name, self.start.date())
        if given != wanted and not (name == "time" and self._any_start):
            raise DataError(
                f"{path}: {name} has {'no units' if given is None else f'units {given!r}'}; "
                f"must be {wanted!r}"
            )

    def _block_size(self, size: int | None) -> int:
        """Return how many patches to read at a time; make the cache keep what is cut by it.

        A chunk that is read in two blocks is unpacked twice, unless the cache holds it; and a file
        of many patches is cut into chunks along rows and columns too.
        """
        chunks: dict[str, list[int]] = {}
        for name in ("masks", *self.fields):
            found = self._file.variables[name].chunking()
            if found != "contiguous":
                chunks[name] = [min(int(found[0]), max(1, self.count)), *map(int, found[1:])]
        longest = max((found[0] for found in chunks.values()), default=_BLOCK)
        size = size or (longest if longest <= _MOST else _BLOCK)
        for name, found in chunks.items():
            if size % found[0]:
                variable = self._file.variables[name]
                beside = [-(-schema.SIDE // length) for length in found[1:]]
                held = int(np.prod([*found, *beside])) * variable.dtype.itemsize
                variable.set_var_chunk_cache(size=max(held, 1 << 20))
        return size

    def _read(
        self, name: str, rows: slice
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Return values, and the least and the greatest of each patch."""
        try:
            values = np.asarray(self._file.variables[name][rows])
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{self.path}: {name} cannot be read; the file is damaged or cut short ({error})"
            ) from None
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        return values, flat.min(axis=1), flat.max(axis=1)

    def _missing(
        self, name: str, values: npt.NDArray[Any], low: npt.NDArray[Any], high: npt.NDArray[Any]
    ) -> Bools | None:
        """Return where values are missing or not finite; None: nowhere."""
        variable = self._file.variables[name]
        fills = {netCDF4.default_fillvals.get(values.dtype.str[1:])}
        fills |= {getattr(variable, key, None) for key in ("_FillValue", "missing_value")}
        known = [np.asarray(fill, dtype=values.dtype) for fill in fills - {None}]
        # The extremes of sound data tell so, many times as fast as looking at every value.
        least, most = low.min(initial=0), high.max(initial=0)
        if np.isfinite([least, most]).all() and not any(least <= f <= most for f in known):
            return None
        bad = ~np.isfinite(values)
        for fill in known:
            bad |= values == fill
        return bad if bad.any() else None

    def _whole(
        self, name: str, rows: slice
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Read what must not have missing values."""
        values, low, high = self._read(name, rows)
        bad = self._missing(name, values, low, high)
        if bad is not None:
            self._refuse(name, rows, bad)
        return values, low, high

    def _refuse(self, name: str, rows: slice, bad: Bools) -> None:
        patch = (rows.start or 0) + int(np.argwhere(bad)[0][0])
        raise DataError(
            f"{self.path}: {name} has {int(bad.sum())} missing or not finite values, the first in "
            f"patch {patch}; none are allowed"
        )
