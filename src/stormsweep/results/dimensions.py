"""Configurations as numbers: the dimensions of a space, cut into values or parts of a range."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Equal parts into which a range is cut, and numbers of a list that are each a value of their own.
PARTS = 20
#: Code of a hyperparameter that a configuration does not have.
ABSENT = -1


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter that differs among configurations.

    Attributes
    ----------
    name : str
        As the study file has it.
    atoms : int
        How many values it has, or equal parts its range is cut into: all are given equal weight.
    ordered : bool
        Whether they have an order: numbers do, words, switches and lists do not.
    codes : array of int
        Which of them each configuration has, from 0; `ABSENT` where it has none.
    """

    name: str
    atoms: int
    ordered: bool
    codes: NDArray[np.int64]


def dimensions(
    points: Sequence[Mapping[str, Any]], space: Mapping[str, Any], exact: bool
) -> list[Dimension]:
    """Return what differs among configurations.

    Parameters
    ----------
    points : list of dict
        Hyperparameters of each configuration; what is conditional may be absent.
    space : dict
        The space as the journal has it: lists, ranges with ``low`` and ``high``, and lists under a
        condition with ``values``.
    exact : bool
        Every value that occurs is an atom of its own; else ranges are cut into parts, of equal
        length on the scale on which values are drawn.

    Returns
    -------
    list of Dimension
        In the order of the space, then of appearance; only those with two atoms or more. Of a list
        only the values that occur count.
    """
    names = dict.fromkeys(name for name in space if name != "epochs")
    for point in points:
        names.update(dict.fromkeys(name for name in point if name != "epochs"))
    found = [_dimension(name, points, space.get(name), exact) for name in [*names, "epochs"]]
    return [dimension for dimension in found if dimension is not None]


def _dimension(
    name: str, points: Sequence[Mapping[str, Any]], declared: Any, exact: bool
) -> Dimension | None:
    values = [point[name] for point in points if name in point]
    there = np.array([name in point for point in points], dtype=bool)
    numeric = bool(values) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    )
    distinct = sorted(set(values)) if numeric else []
    if numeric and not exact and (cut := _cut(np.array(values, float), distinct, declared)):
        atoms, inner = cut
        ordered = True
    elif numeric:
        place = {value: code for code, value in enumerate(distinct)}
        atoms, ordered, inner = len(distinct), True, np.array([place[v] for v in values], int)
    else:
        texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
        place = {text: code for code, text in enumerate(sorted(set(texts)))}
        atoms, ordered, inner = len(place), False, np.array([place[t] for t in texts], int)
    if atoms < 2 or len(np.unique(inner)) < 2:
        return None
    codes = np.full(len(points), ABSENT, dtype=np.int64)
    codes[there] = inner
    return Dimension(name, atoms, ordered, codes)


def _cut(
    values: NDArray[np.float64], distinct: list[Any], declared: Any
) -> tuple[int, NDArray[np.int64]] | None:
    """Return parts of a range, and in which of them values lie; None: each value is its own."""
    if isinstance(declared, Mapping) and "low" in declared:
        low, high = float(declared["low"]), float(declared["high"])
        log, integer = bool(declared.get("log")), bool(declared.get("integer"))
        if integer:
            # As they are drawn: the ends are as likely as their neighbours.
            low, high = low - 0.5, high + 0.5
            log = log and low > 0
    elif len(distinct) > PARTS:
        # A list that long, or values from elsewhere.
        low, high, integer = float(distinct[0]), float(distinct[-1]), False
        log = low > 0 and high / low >= 100
    else:
        return None
    if not high > low:
        return None
    if integer and not log and high - low <= PARTS:
        whole = np.clip(values - (low + 0.5), 0, high - low - 1)
        return int(high - low), whole.round().astype(np.int64)
    inside = np.clip(values, low, high)
    share = (
        (np.log(inside) - math.log(low)) / (math.log(high) - math.log(low))
        if log
        else (inside - low) / (high - low)
    )
    return PARTS, np.clip((share * PARTS).astype(np.int64), 0, PARTS - 1)
