"""Pictures of the twin's storms: reflectivity, wind, temperature, and what the next hour brings.

Each storm is a core of high reflectivity in a stratiform shield, with neighbours; a cold,
divergent outflow behind it, an inflow ahead, and, where it rotates, a cyclonic couplet in the wind
on its right rear flank. The future vorticity maximum is the swath that this rotation leaves while
the storm moves on for an hour.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from stormsweep.storms.schema import CELL_M, CENTRE, OBJECT_DBZ, SIDE
from stormsweep.storms.tracks import NEIGHBOURS, Storms

Array = npt.NDArray[np.float32]
_MARGIN = 3
_WIDE = SIDE + 2 * _MARGIN
_AXIS_WIDE = (np.arange(_WIDE) - CENTRE - _MARGIN).astype("f4")
_AXIS = (np.arange(SIDE) - CENTRE).astype("f4")
_ONE_PATCH = np.zeros((3, 3, 3), bool)
_ONE_PATCH[1] = True


class Fields(NamedTuple):
    """Fields (n, 32, 32) of a block of patches, float32, and the storm's own cells (bool)."""

    mask: npt.NDArray[np.bool_]
    refl: Array
    u10: Array
    v10: Array
    t2: Array
    vorticity: Array
    hail: Array
    #: Reflectivity-weighted centre of the mask in cells from the patch's centre cell.
    centre_x: npt.NDArray[np.float64]
    centre_y: npt.NDArray[np.float64]


def draw(rng: np.random.Generator, storms: Storms) -> Fields:
    """Draw the fields of a block of storms; noise comes from `rng`, all else from `storms`."""
    refl, mask, shift_x, shift_y = _reflectivity(rng, storms)
    # Everything else is drawn in the frame of the patch, which the centroid fixes.
    core_x, core_y = (-shift.astype("f4") for shift in (shift_x, shift_y))
    echo = np.clip((refl - 10) * np.float32(1 / 40), 0, 1)
    u10, v10, pool, vortex = _wind(rng, storms, core_x, core_y)
    n = len(storms)
    t2 = (
        _c(storms.temperature)
        + _c(storms.gradient[:, 0]) * _AXIS
        + _c(storms.gradient[:, 1]) * _AXIS[:, None]
        + 0.6 * _smooth(rng, n, SIDE, 8)
        - _c(storms.cold_pool) * (0.65 * pool + 0.35 * echo)
    )
    vorticity, hail = _next_hour(rng, storms, mask, echo, core_x, core_y, vortex)
    weight = refl * mask
    total = weight.sum(axis=(1, 2), dtype="f8")
    # Binary fractions, well below what a forecast field means, so that the files pack better.
    return Fields(
        mask,
        _rounded(refl, 16),
        _rounded(u10, 32),
        _rounded(v10, 32),
        _rounded(t2, 32),
        _rounded(vorticity, 2**18),
        _rounded(hail, 2**14),
        (weight.sum(axis=1, dtype="f8") @ _AXIS) / total,
        (weight.sum(axis=2, dtype="f8") @ _AXIS) / total,
    )


