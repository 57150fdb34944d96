"""What of a space was not tried yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stormsweep.search.space import Interval, Space, size
from stormsweep.work import Hyperparameters, identity

if TYPE_CHECKING:
    import numpy as np

#: Spaces up to this size are listed.
_LISTABLE = 20_000
#: How often to draw before it is believed that nothing is left.
_DRAWS = 10_000


class Untried:
    """The points of a space but those that were tried; small spaces are listed.

    Parameters
    ----------
    space : Space
        The space.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._tried: set[str] = set()
        self._left: dict[str, Hyperparameters] | None = None
        if size(space.values) <= _LISTABLE:
            values = {
                name: list(range(int(given.low), int(given.high) + 1))
                if isinstance(given, Interval)
                else given
                for name, given in space.values.items()
            }
            whole = Space(values, space.when, space.constraints, space.fixed)
            self._left = {identity(point): point for point in whole.grid()}

    @property
    def none(self) -> bool:
        """Whether nothing is left, as far as that can be known without drawing."""
        return self._left is not None and not self._left

    def has(self, point: Hyperparameters) -> bool:
        """Tell whether a point of the space was not tried and keeps to the constraints."""
        return identity(point) not in self._tried and self._space.holds(point)

    def discard(self, name: str) -> None:
        """Say that a point was tried, by its identity."""
        self._tried.add(name)
        if self._left is not None:
            self._left.pop(name, None)

    def draw(self, random: np.random.Generator) -> Hyperparameters | None:
        """Draw one point; None where there is none, or none can be found."""
        if self._left is not None:
            if not self._left:
                return None
            return list(self._left.values())[int(random.integers(len(self._left)))]
        for _ in range(_DRAWS):
            point = self._space.draw(random)
            if point is not None and identity(point) not in self._tried:
                return point
        return None
