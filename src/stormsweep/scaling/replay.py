"""What a strategy would have done on a grid whose full answer is known, without training again.

The scores of a run do not depend on the order of the work nor on the number of workers, and every
milestone's score is that of a fit of its own (`docs/explanation/architecture.md`). So a strategy
that is told the scores of a finished grid proposes what it would have proposed while training, and
what it would have found, dropped and spent can be counted.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stormsweep.records import Entry
from stormsweep.results import facts, frames
from stormsweep.search.proposals import Outcome, Proposal, Strategy
from stormsweep.work import Hyperparameters, identity


@dataclass(frozen=True)
class Answers:
    """A grid that was trained whole.

    Attributes
    ----------
    points : tuple of dict
        The points of the space, without ``epochs``.
    epochs : tuple of int
        The milestones, ascending.
    merits : array, points x milestones x folds
        The scores, turned so that more is better; NaN where there is none.
    seconds : array, points x milestones x folds
        What training took until then.
    metric : str
        The score's name.
    sign : float
        1 where more of the score is better, else -1.
    """

    points: tuple[Hyperparameters, ...]
    epochs: tuple[int, ...]
    merits: np.ndarray[Any, Any]
    seconds: np.ndarray[Any, Any]
    metric: str
    sign: float

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> Answers:
        """Read them from the journal of a finished study.

        Points are told apart by the hyperparameters that the study searched. What failed has no
        score.

        Parameters
        ----------
        entries : sequence of Entry
            The journal.

        Returns
        -------
        Answers
            The whole grid.

        Raises
        ------
        JournalError
            If the journal does not say what the study is about.
        ValueError
            If a run was not planned to every milestone, or nothing was scored on all folds: then
            the answer is not known.
        """
        about, runs = facts.study(entries), facts.planned_runs(entries)
        names = [name for name in about.space if name != "epochs"]
        points: dict[str, Hyperparameters] = {}
        for plan in runs.values():
            points.setdefault(*_point(plan.hyperparameters, names))
        epochs = sorted({epoch for plan in runs.values() for epoch in plan.milestones})
        for name, plan in runs.items():
            if sorted(plan.milestones) != epochs:
                raise ValueError(
                    f"run {name}: planned to epochs {plan.milestones} of {epochs}; a replay needs "
                    "a grid, every point at all of its epochs"
                )
        place = {key: index for index, key in enumerate(points)}
        size = len(points), len(epochs), 1 + max(plan.fold for plan in runs.values())
        merits, seconds = np.full(size, np.nan), np.full(size, np.nan)
        sign = 1.0 if facts.higher_is_better(entries) else -1.0
        for row in frames.fits(entries).to_dict("records"):
            hyperparameters = runs[row["run"]].hyperparameters
            where = (
                place[_point(hyperparameters, names)[0]],
                epochs.index(row["epochs"]),
                int(row["fold"]),
            )
            merits[where], seconds[where] = sign * row[about.metric], row["seconds"]
        if np.isnan(merits.mean(axis=2)).all():
            raise ValueError("no point was scored on all folds yet; a replay needs a finished grid")
        return cls(tuple(points.values()), tuple(epochs), merits, seconds, about.metric, sign)

    @property
    def folds(self) -> int:
        """Folds of the cross-validation."""
        return int(self.merits.shape[2])

    @property
    def means(self) -> np.ndarray[Any, Any]:
        """The merits' means over all folds, points x milestones; NaN where a fold has none."""
        return np.asarray(self.merits.mean(axis=2))

    @property
    def best(self) -> tuple[int, int]:
        """The point and the milestone with the greatest mean over folds."""
        point, milestone = np.unravel_index(np.nanargmax(self.means), self.means.shape)
        return int(point), int(milestone)

    @property
    def noise(self) -> float:
        """The fold noise: the standard error over folds of the best mean."""
        values = self.merits[self.best]
        return float(values.std(ddof=1) / math.sqrt(len(values)))

    @property
    def training(self) -> int:
        """Epochs of training of the whole grid, over all folds, shared trajectories once."""
        return len(self.points) * self.folds * self.epochs[-1]

    @property
    def training_seconds(self) -> float:
        """What training the whole grid took."""
        return float(np.nansum(self.seconds[:, -1]))

    @cached_property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for point in self.points for name in point))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {identity(point): number for number, point in enumerate(self.points)}

    def find(self, hyperparameters: Hyperparameters) -> int:
        """Return the number of a point.

        Parameters
        ----------
        hyperparameters : dict
            The point; what is not searched may be among them.

        Raises
        ------
        ValueError
            If it is not on the grid.
        """
        number = self._numbers.get(_point(hyperparameters, self._names)[0])
        if number is None:
            raise ValueError(f"{hyperparameters}: is not on the grid; its score is not known")
        return number

    def merit(self, point: int, epochs: int, folds: int) -> float:
        """Return the mean over the first folds at an epoch; NaN where one of them has none.

        Parameters
        ----------
        point : int
            Its number.
        epochs : int
            One of the milestones.
        folds : int
            How many, from the first.
        """
        # As a search adds them up, so that equal scores are equal.
        return math.fsum(self.merits[point, self.epochs.index(epochs), :folds]) / folds


