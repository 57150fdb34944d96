"""The best configuration so far, kept up to date while scores come in."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from stormsweep.work import Hyperparameters, identity


@dataclass(frozen=True, slots=True)
class Leader:
    """The best configuration so far.

    Attributes
    ----------
    hyperparameters : dict
        ``epochs`` included.
    mean : float
        Mean of the study's metric over the folds scored.
    folds : int
        How many these are.
    """

    hyperparameters: Hyperparameters
    mean: float
    folds: int


@dataclass
class Standing:
    """Keep the leader of a study: most folds first, then the best mean.

    Parameters
    ----------
    higher_is_better : bool
        Direction of the metric.
    """

    higher_is_better: bool
    leader: Leader | None = None
    _scores: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, hyperparameters: Hyperparameters, fold: int, score: float) -> None:
        """Take in the score of one fit; scores that are not numbers do not count."""
        if not math.isfinite(score):
            return
        scores = self._scores[identity(hyperparameters)]
        scores[fold] = score
        mean = math.fsum(scores.values()) / len(scores)
        if self.leader is None or self._beats(len(scores), mean, self.leader):
            self.leader = Leader(hyperparameters, mean, len(scores))

    def _beats(self, folds: int, mean: float, leader: Leader) -> bool:
        if folds != leader.folds:
            return folds > leader.folds
        return mean > leader.mean if self.higher_is_better else mean < leader.mean
