"""The space: hyperparameters and their values or ranges, conditions and constraints."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stormsweep.config.conditions import Conditions, among, holds, kept, parents_first
from stormsweep.config.expressions import Expression, parse
from stormsweep.config.growth import DEFAULTS
from stormsweep.config.study import Choices, Range, SearchTable
from stormsweep.work import Hyperparameters, identity

if TYPE_CHECKING:
    import numpy as np

#: Taken when neither the space nor the fixed parameters name them.
DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS = DEFAULTS["batch_size"], DEFAULTS["epochs"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A range of one hyperparameter, both ends included.

    Attributes
    ----------
    low, high : float
        The ends.
    log : bool
        Whether values are drawn evenly in their logarithm.
    integer : bool
        Whether it holds whole numbers only.

    Examples
    --------
    >>> Interval(1e-4, 1e-1, log=True).at(0.5)
    0.00316228
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def draw(self, random: np.random.Generator) -> float | int:
        """Draw one value, uniform in the value or in its logarithm.

        Parameters
        ----------
        random : numpy.random.Generator
            Where chance comes from.

        Returns
        -------
        float or int
            The value.
        """
        if self.integer and not self.log:
            return int(random.integers(int(self.low), int(self.high), endpoint=True))
        return self._value(random.uniform(*self._ends()))

    def at(self, share: float) -> float | int:
        """Return the value below which a share of all draws lies.

        Parameters
        ----------
        share : float
            From 0 to 1, 1 left out.
        """
        if self.integer and not self.log:
            return int(self.low) + int(share * (int(self.high) - int(self.low) + 1))
        low, high = self._ends()
        return self._value(low + share * (high - low))

    def value(self, given: Any) -> float | int | None:
        """Return a given value as the range would say it; None where it is not in the range.

        Parameters
        ----------
        given : object
            A number, or anything else.
        """
        if isinstance(given, bool) or not isinstance(given, int | float):
            return None
        if not self.low <= given <= self.high or (self.integer and given != int(given)):
            return None
        return int(given) if self.integer else float(given)

    def clipped(self, value: float) -> float | int:
        """Return a number as a value of the range: inside, whole or of six significant digits.

        Parameters
        ----------
        value : float
            Any number.

        Examples
        --------
        >>> Interval(0.1, 0.2).clipped(0.12345669), Interval(0.1, 0.1234567).clipped(0.12345669)
        (0.123457, 0.1234567)
        """
        value = min(max(value, self.low), self.high)
        if self.integer:
            return round(value)
        # An end may have more digits than six: what is rounded beyond it is the end itself.
        return float(min(max(float(f"{value:.6g}"), self.low), self.high))

    def _ends(self) -> tuple[float, float]:
        """Return where to draw between; logarithms where these are what is drawn."""
        if not self.log:
            return self.low, self.high
        # An integer range reaches half a step beyond its ends, so that these are as
        # likely as their neighbours.
        reach = 0.5 if self.integer else 0.0
        return math.log(self.low - reach), math.log(self.high + reach)

    def _value(self, drawn: float) -> float | int:
        return self.clipped(math.exp(drawn) if self.log else drawn)


Values = list[Any] | Interval


@dataclass(frozen=True)
class Space:
    """What configurations may be.

    Attributes
    ----------
    values : mapping
        Hyperparameters, each a list of values or an `Interval`.
    when : mapping
        Hyperparameters that are there only where others have certain values, and which.
    constraints : tuple of Expression
        What must hold; one that names a hyperparameter which is not there, holds.
    fixed : mapping
        What constraints may name beside the space.
    """

    values: Mapping[str, Values]
    when: Conditions = field(default_factory=dict)
    constraints: tuple[Expression, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, search: SearchTable, fixed: Hyperparameters) -> Space:
        """Return the space of a study file.

        Parameters
        ----------
        search : SearchTable
            ``[search]``.
        fixed : dict
            ``[model.parameters]``.
        """
        values = {name: _values(given) for name, given in search.space.items()}
        when = {
            name: given.when
            for name, given in search.space.items()
            if isinstance(given, Choices | Range) and given.when
        }
        known = {"batch_size": DEFAULT_BATCH_SIZE, "epochs": DEFAULT_EPOCHS, **fixed}
        return cls(values, when, tuple(parse(text) for text in search.constraints), known)

    def without(self, name: str) -> Space:
        """Return the space without a hyperparameter that no other depends on.

        Parameters
        ----------
        name : str
            The hyperparameter.
        """
        values = {key: given for key, given in self.values.items() if key != name}
        when = {key: given for key, given in self.when.items() if key != name}
        return Space(values, when, self.constraints, self.fixed)

    def whole(self, hyperparameters: Hyperparameters, epochs: int) -> Hyperparameters:
        """Return hyperparameters and epochs as a point, which has epochs where the space does.

        Parameters
        ----------
        hyperparameters : dict
            Without ``epochs``.
        epochs : int
            Of the training.
        """
        return {**hyperparameters, **({"epochs": epochs} if "epochs" in self.values else {})}

    @property
    def names(self) -> Sequence[str]:
        """The hyperparameters, each after those that it depends on."""
        return parents_first(self.values, self.when)

    @property
    def listed(self) -> bool:
        """Whether it holds no ranges."""
        return not any(isinstance(values, Interval) for values in self.values.values())

    def there(self, name: str, point: Hyperparameters) -> bool:
        """Tell whether a hyperparameter is there beside those that it depends on.

        Parameters
        ----------
        name : str
            The hyperparameter.
        point : dict
            Values of the others.
        """
        return holds(name, point, self.when)

    def kept(self, point: Hyperparameters) -> Hyperparameters:
        """Return a point without the hyperparameters whose conditions do not hold.

        Parameters
        ----------
        point : dict
            Values by name.
        """
        return kept(point, self.when) if self.when else point

    def holds(self, point: Hyperparameters) -> bool:
        """Tell whether a point keeps to the constraints; where one cannot be computed, not.

        Parameters
        ----------
        point : dict
            Values by name.
        """
        if not self.constraints:
            return True
        fixed = {name: value for name, value in self.fixed.items() if name not in self.values}
        known = {**fixed, **point}
        try:
            return all(
                expression.holds(known)
                for expression in self.constraints
                if expression.names <= known.keys()
            )
        except ValueError:
            return False

    def fit(self, point: Hyperparameters) -> Hyperparameters | None:
        """Return a point as the space would say it; None where it is not one of the space.

        Parameters
        ----------
        point : dict
            Values by name. Names that the space does not have are passed over.
        """
        found: Hyperparameters = {}
        for name, values in self.values.items():
            if name not in point:
                continue
            if isinstance(values, Interval):
                value = values.value(point[name])
            else:
                # 1 and 1.0 are equal, but other values where a list has both.
                alike = [one for one in values if among(point[name], [one])]
                same = [one for one in alike if type(one) is type(point[name])]
                value = next(iter(same + alike), None)
            if value is None:
                return None
            found[name] = value
        found = self.kept(found)
        whole = self.kept({name: found.get(name) for name in self.values}).keys() == found.keys()
        return found if whole and self.holds(found) else None

    def grid(self) -> Iterator[Hyperparameters]:
        """Yield every configuration once, the last hyperparameter changing fastest.

        Raises
        ------
        TypeError
            If the space holds a range.
        """
        if not self.when and not self.constraints:
            yield from grid(self.values)
            return
        seen = set()
        for combination in grid(self.values):
            point = self.kept(combination)
            if (name := identity(point)) not in seen:
                seen.add(name)
                if self.holds(point):
                    yield point

    def draw(self, random: np.random.Generator) -> Hyperparameters | None:
        """Draw one configuration, every hyperparameter on its own; None: it breaks a constraint.

        Parameters
        ----------
        random : numpy.random.Generator
            Where chance comes from.

        Returns
        -------
        dict or None
            The configuration.
        """
        point = self.kept(
            {
                name: values.draw(random)
                if isinstance(values, Interval)
                else values[int(random.integers(len(values)))]
                for name, values in self.values.items()
            }
        )
        return point if self.holds(point) else None

    def at(self, shares: Sequence[float]) -> Hyperparameters | None:
        """Return the configuration at a point of the unit cube; None: it breaks a constraint.

        Parameters
        ----------
        shares : sequence of float
            One for each hyperparameter, in the order of `values`; from 0 to 1, 1 left out.
        """
        point = self.kept(
            {
                name: values.at(share)
                if isinstance(values, Interval)
                else values[int(share * len(values))]
                for (name, values), share in zip(self.values.items(), shares, strict=True)
            }
        )
        return point if self.holds(point) else None


def size(space: Mapping[str, Values]) -> float:
    """Return the number of combinations of a space; infinite where it holds a real range."""
    count = 1.0
    for values in space.values():
        if isinstance(values, Interval):
            count *= values.high - values.low + 1 if values.integer else math.inf
        else:
            count *= len(values)
    return count


def grid(space: Mapping[str, Values]) -> Iterator[Hyperparameters]:
    """Yield every combination of lists, the last hyperparameter changing fastest.

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


def _values(given: list[Any] | Choices | Range) -> Values:
    if isinstance(given, Range):
        return Interval(given.low, given.high, given.log, given.integer)
    return list(given.values) if isinstance(given, Choices) else given
