"""Where randomness comes from: the study's seed, the fold and the epoch, and nothing else.

Results therefore do not depend on which worker trains what, in which order, or how often it was
interrupted; and configurations are compared on common random numbers.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def seed32(seed: int, fold: int, purpose: str, epoch: int = 0) -> int:
    """Return a seed of 32 bits for one purpose.

    Parameters
    ----------
    seed : int
        The study's seed.
    fold : int
        The fold, from 0.
    purpose : str
        What it is for; different purposes get independent seeds.
    epoch : int
        The epoch, from 1; 0 for what happens once a run.

    Examples
    --------
    >>> seed32(2019, 0, "weights") == seed32(2019, 0, "weights")
    True
    >>> seed32(2019, 0, "weights") == seed32(2019, 1, "weights")
    False
    """
    return int(_sequence(seed, fold, purpose, epoch).generate_state(1, np.uint32)[0])


def initial_seed(seed: int, fold: int) -> int:
    """Return the seed of a run's initial weights and dropout: by seed and fold only."""
    return seed32(seed, fold, "weights")


def batch_order(rows: NDArray[np.int64], seed: int, fold: int, epoch: int) -> NDArray[np.int64]:
    """Shuffle the training rows for one epoch.

    Parameters
    ----------
    rows : ndarray of int64, shape (m,)
        The training rows, copies included.
    seed, fold, epoch : int
        What the order depends on, and nothing else; epochs count from 1.

    Returns
    -------
    ndarray of int64, shape (m,)
        The same rows in the order of training.
    """
    generator = np.random.Generator(np.random.PCG64(_sequence(seed, fold, "order", epoch)))
    return generator.permutation(rows)


def draw_versions(
    rows: int, versions: range, seed: int, fold: int, epoch: int
) -> NDArray[np.int64]:
    """Draw which version of each row's case an epoch takes, shape (rows,).

    Where `versions` holds one number only, it is that.
    """
    generator = np.random.Generator(np.random.PCG64(_sequence(seed, fold, "versions", epoch)))
    return generator.integers(versions.start, versions.stop, rows)


def rows_of_epoch(
    train: NDArray[np.int64], cases: int, versions: range, seed: int, fold: int, epoch: int
) -> NDArray[np.int64]:
    """Return the rows of one epoch in the order of training.

    Parameters
    ----------
    train : ndarray of int64, shape (m,)
        The training rows, copies included, each that of a case.
    cases : int
        Cases in all: version v of case i stands in row ``i + v * cases``.
    versions : range
        Of which each row takes one, at random.
    seed, fold, epoch : int
        What order and versions depend on, and nothing else; epochs count from 1.

    Returns
    -------
    ndarray of int64, shape (m,)
    """
    rows = batch_order(train, seed, fold, epoch)
    if versions == range(1):
        return rows
    return rows + cases * draw_versions(len(rows), versions, seed, fold, epoch)


def draw_turns(
    rows: int, rotate_degrees: float, flip: bool, seed: int, fold: int, epoch: int
) -> NDArray[np.float32]:
    """Draw how the patch of each row is turned in one epoch.

    Parameters
    ----------
    rows : int
        How many.
    rotate_degrees : float
        Largest rotation either way.
    flip : bool
        Whether half of the patches are mirrored.
    seed, fold, epoch : int
        What the draw depends on, and nothing else.

    Returns
    -------
    ndarray of float32, shape (rows, 2)
        Angle in radians, and -1 where the patch is mirrored, else 1.
    """
    generator = np.random.Generator(np.random.PCG64(_sequence(seed, fold, "turns", epoch)))
    most = np.radians(rotate_degrees)
    turns = np.ones((rows, 2), np.float32)
    turns[:, 0] = generator.uniform(-most, most, rows)
    if flip:
        turns[:, 1] -= 2 * (generator.random(rows) < 0.5)
    return turns


def _sequence(seed: int, fold: int, purpose: str, epoch: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((seed, fold, zlib.crc32(purpose.encode()), epoch))
