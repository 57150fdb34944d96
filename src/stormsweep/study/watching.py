"""What those who watch a driver are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stormsweep.results.standing import Leader


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
        Patches trained in this session per second.
    seconds, seconds_left : float
        Since the first task of this session, and the estimate of what is left (NaN before the
        first task is done).
    metric : str
        The score that ranks configurations.
    leader : Leader or None
        The best configuration so far.
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


class Watcher(Protocol):
    """Whoever shows the user what goes on."""

    def stage(self, what: str, share: float) -> None:
        """Something before or after training is being done, `share` of it so far."""

    def state(self, state: State) -> None:
        """Look again: called a few times a second."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""


class Silent:
    """A watcher that shows nothing."""

    def stage(self, what: str, share: float) -> None:
        """Show nothing."""

    def state(self, state: State) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""
