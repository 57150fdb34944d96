"""What the journal says of each configuration and its fits, as the tools of others want it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from stormsweep.config.study import METRICS
from stormsweep.errors import UserError, nearest
from stormsweep.records import Entry, RunFailed, StudyBegun, TaskDone, TaskPaused
from stormsweep.results import facts, frames
from stormsweep.results.summary import summary
from stormsweep.work import Hyperparameters


class State(StrEnum):
    """How far a configuration is."""

    complete = "complete"  # scored on all folds
    failed = "failed"  # a fold has no score and will not get one
    open = "open"  # folds are missing, and the study is not done
    stopped = "stopped"  # folds are missing, and the study is done: it was not worth more


@dataclass(frozen=True, slots=True)
class Fit:
    """One configuration on one fold, as far as it was trained.

    Attributes
    ----------
    run, fold : str, int
        The run that it is a part of, and its fold.
    scores : dict of int to dict of str to float
        Scores on the validation fold at each milestone up to the configuration's epochs.
    scored : dict of int to float
        When each milestone was reached.
    losses : dict of int to float
        Mean training loss of each epoch, from 1.
    phases : dict of str to float
        Seconds of the run's tasks up to there: ``train``, ``score``, ... .
    seconds : float
        Time of these tasks, of a bundle the run's share.
    started, stopped : float
        When the first task began and the last one ended.
    failure : str
        Why it has no score at its last epoch; empty: it has one, or is still to come.
    """

    run: str
    fold: int
    scores: dict[int, dict[str, float]]
    scored: dict[int, float]
    losses: dict[int, float]
    phases: dict[str, float]
    seconds: float
    started: float
    stopped: float
    failure: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration of which anything is on record.

    Attributes
    ----------
    id, hyperparameters : str, dict
        Its name and all of them, ``epochs`` included.
    rank : int
        From 1, as in the results; 0: no fold is scored.
    state : State
        How far it is.
    fits : tuple of Fit
        By fold.
    means : dict of str to float
        Mean over the folds of every score at its epochs; empty unless complete.
    over : bool
        Whether none of its folds will get further: the study is finished.
    """

    id: str
    hyperparameters: Hyperparameters
    rank: int
    state: State
    fits: tuple[Fit, ...]
    means: dict[str, float]
    over: bool

    @property
    def epochs(self) -> int:
        """At which it is scored."""
        return int(self.hyperparameters["epochs"])

    @property
    def started(self) -> float:
        """When its first task began."""
        return min(fit.started for fit in self.fits)

    @property
    def stopped(self) -> float:
        """When its last task ended, or failed."""
        return max(fit.stopped for fit in self.fits)

    @property
    def seconds(self) -> float:
        """Time of all its tasks."""
        return math.fsum(fit.seconds for fit in self.fits)

    @property
    def failure(self) -> str:
        """Why it failed, of its first fold that did."""
        return next((fit.failure for fit in self.fits if fit.failure), "")

    def curve(self) -> dict[int, dict[str, float]]:
        """Return the mean over folds of every score at each milestone.

        While folds are to come only milestones count that all its folds have: a mean over others
        would change.
        """
        reached = [set(fit.scores) for fit in self.fits]
        epochs = set.union(*reached) if self.over else set.intersection(*reached)
        return {
            epoch: _mean([fit.scores[epoch] for fit in self.fits if epoch in fit.scores])
            for epoch in sorted(epochs)
        }


@dataclass(frozen=True, slots=True)
class Told:
    """A study as others are told of it.

    Attributes
    ----------
    about : StudyBegun
        What it is about.
    journal : str
        Tells its journal from all others, also from one of the same name.
    objectives : tuple of str
        The scores that configurations are ranked by.
    scores : tuple of str
        All scores, the study's metric first.
    configurations : tuple of Configuration
        Those of which anything is on record, in the order of the plan.
    begun : float
        When the study was begun.
    """

    about: StudyBegun
    journal: str
    objectives: tuple[str, ...]
    scores: tuple[str, ...]
    configurations: tuple[Configuration, ...]
    begun: float

    def maximized(self, score: str) -> bool:
        """Tell the direction of a score; see `better_high`."""
        return better_high(score)


def better_high(score: str) -> bool:
    """Tell whether more of a score is better.

    Examples
    --------
    >>> better_high("roc_auc"), better_high("loss")
    (True, False)
    """
    return METRICS.get(score, "maximize") == "maximize"


def check_score(key: str, name: str) -> None:
    """Refuse what is no score of Stormsweep's.

    Raises
    ------
    UserError
        In one line that begins with `key`.
    """
    if name not in METRICS:
        raise UserError(
            f"{key}: given {name!r}{nearest(name, METRICS)}; must be one of {', '.join(METRICS)}"
        )


