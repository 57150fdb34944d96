"""Plain records of what happened: every line of the journal is one.

Everything here is a frozen dataclass of numbers, strings, lists and dicts. What is to be done is in
`stormsweep.work`. Times are seconds since 1970 (UTC) where they are instants, seconds where they
are durations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from stormsweep.work import Hyperparameters, TaskOrder


@dataclass(frozen=True, slots=True)
class StudyBegun:
    """First line of a journal: what the study is about.

    Attributes
    ----------
    name, seed, version : str, int, str
        Of the study, and of Stormsweep.
    strategy, metric : str
        What proposes configurations, and what ranks them.
    folds : int
        Of all rounds together.
    group_by : str
        The group that folds keep whole.
    space : dict
        Hyperparameters with their values or ranges.
    model : dict of str to str
        The builder (``build``) and the SHA-256 of its code (``sha256``): of its file, or of
        all that this imports from its own folder or package.
    data : dict
        Summary of the data: source, synthetic (bool), fingerprint, train, train_positives, test,
        test_positives, groups (number of), inputs (names), input_shape (not in journals of early
        development versions), target, threshold, units.
    fold_sizes : list of dict
        One entry a fold: train, train_positives, epoch_patches (after balancing), validation,
        validation_positives, groups (number in the validation fold).
    split : str
        How the folds are made; empty in journals of early development versions.
    flaws : list of str
        What makes the validation other than honest, one line each.
    rounds : int
        How often the training part is split.
    objectives : list of str
        The scores that the strategy trades off against each other; empty: the metric alone.
    """

    kind: ClassVar[str] = "study"
    name: str
    seed: int
    version: str
    strategy: str
    metric: str
    folds: int
    group_by: str
    space: dict[str, Any]
    model: dict[str, str]
    data: dict[str, Any]
    fold_sizes: list[dict[str, Any]]
    split: str = ""
    flaws: list[str] = field(default_factory=list)
    rounds: int = 1
    objectives: list[str] = field(default_factory=list)

    @property
    def splits(self) -> int:
        """Folds of one round: each case is validated in one of them."""
        return self.folds // self.rounds


@dataclass(frozen=True, slots=True)
class RunPlanned:
    """A run that the study consists of; attributes as of `stormsweep.work.Run`.

    Attributes
    ----------
    run : str
        Its id.
    hyperparameters, fold, milestones : dict, int, list of int
        What is trained, on which fold, and at which epochs it is scored.
    """

    kind: ClassVar[str] = "run"
    run: str
    hyperparameters: Hyperparameters
    fold: int
    milestones: list[int]


@dataclass(frozen=True, slots=True)
class Proposed:
    """A strategy that learns from scores proposed to train a trial to an epoch.

    Attributes
    ----------
    trial : int
        Number of the trial; it is proposed again where it is worth more.
    hyperparameters : dict
        The point of the space, without ``epochs``.
    epochs, folds : int, int
        At which epoch it is scored, and on how many folds, from the first.
    """

    kind: ClassVar[str] = "proposal"
    trial: int
    hyperparameters: Hyperparameters
    epochs: int
    folds: int


@dataclass(frozen=True, slots=True)
class PlanCut:
    """Runs are no longer to be trained to their end: the study changed, and nothing needs them.

    What is on record of them stays; one that is needed again is planned again.

    Attributes
    ----------
    runs : dict of str to int
        Of each after which milestone it is left, 0 where it never reached one.
    """

    kind: ClassVar[str] = "cut"
    runs: dict[str, int]


@dataclass(frozen=True, slots=True)
class SearchEnded:
    """A strategy that learns from scores has nothing more to propose.

    Attributes
    ----------
    trials : int
        How many it proposed.
    """

    kind: ClassVar[str] = "search-end"
    trials: int


@dataclass(frozen=True, slots=True)
class SessionBegun:
    """A driver started to work on the study.

    Attributes
    ----------
    session, host, pid : int, str, int
        Number of the session; the driver's machine and process.
    site : str
        Where the workers run.
    workers, threads_per_worker : int
        The layout.
    allotment : dict
        What was asked of the site, as far as it is known: ``scheduler``; ``nodes`` (0: as many as
        have work), ``cores_per_node`` (that are charged: all of a node that is exclusive),
        ``gpus_per_node``, ``walltime_seconds``, ``workers_per_node``, ``threads_per_worker``,
        ``price_per_core_hour``, ``price_per_gpu_hour``; ``inside``: whether the nodes are those of
        the driver's own job, which had run for ``held_seconds`` when the session began, of which
        data took ``prepared_seconds``, and waited in the queue for ``queued_seconds``. Empty in
        journals of early development versions.
    opened : float
        When the first tasks could be given out; 0 in journals of early development versions.
    driver_seconds : float
        Processor seconds that the driver took until then; 0: not known.
    any_batch : bool
        Whether a compiled program takes batches of any size; false in journals of development
        versions up to 26 November 2026, which do not say it.
    """

    kind: ClassVar[str] = "session"
    session: int
    host: str
    pid: int
    site: str
    workers: int
    threads_per_worker: int
    allotment: dict[str, Any] = field(default_factory=dict)
    opened: float = 0.0
    driver_seconds: float = 0.0
    any_batch: bool = False


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
    driver_seconds : float
        Processor seconds that the driver itself took; 0 in journals of early development versions.
    """

    kind: ClassVar[str] = "session-end"
    session: int
    outcome: str
    driver_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """A worker became ready (``ready``), was lost (``lost``) or went when asked to (``left``).

    Attributes
    ----------
    session : int
        In which session of the driver.
    worker, host, pid : str, str, int
        Its name, machine and process.
    event : str
        ``ready``, ``lost`` or ``left``.
    detail : str
        What else is known, in words.
    failure : str
        Why it was lost: ``killed``, ``out-of-memory``, ``walltime``, ``node-failure``,
        ``cancelled`` or ``preempted``; empty in journals of early development versions.
    processor : str
        That of its machine, said where it became ready; not in journals of early development
        versions.
    """

    kind: ClassVar[str] = "worker"
    session: int
    worker: str
    event: str
    host: str
    pid: int
    detail: str = ""
    failure: str = ""
    processor: str = ""


