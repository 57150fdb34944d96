"""What proposes configurations."""

from __future__ import annotations

from stormsweep.search.space import Interval, Space, draw, grid, size
from stormsweep.work import Hyperparameters, identity

_RANDOM_SEARCH = 0x5EA4C4
#: Spaces of lists up to this size are shuffled whole instead of drawn from.
_LISTABLE = 100_000


def propose(strategy: str, space: Space, trials: int, seed: int) -> list[Hyperparameters]:
    """List the configurations that a strategy proposes.

    Parameters
    ----------
    strategy : {"grid", "random"}
        ``grid``: every combination. ``random``: `trials` different ones, drawn independently
        (Bergstra and Bengio, 2012, J. Mach. Learn. Res. 13, 281-305).
    space : mapping
        Hyperparameters, each a list of values or an `Interval`.
    trials : int
        How many a random search draws; a smaller space is listed whole.
    seed : int
        The study's seed.

    Returns
    -------
    list of dict
        No configuration twice.
    """
    if strategy == "grid":
        return list(grid(space))
    import numpy as np  # Only here: a login node need not wait for it.

    random = np.random.default_rng(np.random.SeedSequence([seed, _RANDOM_SEARCH]))
    count = size(space)
    if count <= _LISTABLE and not any(isinstance(values, Interval) for values in space.values()):
        points = list(grid(space))
        return [points[index] for index in random.permutation(len(points))[:trials]]
    found: dict[str, Hyperparameters] = {}
    for _ in range(1000 * trials):
        candidate = draw(space, random)
        found.setdefault(identity(candidate), candidate)
        if len(found) >= min(trials, count):
            break
    return list(found.values())
