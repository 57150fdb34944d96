"""Many trials begun, the best of them gone on with: successive halving, Hyperband, ASHA.

Trials climb rungs. A rung is a fidelity: an epoch at which trials are scored, on so many folds.
Going on from one rung to the next is another proposal of the same trial, whose runs go on from
their checkpoints: no epoch of a fold is trained twice, and a rung costs only what it adds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from stormsweep.config.study import SearchTable
from stormsweep.search import strategies
from stormsweep.search.proposals import Event, Known, Outcome, Proposal, Setting, Strategy
from stormsweep.search.space import Space
from stormsweep.search.strategies.ladder import Ladder, bracket_sizes
from stormsweep.work import Hyperparameters

#: The merit of a trial without a score, or whose score is not a number.
_FAILED = -math.inf


class _Race(ABC):
    """What the three have in common: the trials, and how they did on each rung.

    The sampler is told the outcomes of the lowest rung alone. Every trial has one there, and they
    are comparable: its epochs and folds are those that the sampler was made for. Of points whose
    scores are known, the best are begun first, one of `reduction` of each number of epochs and
    folds; those of the most epochs before others.
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
        #: Points whose scores are known, by epochs and folds.
        self._scored: dict[tuple[int, int], list[Known]] = {}
        self._points: list[Hyperparameters] = []
        #: Trials on record that the space no longer has.
        self._outside: set[int] = set()
        #: Begun when the space had other epochs: on record, but not on this ladder.
        self._aside: dict[int, None] = {}
        #: Of each rung: the trials without an outcome yet, and how the others did.
        self._awaited: list[set[int]] = [set() for _ in self.ladder.rungs]
        self._merits: list[dict[int, float]] = [{} for _ in self.ladder.rungs]
        #: Those of them that can go on, the best first; of equals the earlier.
        self._ranked: list[list[tuple[float, int]]] = [[] for _ in self.ladder.rungs]
        #: Those that could go on from there and did not.
        self._stays: list[set[int]] = [set() for _ in self.ladder.rungs]
        #: Of each trial the highest rung.
        self._highest: dict[int, int] = {}

    @abstractmethod
    def propose(self) -> Sequence[Proposal]:
        """Return what is to be trained next; see `Strategy.propose`."""

    def take(self, event: Event) -> None:
        """Take in what happened; see `Strategy.take`."""
        rung = self._rung_of.get((event.epochs, event.folds))
        match event:
            case Known():
                # What is scored here is begun at no cost, and can go on.
                event = replace(event, here=False)
                if rung == 0 or not event.merits:
                    self._sampler.take(event)
                if event.merits:
                    self._scored.setdefault((event.epochs, event.folds), []).append(event)
            case Proposal():
                self._wish()
                if event.trial == len(self._points):
                    self._points.append(event.hyperparameters)
                    if not self._allowed(event.hyperparameters):
                        self._outside.add(event.trial)
                    elif rung != 0:
                        self._aside[event.trial] = None
                    epochs, folds = self.ladder.rungs[0]
                    self._sampler.take(replace(event, epochs=epochs, folds=folds))
                if rung is not None:
                    if event.trial not in self._outside and event.trial not in self._merits[rung]:
                        self._awaited[rung].add(event.trial)
                    if rung > self._highest.get(event.trial, -1):
                        self._stays[self._highest.get(event.trial, rung)].discard(event.trial)
                        self._highest[event.trial] = rung
                if rung == 0:
                    self._aside.pop(event.trial, None)
            case Outcome():
                if rung is None:
                    return
                merit, before = _merit(event.merits), self._merits[rung].get(event.trial)
                # What failed may have been tried again, and counts like any other from then on.
                if before is not None and (before > _FAILED or merit == _FAILED):
                    return
                self._awaited[rung].discard(event.trial)
                self._merits[rung][event.trial] = merit
                if merit > _FAILED and event.trial not in self._outside:
                    insort(self._ranked[rung], (-merit, event.trial))
                    if self._highest[event.trial] == rung:
                        self._stays[rung].add(event.trial)
                if rung == 0:
                    self._sampler.take(event)

    def _wish(self) -> None:
        """Have the sampler begin with the best of the points whose scores are known.

        Scores of other epochs would mislead it: those of more epochs are better.
        """
        for _, known in sorted(self._scored.items(), reverse=True):
            known.sort(key=lambda point: -_merit(point.merits))
            for point in known[: max(1, len(known) // self.ladder.reduction)]:
                self._sampler.take(replace(point, merits=()))
        self._scored.clear()

    def _at(self, trial: int, rung: int) -> Proposal:
        epochs, folds = self.ladder.rungs[rung]
        return Proposal(trial, self._points[trial], epochs, folds)

    def _new(self) -> Sequence[Proposal]:
        """Return trials that can be begun now; none: there is none."""
        self._wish()
        return [self._at(trial, 0) for trial in self._aside] or self._sampler.propose()

    def _waits(self, rung: int, trials: Sequence[int]) -> bool:
        """Tell whether an outcome on a rung is still to come."""
        return any(trial in trials for trial in self._awaited[rung])

    def _all_begun(self, new: Sequence[Proposal]) -> bool:
        """Tell whether there are no further trials than those that can be begun now."""
        # A sampler that is silent while it waits for an outcome may say more then.
        return not new and not self._awaited[0]

    def _best(self, rung: int, trials: Sequence[int]) -> list[int]:
        """Return those of some trials that can go on from a rung, the best first."""
        return [trial for _, trial in self._ranked[rung] if trial in trials]

    def _last_resort(self, trials: Sequence[int]) -> list[Proposal]:
        """Send one more trial up where none of these would get to the top.

        Few trials, or many that fail, leave rungs empty: then the best of the highest rung that
        has any left goes on.
        """
        rungs = range(self.ladder.top + 1)
        if self._best(self.ladder.top, trials) or any(self._waits(r, trials) for r in rungs):
            return []
        for rung in reversed(rungs[:-1]):
            for trial in self._best(rung, trials):
                if trial in self._stays[rung]:
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
        if any(self._waits(rung, trials) for rung in walk) or self._walk(trials, walk):
            return []
        for rung in range(start, self.ladder.top):
            left = max(1, self.ladder.share(len(trials), rung + 1 - start))
            best = self._best(rung, trials)[:left]
            further = [trial for trial in best if trial in self._stays[rung]]
            if further:
                return [self._at(trial, rung + 1) for trial in further]
            if self._waits(rung + 1, trials):
                return []
        return self._last_resort(trials)

    def _walk(self, trials: Sequence[int], walk: Sequence[int]) -> list[Proposal]:
        """Return who goes on in a bracket below the rung from which on the best are chosen."""
        return [
            self._at(trial, high)
            for low, high in pairwise(walk)
            for trial in sorted(trial for trial in self._stays[low] if trial in trials)
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

    def bracket(self, trial: int) -> int:
        """Return the number of the bracket that a trial is in: the milestone it chooses from."""
        place = trial - sum(1 for gone in self._outside if gone < trial)
        return next(
            (number for number, (trials, _) in enumerate(self._brackets) if place in trials),
            len(self._brackets),
        )

    @property
    def _inside(self) -> Sequence[int]:
        """The trials on record that are in brackets: those that the space still has."""
        every = range(len(self._points))
        if not self._outside:
            return every  # Quicker to look things up in.
        return [trial for trial in every if trial not in self._outside]

    def propose(self) -> Sequence[Proposal]:
        """Return what is to be trained next; see `Strategy.propose`."""
        inside = self._inside
        new = [
            proposal
            for proposal in self._new()[:1]
            if proposal.trial < len(self._points) or len(inside) < self._trials
        ]
        all_begun = self._all_begun(new)
        further: list[Proposal] = []
        for trials, walk in self._brackets:
            there = inside[trials.start : trials.stop]
            further += self._walk(there, walk)
            if there and (len(inside) >= trials.stop or all_begun):
                further += self._halve(there, walk)
        # One at a time: each score may bring one that goes on, and is before new ones.
        return (further or new)[:1]


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
        further = [
            self._at(trial, rung + 1)
            for rung in reversed(range(self.ladder.top))
            for _, trial in self._ranked[rung][: self.ladder.share(len(self._merits[rung]))]
            if trial in self._stays[rung]
        ]
        # One at a time: each score may bring one that is more urgent.
        offer = further or self._new() or self._last_resort(range(len(self._points)))
        return offer[:1]


def make(search: SearchTable, space: Space, start: Setting) -> Strategy:
    """Make the halving that a study file names, with its sampler.

    The sampler searches the same space without ``epochs``, for the epochs and folds of the lowest
    rung.

    Raises
    ------
    ValueError
        If `Ladder.of` has no rungs for these.
    """
    begun = space.without("epochs")
    epochs, folds = Ladder.of(start, search.reduction, search.first_folds).rungs[0]
    table = {name: values for name, values in search.space.items() if name != "epochs"}
    changes = {"strategy": search.sampler, "space": table, "objectives": []}
    fixed = {**space.fixed, "epochs": epochs}
    sampler = strategies.make(search.model_copy(update=changes), fixed, folds, start.seed)
    if search.sampler == "grid":
        # A grid has as many trials as it has.
        start = replace(start, trials=sum(1 for _ in begun.grid()))
    kinds: dict[str, Callable[..., Strategy]] = {
        "halving": SuccessiveHalving,
        "hyperband": Hyperband,
        "asha": Asha,
    }

    def allowed(point: Hyperparameters) -> bool:
        return begun.fit(point) is not None

    return kinds[search.strategy](sampler, start, search.reduction, search.first_folds, allowed)


def _merit(merits: Sequence[float]) -> float:
    """Return what decides who goes on: of several objectives the first."""
    return merits[0] if merits and not math.isnan(merits[0]) else _FAILED
