"""What an engine is: something that starts runs, trains them from epoch to epoch and predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import RunError

#: State of a run between two epochs: plain numpy arrays by name.
State = dict[str, NDArray[Any]]


class GoOn(Protocol):
    """Says whether there is time for another epoch."""

    def __call__(self, took: float | None, ahead: float = 0.0) -> bool:
        """Say so.

        Parameters
        ----------
        took : float or None
            Seconds of the last epoch; None before the first.
        ahead : float
            About how many seconds something else takes that comes before it: compiling, say.
        """


class OutOfMemoryError(RunError):
    """One run alone does not fit into the memory of what trains it."""

    kind = "out-of-memory"


def says_out_of_memory(error: Exception) -> bool:
    """Tell whether an exception of Python, TensorFlow or JAX says that a memory is full."""
    named = type(error).__name__ == "ResourceExhaustedError"
    return isinstance(error, MemoryError) or named or "RESOURCE_EXHAUSTED" in str(error)


@dataclass(frozen=True, slots=True)
class Turning:
    """How patches are turned on the fly, in every epoch anew.

    Attributes
    ----------
    rotate_degrees : float
        Largest rotation either way.
    flip : bool
        Whether patches are mirrored at random.
    turns_vectors : bool
        Whether vectors turn with the image and its edges are reflected. False: the way of the 2019
        scripts, which left winds as they are and let the edges go on.
    vectors : tuple of (int, int)
        Channels that are the x and y components of a vector.
    mean, std : tuple of float
        What the channels were scaled with.
    """

    rotate_degrees: float
    flip: bool
    turns_vectors: bool
    vectors: tuple[tuple[int, int], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FoldData:
    """The arrays of one fold, as row numbers into arrays that all folds share.

    Attributes
    ----------
    inputs : ndarray of float32, shape (n, ...)
        All cases, usually memory-mapped; where there are turned versions of them on disk, all cases
        of each version after those of the one before.
    labels : ndarray, shape (n,)
        0 or 1.
    train : ndarray of int64, shape (m,)
        Rows to train on, after balancing; rows may stand there several times.
    validation : ndarray of int64, shape (v,)
        Rows to score on.
    class_weight : tuple of float or None
        Weights of the classes 0 and 1 in the loss.
    climatology : float
        Event frequency of the training rows before balancing, 0 to 1.
    versions : range
        Versions of a case that an epoch may take, one at random; 0 is the case itself.
    turning : Turning or None
        How patches are turned on the fly.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[Any]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    class_weight: tuple[float, float] | None
    climatology: float
    versions: range = range(1)
    turning: Turning | None = None


@dataclass(frozen=True, slots=True)
class AdvanceResult:
    """What a stretch of training did.

    Attributes
    ----------
    losses : list of float
        Mean training loss of each epoch trained, regularisation included: fewer than asked for
        where the time was over.
    patches : int
        Cases trained on, copies counted.
    updates : int
        Batches, each one optimizer step.
    compile_seconds, train_seconds : float
        Seconds that went into tracing and optimizing the program, and into running it.
    together : int
        How many runs these seconds trained.
    """

    losses: list[float]
    patches: int
    updates: int
    compile_seconds: float
    train_seconds: float
    together: int = 1


class Trajectory(Protocol):
    """One run under way."""

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""

    @property
    def parameters(self) -> int:
        """Trainable parameters of the model."""

    def advance(self, to_epoch: int, go_on: GoOn | None = None) -> AdvanceResult:
        """Train up to and including an epoch, or until there is no time for another.

        Parameters
        ----------
        to_epoch : int
            The epoch.
        go_on : callable, optional
            Where it says no, training ends: `epoch` tells at which epoch. None: there is time.

        Raises
        ------
        DivergedError
            If the mean loss of an epoch is not finite.
        RunError
            If the model cannot be trained.
        """

    def predict(
        self, rows: NDArray[np.int64], inputs: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return the probability of the event for each row, shape (v,).

        Parameters
        ----------
        rows : ndarray of int64, shape (v,)
            Rows of the run's own inputs, or of `inputs`.
        inputs : ndarray of float32, shape (n, ...), optional
            Other cases, scaled as the run's own: those of the test part.
        """

    def save(self, folder: Path, cases: NDArray[np.float32]) -> tuple[str, str]:
        """Write the model down for later predictions.

        Parameters
        ----------
        folder : Path
            Where to.
        cases : ndarray of float32, shape (m, ...)
            Some cases on which the saved model must predict the same.

        Returns
        -------
        tuple of str and str
            The file's name, and its form: see `work.Delivered`.
        """

    def state(self) -> State:
        """Return a copy of all that training goes on from: weights, optimizer, random state."""

    def restore(self, state: State, epoch: int) -> None:
        """Go on from a state that was taken after `epoch` epochs.

        Raises
        ------
        RunError
            If the state is that of another model.
        """


class Engine(Protocol):
    """What starts runs. One engine serves one process for all its tasks."""

    def start(
        self,
        builder: Callable[..., Any],
        hyperparameters: Mapping[str, Any],
        seed: int,
        fold: int,
        data: FoldData,
    ) -> Trajectory:
        """Build the model of a run and initialise it; nothing is trained yet.

        Parameters
        ----------
        builder : callable
            From `models.build.find_builder`.
        hyperparameters : mapping
            Of the run; ``batch_size`` among them.
        seed, fold : int
            The study's seed and the number of the fold.
        data : FoldData
            The arrays.

        Raises
        ------
        RunError
            If the builder raises or returns something that is not a model with one output.
        """


T = TypeVar("T", bound=Trajectory)


class BundleEngine(Engine, Protocol[T]):
    """An engine that trains several runs in one program, where only scalars differ among them."""

    def start(
        self,
        builder: Callable[..., Any],
        hyperparameters: Mapping[str, Any],
        seed: int,
        fold: int,
        data: FoldData,
    ) -> T:
        """Build the model of a run and initialise it; see `Engine.start`."""

    def train(
        self, runs: Sequence[T], to_epoch: int, go_on: GoOn | None = None
    ) -> Iterator[list[tuple[T, AdvanceResult | RunError]]]:
        """Train runs up to and including an epoch, as many at once as can be.

        Parameters
        ----------
        runs : sequence of Trajectory
            Started by this engine, on the same cases.
        to_epoch : int
            The epoch.
        go_on : callable, optional
            Where it says no, the runs under way end with the epoch, and those that are still to
            be trained at once; see `Trajectory.advance`.

        Yields
        ------
        list of tuple of Trajectory and AdvanceResult or RunError
            The runs that were trained in one program, as soon as they are. A run that diverged
            comes with its error, and the others are as if it had not been there.
        """

    def predict(
        self, runs: Sequence[T], rows: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float32]]:
        """Return the probability of the event for rows of each of some runs of one program."""
