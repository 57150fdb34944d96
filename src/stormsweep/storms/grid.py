"""The grid of the forecast model: Lambert conformal, 3 km, 985 rows by 1,580 columns."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stormsweep.storms.schema import CELL_M

ROWS, COLUMNS = 985, 1580
_RADIUS_M = 6_370_000.0
_LON_0, _LAT_0 = -101.0, 38.33643
_PARALLELS = (32.0, 46.0)
_SOUTH_WEST = (-120.81058, 23.159264)

Floats = npt.NDArray[np.float64]

#: A rough outline of the land that storms are looked for on: lon, southern and northern lat.
_OUTLINE = np.array(
    [
        (-123.5, 39.5, 48.2),
        (-120, 35, 48.8),
        (-116, 33, 48.8),
        (-111, 31.8, 48.8),
        (-106, 32, 48.8),
        (-103, 29.5, 48.8),
        (-99, 27.2, 48.8),
        (-97, 28, 48.8),
        (-94, 29.8, 48.5),
        (-90, 30, 46.5),
        (-85, 30.3, 45.5),
        (-81.5, 27.5, 41.5),
        (-79, 34.2, 42.8),
        (-75, 39.5, 44.5),
        (-71, 42, 45),
        (-68.5, 44.6, 47),
    ]
)
#: Share of the land by band of longitude.
_BANDS = ((-123.5, -115), (-115, -105), (-105, -95), (-95, -85), (-85, -75), (-75, -68.5))
_SHARES = np.array([15, 21, 25, 21, 15, 3]) / 100


class Grid(NamedTuple):
    """Longitude, latitude (degrees), x and y (m) of every cell, float32 (985, 1580)."""

    lon: npt.NDArray[np.float32]
    lat: npt.NDArray[np.float32]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]


def _cone() -> tuple[float, float, float]:
    # Snyder, "Map projections: a working manual" (1987), equations 15-1 to 15-3, sphere.
    south, north = np.radians(_PARALLELS)
    half = [np.tan(np.pi / 4 + angle / 2) for angle in (south, north, np.radians(_LAT_0))]
    n = np.log(np.cos(south) / np.cos(north)) / np.log(half[1] / half[0])
    f = np.cos(south) * half[0] ** n / n
    return float(n), float(f), float(_RADIUS_M * f / half[2] ** n)


def project(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return x, y (m) of longitudes and latitudes (degrees) in the model's projection."""
    n, f, rho_0 = _cone()
    rho = _RADIUS_M * f / np.tan(np.pi / 4 + np.radians(lat) / 2) ** n
    theta = n * np.radians(np.asarray(lon) - _LON_0)
    return rho * np.sin(theta), rho_0 - rho * np.cos(theta)


def unproject(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return longitudes and latitudes (degrees) of x, y (m): the inverse of `project`."""
    n, f, rho_0 = _cone()
    rho = np.hypot(x, rho_0 - y)
    lat = 2 * np.arctan((_RADIUS_M * f / rho) ** (1 / n)) - np.pi / 2
    return _LON_0 + np.degrees(np.arctan2(x, rho_0 - y)) / n, np.degrees(lat)


def cell(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return row and column (fractions allowed) of longitudes and latitudes (degrees)."""
    x, y = project(lon, lat)
    x_0, y_0 = project(*(np.array(value) for value in _SOUTH_WEST))
    return (y - y_0) / CELL_M, (x - x_0) / CELL_M


@functools.lru_cache(maxsize=1)
def grid() -> Grid:
    """Return the coordinates of all cells; row index grows northward, column index eastward."""
    x_0, y_0 = project(*(np.array(value) for value in _SOUTH_WEST))
    x, y = np.meshgrid(x_0 + CELL_M * np.arange(COLUMNS), y_0 + CELL_M * np.arange(ROWS))
    lon, lat = unproject(x, y)
    return Grid(*(np.ascontiguousarray(part, dtype="f4") for part in (lon, lat, x, y)))


def places(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Draw longitudes and latitudes (degrees) over land, roughly even by area within bands."""
    bands = rng.choice(len(_BANDS), size=count, p=_SHARES)
    west, east = np.array(_BANDS)[bands].T
    lon = rng.uniform(west, east)
    south = np.interp(lon, _OUTLINE[:, 0], _OUTLINE[:, 1])
    north = np.interp(lon, _OUTLINE[:, 0], _OUTLINE[:, 2])
    return lon, rng.uniform(south, north)


def onto_land(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Move places that lie outside the outline of the land to its border."""
    lon = np.clip(lon, _OUTLINE[0, 0], _OUTLINE[-1, 0])
    south = np.interp(lon, _OUTLINE[:, 0], _OUTLINE[:, 1])
    north = np.interp(lon, _OUTLINE[:, 0], _OUTLINE[:, 2])
    return lon, np.clip(lat, south, north)