def _reflectivity(
    rng: np.random.Generator, s: Storms
) -> tuple[Array, npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return reflectivity, mask, and how far the centroid lies from the core's centre (cells)."""
    n = len(s)
    zero = np.zeros(n)
    warp = 1 + 0.16 * _smooth(rng, n, _WIDE, 14)
    texture = _smooth(rng, n, _WIDE, 19)
    long = np.sqrt(s.area / (np.pi * s.ratio))
    own = _distance(_AXIS_WIDE, zero, zero, long, long * s.ratio, s.angle) * warp
    refl = _core(own, s.peak, s.edge, s.steepness, texture)

    # The nearest storm owns a cell.
    closest = np.full_like(own, np.inf)
    others = np.full_like(own, -99)
    for k in range(NEIGHBOURS):
        near_long = np.sqrt(s.near_area[:, k] / (np.pi * s.near_ratio[:, k]))
        near = warp * _distance(
            _AXIS_WIDE,
            s.near_x[:, k],
            s.near_y[:, k],
            near_long,
            near_long * s.near_ratio[:, k],
            s.near_angle[:, k],
        )
        np.minimum(closest, near, out=closest)
        np.maximum(
            others,
            _core(near, s.near_peak[:, k], np.full(n, OBJECT_DBZ), s.steepness, texture),
            out=others,
        )
    mine = (own < closest) & (own <= 1)

    shield = _distance(
        _AXIS_WIDE,
        s.shield_x,
        s.shield_y,
        s.shield_length,
        s.shield_length * s.shield_ratio,
        s.shield_angle,
    )
    broad = _smooth(rng, n, _WIDE, 8)
    stratiform = _c(s.shield_peak) - 14 * shield * shield + 3.0 * broad + 1.5 * texture
    clear = np.maximum(_c(s.clear) + 7 * broad + 2 * texture, -32)
    rest = np.minimum(np.maximum(stratiform, clear), np.float32(39.4))
    # A storm is surrounded by its shield; cells of 40 dBZ are its core's alone.
    refl = np.maximum(np.maximum(refl, others), rest)

    middle = slice(CENTRE + _MARGIN, CENTRE + _MARGIN + 2)
    # At least LEAST_CELLS cells, two each way.
    tiny = np.float32(OBJECT_DBZ + 0.3) + np.float32(0.2) * np.abs(texture[:, middle, middle])
    refl[:, middle, middle] = np.maximum(refl[:, middle, middle], tiny)
    mine[:, middle, middle] = True
    mask = _connected((refl >= OBJECT_DBZ) & mine)

    weight = refl * mask
    total = weight.sum(axis=(1, 2), dtype="f8")
    shift_x = np.rint((weight.sum(axis=1, dtype="f8") @ _AXIS_WIDE) / total)
    shift_y = np.rint((weight.sum(axis=2, dtype="f8") @ _AXIS_WIDE) / total)
    shift_x, shift_y = (np.clip(v, -_MARGIN, _MARGIN).astype(np.int64) for v in (shift_x, shift_y))
    rows = (_MARGIN + shift_y[:, None] + np.arange(SIDE))[:, :, None]
    cols = (_MARGIN + shift_x[:, None] + np.arange(SIDE))[:, None, :]
    at = np.arange(n)[:, None, None]
    return refl[at, rows, cols], mask[at, rows, cols], shift_x, shift_y


def _wind(
    rng: np.random.Generator, s: Storms, core_x: Array, core_y: Array
) -> tuple[Array, Array, Array, tuple[Array, Array]]:
    """Return u, v (m/s), the shape of the cold pool (0..1) and where the vortex is (cells)."""
    n = len(s)
    long = np.sqrt(s.area / np.pi)
    speed = np.hypot(s.motion_x, s.motion_y) + 1e-6
    ahead_x, ahead_y = s.motion_x / speed, s.motion_y / speed
    u = _c(s.wind_u) + _c(s.shear[:, 0]) * _AXIS + _c(s.shear[:, 1]) * _AXIS[:, None]
    v = _c(s.wind_v) + _c(s.shear[:, 2]) * _AXIS + _c(s.shear[:, 3]) * _AXIS[:, None]
    u = u + 0.65 * _smooth(rng, n, SIDE, 7) + 0.4 * _smooth(rng, n, SIDE, 13)
    v = v + 0.65 * _smooth(rng, n, SIDE, 7) + 0.4 * _smooth(rng, n, SIDE, 13)

    # Outflow: from behind the core, with some of the storm's forward momentum.
    reach = 3.5 + 0.9 * long
    x, y, bell = _bell(core_x - 0.5 * long * ahead_x, core_y - 0.5 * long * ahead_y, reach)
    push = _c(s.outflow / reach) * bell
    surge = _c(0.25 * s.outflow) * bell
    u += push * x + surge
    v += np.float32(1.15) * push * y - 0.4 * surge
    pool = np.minimum(bell * np.float32(np.exp(-0.5)), 1)

    # Inflow toward the right forward flank.
    reach = 6.0 + 0.8 * long
    right_x, right_y = ahead_y, -ahead_x
    x, y, bell = _bell(
        core_x + 0.5 * long * (ahead_x + right_x), core_y + 0.5 * long * (ahead_y + right_y), reach
    )
    pull = _c(s.inflow / reach) * bell
    u -= pull * x
    v -= pull * y

    # The cyclonic couplet, and an anticyclonic one on the left that means nothing for the target.
    vortex_x = core_x + long * (s.vortex_along * ahead_x - s.vortex_aside * right_x)
    vortex_y = core_y + long * (s.vortex_along * ahead_y - s.vortex_aside * right_y)
    turn = _c(_surface_speed(s.rotation, s.vortex_radius) / s.vortex_radius)
    x, y, bell = _bell(vortex_x, vortex_y, s.vortex_radius)
    u -= turn * bell * y
    v += turn * bell * x
    x, y, bell = _bell(
        core_x + 0.9 * long * s.vortex_aside * right_x,
        core_y + 0.9 * long * s.vortex_aside * right_y,
        s.vortex_radius,
    )
    turn = _c(s.decoy / s.vortex_radius)
    u += turn * bell * y
    v -= turn * bell * x
    for k in range(NEIGHBOURS):
        radius = np.full(n, 2.1)
        x, y, bell = _bell(s.near_x[:, k] + core_x, s.near_y[:, k] + core_y, radius)
        turn = _c(_surface_speed(s.near_vorticity[:, k], radius) / radius)
        u -= turn * bell * y
        v += turn * bell * x
    return u, v, pool, (vortex_x.astype("f4"), vortex_y.astype("f4"))


def _next_hour(
    rng: np.random.Generator,
    s: Storms,
    mask: npt.NDArray[np.bool_],
    echo: Array,
    core_x: Array,
    core_y: Array,
    vortex: tuple[Array, Array],
) -> tuple[Array, Array]:
    """Return the greatest vorticity (1/s) and hail size (m) of the hour to come, at fixed cells."""
    n = len(s)
    texture = _smooth(rng, n, SIDE, 14)
    quiet = np.float32(1.2e-4) + np.float32(2.2e-4) * np.abs(texture) * (np.float32(0.4) + echo)
    apart, along = _swath(*vortex, s.motion_x, s.motion_y)
    shape = np.exp(-0.5 * apart / _c(1.0 + 0.35 * s.vortex_radius) ** 2)
    shape *= np.maximum(1 + _c(s.swath_trend) * along, 0.05) * (1 + 0.08 * texture)
    # The storm's own cells see the maximum that was drawn for them, wherever the swath runs.
    seen = np.where(mask, shape, 0).max(axis=(1, 2))
    own = np.maximum(quiet, _c(s.vorticity / np.maximum(seen, 1e-6)) * shape)
    around = own.copy()
    for k in range(NEIGHBOURS):
        near, _ = _swath(
            (s.near_x[:, k] + core_x).astype("f4"),
            (s.near_y[:, k] + core_y).astype("f4"),
            s.motion_x,
            s.motion_y,
        )
        other = _c(s.near_vorticity[:, k]) * np.exp(-0.5 * near / np.float32(1.7**2))
        np.maximum(around, other, out=around)
    # Outside, the surroundings see theirs.
    around *= _c(s.surroundings / np.where(mask, 0, around).max(axis=(1, 2)))
    vorticity = np.where(mask, np.minimum(own, _c(s.vorticity)), around)
    size = np.sqrt(s.area / np.pi)
    apart, _ = _swath(core_x, core_y, s.motion_x, s.motion_y)
    hail = _c(0.03 * s.hail * (np.maximum(s.peak - 42, 0) / 25) ** 1.5) * np.exp(
        -0.5 * apart / _c(1.5 + 0.6 * size) ** 2
    )
    return vorticity, np.maximum(hail * (1 + np.float32(0.25) * texture) - np.float32(5e-4), 0)


def _surface_speed(
    vorticity: npt.NDArray[np.float64], radius: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the wind (m/s) at the radius (cells) of a vortex of that vorticity 1 km up.

    Solid rotation has zeta = 2 V / R; friction leaves about eight tenths of it at 10 m.
    """
    return 0.8 * vorticity * radius * CELL_M / 2


def _swath(
    x: Array, y: Array, motion_x: npt.ArrayLike, motion_y: npt.ArrayLike
) -> tuple[Array, Array]:
    """Return squared distance (cells) from an hour's path from x, y, and how far along (0..1)."""
    mx, my = _c(motion_x), _c(motion_y)
    dx = _AXIS - x[:, None, None]
    dy = _AXIS[:, None] - y[:, None, None]
    along = np.clip((dx * mx + dy * my) / (mx * mx + my * my + np.float32(1e-3)), 0, 1)
    apart = (dx - along * mx) ** 2 + (dy - along * my) ** 2
    return np.asarray(apart, dtype="f4"), np.asarray(along, dtype="f4")


def _core(
    own: Array,
    peak: npt.ArrayLike,
    edge: npt.ArrayLike,
    steepness: npt.ArrayLike,
    texture: Array,
) -> Array:
    """Return a core's reflectivity: `peak` in the middle, `edge` at distance 1, less beyond."""
    excess = _c(peak) - _c(edge)
    # Between a cone and a dome; the grain grows from the middle, where the peak is, outward.
    near = np.minimum(own, 2)
    dome = _c(steepness)
    fall = near * (1 - dome + dome * near)
    grain = np.minimum(np.float32(0.10) * excess, 2) * np.minimum(own, 1)
    value = _c(peak) - excess * fall + texture * grain - 7 * np.maximum(own - 1, 0)
    return np.asarray(value, dtype="f4")


def _distance(
    axis: Array,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    long: npt.ArrayLike,
    short: npt.ArrayLike,
    angle: npt.ArrayLike,
) -> Array:
    """Return distance from ellipses' centres, 1 on the ellipse: (n, cells, cells)."""
    x, y, angle = (np.asarray(value, dtype="f8")[:, None] for value in (x, y, angle))
    cos, sin = np.cos(angle), np.sin(angle)
    long, short = (np.asarray(value)[:, None] for value in (long, short))
    first = _outer((axis - x) * cos / long, (axis - y) * sin / long)
    second = _outer(-(axis - x) * sin / short, (axis - y) * cos / short)
    return np.sqrt(first * first + second * second)


def _outer(of_x: npt.NDArray[np.float64], of_y: npt.NDArray[np.float64]) -> Array:
    return np.asarray(of_x.astype("f4")[:, None, :] + of_y.astype("f4")[:, :, None])


def _bell(x: npt.ArrayLike, y: npt.ArrayLike, reach: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Return offsets from x, y and a bell so that offset / reach * bell is 1 at reach."""
    dx, dy = _AXIS - _c(x), _AXIS[:, None] - _c(y)
    scale = 1 / np.asarray(reach, dtype="f8")[:, None] ** 2
    axis = _AXIS.astype("f8")
    along_x = np.exp(0.5 - 0.5 * scale * (axis - np.asarray(x, dtype="f8")[:, None]) ** 2)
    along_y = np.exp(-0.5 * scale * (axis - np.asarray(y, dtype="f8")[:, None]) ** 2)
    return dx, dy, along_x.astype("f4")[:, None, :] * along_y.astype("f4")[:, :, None]


def _connected(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Keep, of each patch's marked cells, those connected with the core's middle."""
    labels, _ = ndimage.label(cells, structure=_ONE_PATCH)
    middle = CENTRE + _MARGIN
    kept: npt.NDArray[np.bool_] = labels == labels[:, middle, middle][:, None, None]
    return kept


def _smooth(rng: np.random.Generator, count: int, side: int, knots: int) -> Array:
    """Return smooth noise of unit variance: white noise on `knots` x `knots` points, spread."""
    points = np.linspace(-0.5, side - 0.5, knots)
    width = 0.85 * (points[1] - points[0])
    spread = np.exp(-0.5 * ((np.arange(side)[:, None] - points) / width) ** 2)
    spread /= np.sqrt((spread**2).sum(axis=1, keepdims=True))
    weights = spread.astype("f4")
    noise = rng.standard_normal((count * knots, knots), dtype="f4")
    # One axis after the other, as two large products: several times as fast as one a patch.
    half = (noise @ weights.T).reshape(count, knots, side).swapaxes(1, 2)
    whole = half.reshape(count * side, knots) @ weights.T
    return np.asarray(whole.reshape(count, side, side), dtype="f4")


def _rounded(values: Array, parts: int) -> Array:
    return np.asarray(np.rint(values * np.float32(parts)) * np.float32(1 / parts), dtype="f4")


def _c(values: npt.ArrayLike) -> Array:
    """Return one value a patch as float32 (n, 1, 1)."""
    return np.asarray(values, dtype="f4")[:, None, None]