@dataclass(frozen=True, slots=True)
class PlaceRefused:
    """Workers of a node, or of one of its GPUs, got no more work.

    Attributes
    ----------
    session : int
        In which session of the driver.
    place : str
        Which.
    reason : str
        Why, in one line that names it.
    """

    kind: ClassVar[str] = "refused"
    session: int
    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """A node of a cluster was asked for, given to us, or was ours no more.

    Attributes
    ----------
    session : int
        In which session of the driver.
    node : str
        Its number in the session; workers' names have it after the name of the machine.
    event : str
        ``asked``, ``granted`` (by the scheduler; not in journals of early development versions) or
        ``ended``.
    failure : str
        Why it ended: ``walltime``, ``node-failure``, ``cancelled``, ``preempted``,
        ``out-of-memory`` or ``killed``; empty: it was not needed any more.
    detail : str
        Which job or step it is, and how it ended.
    seconds : float
        ``ended``: how long the scheduler says that we had it; 0: it does not say.
    """

    kind: ClassVar[str] = "node"
    session: int
    node: str
    event: str
    failure: str = ""
    detail: str = ""
    seconds: float = 0.0


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
    patches, updates : int
        Patches trained on, copies counted, and optimizer steps made: with those of epochs before
        the stretch, where a lost checkpoint had them trained once more.
    memory_mb : float
        Peak resident memory of the worker process so far.
    parameters : int
        Trainable parameters of the model.
    test_scores : dict of str to float
        Scores on the test part, in an audit; else empty.
    test_errors : dict of str to float
        Standard errors of those, from resampled groups; only of scores that have one.
    threads : int
        Compute threads of the worker; 0 in journals of early development versions, where the
        session has them.
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
    run : str
        The run's id.
    from_epoch, to_epoch : int
        The task that failed.
    failure : str
        ``error``, ``diverged``, ``out-of-memory``, ``killed`` or ``walltime``.
    reason : str
        One line.
    worker, session : str, int
        Who had it, and in which session of the driver.
    detail : str
        The traceback, where there is one.
    seconds : float
        The run's share of the time since its worker was sent the task, by the driver's clock: work
        that was for nothing. 0 in journals of early development versions.
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
    seconds: float = 0.0

    @classmethod
    def of(
        cls, order: TaskOrder, failure: str, reason: str, detail: str = "", seconds: float = 0.0
    ) -> RunFailed:
        """Return the record of a run that ended with what its worker was sent.

        Parameters
        ----------
        order : TaskOrder
            That.
        failure, reason, detail, seconds : str, str, str, float
            As of the record.
        """
        task = order.task
        span = task.run.id, task.from_epoch, task.to_epoch
        return cls(*span, failure, reason, order.worker, order.session, detail, seconds)


