"""Scaling of new data as the training part was scaled, and back to physical units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def scale(values: NDArray[Any], inputs: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """Scale values as `stormsweep.data.writer` does, to the bit.

    Parameters
    ----------
    values : ndarray of float32, shape (n, ..., channels)
        In physical units.
    inputs : sequence of mapping
        The manifest's inputs, one a channel, with ``mean`` and ``std`` of the training part.

    Returns
    -------
    ndarray of float32
        Of the same shape.
    """
    mean, std = _moments(inputs)
    scaled: NDArray[np.float32] = ((values - mean) / std).astype(np.float32)
    return scaled


def unscale(values: NDArray[Any], inputs: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """Return scaled values in their physical units, as exactly as float32 kept them."""
    mean, std = _moments(inputs)
    physical: NDArray[np.float32] = (values * std + mean).astype(np.float32)
    return physical


def _moments(
    inputs: Sequence[Mapping[str, Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return (
        np.array([variable["mean"] for variable in inputs], np.float64),
        np.array([variable["std"] for variable in inputs], np.float64),
    )
