"""Which hyperparameters a configuration has: conditions between them (``when``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: A hyperparameter, those that it depends on, and the values of each at which it is there.
Conditions = Mapping[str, Mapping[str, Sequence[Any]]]


def among(value: Any, values: Iterable[Any]) -> bool:
    """Tell whether a value is one of several; true is not 1.

    Examples
    --------
    >>> among(1.0, [1, 2]), among(True, [1, 2])
    (True, False)
    """
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)


def parents_first(names: Iterable[str], when: Conditions) -> list[str]:
    """Return hyperparameters so that each comes after those that it depends on.

    Raises
    ------
    ValueError
        If some depend on each other.

    Examples
    --------
    >>> parents_first(["momentum", "optimizer"], {"momentum": {"optimizer": ["sgd"]}})
    ['optimizer', 'momentum']
    """
    done: dict[str, None] = {}
    left = list(names)
    while left:
        free = [name for name in left if when.get(name, {}).keys() <= done.keys()]
        if not free:
            raise ValueError(f"{' and '.join(left)} depend on each other")
        done |= dict.fromkeys(free)
        left = [name for name in left if name not in done]
    return list(done)


def holds(name: str, point: Mapping[str, Any], when: Conditions) -> bool:
    """Tell whether the conditions of a hyperparameter hold at a point."""
    return all(
        other in point and among(point[other], values)
        for other, values in when.get(name, {}).items()
    )


def kept(point: Mapping[str, Any], when: Conditions) -> dict[str, Any]:
    """Return a point without the hyperparameters whose conditions do not hold.

    One whose condition names a hyperparameter that is not there itself, is not there either.
    """
    there = dict(point)
    while gone := [name for name in there if not holds(name, there, when)]:
        for name in gone:
            del there[name]
    return there
