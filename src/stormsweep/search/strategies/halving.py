"""Many trials begun, the best of them gone on with: successive halving, Hyperband, ASHA.

Trials climb rungs. A rung is a fidelity: an epoch at which trials are scored, on so many folds.
Going on from one rung to the next is another proposal of the same trial, whose runs go on from
their checkpoints: no epoch of a fold is trained twice, and a rung costs only what it adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from stormsweep.search.proposals import Event, Known, Outcome, Proposal, Setting, Strategy
from stormsweep.work import Hyperparameters

#: The merit of a trial without a score, or whose score is not a number.
_FAILED = -math.inf


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs, lowest first, and how many trials go on from one to another.

    Attributes
    ----------
    rungs : tuple of tuple of int and int
        Epochs and folds of each.
    reduction : int
        One of so many trials goes on from each milestone.
    steps : int
        Rungs of a milestone: 1, or 2 where trials are scored on some folds before all.
    """

    rungs: tuple[tuple[int, int], ...]
    reduction: int
    steps: int

    @classmethod
    def of(cls, setting: Setting, reduction: int = 3, first_folds: int | None = None) -> Ladder:
        """Make the ladder of a setting.

        Parameters
        ----------
        setting : Setting
            Its epochs are the milestones.
        reduction : int
            One of so many trials goes on from each milestone, from 2.
        first_folds : int, optional
            Folds on which trials are scored at each milestone before the best of them are on all.

        Raises
        ------
        ValueError
            If the epochs do not ascend, or a number is out of its range.

        Examples
        --------
        >>> Ladder.of(Setting(epochs=(1, 4), folds=3, trials=9, seed=0), 3, 1).rungs
        ((1, 1), (1, 3), (4, 1), (4, 3))
        """
        if not setting.epochs or any(low >= high for low, high in pairwise(setting.epochs)):
            raise ValueError(f"epochs: given {setting.epochs}; must ascend, at least one")
        if reduction < 2:
            raise ValueError(f"reduction: given {reduction}; must be a whole number from 2")
        if first_folds is not None and not 1 <= first_folds <= setting.folds:
            raise ValueError(f"first_folds: given {first_folds}; must be 1 to {setting.folds}")
        folds = sorted({first_folds or setting.folds, setting.folds})
        rungs = tuple((epochs, count) for epochs in setting.epochs for count in folds)
        return cls(rungs, reduction, len(folds))

    @property
    def top(self) -> int:
        """The number of the last rung: all epochs, all folds."""
        return len(self.rungs) - 1

    def share(self, trials: int, rungs: int = 1) -> int:
        """Return how many of some trials are left so many rungs further up, rounded down.

        Where a milestone has two rungs, each takes its half of the reduction (its square root).

        Examples
        --------
        >>> ladder = Ladder(((1, 1), (1, 3), (4, 1), (4, 3)), reduction=3, steps=2)
        >>> [ladder.share(27, rungs) for rungs in range(4)]
        [27, 15, 9, 5]
        """
        if self.steps == 1:
            return trials // int(self.reduction**rungs)
        return math.isqrt(trials**2 // self.reduction**rungs)


class _Race:
    """What the three have in common: the trials, and how they did on each rung.

    The sampler is told the outcomes of the lowest rung alone. Every trial has one there, and they
    are comparable: its epochs and folds are those that the sampler was made for. Of points whose
    scores are known at other epochs or folds, the best are begun first, one of `reduction`.
    """

    def __init__(
        self,
        sampler: Strategy,
        setting: Setting,
        reduction: int = 3,
        first_folds: int | None = None,
        allowed: Callable[[Hyperparameters], bool] = lambda point: True,
    ) -> None:
        self.ladder = Ladder.of(setting, reduction, first_folds)
        self._sampler, self._allowed = sampler, allowed
        self._rung_of = {fidelity: rung for rung, fidelity in enumerate(self.ladder.rungs)}
        #: Known at other epochs or folds, by these.
        self._elsewhere: dict[tuple[int, int], list[Known]] = {}
        self._points: list[Hyperparameters] = []
        #: Trials on record that the space no longer has.
        self._outside: set[int] = set()
        #: Of each rung: the trials that are or were there, and how those with an outcome did.
        self._begun: list[set[int]] = [set() for _ in self.ladder.rungs]
        self._merits: list[dict[int, float]] = [{} for _ in self.ladder.rungs]
        #: Of each trial the highest rung.
        self._highest: dict[int, int] = {}

    def take(self, event: Event) -> None:
        """Take in what happened; see `Strategy.take`."""
        rung = self._rung_of.get((event.epochs, event.folds))
        match event:
            case Known():
                if rung == 0 or not event.merits:
                    self._sampler.take(event)
                else:
                    self._elsewhere.setdefault((event.epochs, event.folds), []).append(event)
            case Proposal():
                self._wish()
                if event.trial == len(self._points):
                    self._points.append(event.hyperparameters)
                    if not self._allowed(event.hyperparameters):
                        self._outside.add(event.trial)
                    epochs, folds = self.ladder.rungs[0]
                    self._sampler.take(replace(event, epochs=epochs, folds=folds))
                if rung is not None:
                    self._begun[rung].add(event.trial)
                    self._highest[event.trial] = max(rung, self._highest.get(event.trial, 0))
            case Outcome():
                if rung is None or event.trial in self._merits[rung]:
                    return
                self._merits[rung][event.trial] = _merit(event.merits)
                if rung == 0:
                    self._sampler.take(event)

    def _wish(self) -> None:
        """Have the sampler begin with the best of the points that are known from elsewhere.

        Their scores would mislead it: those of more epochs are better.
        """
        for known in self._elsewhere.values():
            known.sort(key=lambda point: -_merit(point.merits))
            for point in known[: max(1, len(known) // self.ladder.reduction)]:
                self._sampler.take(replace(point, merits=()))
        self._elsewhere.clear()

    def _at(self, trial: int, rung: int) -> Proposal:
        epochs, folds = self.ladder.rungs[rung]
        return Proposal(trial, self._points[trial], epochs, folds)

    def _new(self) -> list[Proposal]:
        """Return the trials that can be begun now."""
        self._wish()
        # Begun when the space had other epochs: on record, but not on this ladder.
        aside = set(range(len(self._points))) - self._begun[0] - self._outside
        return [*(self._at(trial, 0) for trial in sorted(aside)), *self._sampler.propose()]

    def _awaited(self, rung: int, trials: Iterable[int]) -> bool:
        """Tell whether an outcome on a rung is still to come."""
        return any(t in self._begun[rung] and t not in self._merits[rung] for t in trials)

    def _all_begun(self, new: Sequence[Proposal]) -> bool:
        """Tell whether there are no further trials than those that can be begun now."""
        # A sampler that is silent while it waits for an outcome may say more then.
        return not new and not self._awaited(0, range(len(self._points)))

    def _best(self, rung: int, trials: Iterable[int]) -> list[int]:
        """Rank the trials that can go on from a rung, the best first; of equals the earlier."""
        merits = self._merits[rung]
        scored = [
            trial
            for trial in trials
            if merits.get(trial, _FAILED) > _FAILED and trial not in self._outside
        ]
        return sorted(scored, key=lambda trial: (-merits[trial], trial))

    def _last_resort(self, trials: Sequence[int]) -> list[Proposal]:
        """Send one more trial up where none of these would get to the top.

        Few trials, or many that fail, leave rungs empty: then the best of the highest rung that
        has any left goes on.
        """
        rungs = range(self.ladder.top + 1)
        if self._best(self.ladder.top, trials) or any(self._awaited(r, trials) for r in rungs):
            return []
        for rung in reversed(rungs[:-1]):
            for trial in self._best(rung, trials):
                if self._highest[trial] == rung:
                    return [self._at(trial, rung + 1)]
        return []

    def _halve(self, trials: Sequence[int], walk: Sequence[int]) -> list[Proposal]:
        """Return who goes on in a bracket whose trials are all begun.

        Parameters
        ----------
        trials : sequence of int
            All trials of the bracket.
        walk : sequence of int
            The rungs on which all are scored; from the last of them on the best are chosen.
        """
        start = walk[-1]
        if any(self._awaited(rung, trials) for rung in walk) or self._walk(trials, walk):
            return []
        for rung in range(start, self.ladder.top):
            left = max(1, self.ladder.share(len(trials), rung + 1 - start))
            best = self._best(rung, trials)[:left]
            further = [trial for trial in best if self._highest[trial] == rung]
            if further:
                return [self._at(trial, rung + 1) for trial in further]
            if self._awaited(rung + 1, trials):
                return []
        return self._last_resort(trials)

    def _walk(self, trials: Sequence[int], walk: Sequence[int]) -> list[Proposal]:
        """Return who goes on in a bracket below the rung from which on the best are chosen."""
        return [
            self._at(trial, high)
            for low, high in pairwise(walk)
            for trial in self._best(low, trials)
            if self._highest[trial] < high
        ]


class SuccessiveHalving(_Race):
    """All trials on the first rung, then the best of them on the next, and so on.

    Each rung waits until all its trials are scored. Of n trials n / reduction**k, rounded down but
    at least one, get to the k-th milestone (Karnin and others, 2013, Proc. Mach. Learn. Res. 28,
    1238-1246; Jamieson and Talwalkar, 2016, Proc. Mach. Learn. Res. 51, 240-248). Trials that fail
    count among the n and go no further.

    Parameters
    ----------
    sampler : Strategy
        Proposes the trials that are begun, at the epochs and folds of the lowest rung
        (``ladder.rungs[0]``).
    setting : Setting
        Its epochs are the milestones. How many trials there are is the sampler's affair.
    reduction : int
        One of so many trials goes on from each milestone.
    first_folds : int, optional
        Folds on which trials are scored at each milestone before the best of them are on all.
    allowed : callable, optional
        Tells whether a point is one of the space; trials on record that are not go no further.

    Raises
    ------
    ValueError
        If `Ladder.of` has no rungs for these.
    """

    def propose(self) -> Sequence[Proposal]:
        """Return what is to be trained next; see `Strategy.propose`."""
        new = self._new()
        if not self._all_begun(new):
            return new
        return self._halve(range(len(self._points)), [0])


class Hyperband(_Race):
    """Brackets of successive halving that begin to choose at later and later milestones.

    The first bracket chooses from the first milestone on, the last not at all: it trains few trials
    in full, in case early scores mislead. A bracket that begins to choose at milestone m has a
    share of the trials in proportion to reduction**(M - m) * M / (M - m + 1), rounded up, of M
    milestones (Li and others, 2018, J. Mach. Learn. Res. 18 (185), 1-52), and each bracket is gone
    through once. While one waits for scores, trials of the next are begun. All trials are scored
    at every milestone on their way, which costs no training, and tells the sampler of all brackets
    alike.

    Parameters
    ----------
    sampler, setting, reduction, first_folds, allowed
        As in `SuccessiveHalving`; the setting's trials are divided among the brackets.

    Raises
    ------
    ValueError
        If `Ladder.of` has no rungs for these.
    """

    def __init__(
        self,
        sampler: Strategy,
        setting: Setting,
        reduction: int = 3,
        first_folds: int | None = None,
        allowed: Callable[[Hyperparameters], bool] = lambda point: True,
    ) -> None:
        super().__init__(sampler, setting, reduction, first_folds, allowed)
        ends = list(accumulate(bracket_sizes(setting.trials, len(setting.epochs), reduction)))
        #: Of each bracket: its trials, and the rungs up to the one from which it chooses.
        self._brackets = [
            (range(begin, end), range(0, number * self.ladder.steps + 1, self.ladder.steps))
            for number, (begin, end) in enumerate(pairwise([0, *ends]))
        ]
        self._trials = setting.trials

    def propose(self) -> Sequence[Proposal]:
        """Return what is to be trained next; see `Strategy.propose`."""
        new = [proposal for proposal in self._new() if proposal.trial < self._trials]
        begun, all_begun = len(self._points), self._all_begun(new)
        further: list[Proposal] = []
        for trials, walk in self._brackets:
            there = range(trials.start, min(trials.stop, begun))
            further += self._walk(there, walk)
            if there and (begun >= trials.stop or all_begun):
                further += self._halve(there, walk)
        # Only one new trial: those that go on are before it as soon as they are known.
        return [*further, *new[:1]]


class Asha(_Race):
    """Successive halving without waiting: the asynchronous algorithm of Li and others (2020).

    Whenever there is room, the best trial that is among the top 1 / reduction of the scores so far
    on its rung, and is not further yet, goes on, from the highest rung that has one; where there is
    none, a new trial is begun (Proc. Mach. Learn. Syst. 2, 230-246, algorithm 2). No worker waits
    while a trial is left to begin. Trials that fail count among the scores and go no further.

    The published algorithm has no end. Here, when no trial is left to begin and none can go on, the
    best of the highest rung goes on all the same, until one has been scored on the last rung.

    Parameters
    ----------
    sampler, setting, reduction, first_folds, allowed
        As in `SuccessiveHalving`.

    Raises
    ------
    ValueError
        If `Ladder.of` has no rungs for these.
    """

    def propose(self) -> Sequence[Proposal]:
        """Return what is to be trained next; see `Strategy.propose`."""
        trials = range(len(self._points))
        further = [
            self._at(trial, rung + 1)
            for rung in reversed(range(self.ladder.top))
            for trial in self._best(rung, trials)[: self.ladder.share(len(self._merits[rung]))]
            if self._highest[trial] == rung
        ]
        # Only one new trial: those that go on are before it as soon as they are known.
        return [*further, *self._new()[:1]] or self._last_resort(trials)


def _merit(merits: Sequence[float]) -> float:
    """Return what decides who goes on: of several objectives the first."""
    return merits[0] if merits and not math.isnan(merits[0]) else _FAILED


def bracket_sizes(trials: int, milestones: int, reduction: int) -> list[int]:
    """Divide trials among the brackets of Hyperband.

    Parameters
    ----------
    trials, milestones, reduction : int, int, int
        How many there are, and one of how many goes on from each milestone.

    Returns
    -------
    list of int
        Trials of each bracket, first of the one that chooses from the first milestone on. Too few
        trials leave the last ones empty.

    Examples
    --------
    >>> bracket_sizes(49, milestones=4, reduction=3)  # as published
    [27, 12, 6, 4]
    >>> bracket_sizes(20, milestones=4, reduction=3)
    [11, 5, 2, 2]
    """
    last = range(milestones - 1, -1, -1)
    published = [-(-milestones * reduction**further // (further + 1)) for further in last]
    total = sum(published)
    sizes = [trials * size // total for size in published]
    # The largest remainders first; of equal ones those of earlier brackets.
    order = sorted(
        range(milestones), key=lambda bracket: (-(trials * published[bracket] % total), bracket)
    )
    for bracket in order[: trials - sum(sizes)]:
        sizes[bracket] += 1
    return sizes
