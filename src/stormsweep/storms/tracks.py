"""Storms of the twin before they have pictures: when and where they live, how strong they are.

Every number is drawn per run date from one seeded generator. Storms live along tracks: what a
storm is like at one hour is partly what it was like the hour before, so that cases of one track,
and of one run date, resemble each other as real ones do.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from stormsweep.storms import days, grid
from stormsweep.storms.schema import CENTRE, FIRST_HOUR, LAST_HOUR, OBJECT_DBZ, SIDE, SPLIT_DATE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Neighbouring storms that a patch has room for.
NEIGHBOURS = 2
#: Fitted to the archive's published quantiles: peak reflectivity (dBZ), area (cells), eccentricity.
_PROBABILITY = np.array([0, 0.051, 0.101, 0.253, 0.505, 0.747, 0.899, 0.949, 0.99, 1])
_PEAK = np.array([40.6, 43, 45, 47, 52, 60, 66, 68, 74, 81])
_AREA = np.array([36, 45, 54, 110, 240, 590, 920, 960, 1250, 2200]) / 9
_ECCENTRICITY = np.array([0.02, 0.36, 0.51, 0.69, 0.82, 0.91, 0.95, 0.97, 0.98, 0.992])
#: Vorticity maximum over the mask (1/s): lognormal; median before and from 2015, spread of the log.
_MEDIAN, _SPREAD = (1.697e-3, 1.774e-3), 0.64
#: How far that maximum follows from intensity, from the rotation now, from warmth, from neither.
_FROM_INTENSITY, _FROM_ROTATION, _FROM_HEAT, _FROM_CHANCE = 0.67, 0.465, 0.15, 0.44
#: How much of that chance lasts as long as the track; how far warm storms are the intense ones.
_LASTING_CHANCE, _FROM_WARMTH = 0.8, 0.35
#: Vorticity maximum of the surroundings (1/s): median and spread of the log.
_AROUND_MEDIAN, _AROUND_SPREAD = 2.12e-3, 0.615
#: Spread of the wind between tracks of a day (m/s), before and from 2015.
_WIND_U_SPREAD, _WIND_V_SPREAD = (3.0, 2.6), (3.4, 3.6)


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
    edge: Floats
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
    surroundings: Floats
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


def draw(rng: np.random.Generator, date: dt.date, count: int, day: days.Day) -> Storms:
    """Draw the storms of a run.

    Parameters
    ----------
    rng : numpy.random.Generator
        All randomness comes from it.
    date : datetime.date
        Of the run; from 2015 on storms are somewhat stronger and winds others.
    count : int
        How many patches the run has.
    day : days.Day
        The day's weather.
    """
    first, length = _lives(rng, count)
    track = np.repeat(np.arange(len(length)), length)
    step = np.arange(count) - np.repeat(np.cumsum(length) - length, length)
    tracks, first_hour = len(length), first[track]

    lasting = _Lasting(rng, track)

    # The day's wind steers the storms; 1 m/s is 1.2 cells an hour.
    later = date >= SPLIT_DATE
    wind_u, wind_v = (
        mean + spread[later] * rng.standard_normal(tracks)[track]
        for mean, spread in ((day.wind_u, _WIND_U_SPREAD), (day.wind_v, _WIND_V_SPREAD))
    )
    motion_x = 1.2 * (8 + 0.6 * wind_u) + 3.0 * rng.standard_normal(tracks)[track]
    motion_y = 1.2 * (2 + 0.6 * wind_v) + 3.0 * rng.standard_normal(tracks)[track]
    row, col, lat = _positions(rng, track, step, motion_x, motion_y)
    alive = step > 0
    moved_x, moved_y = (
        np.where(alive, np.clip(np.rint(motion), -SIDE, SIDE), 0).astype(np.int64)
        for motion in (motion_x, motion_y)
    )
    warmth = _warmth(rng, lat, first_hour + step, track)

    strength = _strength(rng, day, lasting, track, step, length, day.temperature + warmth)
    intensity = strength.intensity
    around = days.even_scores(0.3 * strength.next_hour + rng.standard_normal(count))

    # From the northward axis: somewhat more storms lie north-west to south-east.
    tilt = rng.uniform(-np.pi / 2, np.pi / 2, tracks)
    tilt -= 0.45 * np.cos(tilt)
    angle = np.pi / 2 - tilt[track] + 0.3 * rng.standard_normal(count)
    size = 0.72 * intensity + 0.69 * lasting(0.7)
    area = (0.97 - 0.10 * ndtr(size)) * _quantile(size, _AREA)
    peak = _quantile(0.95 * intensity + 0.31 * rng.standard_normal(count), _PEAK)
    # Storms that the watershed cut out of a larger system end above 40 dBZ.
    embedded = rng.uniform(size=count) < ndtr(0.45 * size - 0.1)
    edge = 0.007 * (peak - OBJECT_DBZ) ** 2 * rng.uniform(0.7, 1.3, count)
    edge += rng.exponential(0.65, count)
    shape = _quantile(lasting(0.8) + 0.3 * size, _ECCENTRICITY)
    strong = ndtr(intensity)
    near_intensity = 0.6 * intensity[:, None] + 0.8 * rng.standard_normal((count, NEIGHBOURS))
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
        peak=peak,
        edge=OBJECT_DBZ + np.where(embedded, edge, 0),
        area=area,
        ratio=np.sqrt(1 - shape**2),
        angle=angle,
        steepness=rng.uniform(0.25, 0.65, count),
        wind_u=wind_u,
        wind_v=wind_v,
        shear=0.1 * lasting(0.9, 4) * np.exp(0.6 * lasting(0.9, 1)),
        temperature=day.temperature + warmth,
        gradient=0.165 * lasting(0.9, 2) * np.exp(0.6 * lasting(0.9, 1)),
        rotation=1.12e-3 * np.exp(0.58 * strength.now),
        vorticity=_MEDIAN[later]
        * np.exp(_SPREAD * strength.next_hour + 0.1 * np.maximum(strength.next_hour - 1.7, 0)),
        surroundings=_AROUND_MEDIAN * np.exp(_AROUND_SPREAD * around),
        swath_trend=np.clip(0.1 + 0.45 * rng.standard_normal(count), -0.8, 1.0),
        vortex_along=rng.uniform(-0.45, 0.05, count),
        vortex_aside=rng.uniform(-0.6, -0.2, count),
        vortex_radius=rng.uniform(1.7, 2.5, count),
        decoy=(0.8 + 2.1 * strong) * np.exp(0.68 * lasting(0.8)),
        outflow=(0.5 + 2.6 * strong) * np.exp(0.7 * lasting(0.8)),
        inflow=(0.5 + 2.0 * strong) * np.exp(0.55 * lasting(0.8)),
        cold_pool=(0.6 + 2.0 * strong) * np.exp(0.4 * lasting(0.8)),
        hail=0.9 * np.exp(0.5 * rng.standard_normal(count)),
        shield_peak=np.clip(35.8 + 2.0 * rng.standard_normal(count) + 3.5 * intensity, 18, 38.5),
        shield_length=8 + 20 * ndtr(0.6 * intensity + 0.8 * rng.standard_normal(count)),
        shield_ratio=rng.uniform(0.45, 1.0, count),
        shield_angle=angle + 0.5 * rng.standard_normal(count),
        shield_x=4.5 * rng.standard_normal(count),
        shield_y=4.5 * rng.standard_normal(count),
        clear=-38 + 54 * rng.beta(0.45, 0.80, count),
        near_x=distance * np.cos(bearing),
        near_y=distance * np.sin(bearing),
        near_peak=_quantile(near_intensity, _PEAK),
        near_area=near_area,
        near_ratio=np.sqrt(1 - _quantile(rng.standard_normal(there.shape), _ECCENTRICITY) ** 2),
        near_angle=angle[:, None] + 0.5 * rng.standard_normal(there.shape),
        near_vorticity=1.5e-3 * np.exp(0.45 * near_rotation),
    )


class _Lasting:
    """Draws normal scores, one or more a patch, of which a share stays the same along a track."""

    def __init__(self, rng: np.random.Generator, track: Ints) -> None:
        self._rng, self._track, self._tracks = rng, track, int(track[-1]) + 1

    def __call__(self, share: float, *shape: int) -> Floats:
        same = self._rng.standard_normal((self._tracks, *shape))[self._track]
        fresh = self._rng.standard_normal((len(self._track), *shape))
        return np.asarray(share * same + np.sqrt(1 - share**2) * fresh)


class _Strength(NamedTuple):
    """Normal scores, one a patch."""

    #: Seen in reflectivity.
    intensity: Floats
    #: Seen in the couplet: intensity, rotation and heat together.
    now: Floats
    #: What the next hour brings: the same, and chance.
    next_hour: Floats


def _strength(
    rng: np.random.Generator,
    day: days.Day,
    lasting: _Lasting,
    track: Ints,
    step: Ints,
    length: Ints,
    temperature: Floats,
) -> _Strength:
    """Draw how strong storms are: of the day, the track, the hour before, the stage of life."""
    stage = (step + 0.5) / length[track]
    mature = np.where(length[track] > 1, 4 * stage * (1 - stage) - 2 / 3, 0.0)
    heat = temperature - temperature.mean()
    intensity = _scores(
        day.vigour,
        day.vigours,
        day.weights,
        _FROM_WARMTH * heat / (heat.std() + 1e-6)
        + 0.70 * rng.standard_normal(len(length))[track]
        + 0.55 * _persistent(rng, track, step, 0.7)
        + 0.35 * mature
        + 0.25 * (np.log(length) - 0.55)[track],
    )
    rotation = _scores(
        day.turning,
        day.turnings,
        day.weights,
        0.77 * rng.standard_normal(len(length))[track] + 0.60 * _persistent(rng, track, step, 0.7),
    )
    # The most intense storms rotate for the most part, and what they will do is less in doubt.
    now = (
        _FROM_INTENSITY * intensity
        + _FROM_ROTATION * rotation * np.exp(-0.1 * intensity)
        + _FROM_HEAT * (temperature - 290) / 7
    )
    next_hour = _scores(
        _FROM_INTENSITY * day.vigour + _FROM_ROTATION * day.turning,
        _FROM_INTENSITY * day.vigours + _FROM_ROTATION * day.turnings,
        day.weights,
        now + _FROM_CHANCE * lasting(_LASTING_CHANCE) * np.exp(-0.2 * now),
    )
    return _Strength(intensity, now / 0.89, next_hour)


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


def _warmth(rng: np.random.Generator, lat: Floats, hour: Ints, track: Ints) -> Floats:
    """Return how much warmer it is around each storm than on the day's average (K)."""
    value = -0.45 * (lat - 38.0) + 3.4 * rng.standard_normal(len(lat))
    warmth = value[track] + 2.2 * np.cos(2 * np.pi * (hour - 22) / 24)
    return np.asarray(warmth - warmth.mean())


def _scores(offset: float, offsets: Floats, weights: Floats, values: Floats) -> Floats:
    """Map a run's values to normal scores that are standard over all days together.

    Within the run they are the normal scores of the values' ranks, around the day's `offset`.
    """
    spread = float(np.sqrt(1 - weights @ offsets**2))
    return days.Mixture(offsets, weights, spread).scores(offset + spread * days.even_scores(values))


def _quantile(score: Floats, values: Floats) -> Floats:
    """Map standard normal scores to the distribution with the published quantiles `values`."""
    return np.asarray(np.interp(ndtr(score), _PROBABILITY, values), dtype=np.float64)
