"""Plain records of what is to be done and of what happened.

Everything here is a frozen dataclass of numbers, strings, lists and dicts: what crosses from the
driver to a worker (`TaskOrder`), what comes back (`TaskDone`), and every other line of the journal.
Times are seconds since 1970 (UTC) where they are instants, seconds where they are durations.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

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
    """

    id: str
    hyperparameters: Hyperparameters
    fold: int
    milestones: tuple[int, ...]


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
        Number of folds, how they are made, and of which group.
    balance, ratio, repeats : str, float, int
        How the classes are balanced.
    before_split : bool
        Whether they are balanced before the folds are made, which leaks.
    augmentation : Augmentation or None
        How training patches are turned; None: not at all.
    seed : int
        What folds and draws follow from.
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
        SHA-256 of the file that the builder stands in.
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
    """

    file: str
    form: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StudyBegun:
    """First line of a journal: what the study is about."""

    kind: ClassVar[str] = "study"
    name: str
    seed: int
    version: str
    strategy: str
    metric: str
    folds: int
    group_by: str
    space: dict[str, Any]
    #: The builder (``build``) and the SHA-256 of the file it stands in (``sha256``).
    model: dict[str, str]
    #: Summary of the data: source, synthetic (bool), fingerprint, train, train_positives, test,
    #: test_positives, groups (number of), inputs (names), input_shape (not in the first journals of
    #: 0.1), target, threshold, units.
    data: dict[str, Any]
    #: One entry a fold: train, train_positives, epoch_patches (after balancing), validation,
    #: validation_positives, groups (number in the validation fold).
    fold_sizes: list[dict[str, Any]]
    #: How the folds are made; empty in journals of the first sessions of 0.1.
    split: str = ""
    #: What makes the validation other than honest, one line each.
    flaws: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunPlanned:
    """A run that the study consists of."""

    kind: ClassVar[str] = "run"
    run: str
    hyperparameters: Hyperparameters
    fold: int
    milestones: list[int]


@dataclass(frozen=True, slots=True)
class SessionBegun:
    """A driver started to work on the study."""

    kind: ClassVar[str] = "session"
    session: int
    host: str
    pid: int
    site: str
    workers: int
    threads_per_worker: int


@dataclass(frozen=True, slots=True)
class LayoutTried:
    """The layout that a study file leaves open was found.

    Attributes
    ----------
    host, cores : str, int
        The machine, and its cores that the driver may use.
    workers, threads : int
        The layout found.
    why : str
        Why, in a few words.
    tried : list of dict
        ``workers``, ``threads``, ``patches_per_second`` of all workers together, ``memory_mb`` of
        one, and ``failure``, for each layout that was tried.
    seconds : float
        How long that took.
    """

    kind: ClassVar[str] = "layout"
    host: str
    cores: int
    workers: int
    threads: int
    why: str
    tried: list[dict[str, Any]]
    seconds: float


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A driver stopped.

    Attributes
    ----------
    session : int
        Number of the session.
    outcome : str
        ``done``, ``failed`` (failed runs), ``walltime`` (work is left, but the time of its job was
        over), ``interrupted`` or ``error``.
    """

    kind: ClassVar[str] = "session-end"
    session: int
    outcome: str


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """A worker became ready (``ready``), was lost (``lost``) or went when asked to (``left``).

    ``failure`` says why it was lost: ``killed``, ``out-of-memory``, ``walltime``,
    ``node-failure``, ``cancelled`` or ``preempted``; empty in the first journals of 0.1.
    """

    kind: ClassVar[str] = "worker"
    session: int
    worker: str
    event: str
    host: str
    pid: int
    detail: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """A node of a cluster was asked for (``asked``), or was ours no more (``ended``).

    Attributes
    ----------
    session : int
        In which session of the driver.
    node : str
        Its number in the session; workers' names have it after the name of the machine.
    event : str
        ``asked`` or ``ended``.
    failure : str
        Why it ended: ``walltime``, ``node-failure``, ``cancelled``, ``preempted``,
        ``out-of-memory`` or ``killed``; empty: it was not needed any more.
    detail : str
        Which job or step it is, and how it ended.
    """

    kind: ClassVar[str] = "node"
    session: int
    node: str
    event: str
    failure: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TaskDone:
    """A run reached a milestone and was scored there.

    Attributes
    ----------
    run : str
        The run's id.
    from_epoch, to_epoch : int
        The milestone before, or 0, and this one.
    scores : dict of str to float
        Scores on the validation fold after `to_epoch` epochs.
    worker : str
        Name of the worker that did it.
    session : int
        In which session of the driver.
    submitted, started, stopped : float
        When the driver sent the task, when the worker began and ended it: all of its bundle.
    phases : dict of str to float
        The run's share (see `bundle`) of the seconds from `started` to `stopped`: ``open`` (data
        and fold), ``build`` (model, restore), ``compile`` (tracing), ``train``, ``score``,
        ``checkpoint``.
    epoch_loss : list of float
        Mean training loss of each epoch from `from_epoch` on, on the balanced training fold.
    patches : int
        Patches trained on, copies counted.
    updates : int
        Optimizer steps made.
    memory_mb : float
        Peak resident memory of the worker process so far.
    parameters : int
        Trainable parameters of the model.
    test_scores : dict of str to float
        Scores on the test part, in an audit; else empty.
    test_errors : dict of str to float
        Standard errors of those, from resampled groups; only of scores that have one.
    threads : int
        Compute threads of the worker; 0 in the first journals of 0.1, where the session has them.
    cores : list of int
        Logical processors that the worker was pinned to; empty: it was not.
    bundle : int
        How many runs were trained together from `started` to `stopped`, this one included.
    resumed : int
        The epoch at which the run went on after a pause: `started`, `stopped`, `phases`, `patches`
        and `updates` are of the stretch from there, what was before is in `TaskPaused`. -1: it went
        from `from_epoch` at one go.
    """

    kind: ClassVar[str] = "task"
    run: str
    from_epoch: int
    to_epoch: int
    scores: dict[str, float]
    worker: str
    session: int
    submitted: float
    started: float
    stopped: float
    phases: dict[str, float]
    epoch_loss: list[float]
    patches: int
    updates: int
    memory_mb: float
    parameters: int
    test_scores: dict[str, float] = field(default_factory=dict)
    test_errors: dict[str, float] = field(default_factory=dict)
    threads: int = 0
    cores: list[int] = field(default_factory=list)
    bundle: int = 1
    resumed: int = -1

    @property
    def start(self) -> int:
        """The epoch at which the stretch began that the times are of."""
        return self.from_epoch if self.resumed < 0 else self.resumed

    @property
    def seconds(self) -> float:
        """The run's share of the time between `started` and `stopped`."""
        return (self.stopped - self.started) / self.bundle


