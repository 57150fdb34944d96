"""Strategies whose proposals are all known ahead: grid, random and Sobol search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stormsweep.config.study import SearchTable
from stormsweep.search.proposals import Event, Known, Proposal, Setting
from stormsweep.search.space import Space, Values, size
from stormsweep.work import Hyperparameters, identity

_RANDOM_SEARCH = 0x5EA4C4
_SOBOL_SEARCH = 0x50B01
#: Spaces of lists up to this size are shuffled whole instead of drawn from.
_LISTABLE = 100_000
#: How often to draw for one trial before it is believed that there is nothing new.
_DRAWS = 1000
#: ... or after so many in a row, where conditions or constraints make the space smaller.
_NOTHING_NEW = 10_000


def propose(
    strategy: str, space: Space | Mapping[str, Values], trials: int, seed: int
) -> list[Hyperparameters]:
    """List the configurations that a strategy proposes.

    Parameters
    ----------
    strategy : {"grid", "random", "sobol"}
        ``grid``: every combination. ``random``: `trials` different ones, drawn independently
        (Bergstra and Bengio, 2012, J. Mach. Learn. Res. 13, 281-305). ``sobol``: `trials` different
        ones that fill the space evenly (scrambled Sobol points; Owen, 1998, J. Complexity 14,
        466-489).
    space : Space or mapping
        Hyperparameters, each a list of values or an `Interval`.
    trials : int
        How many a random or Sobol search draws; a smaller space is listed whole.
    seed : int
        The study's seed.

    Returns
    -------
    list of dict
        No configuration twice.
    """
    if not isinstance(space, Space):
        space = Space(space)
    if strategy == "grid":
        return list(space.grid())
    drawn = _sobol if strategy == "sobol" else _random
    return drawn(space, trials, seed)


def _random(space: Space, trials: int, seed: int) -> list[Hyperparameters]:
    import numpy as np  # Only here: a login node need not wait for it.

    random = np.random.default_rng(np.random.SeedSequence([seed, _RANDOM_SEARCH]))
    if space.listed and size(space.values) <= _LISTABLE:
        points = list(space.grid())
        return [points[index] for index in random.permutation(len(points))[:trials]]

    def drawn() -> Iterator[Hyperparameters | None]:
        while True:
            yield space.draw(random)

    return _different(drawn(), space, trials)


def _sobol(space: Space, trials: int, seed: int) -> list[Hyperparameters]:
    from scipy.stats import qmc

    if not space.values:
        return [{}]
    points = qmc.Sobol(len(space.values), seed=seed ^ _SOBOL_SEARCH)

    def drawn() -> Iterator[Hyperparameters | None]:
        # Sobol points are even in numbers that are powers of two only.
        count = (trials - 1).bit_length()
        while True:
            for shares in points.random_base2(count).tolist():
                yield space.at(shares)
            count = points.num_generated.bit_length() - 1

    return _different(drawn(), space, trials)


def _different(
    drawn: Iterator[Hyperparameters | None], space: Space, trials: int
) -> list[Hyperparameters]:
    """Take the first different points of those drawn."""
    most, since = min(trials, size(space.values)), 0
    found: dict[str, Hyperparameters] = {}
    for _ in range(_DRAWS * trials):
        candidate, before = next(drawn), len(found)
        if candidate is not None:
            found.setdefault(identity(candidate), candidate)
        if len(found) >= most:
            break
        # Where combinations are one and the same, or not allowed, nobody knows how many there are.
        since = 0 if len(found) > before else since + 1
        if since >= _NOTHING_NEW and (space.when or space.constraints):
            break
    return list(found.values())


class Fixed:
    """Proposes what was listed beforehand, one trial a configuration; outcomes change nothing.

    Known points that were not tried yet go first.

    Parameters
    ----------
    points : sequence of dict
        The configurations, with ``epochs`` where the space has them.
    space : Space
        The space.
    epochs : int
        The number of epochs of points that do not say it.
    folds : int
        Folds of the cross-validation.
    trials : int, optional
        How many trials at most, those that the space no longer has among them; None: all that were
        listed.
    """

    def __init__(
        self,
        points: Sequence[Hyperparameters],
        space: Space,
        epochs: int,
        folds: int,
        trials: int | None,
    ) -> None:
        self._space, self._epochs, self._folds, self._trials = space, epochs, folds, trials
        self._left = {identity(point): point for point in points}
        self._wishes: dict[str, Hyperparameters] = {}
        self._taken: set[int] = set()
        self._next = 0
        self._offer: tuple[Proposal, ...] | None = None

    def propose(self) -> Sequence[Proposal]:
        """Return all that is left; see `Strategy`."""
        if self._offer is None:
            points = {**self._wishes, **self._left}.values()
            most = len(points) if self._trials is None else self._trials - len(self._taken)
            numbers = range(self._next, self._next + max(0, most))
            self._offer = tuple(map(self._proposal, numbers, points))
        return self._offer

    def take(self, event: Event) -> None:
        """Take in what happened; see `Strategy`."""
        match event:
            case Proposal():
                name = identity(self._space.whole(event.hyperparameters, event.epochs))
                self._left.pop(name, None)
                self._wishes.pop(name, None)
                self._taken.add(event.trial)
                self._next = max(self._next, event.trial + 1)
                # What was offered first leaves the rest as it was: thousands need not be made anew.
                offer = self._offer or ()
                self._offer = offer[1:] if event in offer[:1] else None
            case Known(merits=()):
                point = self._space.fit(self._space.whole(event.hyperparameters, event.epochs))
                if point is not None:
                    self._wishes[identity(point)] = point
                    self._offer = None

    def _proposal(self, trial: int, point: Hyperparameters) -> Proposal:
        values = {name: value for name, value in point.items() if name != "epochs"}
        return Proposal(trial, values, point.get("epochs", self._epochs), self._folds)


def make(search: SearchTable, space: Space, start: Setting) -> Fixed:
    """Make a grid, random or Sobol search; see `propose` and `Fixed`."""
    points = propose(search.strategy, space, start.trials, start.seed)
    # A grid has as many as it has, whatever was trained before it changed.
    most = None if search.strategy == "grid" else start.trials
    return Fixed(points, space, start.epochs[0], start.folds, most)
