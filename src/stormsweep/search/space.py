"""The space: hyperparameters and their values or ranges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stormsweep.config.growth import DEFAULTS
from stormsweep.work import Hyperparameters

if TYPE_CHECKING:
    import numpy as np

#: Taken when neither the space nor the fixed parameters name them.
DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS = DEFAULTS["batch_size"], DEFAULTS["epochs"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A range of one hyperparameter, both ends included."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def draw(self, random: np.random.Generator) -> float | int:
        """Draw one value, uniform in the value or in its logarithm."""
        if self.integer and not self.log:
            return int(random.integers(int(self.low), int(self.high), endpoint=True))
        if self.log:
            # An integer range reaches half a step beyond its ends, so that these are as
            # likely as their neighbours.
            reach = 0.5 if self.integer else 0.0
            low, high = math.log(self.low - reach), math.log(self.high + reach)
            value = math.exp(random.uniform(low, high))
        else:
            value = random.uniform(self.low, self.high)
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else float(f"{value:.6g}")


Values = list[Any] | Interval
Space = Mapping[str, Values]


def size(space: Space) -> float:
    """Return the number of configurations of a space; infinite where it holds a real range."""
    count = 1.0
    for values in space.values():
        if isinstance(values, Interval):
            count *= values.high - values.low + 1 if values.integer else math.inf
        else:
            count *= len(values)
    return count


def grid(space: Space) -> Iterator[Hyperparameters]:
    """Yield every combination of a space of lists, the last hyperparameter changing fastest.

    Raises
    ------
    TypeError
        If the space holds a range.
    """
    lists: list[list[Any]] = []
    for name, values in space.items():
        if isinstance(values, Interval):
            raise TypeError(f"{name} is a range; a grid needs lists")
        lists.append(values)
    for combination in itertools.product(*lists):
        yield dict(zip(space, combination, strict=True))


def draw(space: Space, random: np.random.Generator) -> Hyperparameters:
    """Draw one configuration, every hyperparameter on its own."""
    return {
        name: values.draw(random)
        if isinstance(values, Interval)
        else values[int(random.integers(len(values)))]
        for name, values in space.items()
    }