def told(entries: Sequence[Entry], objectives: Sequence[str] = ()) -> Told:
    """Read out of a journal what others are told of the study, finished or not.

    Parameters
    ----------
    entries : sequence of Entry
        The journal.
    objectives : sequence of str
        The scores that configurations are ranked by; default: the study's metric.

    Raises
    ------
    JournalError
        If no study is recorded yet.
    """
    about = facts.study(entries)
    runs, names = facts.planned_runs(entries), facts.configuration_names(entries)
    by_run: dict[str, list[TaskDone | TaskPaused]] = {}
    for one in facts.stretches(entries):
        by_run.setdefault(one.run, []).append(one)
    failures = _failures(entries)
    table = frames.configurations(entries)
    scores = facts.score_names(entries)
    rows = {str(row["configuration"]): row for row in table.to_dict("records")}
    finished = summary(entries).finished
    fits: dict[str, list[Fit]] = {}
    planned: dict[str, list[tuple[str, int]]] = {}
    for run, plan in runs.items():
        for epochs in plan.milestones:
            name = names[run, epochs]
            planned.setdefault(name, []).append((run, plan.fold))
            fit = _fit(run, plan.fold, epochs, by_run.get(run, []), failures.get(run))
            if fit is not None:
                fits.setdefault(name, []).append(fit)
    found: list[Configuration] = []
    for name, point in facts.planned_configurations(entries).items():
        own = fits.get(name, [])
        if not own:
            continue
        row = rows.get(name)
        whole = row is not None and bool(row["complete"])
        if whole:
            state = State.complete
        elif any(fit.failure for fit in own):
            state = State.failed
        else:
            state = State.stopped if finished else State.open
        means = {s: float(row[f"{s}_mean"]) for s in scores} if whole and row else {}
        rank = int(row["rank"]) if row else 0
        if not finished:
            # Folds that nobody began are as open as those that are under way.
            own = [*own, *_missing(own, planned[name])]
        own = sorted(own, key=lambda fit: fit.fold)
        found.append(Configuration(name, point, rank, state, tuple(own), means, finished))
    journal = f"{about.name}@{entries[0].time:.6f}"
    ranked = tuple(objectives) or (about.metric,)
    return Told(about, journal, ranked, tuple(scores), tuple(found), entries[0].time)


def _missing(own: Sequence[Fit], planned: Sequence[tuple[str, int]]) -> list[Fit]:
    there = {fit.run for fit in own}
    when = min(fit.started for fit in own)
    return [
        Fit(run, fold, {}, {}, {}, {}, 0.0, when, when, "")
        for run, fold in planned
        if run not in there
    ]


def _fit(
    run: str,
    fold: int,
    epochs: int,
    stretches: Sequence[TaskDone | TaskPaused],
    failed: tuple[float, RunFailed] | None,
) -> Fit | None:
    """Return a fit up to its epochs; None where nothing is on record of it."""
    scores: dict[int, dict[str, float]] = {}
    scored: dict[int, float] = {}
    losses: dict[int, float] = {}
    phases: dict[str, float] = {}
    own = [one for one in stretches if one.start < epochs]
    for one in own:
        # The record of a milestone has the losses of all its epochs, those before a pause too.
        for epoch, loss in enumerate(one.epoch_loss, one.from_epoch + 1):
            losses[epoch] = float(loss)
        for phase, seconds in one.phases.items():
            phases[phase] = phases.get(phase, 0.0) + seconds
        if isinstance(one, TaskDone):
            scores[one.to_epoch] = {name: float(value) for name, value in one.scores.items()}
            scored[one.to_epoch] = one.stopped
    when, failure = failed if failed is not None else (math.nan, None)
    lost = failure is not None and epochs not in scores
    if not own and not lost:
        return None
    starts, stops = [one.started for one in own], [one.stopped for one in own]
    if lost:
        starts, stops = [*starts, when], [*stops, when]
    return Fit(
        run,
        fold,
        dict(sorted(scores.items())),
        scored,
        {epoch: losses[epoch] for epoch in sorted(losses) if epoch <= epochs},
        phases,
        math.fsum(one.seconds for one in own),
        min(starts),
        max(*starts, *stops),
        f"{failure.failure}: {failure.reason}" if lost and failure is not None else "",
    )


def _failures(entries: Sequence[Entry]) -> dict[str, tuple[float, RunFailed]]:
    """Return when and how the runs failed that did not get through later on."""
    whole = facts.finished_runs(entries)
    return {
        record.run: (entry.time, record)
        for entry in entries
        if isinstance(record := entry.record, RunFailed) and record.run not in whole
    }


def _mean(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in scores for name in one)
    return {
        name: math.fsum(one.get(name, math.nan) for one in scores) / len(scores) for name in names
    }
