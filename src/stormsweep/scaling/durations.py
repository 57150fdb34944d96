"""What the tasks of a plan take, run by run: what a simulation goes by."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lost:
    """Seconds that are lost now and then, whatever is being done.

    Attributes
    ----------
    share : float
        Of all occasions, on how many.
    seconds : tuple of float
        What is lost then: one of these.
    """

    share: float = 0.0
    seconds: tuple[float, ...] = ()

    def divided(self, parts: int) -> Lost:
        """Return what each part loses where so many are one occasion."""
        return Lost(self.share, tuple(each / parts for each in self.seconds))


@dataclass(frozen=True, slots=True)
class Durations:
    """What the tasks of a plan take on one layout, in seconds; lists go by place in ``plan.runs``.

    Attributes
    ----------
    epoch : sequence of float
        An epoch of training. Runs of a bundle count with their shares, which add up.
    before, ending : sequence of float
        Of every task: building and restoring, before training; scoring and checkpoint, after it.
    compiling : sequence of float
        Compiling the program, where the worker does not have it yet; once for a bundle.
    program : sequence of hashable
        Which program: runs with the same need compile it once on a worker.
    opening : float
        Opening the data, once for each worker.
    scatter, workers, common : float
        Standard deviations of the logarithm: between tasks that should take the same, where no
        ratios are known; between workers; and of everything together, which is how sure the fit is.
    ratios : sequence of float
        What tasks took over what they should have, of mean 1: one is drawn for each task.
    starting, working : Lost
        Lost by a process of a worker in its first task; by a task.
    dispatch : float
        From the driver's decision until the worker begins, and from the worker's end until the
        driver knows.
    driver : float
        Seconds that the driver itself is busy with a task, during which others wait.
    any_batch : bool
        Whether a compiled program takes batches of any size.
    """

    epoch: Sequence[float]
    before: Sequence[float]
    ending: Sequence[float]
    compiling: Sequence[float]
    program: Sequence[Hashable]
    opening: float = 0.0
    scatter: float = 0.0
    workers: float = 0.0
    common: float = 0.0
    ratios: Sequence[float] = ()
    starting: Lost = Lost()
    working: Lost = Lost()
    dispatch: float = 0.0
    driver: float = 0.0
    any_batch: bool = False
