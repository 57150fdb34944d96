"""What is to be done: runs, tasks, and what crosses from the driver to a worker to have them done.

Everything here is a frozen dataclass of numbers, strings, lists and dicts, never arrays. What comes
back of tasks goes to the journal, and is in `stormsweep.records`. Times are seconds since 1970
(UTC) where they are instants, seconds where they are durations.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

Hyperparameters = dict[str, Any]


def identity(hyperparameters: Hyperparameters) -> str:
    """Return a short name for a configuration, the same in every session and on every machine.

    Parameters
    ----------
    hyperparameters : dict
        Names and values; their order does not matter.

    Returns
    -------
    str
        Twelve hexadecimal digits.

    Examples
    --------
    >>> identity({"a": 1, "b": 0.5}) == identity({"b": 0.5, "a": 1})
    True
    """
    text = json.dumps(hyperparameters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Run:
    """One training trajectory: it serves every fit that differs only in ``epochs``.

    Attributes
    ----------
    id : str
        Made from the hyperparameters and the fold; the same in every session.
    hyperparameters : dict
        All of them but ``epochs``: those of the space, the fixed ones and ``batch_size``.
    fold : int
        Which split of the cross-validation, from 0.
    milestones : tuple of int
        The epochs at which the run is scored, ascending.
    whole : bool
        Whether it trains on the whole training part instead; `fold` only decides over chance then.
    """

    id: str
    hyperparameters: Hyperparameters
    fold: int
    milestones: tuple[int, ...]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A run from one milestone to the next; what a worker gets, alone or as one of a bundle.

    Attributes
    ----------
    run : Run
        The run.
    from_epoch, to_epoch : int
        The milestones; the first of a run begins at epoch 0.
    paused_at : int
        The epoch at which the run was paused on the way; -1: it was not.
    """

    run: Run
    from_epoch: int
    to_epoch: int
    paused_at: int = -1

    @property
    def start(self) -> int:
        """The epoch at which training goes on."""
        return self.from_epoch if self.paused_at < 0 else self.paused_at


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How training patches are turned.

    Attributes
    ----------
    method : str
        ``physical``, ``2019-ahead`` or ``2019-on-the-fly``.
    rotate_degrees : float
        Largest rotation either way.
    flip : bool
        Whether patches are mirrored at random, west to east.
    copies : int
        Turned versions of each patch that lie on disk; 0: patches are turned on the fly.
    """

    method: str
    rotate_degrees: float
    flip: bool
    copies: int


@dataclass(frozen=True, slots=True)
class Protocol:
    """How the training part is split, balanced and turned: what a fold's cases are.

    Attributes
    ----------
    folds, split, group_by : int, str, str
        Number of folds of a round, how they are made, and of which group.
    balance, ratio, repeats : str, float, int
        How the classes are balanced.
    before_split : bool
        Whether they are balanced before the folds are made, which leaks.
    augmentation : Augmentation or None
        How training patches are turned; None: not at all.
    seed : int
        What folds and draws follow from.
    rounds : int
        How often the training part is split anew. The fold numbered f is split ``f % folds`` of
        round ``f // folds``, whatever the number of rounds.
    """

    folds: int
    split: str
    group_by: str
    balance: str
    ratio: float
    repeats: int
    before_split: bool
    augmentation: Augmentation | None
    seed: int
    # Not in what checkpoints are recognised by: a study that grows goes on from its own.
    rounds: int = field(default=1, repr=False)

    @property
    def total(self) -> int:
        """Folds of all rounds together."""
        return self.folds * self.rounds


@dataclass(frozen=True, slots=True)
class TaskOrder:
    """A task with all a worker needs to carry it out; numbers and names, never arrays.

    Attributes
    ----------
    task : Task
        The run, and from which to which epoch.
    build : str
        The model builder, ``package.module:function`` or ``/path/file.py:function``.
    model : str
        SHA-256 of the builder's code: `stormsweep.models.checksum`.
    data, fingerprint : str
        Folder of the prepared arrays, and what they must be.
    protocol : Protocol
        What the cases of the run's fold are, and the study's seed.
    turned : str
        Folder of the patches turned ahead of training; empty: there are none.
    score_test : bool
        Whether the test part is scored at each milestone too: for an audit, never for a search.
    engine, precision : str
        ``tensorflow`` or ``jax``; ``float32`` or ``bfloat16``.
    packing : bool
        ``tensorflow``: whether convolutions with few channels compute neighbouring cells together.
    checkpoints : str
        Folder of the checkpoints.
    threads : int
        Compute threads of the worker.
    worker, session, submitted : str, int, float
        Who was asked, in which session of the driver, and when.
    foreseen : float
        About how many seconds an epoch takes, of all that is trained together; 0: nobody knows.
    """

    task: Task
    build: str
    model: str
    data: str
    fingerprint: str
    protocol: Protocol
    turned: str
    score_test: bool
    engine: str
    precision: str
    packing: bool
    checkpoints: str
    threads: int
    worker: str
    session: int
    submitted: float
    foreseen: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Train for a moment to see how fast it goes; nothing is kept.

    Attributes
    ----------
    order : TaskOrder
        Its task names the run.
    seconds : float
        How long; at least a few batches are trained.
    """

    order: TaskOrder
    seconds: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """What came of a `Sample`: patches trained, the seconds that took, the worker's memory."""

    patches: int
    seconds: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """Predict the test part with a fully trained model, and write both down.

    Attributes
    ----------
    order : TaskOrder
        Its task starts and ends at the last epoch.
    folder : str
        An empty folder for the model's file and ``probabilities.npy``.
    """

    order: TaskOrder
    folder: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a `Delivery` wrote.

    Attributes
    ----------
    file : str
        Name of the model's file in the folder.
    form : str
        ``keras``: the whole model; ``weights``: to be loaded into what the builder returns.
    seconds : float
        How long it took.
    problem : str
        Why the file cannot be loaded to predict what was predicted here; empty: it can.
    """

    file: str
    form: str
    seconds: float
    problem: str = ""
