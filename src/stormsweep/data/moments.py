"""Mean and standard deviation per channel, from blocks, without loss of precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ARRAYS = ("mean", "squares", "low", "high")


class Moments:
    """Count, mean and sum of squared deviations per channel, merged block by block in float64.

    Each block's deviations are taken from its own mean, and blocks are merged by the pairwise
    formula of Chan, Golub & LeVeque (1983, The American Statistician 37, 242-247), which stays
    exact where the mean is large beside the spread (geopotential, temperature in kelvin).

    Parameters
    ----------
    channels : int
        Length of the last axis.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = np.zeros(channels)
        self.squares = np.zeros(channels)
        self.low = np.full(channels, np.inf)
        self.high = np.full(channels, -np.inf)

    def add(self, block: NDArray[np.float32]) -> None:
        """Add a block of shape (n, ..., channels)."""
        channels = block.shape[-1]
        flat = block.reshape(len(block), -1).astype(np.float64)
        count = flat.size // channels
        if not count:
            return
        one = Moments(channels)
        one.count = count
        # Summing cases first, then cells, keeps the inner loop long and quick.
        one.mean = flat.sum(axis=0).reshape(-1, channels).sum(axis=0) / count
        one.low = flat.min(axis=0).reshape(-1, channels).min(axis=0)
        one.high = flat.max(axis=0).reshape(-1, channels).max(axis=0)
        flat -= np.tile(one.mean, flat.shape[1] // channels)
        np.square(flat, out=flat)
        one.squares = flat.sum(axis=0).reshape(-1, channels).sum(axis=0)
        self.merge(one)

    def merge(self, other: Moments) -> None:
        """Take in the moments of further values."""
        if not other.count:
            return
        total = self.count + other.count
        step = other.mean - self.mean
        self.mean = self.mean + step * (other.count / total)
        self.squares = self.squares + other.squares
        self.squares = self.squares + step**2 * (self.count * other.count / total)
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)
        self.count = total

    def as_json(self) -> dict[str, Any]:
        """Return the moments as plain JSON values, exact to the bit."""
        arrays = {name: getattr(self, name).tolist() for name in _ARRAYS}
        return {"count": self.count, **arrays}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Moments:
        """Return the moments that `as_json` told of."""
        moments = cls(len(values["mean"]))
        moments.count = values["count"]
        for name in _ARRAYS:
            setattr(moments, name, np.array(values[name], dtype=np.float64))
        return moments

    def scaling(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and (population) standard deviation, shape (channels,) each.

        A constant channel gets its own value and 1, so that it is scaled to 0.
        """
        constant = self.low == self.high
        mean = np.where(constant, self.low, self.mean)
        std = np.where(constant, 1.0, np.sqrt(self.squares / max(self.count, 1)))
        return mean, std