@dataclass(frozen=True, slots=True)
class TaskPaused:
    """A run was left at an epoch between two milestones, because its worker's time was over.

    The next worker goes on from there. The attributes that `TaskDone` has too mean the same.

    Attributes
    ----------
    from_epoch, to_epoch : int
        Where this stretch began and where the run waits. The same where not one epoch fitted into
        the time that was left.
    epoch_loss : list of float
        Of the epochs of this stretch.
    had : float
        The share of its job's time that the worker had left when the stretch began: one that had
        little says nothing of whether an epoch fits into a job. 0 also where no checkpoint could be
        written.
    """

    kind: ClassVar[str] = "pause"
    run: str
    from_epoch: int
    to_epoch: int
    worker: str
    session: int
    submitted: float
    started: float
    stopped: float
    phases: dict[str, float]
    epoch_loss: list[float]
    patches: int
    updates: int
    memory_mb: float
    parameters: int
    threads: int
    cores: list[int]
    bundle: int
    had: float = 1.0

    @property
    def start(self) -> int:
        """The epoch at which the stretch began."""
        return self.from_epoch

    @property
    def seconds(self) -> float:
        """The run's share of the time between `started` and `stopped`."""
        return (self.stopped - self.started) / self.bundle


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A run ended without reaching all its milestones.

    Attributes
    ----------
    failure : str
        ``error``, ``diverged``, ``out-of-memory``, ``killed`` or ``walltime``.
    reason : str
        One line.
    detail : str
        The traceback, where there is one.
    """

    kind: ClassVar[str] = "failure"
    run: str
    from_epoch: int
    to_epoch: int
    failure: str
    reason: str
    worker: str
    session: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TaskRetried:
    """A task was given out again because its worker was lost."""

    kind: ClassVar[str] = "retry"
    run: str
    to_epoch: int
    attempt: int
    reason: str
    worker: str
    session: int


@dataclass(frozen=True, slots=True)
class Verified:
    """The best configuration was trained on the whole training part and scored on the test part.

    Attributes
    ----------
    look : int
        How often the test part has been scored, this time included.
    configuration, hyperparameters : str, dict
        What was the best, ``epochs`` included.
    finished : bool
        Whether every planned run was finished or failed when it was chosen.
    threshold : float
        Probability at which the event counts as forecast: the mean over folds of the one with
        the best CSI, or 0.5 where no fold has one.
    climatology : float
        Event frequency of the training part.
    cases, events : int
        Of the test part.
    block, blocks : str, int
        What was resampled for the intervals (``run_date``, another group, ``case``), how many.
    resamples, level : int, float
        Samples drawn, and the level of the intervals.
    scores : dict of str to list of float
        Value, lower and upper end of the interval; NaN where there is none.
    model_sha256, predictions_sha256 : str
        Checksums of the model and of the test predictions in ``model/``.
    epoch_loss : list of float
        Mean training loss of each epoch on the whole training part.
    seconds : float
        Time in the worker's tasks, training and prediction.
    threshold_folds : list of int
        How many folds have a threshold (one whose cases are all of one class has none), and of how
        many; empty in the first journals of 0.1.
    """

    kind: ClassVar[str] = "verified"
    look: int
    configuration: str
    hyperparameters: Hyperparameters
    finished: bool
    threshold: float
    climatology: float
    cases: int
    events: int
    block: str
    blocks: int
    resamples: int
    level: float
    scores: dict[str, list[float]]
    model_sha256: str
    predictions_sha256: str
    epoch_loss: list[float]
    seconds: float
    threshold_folds: list[int] = field(default_factory=list)


Record = (
    StudyBegun
    | RunPlanned
    | SessionBegun
    | LayoutTried
    | SessionEnded
    | WorkerEvent
    | NodeEvent
    | TaskDone
    | TaskPaused
    | RunFailed
    | TaskRetried
    | Verified
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: a record and when it was written."""

    time: float
    record: Record
