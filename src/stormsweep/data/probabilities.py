"""Forecast probabilities as a NetCDF file that follows the CF conventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import netCDF4
import numpy as np
from numpy.typing import NDArray

from stormsweep import files

CONVENTIONS = "CF-1.8"
#: When and where a case is: known for storms, not for rows of a table.
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "time": (
        "f8",
        {
            "standard_name": "time",
            "long_name": "valid time of the storm",
            "units": "seconds since 1970-01-01 00:00:00",
            "calendar": "standard",
        },
    ),
    "forecast_reference_time": (
        "f8",
        {
            "standard_name": "forecast_reference_time",
            "long_name": "start of the forecast run",
            "units": "seconds since 1970-01-01 00:00:00",
            "calendar": "standard",
        },
    ),
    "lat": (
        "f4",
        {
            "standard_name": "latitude",
            "long_name": "latitude of the storm's centre",
            "units": "degrees_north",
        },
    ),
    "lon": (
        "f4",
        {
            "standard_name": "longitude",
            "long_name": "longitude of the storm's centre",
            "units": "degrees_east",
        },
    ),
    "track_id": ("i4", {"long_name": "number of the storm track in its run, from 0"}),
    "track_step": ("i4", {"long_name": "step of the storm in its track, from 1"}),
}


class ProbabilityWriter:
    """Writes probabilities block by block; a context manager.

    Parameters
    ----------
    path : Path
        The file to create.
    count : int
        How many cases there are.
    sources : sequence of str
        The files that the cases come from.
    threshold : float
        Probability from which on the event counts as forecast.
    event : str
        The event in words, for ``long_name``.
    attributes : mapping of str to text or number
        Global attributes.
    places : bool
        Whether cases have time, place and track (`PLACES`).

    Raises
    ------
    DataError
        If the disk has no room for it, or takes no more: from every method.
    """

    def __init__(
        self,
        path: Path,
        count: int,
        sources: Sequence[str],
        threshold: float,
        event: str,
        attributes: Mapping[str, Any],
        places: bool,
    ) -> None:
        self._path, self._threshold, self._start = path, np.float32(threshold), 0
        with files.writing(path):
            self._file = netCDF4.Dataset(path, "w", format="NETCDF4")
            try:
                self._begin(count, sources, threshold, event, attributes, places)
            except BaseException:
                self._give_up()
                raise

    def _begin(
        self,
        count: int,
        sources: Sequence[str],
        threshold: float,
        event: str,
        attributes: Mapping[str, Any],
        places: bool,
    ) -> None:
        """Write all that is known before the first case."""
        file = self._file
        file.setncattr("Conventions", CONVENTIONS)
        for name, value in attributes.items():
            file.setncattr(name, value)
        file.createDimension("case", count)
        file.createDimension("file", len(sources))
        coordinates = {"coordinates": "time lat lon"} if places else {}
        self._make(
            "probability",
            "f4",
            {
                "long_name": f"probability of {event}",
                "units": "1",
                "valid_range": np.array([0, 1], np.float32),
                **coordinates,
            },
        )
        self._make(
            "event_forecast",
            "i1",
            {
                "long_name": f"whether {event} is forecast: probability of {threshold:.6g} or more",
                "flag_values": np.array([0, 1], np.int8),
                "flag_meanings": "not_forecast forecast",
                **coordinates,
            },
        )
        for name, (dtype, said) in PLACES.items() if places else ():
            self._make(name, dtype, said)
        origin = "number of the file that the case comes from, from 0: see source_file"
        self._make("file_number", "i4", {"long_name": origin})
        self._make("row", "i4", {"long_name": "number of the case in its file, from 0"})
        # Before it is packed, which nobody can foresee; its cases are all of a file but its head.
        row = sum(variable.dtype.itemsize for variable in file.variables.values())
        files.check_space(files.in_place(self._path), count * row)
        names = file.createVariable("source_file", str, ("file",))
        names.setncattr("long_name", "file that cases come from")
        names[:] = np.array(sources, dtype=object)

    def _make(self, name: str, dtype: str, said: Mapping[str, Any]) -> None:
        made = self._file.createVariable(
            name, dtype, ("case",), zlib=True, complevel=1, fill_value=False
        )
        for key, value in said.items():
            made.setncattr(key, value)

    def append(
        self,
        probabilities: NDArray[np.float32],
        file_number: int,
        first_row: int,
        places: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Write the next cases.

        Parameters
        ----------
        probabilities : ndarray of float32, shape (n,)
            Probability of the event.
        file_number, first_row : int
            Which file they come from, and where in it they begin.
        places : mapping of str to ndarray, shape (n,) each
            The variables of `PLACES`.
        """
        rows = slice(self._start, self._start + len(probabilities))
        columns: dict[str, Any] = {
            "probability": probabilities,
            "event_forecast": (probabilities >= self._threshold).astype(np.int8),
            "file_number": np.full(len(probabilities), file_number, np.int32),
            "row": np.arange(first_row, first_row + len(probabilities), dtype=np.int32),
            **(places or {}),
        }
        with files.writing(self._path):
            for name, values in columns.items():
                self._file.variables[name][rows] = values
        self._start = rows.stop

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._give_up()
            return
        with files.writing(self._path):
            self._file.close()

    def _give_up(self) -> None:
        # A full disk fails once more when the file is closed; the first error is the one.
        with suppress(OSError, RuntimeError):
            self._file.close()