@dataclass(frozen=True, slots=True)
class TaskRetried:
    """A task was given out again because its worker was lost, or may be at fault for its error.

    Attributes
    ----------
    run, to_epoch : str, int
        The task.
    attempt : int
        Which attempt the next one is; a loss that is nobody's fault does not count.
    reason : str
        Why, in one line.
    worker, session, seconds : str, int, float
        As of `RunFailed`.
    """

    kind: ClassVar[str] = "retry"
    run: str
    to_epoch: int
    attempt: int
    reason: str
    worker: str
    session: int
    seconds: float = 0.0


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
        many; empty in journals of early development versions.
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


@dataclass(frozen=True, slots=True)
class SearchBegun:
    """A `SweepSearchCV` began to fit, or goes on: what it searches.

    Attributes
    ----------
    estimator : str
        Class of the estimator.
    version : str
        Of Stormsweep.
    about : dict of str to str
        Fingerprints of what no score would be the same without: ``estimator``, ``data`` (X, y and
        what is passed to fit), ``splits``, ``scoring``.
    search : str
        Fingerprint of what decides which candidates are tried: strategy, space, trials, seed.
    strategy : str
        What proposes candidates.
    seed : int
        Of the strategy.
    splits : int
        Splits of the cross-validation.
    ranked_by : str
        Name of the score by which candidates are ranked; empty: of several, `refit` names none.
    """

    kind: ClassVar[str] = "search"
    estimator: str
    version: str
    about: dict[str, str]
    search: str
    strategy: str
    seed: int
    splits: int
    ranked_by: str = ""


@dataclass(frozen=True, slots=True)
class CandidateProposed:
    """A strategy of a `SweepSearchCV` proposed a candidate.

    Attributes
    ----------
    trial : int
        Its number, from 0.
    key : str
        Fingerprint of its parameters.
    parameters : dict of str to str
        The parameters, as Python writes them, for whoever reads along.
    """

    kind: ClassVar[str] = "candidate"
    trial: int
    key: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class SplitScored:
    """A candidate of a `SweepSearchCV` was fitted and scored on one split.

    Attributes
    ----------
    trial : int
        Number of the candidate.
    key : str
        Fingerprint of its parameters.
    split : int
        Number of the split.
    test_scores, train_scores : float or dict of str to float
        What the scorer said, of several the scores by name; `train_scores` is None where they were
        not asked for.
    test_cases : int
        Samples of the test side.
    fit_seconds, score_seconds : float
        How long it took.
    error : str
        The traceback of a fit that failed; empty: it did not.
    worker : str
        Who did it; empty: the process of the search itself.
    unscored : list of str
        Scores that the scorer failed to compute after a sound fit, by what they are called in
        ``cv_results_`` (``test_score``, ``train_auc``); `error_score` stands for them.
    lost : bool
        Whether it failed because each worker process that had it died.
    """

    kind: ClassVar[str] = "split"
    trial: int
    key: str
    split: int
    test_scores: float | dict[str, float]
    train_scores: float | dict[str, float] | None
    test_cases: int
    fit_seconds: float
    score_seconds: float
    error: str = ""
    worker: str = ""
    unscored: list[str] = field(default_factory=list)
    lost: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing failed; else it is tried again when the search goes on."""
        return not self.error and not self.unscored


Record = (
    StudyBegun
    | RunPlanned
    | Proposed
    | SearchEnded
    | PlanCut
    | SessionBegun
    | LayoutTried
    | SessionEnded
    | WorkerEvent
    | PlaceRefused
    | NodeEvent
    | TaskDone
    | TaskPaused
    | RunFailed
    | TaskRetried
    | Verified
    | SearchBegun
    | CandidateProposed
    | SplitScored
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal.

    Attributes
    ----------
    time : float
        When it was written, in seconds since 1970 (UTC).
    record : Record
        What happened: one of the classes of `stormsweep.records`.
    """

    time: float
    record: Record


def node_of(worker: str) -> str:
    """Return the number of a worker's node, by its name ``<machine>-<node>-<number>``.

    Examples
    --------
    >>> node_of("n2018-1-3-0"), node_of("0")
    ('3', '')
    """
    parts = worker.rsplit("-", 2)
    return parts[1] if len(parts) == 3 else ""
