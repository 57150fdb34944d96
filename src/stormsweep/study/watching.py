"""What those who watch a driver are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from stormsweep.results.standing import Leader
from stormsweep.work import Hyperparameters


@dataclass(frozen=True, slots=True)
class AtWork:
    """What a worker is at.

    Attributes
    ----------
    worker : str
        Its name.
    hyperparameters, fold : dict, int
        Of its run, or of the first of its bundle.
    from_epoch, to_epoch : int
        Of the task.
    bundle : int
        How many runs are trained together.
    seconds : float
        Since it was sent the task.
    """

    worker: str
    hyperparameters: Hyperparameters
    fold: int
    from_epoch: int
    to_epoch: int
    bundle: int
    seconds: float


@dataclass(frozen=True, slots=True)
class State:
    """How far a study is, for those who watch it.

    Attributes
    ----------
    tasks, tasks_done : int
        Of the whole study, earlier sessions included.
    share : float
        Work done, 0 to 1, by the estimated cost of tasks.
    failed : int
        Failed runs.
    workers : int
        Workers ready.
    busy : int or None
        Those with a task; None: not known.
    patches_per_second : float
        Patches, or other cases, trained in this session per second.
    seconds, seconds_left : float
        Since the first task of this session, and the estimate of what is left (NaN before the
        first task is done).
    left_between : tuple of float and float
        The 90 % interval of that; NaN where too little is done to say.
    metric : str
        The score that ranks configurations.
    leader : Leader or None
        The best configuration so far.
    at_work : tuple of AtWork
        What workers are at, as far as it is known: those that began first, a hundred at most.
    failures : tuple of str
        The last failures, in one line each, the latest last.
    nodes_waiting : int
        Nodes that were asked for and not given yet.
    cases : str
        What the cases are called (`stormsweep.config.study.cases_of`).
    """

    tasks: int
    tasks_done: int
    share: float
    failed: int
    workers: int
    busy: int | None
    patches_per_second: float
    seconds: float
    seconds_left: float
    metric: str
    leader: Leader | None
    left_between: tuple[float, float] = (math.nan, math.nan)
    at_work: tuple[AtWork, ...] = ()
    failures: tuple[str, ...] = ()
    nodes_waiting: int = 0
    cases: str = "cases"

    @property
    def speed(self) -> str:
        """The speed in words; empty where nothing is trained yet."""
        if not self.patches_per_second:
            return ""
        return f"{self.patches_per_second:,.0f} {self.cases}/s"


class Watcher(Protocol):
    """Whoever shows the user what goes on: an object with these three methods."""

    def stage(self, what: str, share: float) -> None:
        """Something before or after training is being done.

        Parameters
        ----------
        what : str
            In words, such as ``preparing data``.
        share : float
            How much of it, 0 to 1.
        """

    def state(self, state: State) -> None:
        """Look again: called a few times a second while training goes on.

        Parameters
        ----------
        state : State
            How far the study is.
        """

    def note(self, text: str) -> None:
        """Something worth a line happened.

        Parameters
        ----------
        text : str
            The line.
        """


class Silent:
    """A watcher that shows nothing."""

    def stage(self, what: str, share: float) -> None:
        """Show nothing."""

    def state(self, state: State) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""
