"""The variance of scores over a space that was only sampled: by a forest, as functional ANOVA.

A forest of regression trees learns the score from the hyperparameters. A tree is constant on boxes,
so what it says on average over all other hyperparameters, all values alike, is a sum over its
leaves: exact, without sampling (Hutter, Hoos and Leyton-Brown 2014, An efficient approach for
assessing hyperparameter importance, ICML). The effects are those of the whole forest's function:
averages over trees, in which much of what is chance in each of them is gone. Ranges are cut into
`dimensions.PARTS` equal parts on the scale on which they are drawn, so that all trees are functions
on one lattice.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.results.dimensions import ABSENT, Dimension
from stormsweep.results.grid_variance import Effect

#: Trees of the forest; samples for the interval, and in how many trees each; the same for noise.
TREES, HALVES, HALF_TREES, NULLS, NULL_TREES = 64, 16, 6, 19, 8
#: A tree is grown on so many configurations at most, drawn anew for each.
MOST_ROWS = 1000
#: Of smaller shares a forest knows nothing, however sure it is.
FLOOR = 0.005
#: Points at which the variance of the whole function is measured, where they cannot all be.
_POINTS = 4096

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Explained:
    """What a forest says.

    Attributes
    ----------
    effects : list of Effect
        Of each dimension, each two, and, from three dimensions on, of more together. Shares add up
        to one.
    fit : float
        Share of the variance of the scores that trees foretell of configurations they were not
        grown on; about 0, or below: the forest knows nothing.
    """

    effects: list[Effect]
    fit: float


def explain(
    dimensions: Sequence[Dimension],
    scores: Floats,
    trials: Sequence[str] = (),
    seed: int = 0,
    rounds: int = 1,
) -> Explained:
    """Split the variance of a forest's function over the whole space.

    Parameters
    ----------
    dimensions : list of Dimension
        With ranges cut into parts.
    scores : array (configurations, folds)
        All finite.
    trials : list of str, optional
        What each configuration is without ``epochs``: one run serves all its milestones, so their
        scores hang together, and are drawn, left out and shuffled together.
    seed : int
        Of the forest.
    rounds : int
        How often all cases were split: as many folds are drawn anew as one round has.

    Returns
    -------
    Explained
        Intervals come of `HALVES` forests on random halves of the configurations, with folds drawn
        anew (half samples vary about the whole as the whole does about the truth); noise of
        `NULLS` forests that learn scores in which two hyperparameters never act together, besides
        copies of the hyperparameters that are shuffled. An effect is beyond noise where it is
        greater than in each of these (and than `FLOOR`). That a conditional hyperparameter acts
        only where it is there is no discovery: it is in these scores too.
    """
    order = np.lexsort((*scores.T, *(d.codes for d in dimensions)))
    codes = np.stack([d.codes[order] for d in dimensions], axis=1)
    scores = scores[order]
    drawn = _Trials.of([trials[at] for at in order] if trials else [str(at) for at in order])
    random = np.random.default_rng(seed)
    lattice = _Lattice.of(dimensions, random)
    count, mean = len(scores), scores.mean(axis=1)
    whole = _Sums(lattice)
    guesses, known = np.zeros(count), np.zeros(count, dtype=int)
    for _ in range(TREES):
        filled = lattice.filled(codes, random)
        rows = drawn.sample(random)
        tree = whole.add(filled[rows], mean[rows], random)
        out = drawn.others(rows)
        guesses[out] += tree.predict(lattice.encoded(filled[out]))
        known[out] += 1
    asked = known > 0
    errors = mean[asked] - guesses[asked] / known[asked]
    variance = float(mean.var())
    fit = 1 - float((errors**2).mean()) / variance
    shares = whole.shares()
    folds = scores.shape[1] // rounds
    spread = np.std(
        [_half(lattice, codes, scores, folds, drawn, random) for _ in range(HALVES)],
        axis=0,
        ddof=1,
    )
    flat = lattice.doubled()
    additive, left = _additive(whole, codes, mean, min(1 - fit, 1.0) * variance)
    nulls = np.array([_null(flat, codes, additive, left, drawn, random) for _ in range(NULLS)])
    keys = lattice.keys()
    effects = [
        Effect(
            of,
            float(share),
            max(float(share - 1.96 * sd), 0.0),
            min(float(share + 1.96 * sd), 1.0),
            float(null.mean()),
            bool(of and fit > 0 and share > max(FLOOR, null.max())),
        )
        for of, share, sd, null in zip(keys, shares, spread, nulls.T, strict=True)
    ]
    return Explained(effects, fit)


def _half(
    lattice: _Lattice,
    codes: Ints,
    scores: Floats,
    folds: int,
    drawn: _Trials,
    random: np.random.Generator,
) -> Floats:
    """Return the shares of a forest on half of the trials, and so many folds drawn anew."""
    own = drawn.half(random)
    mean = scores[:, random.integers(scores.shape[1], size=folds)].mean(axis=1)
    sums = _Sums(lattice)
    for _ in range(HALF_TREES):
        rows = drawn.sample(random, own)
        sums.add(lattice.filled(codes[rows], random), mean[rows], random)
    return sums.shares()


def _additive(whole: _Sums, codes: Ints, mean: Floats, error: float) -> tuple[Floats, Floats]:
    """Return scores in which nothing acts together, and what is left of the true ones.

    What is left is made as large as the forest's errors on configurations it had not seen: those
    that it had, it follows too closely.
    """
    columns = [np.ones(len(mean))]
    for at, main in enumerate(whole.mains()):
        column = np.where(codes[:, at] == ABSENT, 0.0, main[codes[:, at]])
        if column.std() > 0:
            columns.append(column)
    design = np.stack(columns, axis=1)
    fitted = design @ np.linalg.lstsq(design, mean, rcond=None)[0]
    left = mean - fitted
    size = float(left.std())
    return fitted, left * max(1.0, np.sqrt(error) / size) if size > 0 else left


def _null(
    flat: _Lattice,
    codes: Ints,
    additive: Floats,
    left: Floats,
    drawn: _Trials,
    random: np.random.Generator,
) -> Floats:
    """Return shares by chance: of shuffled hyperparameters, and of two that never act together."""
    half = codes.shape[1]
    twice = np.hstack([codes, codes[drawn.exchanged(random)]])
    made = additive + left[drawn.exchanged(random)]
    sums = _Sums(flat, only=[(i, j) for i, j in itertools.combinations(range(half), 2)])
    for _ in range(NULL_TREES):
        rows = drawn.sample(random)
        sums.add(flat.filled(twice[rows], random), made[rows], random)
    shares = sums.shares()
    pairs = shares[2 * half : 2 * half + len(sums.only)]
    # What a forest says of three and more together is its own error too: nobody judges it.
    return np.array([*shares[half : 2 * half], *pairs, *([np.nan] if half > 2 else [])])


@dataclass(frozen=True)
class _Trials:
    """Which configurations are drawn together: rows in the order of their trials."""

    rows: Ints
    starts: Ints
    sizes: Ints
    #: Of each configuration: its trial, and its place in it.
    trial: Ints
    place: Ints

    @classmethod
    def of(cls, names: Sequence[str]) -> _Trials:
        """Return the trials of configurations, numbered as they appear."""
        numbers: dict[str, int] = {}
        trial = np.array([numbers.setdefault(name, len(numbers)) for name in names])
        rows = np.argsort(trial, kind="stable")
        sizes = np.bincount(trial)
        starts = np.cumsum(sizes) - sizes
        place = np.empty(len(rows), dtype=np.int64)
        place[rows] = np.arange(len(rows)) - np.repeat(starts, sizes)
        return cls(rows, starts, sizes, trial, place)

    def sample(self, random: np.random.Generator, among: Ints | None = None) -> Ints:
        """Return configurations of trials drawn with replacement, `MOST_ROWS` at most or so."""
        among = np.arange(len(self.sizes)) if among is None else among
        most = max(int(MOST_ROWS / self.sizes.mean()), 2)
        chosen = random.choice(among, size=min(len(among), most))
        return np.concatenate(
            [
                self.rows[a : a + n]
                for a, n in zip(self.starts[chosen], self.sizes[chosen], strict=True)
            ]
        )

    def half(self, random: np.random.Generator) -> Ints:
        """Return half of the trials."""
        return random.permutation(len(self.sizes))[: max(len(self.sizes) // 2, 2)]

    def others(self, rows: Ints) -> Ints:
        """Return the configurations of all trials of which none is among `rows`."""
        seen = np.zeros(len(self.sizes), dtype=bool)
        seen[self.trial[rows]] = True
        return np.flatnonzero(~seen[self.trial])

    def exchanged(self, random: np.random.Generator) -> Ints:
        """Return for each configuration one of another trial, in the same place if it has one."""
        giver = random.permutation(len(self.sizes))[self.trial]
        return self.rows[self.starts[giver] + self.place % self.sizes[giver]]


@dataclass(frozen=True)
class _Lattice:
    """The space as a lattice of atoms, and as the columns that trees see."""

    atoms: list[int]
    ordered: list[bool]
    #: What each column (rows of this) is at each atom of its dimension; NaN at those of others.
    values: NDArray[np.float32]
    #: Where the atoms of each dimension begin among all, and the dimension of each column.
    starts: list[int]
    of_column: list[int]
    points: Ints

    @classmethod
    def of(cls, dimensions: Sequence[Dimension], random: np.random.Generator) -> _Lattice:
        """Return the lattice of some dimensions."""
        return cls._made([d.atoms for d in dimensions], [d.ordered for d in dimensions], random)

    @classmethod
    def _made(cls, atoms: list[int], ordered: list[bool], random: np.random.Generator) -> _Lattice:
        starts = [0, *np.cumsum(atoms).tolist()]
        columns, of_column = [], []
        for at, (number, numbers) in enumerate(zip(atoms, ordered, strict=True)):
            own = slice(starts[at], starts[at + 1])
            # Of two words one column tells all; of more each has a column of its own.
            kinds = [None] if numbers or number == 2 else list(range(number))
            for kind in kinds:
                column = np.full(starts[-1], np.nan, dtype=np.float32)
                steps = np.arange(number)
                column[own] = steps if kind is None else steps == kind
                columns.append(column)
                of_column.append(at)
        size = int(np.prod(np.array(atoms, dtype=np.float64).clip(max=1e6)).clip(max=1e12))
        if size <= _POINTS:
            points = np.stack([axis.ravel() for axis in np.indices(atoms)], axis=1)
        else:
            points = np.stack([random.integers(number, size=_POINTS) for number in atoms], axis=1)
        return cls(atoms, ordered, np.stack(columns), starts, of_column, points)

    def doubled(self) -> _Lattice:
        """Return the lattice with a second copy of every dimension."""
        return self._made([*self.atoms] * 2, [*self.ordered] * 2, np.random.default_rng(1))

    def keys(self) -> list[tuple[int, ...]]:
        """Return which dimensions each share is of, in the order of `_Sums.shares`."""
        number = len(self.atoms)
        pairs = list(itertools.combinations(range(number), 2))
        return [*((at,) for at in range(number)), *pairs, *([()] if number > 2 else [])]

    def filled(self, codes: Ints, random: np.random.Generator) -> Ints:
        """Return codes with any value where a hyperparameter is absent: it makes no difference."""
        gaps = codes == ABSENT
        if not gaps.any():
            return codes
        return np.where(gaps, random.integers(self.atoms, size=codes.shape), codes)

    def encoded(self, codes: Ints) -> NDArray[np.float32]:
        """Return the columns that trees see."""
        places = codes + np.array(self.starts[:-1])
        return np.ascontiguousarray(
            np.stack(
                [self.values[at, places[:, own]] for at, own in enumerate(self.of_column)], axis=1
            )
        )


@dataclass
class _Sums:
    """Sums over trees of what each says on average over all other dimensions."""

    lattice: _Lattice
    only: list[tuple[int, int]] = field(default_factory=list)
    trees: int = 0

    def __post_init__(self) -> None:
        atoms = self.lattice.atoms
        self.only = self.only or list(itertools.combinations(range(len(atoms)), 2))
        self._mean = 0.0
        self._mains = [np.zeros(number) for number in atoms]
        self._pairs = {(i, j): np.zeros((atoms[i], atoms[j])) for i, j in self.only}
        self._function = np.zeros(len(self.lattice.points))
        self._encoded = self.lattice.encoded(self.lattice.points)

    def add(self, codes: Ints, scores: Floats, random: np.random.Generator) -> Any:
        """Grow a tree and add what it says; return it."""
        from sklearn.tree import DecisionTreeRegressor

        grown = DecisionTreeRegressor(random_state=int(random.integers(2**31)))
        grown.fit(self.lattice.encoded(codes), scores, check_input=False)
        tree = grown.tree_
        boxes, values = self._leaves(tree)
        starts = self.lattice.starts
        own = [boxes[:, a:b] for a, b in itertools.pairwise(starts)]
        widths = [box.mean(axis=1) for box in own]
        weight = values * np.prod(widths, axis=0)
        self._mean += float(weight.sum())
        for at, box in enumerate(own):
            self._mains[at] += (weight / widths[at]) @ box
        for (i, j), table in self._pairs.items():
            table += (own[i] * (weight / (widths[i] * widths[j]))[:, None]).T @ own[j]
        self._function += grown.predict(self._encoded, check_input=False)
        self.trees += 1
        return grown

    def _leaves(self, tree: Any) -> tuple[Floats, Floats]:
        """Return for each leaf which atoms lie in it (1 or 0), and its value."""
        left, right = tree.children_left, tree.children_right
        table = self.lattice.values
        inside = np.ones((tree.node_count, table.shape[1]), dtype=bool)
        level = np.array([0])
        while len(level):
            level = level[left[level] >= 0]
            column = table[tree.feature[level]]
            limit = tree.threshold[level][:, None]
            # Atoms of other dimensions are NaN, and lie on both sides.
            inside[left[level]] = inside[level] & ~(column > limit)
            inside[right[level]] = inside[level] & ~(column <= limit)
            level = np.concatenate([left[level], right[level]])
        leaf = left < 0
        return inside[leaf].astype(np.float64), tree.value[leaf, 0, 0]

    def mains(self) -> list[Floats]:
        """Return the effect of each dimension on its own."""
        mean = self._mean / self.trees
        return [own / self.trees - mean for own in self._mains]

    def shares(self) -> Floats:
        """Return shares: of each dimension, of each two, and what is left of three and more."""
        mean, mains = self._mean / self.trees, self.mains()
        parts = [float((main**2).mean()) for main in mains]
        for (i, j), table in self._pairs.items():
            own = table / self.trees - mean - mains[i][:, None] - mains[j][None, :]
            parts.append(float((own**2).mean()))
        total = float((self._function / self.trees).var())
        known = sum(parts)
        if len(self.lattice.atoms) > 2:
            # The whole is measured at points, and may come out a little small.
            parts.append(max(total - known, 0.0))
        whole = sum(parts)
        return np.array(parts) / whole if whole > 0 else np.zeros(len(parts))
