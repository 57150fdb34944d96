"""The weather of the twin's run dates: how warm, windy and stormy each day is among the others.

A day's weather is drawn for all dates at once, so that however the days fall, their weighted mean
and spread are those of the archive: no seed is luckier than another. The same holds for what the
days do to the storms: `Mixture` knows how often a value occurs over all dates together.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from stormsweep.storms.schema import SPLIT_DATE

Floats = npt.NDArray[np.float64]

#: Wind (m/s) and warmth (K) before and from 2015 such that, with what storms add to the one and
#: take from the other, the mean over all cells is the archive's.
_WIND_U, _WIND_V = (-0.75, -1.08), (0.98, 0.45)
_WARMTH = (290.9, 291.05)
#: Spread of the days' mean temperature (K), of which the season explains most.
_WARMTH_SPREAD, _SEASON, _UNSEASONABLE = 5.45, 6.0, 3.2
#: Spread of the days' mean wind (m/s), of storm intensity and of rotation (normal scores).
_WIND_SPREAD = 2.4
VIGOUR_SPREAD, TURNING_SPREAD = 0.30, 0.35
#: How far storms are the more intense the warmer the day.
_VIGOUR_FROM_WARMTH = 0.85


@dataclass(frozen=True)
class Mixture:
    """Normal distributions of one spread, around each day's offset, weighted by its patches."""

    offsets: Floats
    weights: Floats
    spread: float

    def scores(self, values: Floats) -> Floats:
        """Map values of the mixture to standard normal scores.

        Examples
        --------
        >>> two_days = Mixture(np.array([-1.0, 1.0]), np.array([0.5, 0.5]), 1.0)
        >>> two_days.scores(np.array([-1.0, 0.0, 1.0])).round(3).tolist()
        [-0.639, 0.0, 0.639]
        """
        below = ndtr((np.asarray(values)[:, None] - self.offsets) / self.spread) @ self.weights
        return np.asarray(ndtri(np.clip(below, 1e-9, 1 - 1e-9)))


@dataclass(frozen=True)
class Day:
    """The weather of one run date.

    Attributes
    ----------
    wind_u, wind_v : float
        Mean wind (m/s).
    temperature : float
        Mean temperature at 2 m (K).
    vigour, turning : float
        What the day adds to its storms' intensity and rotation (normal scores).
    vigours, turnings : Floats
        The same of all days of its part (before, or from 2015).
    weights : Floats
        Share of the part's patches that each of those days has.
    """

    wind_u: float
    wind_v: float
    temperature: float
    vigour: float
    turning: float
    vigours: Floats
    turnings: Floats
    weights: Floats


def climate(counts: Mapping[dt.date, int], seed: int) -> dict[dt.date, Day]:
    """Draw the weather of all run dates of a twin.

    Parameters
    ----------
    counts : mapping of datetime.date to int
        Patches of each run date.
    seed : int
        Same seed, dates and counts: same weather.
    """
    days: dict[dt.date, Day] = {}
    for part in (0, 1):
        dates = [date for date in counts if (date >= SPLIT_DATE) == bool(part)]
        if not dates:
            continue
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, part])))
        weights = np.array([counts[date] for date in dates], dtype=np.float64)
        weights /= weights.sum()
        # Of as many days, each is another quantile: only which day is which is left to chance.
        even = ndtri((np.arange(len(dates)) + 0.5) / len(dates))
        wind_u, wind_v, chance, vigour, turning = (
            _standard(even[rng.permutation(len(dates))], weights) for _ in range(5)
        )
        season = np.array(
            [np.cos(2 * np.pi * (date.timetuple().tm_yday - 196) / 365.25) for date in dates]
        )
        warmth = _standard(_SEASON * season + _UNSEASONABLE * chance, weights)
        vigour = _standard(
            _VIGOUR_FROM_WARMTH * warmth + np.sqrt(1 - _VIGOUR_FROM_WARMTH**2) * vigour, weights
        )
        for k, date in enumerate(dates):
            days[date] = Day(
                wind_u=_WIND_U[part] + _WIND_SPREAD * float(wind_u[k]),
                wind_v=_WIND_V[part] + _WIND_SPREAD * float(wind_v[k]),
                temperature=_WARMTH[part] + _WARMTH_SPREAD * float(warmth[k]),
                vigour=VIGOUR_SPREAD * float(vigour[k]),
                turning=TURNING_SPREAD * float(turning[k]),
                vigours=VIGOUR_SPREAD * vigour,
                turnings=TURNING_SPREAD * turning,
                weights=weights,
            )
    return days


def _standard(values: Floats, weights: Floats) -> Floats:
    """Return values of weighted mean 0 and variance 1; a day alone is an average one."""
    centred = values - weights @ values
    spread = np.sqrt(weights @ centred**2)
    return np.asarray(centred / spread if spread > 1e-9 else centred)


def even_scores(values: Floats) -> Floats:
    """Map values to the standard normal scores of their ranks: no sample is luckier than another.

    Examples
    --------
    >>> even_scores(np.array([7.0, 1.0, 3.0])).round(3).tolist()
    [0.967, -0.967, 0.0]
    """
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values)) + 0.5
    return np.asarray(ndtri(ranks / len(values)))