@dataclass(frozen=True, slots=True)
class Rung:
    """What became of the trials of one fidelity.

    Attributes
    ----------
    epochs, folds : int, int
        The fidelity.
    trials, failed, kept : int, int, int
        How many got there, failed there, and were gone on with.
    eliminated_falsely : int
        Trials that were dropped here and whose score at all epochs on all folds is better than that
        of the worst one that was gone on with.
    beyond_noise : int
        Those of them that are better by more than the grid's fold noise.
    best_dropped : bool
        Whether the best, at all epochs on all folds, of those that it was chosen among was dropped.
    """

    epochs: int
    folds: int
    trials: int
    failed: int
    kept: int
    eliminated_falsely: int
    beyond_noise: int
    best_dropped: bool


@dataclass(frozen=True, slots=True)
class Replay:
    """What a strategy did on a grid whose full answer is known.

    Attributes
    ----------
    outcomes : tuple of search.proposals.Outcome
        What it was told, in order.
    points : tuple of int
        Of each trial its number among the points of the grid.
    training, seconds : int, float
        Epochs it trained, over all folds, none twice; and what these took when the grid was
        trained.
    makespan : float
        Seconds until the last outcome, with the workers of the replay.
    best : tuple of int and int
        The point and the milestone of the best mean over all folds that it saw; -1, -1: none.
    regret : float
        By how much that is worse than the best of the grid.
    noise : float
        The grid's fold noise.
    rungs : tuple of Rung
        By fidelity, the least first.
    """

    outcomes: tuple[Outcome, ...]
    points: tuple[int, ...]
    training: int
    seconds: float
    makespan: float
    best: tuple[int, int]
    regret: float
    noise: float
    rungs: tuple[Rung, ...]

    @property
    def within_noise(self) -> bool:
        """Whether it reached the grid's best within its fold noise."""
        return self.regret <= self.noise


def replay(
    strategy: Strategy,
    answers: Answers,
    workers: int = 1,
    training: int | None = None,
    bracket: Callable[[int], Hashable] | None = None,
) -> Replay:
    """Have a strategy search a grid whose full answer is known.

    Workers take the folds of a trial one by one, and what they need is what these took when the
    grid was trained. A worker without work has the strategy asked, and the first proposal begun. A
    run is scored at every milestone of the grid that it passes, which costs no training.

    Parameters
    ----------
    strategy : Strategy
        A fresh one; its proposals must be points of the grid at epochs and folds of the grid.
    answers : Answers
        The grid.
    workers : int
        How many train side by side. ASHA's choices depend on it, as in a study.
    training : int, optional
        Begin nothing more once so many epochs are trained, or under way.
    bracket : callable, optional
        Tells of a trial among which others it is chosen (`Hyperband.bracket`): only they can be
        kept in its place. None: all are chosen among all.

    Returns
    -------
    Replay
        What it found, dropped and spent.

    Raises
    ------
    ValueError
        If a proposal is not on the grid.
    """
    trained = np.zeros((len(answers.points), answers.folds), dtype=int)
    points: dict[int, int] = {}
    outcomes: list[Outcome] = []
    waiting: deque[tuple[Proposal, int]] = deque()
    #: What workers are at: when it ends, in which order it was begun, and whose it is.
    under_way: list[tuple[float, int, Proposal]] = []
    #: Of a proposal, by trial and fidelity: folds without a score yet.
    left: dict[tuple[int, int, int], int] = {}
    clock, begun = 0.0, 0
    while True:
        while len(under_way) < workers:
            if not waiting and (training is None or int(trained.sum()) < training):
                for proposal in strategy.propose()[:1]:
                    strategy.take(proposal)
                    points[proposal.trial] = answers.find(proposal.hyperparameters)
                    left[_key(proposal)] = proposal.folds
                    waiting.extend((proposal, fold) for fold in range(proposal.folds))
            if not waiting:
                break
            proposal, fold = waiting.popleft()
            seconds = _train(answers, trained, points[proposal.trial], fold, proposal.epochs)
            heapq.heappush(under_way, (clock + seconds, begun, proposal))
            begun += 1
        if not under_way:
            break
        clock, _, proposal = heapq.heappop(under_way)
        left[_key(proposal)] -= 1
        if left[_key(proposal)] == 0:
            merit = answers.merit(points[proposal.trial], proposal.epochs, proposal.folds)
            merits = () if math.isnan(merit) else (merit,)
            outcomes.append(Outcome(*_key(proposal), merits))
            strategy.take(outcomes[-1])
    rungs = tuple(_rungs(answers, outcomes, points, bracket))
    return _told(answers, outcomes, points, trained, clock, rungs)


