"""The scaling of inputs: z-scores with mean and standard deviation of the training part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep.errors import DataError

_BLOCK = 1 << 19  # values computed at a time: what a processor's cache holds


def scale(raw: ArrayLike, inputs: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """Scale new inputs as the prepared ones were: with the training part's mean and deviation.

    Parameters
    ----------
    raw : array_like of numbers, shape (n, height, width, channels) or (n, columns)
        Inputs in their own units.
    inputs : sequence of mapping
        The inputs as the manifest of the prepared data has them, one a channel or column, each with
        its ``mean`` and ``std``.

    Returns
    -------
    ndarray of float32, of the same shape
        To the bit what `stormsweep.data.writer.PreparedWriter` writes for the same inputs.

    Raises
    ------
    DataError
        If there are more or fewer variables.

    Examples
    --------
    >>> scale([[1.0], [9.0]], [{"mean": 5.0, "std": 2.0}]).tolist()
    [[-2.0], [2.0]]
    """
    given = np.asarray(raw).astype(np.float32, copy=False)
    if given.ndim < 2 or given.shape[-1] != len(inputs):
        raise DataError(f"inputs have shape {given.shape}; {len(inputs)} variables are expected")
    return standardized(given, *moments_of(inputs))


def unscale(scaled: NDArray[Any], inputs: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """Return scaled values in their own units, as exactly as float32 kept them."""
    mean, std = moments_of(inputs)
    raw: NDArray[np.float32] = (scaled * std + mean).astype(np.float32)
    return raw


def moments_of(
    inputs: Sequence[Mapping[str, Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of the inputs of a manifest, shape (channels,) each."""
    mean, std = (np.array([one[key] for one in inputs], np.float64) for key in ("mean", "std"))
    return mean, std


def standardized(
    block: NDArray[np.float32], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return (block - mean) / std over the last axis, computed in float64, as float32."""
    width = math.prod(block.shape[1:])
    flat = block.reshape(len(block), width)  # not -1, which no block without cases would take
    # An inner loop over whole cases is several times as fast as one over a few channels.
    wide = [np.tile(values, width // block.shape[-1]) for values in (mean, std)]
    result = np.empty(flat.shape, dtype=np.float32)
    rows = max(1, _BLOCK // max(1, width))
    for start in range(0, len(flat), rows):
        part = flat[start : start + rows] - wide[0]
        np.divide(part, wide[1], out=part)
        result[start : start + rows] = part
    return result.reshape(block.shape)
