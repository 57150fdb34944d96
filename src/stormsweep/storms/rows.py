"""Storms to predict from as rows of a table: their inputs, and when and where they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from stormsweep.data.tables import header, row_blocks
from stormsweep.errors import DataError

_NUMBERS = ("Forecast_Hour", "Duration", "Centroid_Lon", "Centroid_Lat")
_TEXTS = ("Run_Date", "Track_ID")


def has_places(path: Path) -> bool:
    """Tell whether a table says when and where its storms are, as those of the archive do."""
    return path.is_file() and {*_NUMBERS, *_TEXTS} <= set(header(path))


def storm_rows(
    path: Path, columns: Sequence[str]
) -> Iterator[tuple[NDArray[Any], dict[str, NDArray[Any]]]]:
    """Read a table in blocks of rows.

    Parameters
    ----------
    path : Path
        A table with the archive's columns for time, place and track. It needs no patches beside it.
    columns : sequence of str
        Names of the inputs.

    Yields
    ------
    inputs : ndarray of float32, shape (n, columns)
    places : dict of str to ndarray, shape (n,) each
        `stormsweep.data.probabilities.PLACES`: times in seconds since 1970, the storm's centre in
        degrees, the number of its track from 0, its step in the track from 1.

    Raises
    ------
    DataError
        In one line, if a column is missing, or a value is missing or not what it must be.
    """
    for rows in row_blocks(path, [*columns, *_NUMBERS], _TEXTS):
        starts = pd.to_datetime(rows["Run_Date"], errors="coerce", format="mixed", utc=True)
        tracks = rows["Track_ID"].str.extract(r"_(\d+)$", expand=False)
        for column, found, allowed in (
            ("Run_Date", starts, "a date"),
            ("Track_ID", tracks, "an id that ends with the number of the track"),
        ):
            if found.isna().any():
                row = int(found.index[found.isna()][0])
                raise DataError(
                    f"{path}: row {row + 1} has {column} {rows[column][row]!r}; must be {allowed}"
                )
        start = starts.dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype("i8")
        yield (
            rows[list(columns)].to_numpy("f8").astype("f4"),
            {
                "time": start + 3600 * rows["Forecast_Hour"].to_numpy("f8"),
                "forecast_reference_time": start,
                "lat": rows["Centroid_Lat"].to_numpy("f8"),
                "lon": rows["Centroid_Lon"].to_numpy("f8"),
                "track_id": tracks.astype("i8").to_numpy(),
                "track_step": rows["Duration"].to_numpy("i8"),
            },
        )