def _point(hyperparameters: Hyperparameters, names: Sequence[str]) -> tuple[str, Hyperparameters]:
    """Return what of the hyperparameters is searched, and a name for it."""
    point = {name: hyperparameters[name] for name in names if name in hyperparameters}
    return identity(point), point


def _key(proposal: Proposal) -> tuple[int, int, int]:
    return proposal.trial, proposal.epochs, proposal.folds


def _train(
    answers: Answers, trained: np.ndarray[Any, Any], point: int, fold: int, epochs: int
) -> float:
    """Note that a run was trained to an epoch; return the seconds that it took from where it was.

    Raises
    ------
    ValueError
        If that is none of the grid's.
    """
    if epochs not in answers.epochs or fold >= answers.folds:
        raise ValueError(
            f"epoch {epochs} on fold {fold}: is not on the grid, which has epochs "
            f"{', '.join(map(str, answers.epochs))} on {answers.folds} folds"
        )
    before = int(trained[point, fold])
    if epochs <= before:
        return 0.0
    trained[point, fold] = epochs
    seconds = answers.seconds[point, :, fold]
    until = float(seconds[answers.epochs.index(epochs)])
    since = float(seconds[answers.epochs.index(before)]) if before else 0.0
    # A run that failed has no times.
    return 0.0 if math.isnan(until - since) else until - since


def _told(
    answers: Answers,
    outcomes: Sequence[Outcome],
    points: Mapping[int, int],
    trained: np.ndarray[Any, Any],
    clock: float,
    rungs: tuple[Rung, ...],
) -> Replay:
    """Put together what came of it."""
    reached = np.array(answers.epochs)[None, :] <= trained.min(axis=1)[:, None]
    means = np.where(reached & ~np.isnan(answers.means), answers.means, -np.inf)
    point, milestone = np.unravel_index(int(means.argmax()), means.shape)
    found = float(means[point, milestone])
    best = (int(point), int(milestone)) if found > -np.inf else (-1, -1)
    seconds = sum(
        float(np.nan_to_num(answers.seconds[at, answers.epochs.index(epochs), fold]))
        for (at, fold), epochs in np.ndenumerate(trained)
        if epochs
    )
    return Replay(
        outcomes=tuple(outcomes),
        points=tuple(points[trial] for trial in sorted(points)),
        training=int(trained.sum()),
        seconds=seconds,
        makespan=clock,
        best=best,
        regret=float(answers.means[answers.best]) - found,
        noise=answers.noise,
        rungs=rungs,
    )


def _rungs(
    answers: Answers,
    outcomes: Sequence[Outcome],
    points: Mapping[int, int],
    bracket: Callable[[int], Hashable] | None,
) -> Iterator[Rung]:
    """Count on every fidelity who was gone on with, and who should have been."""
    final = np.nan_to_num(answers.means[:, -1], nan=-np.inf)
    there: dict[tuple[int, int], list[Outcome]] = {}
    for outcome in outcomes:
        there.setdefault((outcome.epochs, outcome.folds), []).append(outcome)
    order = sorted(there)
    for number, fidelity in enumerate(order):
        above = {outcome.trial for higher in order[number + 1 :] for outcome in there[higher]}
        groups: dict[Hashable, list[int]] = {}
        for outcome in there[fidelity]:
            groups.setdefault(bracket and bracket(outcome.trial), []).append(outcome.trial)
        false, beyond, best_dropped = 0, 0, False
        for trials in groups.values():
            kept = [float(final[points[trial]]) for trial in trials if trial in above]
            dropped = [float(final[points[trial]]) for trial in trials if trial not in above]
            # On the last fidelity, or where all else failed, nobody was preferred.
            false += sum(merit > min(kept, default=np.inf) for merit in dropped)
            beyond += sum(merit > min(kept, default=np.inf) + answers.noise for merit in dropped)
            best_dropped |= bool(kept and dropped) and max(dropped) > max(kept)
        yield Rung(
            *fidelity,
            trials=len(there[fidelity]),
            failed=sum(outcome.failed for outcome in there[fidelity]),
            kept=sum(outcome.trial in above for outcome in there[fidelity]),
            eliminated_falsely=false,
            beyond_noise=beyond,
            best_dropped=best_dropped,
        )
