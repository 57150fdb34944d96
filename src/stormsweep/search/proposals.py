"""What a strategy says and is told: proposals out, outcomes in.

A strategy is two methods. `Strategy.propose` only asks: it changes nothing, and says the same until
something is taken in. `Strategy.take` takes in what happened, in the order of the journal. So a
study goes on exactly where it stopped: what the journal holds is taken in again, and the next
proposal is the one that would have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stormsweep.work import Hyperparameters


@dataclass(frozen=True, slots=True)
class Proposal:
    """Train a trial to an epoch, on the first so many folds.

    A trial is proposed again where it is worth more epochs or more folds: its runs go on from their
    checkpoints.

    Attributes
    ----------
    trial : int
        Number of the trial, from 0 in the order in which they are first proposed.
    hyperparameters : dict
        The point of the space, without ``epochs``; the same whenever the trial is proposed.
    epochs : int
        The epoch at which it is scored.
    folds : int
        How many folds, from the first.
    """

    trial: int
    hyperparameters: Hyperparameters
    epochs: int
    folds: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a proposal.

    Attributes
    ----------
    trial, epochs, folds : int, int, int
        Of the proposal.
    merits : tuple of float
        Means over the folds, one for each objective, turned so that more is better; empty: it
        failed.
    """

    trial: int
    epochs: int
    folds: int
    merits: tuple[float, ...]

    @property
    def failed(self) -> bool:
        """Whether there is no score."""
        return not self.merits


@dataclass(frozen=True, slots=True)
class Known:
    """A point whose score is known from elsewhere: an earlier study, or another strategy's trials.

    Attributes
    ----------
    hyperparameters, epochs, folds : dict, int, int
        As in `Proposal`; the point may lie outside the space, or lack some of its names.
    merits : tuple of float
        As in `Outcome`; empty: not known. The point is then worth trying first.
    here : bool
        Whether it is scored in this study, so that training it again would be for nothing. A point
        from elsewhere only teaches: the best of them is worth trying early, because a study can
        choose, and verify, nothing that it has not trained itself.
    """

    hyperparameters: Hyperparameters
    epochs: int
    folds: int
    merits: tuple[float, ...]
    here: bool = False


#: What a strategy is told.
Event = Proposal | Outcome | Known


class Strategy(Protocol):
    """What proposes configurations; pure and seeded: no files, no clock."""

    def propose(self) -> Sequence[Proposal]:
        """Return what is to be trained next, the most urgent first.

        Returns
        -------
        sequence of Proposal
            As many as the strategy is sure of whatever the outcome of others, at least one where a
            worker without work could begin one. Empty: nothing until an outcome that is still
            awaited comes, or nothing more at all. No proposal is made twice.
        """
        ...

    def take(self, event: Event) -> None:
        """Take in what happened.

        Parameters
        ----------
        event : Proposal, Outcome or Known
            A proposal that is on record now (made by `propose`, or before a restart); what came of
            one; a known point. Points that are known come first; an outcome comes after its
            proposal, in any order among others. One that failed may be followed by one that did
            not, of the same trial, epochs and folds (a failed run that was tried again), which
            counts from then on; any other second one is passed over.
        """
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What every strategy starts from.

    Attributes
    ----------
    epochs : tuple of int
        The epochs that trials may be scored at, ascending.
    folds : int
        Folds of the cross-validation.
    trials : int
        How many trials at most.
    seed : int
        The study's seed.
    objectives : int
        How many merits an outcome has.
    """

    epochs: tuple[int, ...]
    folds: int
    trials: int
    seed: int
    objectives: int = 1
