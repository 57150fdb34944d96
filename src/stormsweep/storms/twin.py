"""The twin: synthetic storms in files of the very format of the NCAR archive.

The files hold nothing that real ones do not; that they are synthetic stands beside them, in
``twin.json``, with the seed and the checksum of every file.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stormsweep import __version__, files
from stormsweep.errors import DataError
from stormsweep.storms import days, fields, grid, schema, statistics, tracks, writing

MARK = "twin.json"
#: Changes whenever the same seed would give other storms.
VERSION = 2
#: Patches drawn at a time; part of what the storms are, as noise is drawn block by block.
_BLOCK = 64
LEAST_PATCHES = 100
MOST_PATCHES = schema.ARCHIVE_BEFORE + schema.ARCHIVE_AFTER
_BEFORE = tuple(date for date in schema.RUN_DATES if date < schema.SPLIT_DATE)
_AFTER = tuple(date for date in schema.RUN_DATES if date >= schema.SPLIT_DATE)
#: The archive's patches of the first run, and of the next four together.
_FIRST, _NEXT_FOUR = 1_472, 4_009
#: Patches a run, and the fewest runs before and from 2015, however few the patches.
_RUN_PATCHES, _LEAST_BEFORE, _LEAST_AFTER = 150, 12, 6

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TwinSummary:
    """What a twin consists of.

    Attributes
    ----------
    folder : Path
        Where it lies.
    seed, patches, runs : int
        What it was made from, how many patches in how many runs.
    before, after : int
        Patches of runs before 2015, and in or after it.
    events : int
        Patches whose vorticity maximum over the mask is above 0.005 1/s.
    """

    folder: Path
    seed: int
    patches: int
    runs: int
    before: int
    after: int
    events: int


def synthesize(
    folder: Path, patches: int, seed: int, progress: Progress | None = None
) -> TwinSummary:
    """Write a twin: as many pairs of files as there are run dates, and ``twin.json``.

    Parameters
    ----------
    folder : Path
        Data folder to create or replace as a whole; when interrupted, nothing of it changes.
    patches : int
        How many, 100 to 121,137.
    seed : int
        Same seed and number: same storms, to the bit.
    progress : callable, optional
        Called with patches done and patches in all after every run.

    Raises
    ------
    DataError
        If the number is out of range, the folder holds something that is no twin, or the disk
        takes no more.
    """
    if not LEAST_PATCHES <= patches <= MOST_PATCHES:
        raise DataError(
            f"twin: {patches} patches; allowed are {LEAST_PATCHES} to {MOST_PATCHES} (the archive)"
        )
    if folder.exists() and not (folder.is_dir() and _ours(folder)):
        raise DataError(f"{folder}: exists and is no twin; give a new folder or remove it")
    counts = run_counts(patches, seed)
    climate = days.climate(counts, seed)
    events = done = 0
    with files.writing(folder), files.replacing_folder(folder) as beside:
        (beside / schema.TABLE_FOLDER).mkdir()
        (beside / schema.PATCH_FOLDER).mkdir()
        listed: dict[str, str] = {}
        for date, count in counts.items():
            arrays, columns = simulate(date, count, seed, climate)
            patch_file, table_file = (
                place(beside, date) for place in (schema.patch_path, schema.table_path)
            )
            writing.write_patches(patch_file, date, arrays)
            writing.write_table(table_file, columns)
            for file in (table_file, patch_file):
                listed[file.relative_to(beside).as_posix()] = files.sha256(file)
            events += int((np.round(columns["RVORT1_MAX-future_max"], 5) > 0.005).sum())
            done += count
            if progress:
                progress(done, patches)
        before = sum(count for date, count in counts.items() if date < schema.SPLIT_DATE)
        summary = TwinSummary(folder, seed, patches, len(counts), before, patches - before, events)
        described = {key: value for key, value in asdict(summary).items() if key != "folder"}
        files.write_json(
            beside / MARK,
            {
                "synthetic": True,
                "what": "Synthetic storms in the format of the NCAR storm archive; not real data",
                "twin": VERSION,
                "stormsweep": __version__,
                **described,
                "files": listed,
            },
        )
    return summary


def read_mark(folder: Path) -> dict[str, Any] | None:
    """Return what ``twin.json`` of a folder says, or None where there is none.

    Raises
    ------
    DataError
        If the file is there and cannot be read.
    """
    path = folder / MARK
    if not path.exists():
        return None
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        sound = mark["synthetic"] is True and isinstance(mark["files"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise DataError(f"{path}: not a whole {MARK}; synthesize the twin again")
    return dict(mark)


def run_counts(patches: int, seed: int) -> dict[dt.date, int]:
    """Return how many patches each run date has, ascending by date.

    Few patches mean few run dates, but at least 12 before 2015 and 6 after; the share of patches
    before 2015 is that of the archive, 63 %. Dates are spread evenly over the archive's.
    """
    runs = min(len(schema.RUN_DATES), max(_LEAST_BEFORE + _LEAST_AFTER, patches // _RUN_PATCHES))
    runs_after = min(len(_AFTER), max(_LEAST_AFTER, round(0.36 * runs)))
    before = round(patches * schema.ARCHIVE_BEFORE / MOST_PATCHES)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, patches])))
    counts: dict[dt.date, int] = {}
    for dates, number, total in (
        (_BEFORE, runs - runs_after, before),
        (_AFTER, runs_after, patches - before),
    ):
        chosen = np.unique(np.linspace(0, len(dates) - 1, number).round().astype(int))
        weight = np.exp(0.3 * rng.standard_normal(len(chosen)))
        weight /= weight.sum()
        if dates is _BEFORE and number == len(dates):
            # What is known of single runs: the first, and the next four together.
            weight[0] = _FIRST / schema.ARCHIVE_BEFORE
            weight[1:5] *= _NEXT_FOUR / schema.ARCHIVE_BEFORE / weight[1:5].sum()
            weight[5:] *= (1 - weight[:5].sum()) / weight[5:].sum()
        bounds = np.rint(np.cumsum(weight) * total).astype(int)
        for index, count in zip(chosen, np.diff(bounds, prepend=0), strict=True):
            counts[dates[index]] = int(count)
    return counts


def simulate(
    date: dt.date, count: int, seed: int, climate: Mapping[dt.date, days.Day] | None = None
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """Simulate one run.

    Parameters
    ----------
    date : datetime.date
        Run date.
    count : int
        How many patches.
    seed : int
        With the date, the number and the climate all that the storms depend on.
    climate : mapping of datetime.date to days.Day, optional
        Weather of the run dates, from `days.climate`; by default this date is the only one.

    Returns
    -------
    arrays : dict of str to ndarray
        The variables of the NetCDF file, but ``p``, ``row`` and ``col``.
    columns : dict of str to ndarray
        The columns of the table.
    """
    rng = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, int(f"{date:%Y%m%d}")]))
    )
    day = (climate or days.climate({date: count}, seed))[date]
    storms = tracks.draw(rng, date, count, day)
    blocks = [
        fields.draw(rng, storms.block(start, start + _BLOCK)) for start in range(0, count, _BLOCK)
    ]
    drawn = fields.Fields(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
    weather = dict(
        zip(
            schema.FIELDS,
            (drawn.refl, drawn.u10, drawn.v10, drawn.t2, drawn.vorticity, drawn.hail),
            strict=True,
        )
    )
    arrays = {**_coordinates(storms), **weather, "masks": drawn.mask.astype("i4")}
    return arrays, _columns(date, storms, drawn, weather)


def _coordinates(storms: tracks.Storms) -> dict[str, npt.NDArray[Any]]:
    around = np.arange(schema.SIDE) - schema.CENTRE
    row = storms.row[:, None, None] + around[:, None]
    col = storms.col[:, None, None] + around
    shape = (len(storms), schema.SIDE, schema.SIDE)
    where = grid.grid()
    arrays: dict[str, npt.NDArray[Any]] = {
        "lon": where.lon[row, col],
        "lat": where.lat[row, col],
        "i": np.broadcast_to(row.astype("i4"), shape),
        "j": np.broadcast_to(col.astype("i4"), shape),
        "x": where.x[row, col],
        "y": where.y[row, col],
        "time": storms.hour,
        "track_id": storms.track,
        "track_step": storms.step + 1,
    }
    for name in ("lon", "lat", "i", "j"):
        arrays[f"centroid_{name}"] = arrays[name][:, schema.CENTRE, schema.CENTRE]
    return arrays


def _columns(
    date: dt.date,
    storms: tracks.Storms,
    drawn: fields.Fields,
    weather: dict[str, npt.NDArray[np.float32]],
) -> dict[str, npt.NDArray[Any]]:
    n = len(storms)
    run = f"{schema.MEMBER}_{schema.OBJECT_VARIABLE}_{date:%Y%m%d}-0000"
    ids = [
        f"{run}_{first:02d}_{last:02d}_{track:03d}"
        for first, last, track in zip(
            storms.first_hour, storms.last_hour, storms.track, strict=True
        )
    ]
    steps = [f"{track}_{step:02d}" for track, step in zip(ids, storms.step, strict=True)]
    where = grid.grid()
    x = where.x[storms.row, storms.col] + schema.CELL_M * drawn.centre_x
    y = where.y[storms.row, storms.col] + schema.CELL_M * drawn.centre_y
    lon, lat = grid.unproject(x, y)
    valid = np.datetime64(date, "s") + storms.hour.astype("m8[h]")
    none = np.zeros(n, dtype=np.int64)
    return {
        "Step_ID": np.array(steps, dtype=object),
        "Track_ID": np.array(ids, dtype=object),
        "Ensemble_Name": np.full(n, schema.ENSEMBLE, dtype=object),
        "Ensemble_Member": np.full(n, schema.MEMBER, dtype=object),
        "Run_Date": np.full(n, f"{date:%Y-%m-%d}", dtype=object),
        "Valid_Date": np.char.replace(valid.astype(str), "T", " "),
        "Forecast_Hour": storms.hour,
        "Valid_Hour_UTC": storms.hour % 24,
        "Duration": storms.step + 1,
        "Centroid_Lon": lon,
        "Centroid_Lat": lat,
        "Centroid_X": x,
        "Centroid_Y": y,
        "Storm_Motion_U": schema.CELL_M * storms.moved_x,
        "Storm_Motion_V": schema.CELL_M * storms.moved_y,
        **statistics.over_mask(drawn.mask, weather),
        **statistics.shapes(drawn.mask),
        **dict.fromkeys(
            ("Matched", "Max_Hail_Size", "Num_Matches", "Shape", "Location", "Scale"), none
        ),
    }


def _ours(folder: Path) -> bool:
    return not any(folder.iterdir()) or read_mark(folder) is not None
