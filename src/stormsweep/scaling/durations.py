"""What the tasks of a plan take, run by run: what a simulation goes by."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


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
        Standard deviations of the logarithm: between tasks that should take the same; between
        workers; and of everything together, which is how sure the fit is.
    dispatch : float
        From the driver's decision until the worker begins, and from the worker's end until the
        driver knows.
    driver : float
        Seconds that the driver itself is busy with a task, during which others wait.
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
    dispatch: float = 0.0
    driver: float = 0.0
