"""What the table says of each storm: statistics of the fields over its cells, and its shape."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stormsweep.storms.schema import SHAPES, STATISTICS, column

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_PERCENT = (10, 25, 50, 75, 90)


def over_mask(mask: Bools, fields: dict[str, npt.NDArray[np.float32]]) -> dict[str, Floats]:
    """Return the nine statistics of each field over each patch's mask.

    Parameters
    ----------
    mask : ndarray of bool, shape (n, 32, 32)
        The storm's own cells; at least one a patch.
    fields : dict of str to ndarray, shape (n, 32, 32)
        By the name of the NetCDF variable.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        By the table's column: mean, max, min, population standard deviation, and percentiles with
        linear interpolation, as `numpy.percentile` has them.
    """
    n = len(mask)
    flat = mask.reshape(n, -1)
    count = flat.sum(axis=1)
    # The cells of each mask side by side, padded to the largest: masks are a few per cent of cells.
    patch, cell = np.nonzero(flat)
    slot = np.arange(len(patch)) - np.repeat(np.cumsum(count) - count, count)
    rows = np.arange(n)
    result: dict[str, Floats] = {}
    for name, field in fields.items():
        values = np.full((n, int(count.max())), np.inf, dtype="f4")
        values[patch, slot] = field.reshape(n, -1)[patch, cell]
        values.sort(axis=1)
        known = np.isfinite(values)
        exact = np.where(known, values, 0).astype("f8")
        mean = exact.sum(axis=1) / count
        spread = np.where(known, exact - mean[:, None], 0)
        found = {
            "mean": mean,
            "max": exact[rows, count - 1],
            "min": exact[:, 0],
            "std": np.sqrt((spread**2).sum(axis=1) / count),
        }
        for percent in _PERCENT:
            place = (count - 1) * (percent / 100)
            low = np.floor(place).astype(np.int64)
            high = np.minimum(low + 1, count - 1)
            below, above = exact[rows, low], exact[rows, high]
            found[f"percentile_{percent}"] = below + (above - below) * (place - low)
        result |= {column(name, statistic): found[statistic] for statistic in STATISTICS}
    return result


def shapes(mask: Bools) -> dict[str, Floats]:
    """Return area, eccentricity, axis lengths (cells) and orientation (rad) of each mask.

    They are those of the ellipse with the same second moments, as scikit-image's ``regionprops``
    defines them: axes 4 sqrt(eigenvalue of the covariance), orientation between the row axis and
    the major axis, -pi/2 to pi/2.
    """
    weights = mask.astype("f8")
    rows, cols = (np.arange(length, dtype="f8") for length in mask.shape[1:])
    area = weights.sum(axis=(1, 2))
    by_row, by_col = weights.sum(axis=2), weights.sum(axis=1)
    mean_row, mean_col = by_row @ rows / area, by_col @ cols / area
    var_row = by_row @ rows**2 / area - mean_row**2
    var_col = by_col @ cols**2 / area - mean_col**2
    both = np.einsum("nrc,r,c->n", weights, rows, cols, optimize=True)
    covariance = both / area - mean_row * mean_col
    middle = (var_row + var_col) / 2
    half = np.sqrt(((var_row - var_col) / 2) ** 2 + covariance**2)
    major, minor = (np.maximum(value, 0) for value in (middle + half, middle - half))
    with np.errstate(invalid="ignore", divide="ignore"):
        eccentricity = np.where(major > 0, np.sqrt(1 - minor / major), 0.0)
    round_off = 1e-9 * (1 + middle)
    difference = np.where(np.abs(var_row - var_col) < round_off, 0.0, var_row - var_col)
    covariance = np.where(np.abs(covariance) < round_off, 0.0, covariance)
    orientation = np.where(
        difference == 0,
        np.where(covariance > 0, np.pi / 4, -np.pi / 4),
        0.5 * np.arctan2(2 * covariance, difference),
    )
    values = (area, eccentricity, 4 * np.sqrt(major), 4 * np.sqrt(minor), orientation)
    return dict(zip(SHAPES, values, strict=True))
