"""The scaling of inputs: z-scores with mean and standard deviation of the training part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep.errors import DataError

_BLOCK = 1 << 19  # values computed at a time: what a processor's cache holds


def scale(raw: ArrayLike, manifest: Mapping[str, Any]) -> NDArray[np.float32]:
    """Scale new inputs as the prepared ones were: with the training part's mean and deviation.

    Parameters
    ----------
    raw : array_like of numbers, shape (n, height, width, channels) or (n, columns)
        Inputs in their own units, the variables in the manifest's order.
    manifest : mapping
        Manifest of the prepared data that a model was trained on.

    Returns
    -------
    ndarray of float32, of the same shape
        To the bit what `stormsweep.data.writer.PreparedWriter` writes for the same inputs.

    Raises
    ------
    DataError
        If the shape is not that of the prepared data.

    Examples
    --------
    >>> scale([[1.0], [9.0]], {"inputs": [{"mean": 5.0, "std": 2.0}], "input_shape": [1]}).tolist()
    [[-2.0], [2.0]]
    """
    given = np.asarray(raw).astype(np.float32, copy=False)
    expected = tuple(manifest["input_shape"])
    if given.shape[1:] != expected or not given.ndim:
        raise DataError(f"inputs have shape {given.shape}; the prepared data have (n, {expected})")
    mean, std = (
        np.array([variable[key] for variable in manifest["inputs"]]) for key in ("mean", "std")
    )
    return standardized(given, mean, std)


def standardized(
    block: NDArray[np.float32], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return (block - mean) / std over the last axis, computed in float64, as float32."""
    flat = block.reshape(len(block), -1)
    width = flat.shape[1]
    # An inner loop over whole cases is several times as fast as one over a few channels.
    wide = [np.tile(values, width // block.shape[-1]) for values in (mean, std)]
    result = np.empty(flat.shape, dtype=np.float32)
    rows = max(1, _BLOCK // max(1, width))
    for start in range(0, len(flat), rows):
        part = flat[start : start + rows] - wide[0]
        np.divide(part, wide[1], out=part)
        result[start : start + rows] = part
    return result.reshape(block.shape)
