"""Storms of the twin before they have pictures: when and where they live, how strong they are.

Every number is drawn per run date from one seeded generator. Storms live along tracks: what a
storm is like at one hour is partly what it was like the hour before, so that cases of one track,
and of one run date, resemble each other as real ones do.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from stormsweep.storms import grid
from stormsweep.storms.schema import CENTRE, FIRST_HOUR, LAST_HOUR, SIDE, SPLIT_DATE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Neighbouring storms that a patch has room for.
NEIGHBOURS = 2
#: Fitted to the archive's published quantiles: peak reflectivity (dBZ), area (cells), eccentricity.
_PROBABILITY = np.array([0, 0.051, 0.101, 0.253, 0.505, 0.747, 0.899, 0.949, 0.99, 1])
_PEAK = np.array([40.6, 43, 45, 47, 52, 60, 66, 68, 74, 81])
_AREA = np.array([36, 45, 54, 110, 240, 590, 920, 960, 1300, 2700]) / 9
_ECCENTRICITY = np.array([0.02, 0.36, 0.51, 0.69, 0.82, 0.91, 0.95, 0.97, 0.98, 0.992])
#: Vorticity maximum over the mask (1/s): lognormal; median before and from 2015, spread of the log.
_MEDIAN_BEFORE, _MEDIAN_AFTER, _SPREAD = 1.65e-3, 1.72e-3, 0.64
#: How far that maximum follows from intensity, from the rotation now, and from neither.
_FROM_INTENSITY, _FROM_ROTATION = 0.74, 0.47
_FROM_CHANCE = float(np.sqrt(1 - _FROM_INTENSITY**2 - _FROM_ROTATION**2))


@dataclass(frozen=True)
class Storms:
    """The storms of one run, one value (or one row) a patch, tracks ascending, steps ascending.

    Lengths are in cells, angles in radians from the eastward axis, speeds in m/s, motion in cells
    an hour; arrays of neighbours are (n, 2).
    """

    track: Ints
    step: Ints
    hour: Ints
    first_hour: Ints
    last_hour: Ints
    row: Ints
    col: Ints
    motion_x: Floats
    motion_y: Floats
    moved_x: Ints
    moved_y: Ints
    peak: Floats
    area: Floats
    ratio: Floats
    angle: Floats
    steepness: Floats
    wind_u: Floats
    wind_v: Floats
    shear: Floats
    temperature: Floats
    gradient: Floats
    rotation: Floats
    vorticity: Floats
    swath_trend: Floats
    vortex_along: Floats
    vortex_aside: Floats
    vortex_radius: Floats
    decoy: Floats
    outflow: Floats
    inflow: Floats
    cold_pool: Floats
    hail: Floats
    shield_peak: Floats
    shield_length: Floats
    shield_ratio: Floats
    shield_angle: Floats
    shield_x: Floats
    shield_y: Floats
    clear: Floats
    near_x: Floats
    near_y: Floats
    near_peak: Floats
    near_area: Floats
    near_ratio: Floats
    near_angle: Floats
    near_vorticity: Floats

    def __len__(self) -> int:
        return len(self.track)

    def block(self, start: int, stop: int) -> Storms:
        """Return the storms `start` to `stop`."""
        return Storms(**{f.name: getattr(self, f.name)[start:stop] for f in fields(self)})


def draw(rng: np.random.Generator, date: dt.date, count: int) -> Storms:
    """Draw the storms of a run.

    Parameters
    ----------
    rng : numpy.random.Generator
        All randomness comes from it.
    date : datetime.date
        Of the run; season and share of strong storms follow from it.
    count : int
        How many patches the run has.
    """
    first, length = _lives(rng, count)
    track = np.repeat(np.arange(len(length)), length)
    step = np.arange(count) - np.repeat(np.cumsum(length) - length, length)
    tracks, first_hour = len(length), first[track]

    # Intensity and rotation: of the day, the track, the hour before and the stage of life.
    stage = (step + 0.5) / length[track]
    mature = np.where(length[track] > 1, 4 * stage * (1 - stage) - 2 / 3, 0.0)
    lasting = (np.log(length) - 0.55)[track]
    intensity = (
        0.15 * rng.standard_normal()
        + 0.70 * rng.standard_normal(tracks)[track]
        + 0.62 * _persistent(rng, track, step, 0.7)
        + 0.35 * mature
        + 0.25 * lasting
    )
    rotation = (
        0.20 * rng.standard_normal()
        + 0.77 * rng.standard_normal(tracks)[track]
        + 0.60 * _persistent(rng, track, step, 0.7)
    )
    chance = 0.55 * rng.standard_normal(tracks)[track] + np.sqrt(1 - 0.55**2) * rng.standard_normal(
        count
    )
    now = (_FROM_INTENSITY * intensity + _FROM_ROTATION * rotation) / np.hypot(
        _FROM_INTENSITY, _FROM_ROTATION
    )
    median = _MEDIAN_AFTER if date >= SPLIT_DATE else _MEDIAN_BEFORE
    vorticity = median * np.exp(
        _SPREAD
        * (
            _FROM_INTENSITY * intensity
            + _FROM_ROTATION * rotation
            + _FROM_CHANCE * np.clip(chance, -3, 3)
        )
    )

    # The day's wind steers the storms; 1 m/s is 1.2 cells an hour.
    wind_u, wind_v = (
        mean + 2.7 * rng.standard_normal() + spread * rng.standard_normal(tracks)[track]
        for mean, spread in ((-0.4, 3.1), (0.7, 3.5))
    )
    motion_x = 1.2 * (8 + 0.6 * wind_u) + 3.0 * rng.standard_normal(tracks)[track]
    motion_y = 1.2 * (2 + 0.6 * wind_v) + 3.0 * rng.standard_normal(tracks)[track]
    row, col, lat = _positions(rng, track, step, motion_x, motion_y)
    alive = step > 0
    moved_x, moved_y = (
        np.where(alive, np.clip(np.rint(motion), -SIDE, SIDE), 0).astype(np.int64)
        for motion in (motion_x, motion_y)
    )

    angle = rng.uniform(-np.pi / 2, np.pi / 2, tracks)[track] + 0.3 * rng.standard_normal(count)
    size = 0.72 * intensity + 0.69 * (
        0.7 * rng.standard_normal(tracks)[track] + 0.714 * rng.standard_normal(count)
    )
    area = 0.76 * _quantile(size, _AREA)
    shape = _quantile(rng.standard_normal(count) + 0.3 * size, _ECCENTRICITY)
    strong = ndtr(intensity)
    near_intensity = 0.35 * intensity[:, None] + 0.9 * rng.standard_normal((count, NEIGHBOURS))
    there = rng.uniform(size=(count, NEIGHBOURS)) < np.array([0.55, 0.35])
    near_area = _quantile(
        0.6 * near_intensity + 0.8 * rng.standard_normal(near_intensity.shape), _AREA
    )
    # Far enough away for the two storms not to be one.
    apart = np.sqrt(area / np.pi)[:, None] + np.sqrt(near_area / np.pi) + 3
    distance = np.where(there, apart + 14 * rng.uniform(size=there.shape) ** 1.5, 99.0)
    bearing = rng.uniform(-np.pi, np.pi, there.shape)
    near_rotation = 0.8 * near_intensity + 0.6 * rng.standard_normal(near_intensity.shape)
    return Storms(
        track=track,
        step=step,
        hour=first_hour + step,
        first_hour=first_hour,
        last_hour=first_hour + length[track] - 1,
        row=row,
        col=col,
        motion_x=motion_x,
        motion_y=motion_y,
        moved_x=moved_x,
        moved_y=moved_y,
        peak=_quantile(0.95 * intensity + 0.31 * rng.standard_normal(count), _PEAK),
        area=area,
        ratio=np.sqrt(1 - shape**2),
        angle=angle,
        steepness=rng.uniform(1.1, 1.7, count),
        wind_u=wind_u,
        wind_v=wind_v,
        shear=0.05 * rng.standard_normal((count, 4)),
        temperature=_temperature(rng, date, lat, first_hour + step, track),
        gradient=0.05 * rng.standard_normal((count, 2)),
        rotation=_MEDIAN_BEFORE * np.exp(_SPREAD * 1.05 * now),
        vorticity=vorticity,
        swath_trend=np.clip(0.1 + 0.45 * rng.standard_normal(count), -0.8, 1.0),
        vortex_along=rng.uniform(-0.6, 0.1, count),
        vortex_aside=rng.uniform(-0.7, -0.2, count),
        vortex_radius=rng.uniform(1.6, 2.6, count),
        decoy=1.2 * np.exp(0.6 * rng.standard_normal(count)),
        outflow=(0.7 + 3.3 * strong) * np.exp(0.35 * rng.standard_normal(count)),
        inflow=(0.5 + 1.8 * strong) * np.exp(0.4 * rng.standard_normal(count)),
        cold_pool=(1.2 + 3.6 * strong) * np.exp(0.4 * rng.standard_normal(count)),
        hail=0.9 * np.exp(0.5 * rng.standard_normal(count)),
        shield_peak=np.clip(31 + 3.5 * rng.standard_normal(count) + 2 * intensity, 18, 38.5),
        shield_length=8 + 20 * rng.beta(1.3, 1.3, count),
        shield_ratio=rng.uniform(0.45, 1.0, count),
        shield_angle=angle + 0.5 * rng.standard_normal(count),
        shield_x=4.5 * rng.standard_normal(count),
        shield_y=4.5 * rng.standard_normal(count),
        clear=rng.uniform(-32, 16, count),
        near_x=distance * np.cos(bearing),
        near_y=distance * np.sin(bearing),
        near_peak=_quantile(near_intensity, _PEAK),
        near_area=near_area,
        near_ratio=np.sqrt(1 - _quantile(rng.standard_normal(there.shape), _ECCENTRICITY) ** 2),
        near_angle=angle[:, None] + 0.5 * rng.standard_normal(there.shape),
        near_vorticity=0.9 * _MEDIAN_BEFORE * np.exp(_SPREAD * near_rotation),
    )


def _lives(rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
    """Return first forecast hour and length (hours) of tracks whose lengths add up to `count`."""
    hours = np.arange(FIRST_HOUR, LAST_HOUR + 1)
    # Most storms form in the afternoon and evening (21 to 01 UTC), few in the morning.
    weight = 0.35 + np.exp(-(((hours - 22.5) / 4.0) ** 2))
    first = rng.choice(hours, size=count, p=weight / weight.sum())
    length = np.minimum(rng.geometric(0.42, size=count), LAST_HOUR + 1 - first)
    total = np.cumsum(length)
    tracks = int(np.searchsorted(total, count)) + 1
    first, length = first[:tracks], length[:tracks]
    length[-1] -= total[tracks - 1] - count
    order = np.argsort(first, kind="stable")
    return first[order].astype(np.int64), length[order].astype(np.int64)


def _persistent(rng: np.random.Generator, track: Ints, step: Ints, memory: float) -> Floats:
    """Return noise of unit variance that remembers the hour before along each track."""
    fresh = rng.standard_normal(len(track))
    value = fresh.copy()
    for k in range(1, int(step.max()) + 1):
        at = np.flatnonzero(step == k)
        value[at] = memory * value[at - 1] + np.sqrt(1 - memory**2) * fresh[at]
    return value


def _positions(
    rng: np.random.Generator, track: Ints, step: Ints, motion_x: Floats, motion_y: Floats
) -> tuple[Ints, Ints, Floats]:
    """Return grid row and column of the patch centres, and the latitude of the tracks."""
    tracks = int(track[-1]) + 1
    # Storms gather where the day's weather is: a few regions, and some anywhere.
    centres = grid.places(rng, 4)
    region = rng.integers(0, 4, tracks)
    scatter = 2.5 * rng.standard_normal((2, tracks))
    anywhere = rng.uniform(size=tracks) < 0.3
    free = grid.places(rng, tracks)
    lon, lat = (
        np.where(anywhere, free[k], centres[k][region] + scatter[k] * (1.3 if k == 0 else 1.0))
        for k in (0, 1)
    )
    lon, lat = grid.onto_land(lon, lat)
    row, col = grid.cell(lon, lat)
    moved_row, moved_col = (np.rint(motion * step) for motion in (motion_y, motion_x))
    return (
        np.clip(np.rint(row[track] + moved_row), 2 * CENTRE, grid.ROWS - 2 * SIDE).astype(np.int64),
        np.clip(np.rint(col[track] + moved_col), 2 * CENTRE, grid.COLUMNS - 2 * SIDE).astype(
            np.int64
        ),
        lat,
    )


def _temperature(
    rng: np.random.Generator, date: dt.date, lat: Floats, hour: Ints, track: Ints
) -> Floats:
    """Return the 2 m temperature around each storm (K): season, latitude, time of day, chance."""
    season = np.cos(2 * np.pi * (date.timetuple().tm_yday - 196) / 365.25)
    value = (
        288.4
        + 6.0 * season
        - 0.45 * (lat - 38.0) * (1.3 - 0.3 * season)
        + (3.2 * rng.standard_normal() + 3.0 * rng.standard_normal(len(lat)))
    )
    return np.asarray(value[track] + 2.2 * np.cos(2 * np.pi * (hour - 22) / 24))


def _quantile(score: Floats, values: Floats) -> Floats:
    """Map standard normal scores to the distribution with the published quantiles `values`."""
    return np.asarray(np.interp(ndtr(score), _PROBABILITY, values), dtype=np.float64)
