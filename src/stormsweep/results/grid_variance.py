"""The variance of the scores over a whole grid, split exactly: no model in between.

A table with one score for each combination of values is the sum of a constant, an effect of each
hyperparameter, one of each two together beyond those, and so on. All are orthogonal, so their
variances add up to that of the table (Sobol 1993; of hyperparameters: Hutter, Hoos and Leyton-Brown
2014). The folds are blocks: each has a table of its own, and an effect that differs from fold to
fold is known no better than that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtrit

from stormsweep.results.dimensions import ABSENT, Dimension

#: Tables of more cells than these are not made.
MOST_CELLS = 200_000
#: Shares of the variance below this are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Effect:
    """What belongs to one hyperparameter, to two together, or to more.

    Attributes
    ----------
    of : tuple of int
        Which dimensions; empty: three and more together.
    share : float
        Of the variance of the mean scores.
    low, high : float
        Ends of a 95 % interval of `share`, between 0 and 1.
    noise : float
        What `share` would be, on average, were all differences chance.
    beyond_noise : bool
        Whether chance alone would hardly do it (one time in twenty).
    """

    of: tuple[int, ...]
    share: float
    low: float
    high: float
    noise: float
    beyond_noise: bool


def widening(folds: int, rounds: int = 1) -> float:
    """Return how much wider the variance of a mean over folds is taken than that of `folds` values.

    ``1 / n`` becomes ``1 / n + 1 / (k - 1)``, because training sets overlap (Nadeau and Bengio
    2003): `n` folds in all, `k` a round.

    Examples
    --------
    >>> widening(3), widening(6, rounds=2)
    (2.5, 4.0)
    """
    return 1 + folds / (folds // rounds - 1)


def cube_of(
    dimensions: Sequence[Dimension], scores: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the scores as a table for each fold, or None where they are no whole grid.

    A configuration without a conditional hyperparameter stands in all cells of it: there it makes
    no difference.

    Parameters
    ----------
    dimensions : list of Dimension
        With every value an atom of its own.
    scores : array (configurations, folds)

    Returns
    -------
    array (folds, values of the first, values of the second, ...) or None
    """
    shape = tuple(dimension.atoms for dimension in dimensions)
    size = math.prod(shape) if shape else 0
    if not 0 < size <= MOST_CELLS:
        return None
    codes = np.stack([dimension.codes for dimension in dimensions], axis=1)
    gaps = codes == ABSENT
    if np.where(gaps, shape, 1).prod(axis=1).sum() != size:
        return None
    owner = np.full(shape, -1, dtype=np.int64)
    whole = np.flatnonzero(~gaps.any(axis=1))
    owner[tuple(codes[whole].T)] = whole
    for row in np.flatnonzero(gaps.any(axis=1)):
        place = tuple(slice(None) if c == ABSENT else int(c) for c in codes[row])
        owner[place] = row
    # As many as there are cells, so that one taken twice leaves another empty.
    if (owner < 0).any():
        return None
    return np.moveaxis(scores[owner], -1, 0)


def decompose(cube: NDArray[np.float64], rounds: int = 1) -> list[Effect]:
    """Split the variance of the table of means over folds.

    Parameters
    ----------
    cube : array (folds, values of the first, values of the second, ...)
        Two folds or more, two values or more of each.
    rounds : int
        How often all cases were split.

    Returns
    -------
    list of Effect
        Of each dimension, of each two beyond that, and, from three dimensions on, of all others
        together. Shares add up to one. Intervals leave out one fold at a time (jackknife), and
        noise is how an effect differs from fold to fold (the interaction with blocks, F test); both
        are widened for overlapping training sets.
    """
    folds, count = cube.shape[0], cube.ndim - 1
    wide = widening(folds, rounds)
    parts: dict[tuple[int, ...], NDArray[np.float64]] = {
        (): cube.mean(axis=tuple(range(1, count + 1)), keepdims=True)
    }
    rest = cube - parts[()]
    for order in (1, 2):
        for of in itertools.combinations(range(count), order):
            others = tuple(axis + 1 for axis in range(count) if axis not in of)
            own = cube.mean(axis=others, keepdims=True)
            for less in range(order):
                for inner in itertools.combinations(of, less):
                    own = own - parts[inner]
            parts[of] = own
            rest = rest - own
    del parts[()]
    freedom = {of: int(np.prod([cube.shape[a + 1] - 1 for a in of])) for of in parts}
    keys: list[tuple[int, ...]] = list(parts)
    if count > 2:
        left = int(np.prod(cube.shape[1:])) - 1 - sum(freedom.values())
        parts[()], freedom[()] = rest, left
        keys.append(())
    total = sum(float((parts[of].mean(axis=0) ** 2).mean()) for of in keys)
    without = {of: _without_each(parts[of]) for of in keys}
    totals = np.sum([without[of] for of in keys], axis=0)
    return [
        _effect(of, parts[of], total, without[of] / np.maximum(totals, 1e-300), freedom[of], wide)
        for of in keys
    ]


def _effect(
    of: tuple[int, ...], own: Any, total: float, jackknife: Any, freedom: int, wide: float
) -> Effect:
    folds, mean = len(own), own.mean(axis=0)
    variance = float((mean**2).mean())
    noise = float(((own - mean) ** 2).sum(axis=0).mean()) / (folds * (folds - 1))
    share = variance / total
    spread = (folds - 1) / folds * float(((jackknife - jackknife.mean()) ** 2).sum())
    half = float(stdtrit(folds - 1, 0.975)) * np.sqrt(wide * spread)
    chance = 1.0
    if share > _ROUNDING and freedom > 0:
        ratio = variance / (wide * noise) if noise > _ROUNDING * variance else np.inf
        chance = float(fdtrc(freedom, freedom * (folds - 1), ratio)) if noise > 0 else 0.0
    low, high = max(share - half, 0.0), min(share + half, 1.0)
    return Effect(of, share, low, high, noise / total, chance < 0.05)


def _without_each(own: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance of the mean effect when each fold in turn is left out."""
    folds = own.shape[0]
    means = (own.sum(axis=0) - own) / (folds - 1)
    variances: NDArray[np.float64] = (means**2).reshape(folds, -1).mean(axis=1)
    return variances
