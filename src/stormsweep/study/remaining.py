"""What a study is to train, and what of it is left: its file and its journal laid side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stormsweep.config.growth import DEFAULTS
from stormsweep.config.strategies import BUILT_IN, HALVING, LEARNING
from stormsweep.config.study import METRICS, StudyFile
from stormsweep.records import Entry, PlanCut
from stormsweep.results.progress import Progress
from stormsweep.search.expected import expected, further
from stormsweep.search.growth import fitted
from stormsweep.search.plan import Plan, complete, make_plan
from stormsweep.search.proposals import Known, Strategy
from stormsweep.search.search import Merits, Search
from stormsweep.search.space import DEFAULT_EPOCHS, Space
from stormsweep.search.strategies import known_ahead, make, setting
from stormsweep.work import Hyperparameters, Run, identity


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is to be trained.

    Attributes
    ----------
    plan : Plan
        All runs; where a strategy learns from scores, about what it will come to.
    search : Search or None
        Where a strategy learns: it has taken in the journal.
    progress : Progress
        What the journal says of the runs, without what is dropped.
    whole : Plan
        All runs, where only a part of them is to be trained now.
    dropped : dict of str to int
        Runs that nothing needs any more since the study changed; as in `records.PlanCut`.
    """

    plan: Plan
    search: Search | None
    progress: Progress
    whole: Plan
    dropped: dict[str, int] = field(default_factory=dict)

    def left(self, retry_failed: bool) -> bool:
        """Tell whether anything is left to train.

        Parameters
        ----------
        retry_failed : bool
            Whether runs that failed are tried again.
        """
        runs: Iterable[Run] = self.plan.runs
        if self.search is not None:
            if not self.search.over:
                return True
            runs = self.search.wanted(self.progress.reached)
        return bool(runs_left(runs, self.progress, retry_failed))

    def ahead(self, file: StudyFile, entries: Iterable[Entry]) -> Plan:
        """Return the plan; where a strategy learns, what it has asked for and may still ask for.

        From where the journal leaves it, it is gone on with, with scores like those on record: what
        it will ask for, only scores will say, but how much that is depends on them little.

        Parameters
        ----------
        file : StudyFile
            The study.
        entries : iterable of Entry
            The journal that this was read from.
        """
        search, reached = self.search, self.progress.reached
        if search is None or not search.runs:
            return self.plan
        runs = search.wanted(reached)
        if not search.over:
            blind = blind_search(file, begun=True)
            for entry in entries:
                blind.take(entry.record)
            blind.go_by(file.search.strategy)
            blind.drop(reached)
            runs = further(blind, reached, self.progress.failed, file.study.seed)
        return replace(self.plan, runs=tuple(runs))


def remaining(
    file: StudyFile, entries: Iterable[Entry], known: Callable[[], Sequence[Known]] = list
) -> Remaining:
    """Read what is left of a study.

    Parameters
    ----------
    file : StudyFile
        The study as it is now: it may have grown since some of it was trained.
    entries : iterable of Entry
        Its journal.
    known : callable
        Reads points whose scores are known from elsewhere; asked only where a strategy learns.
    """
    search, progress = search_of(file, known), Progress()
    for entry in entries:
        progress.take(entry)
        if search is not None:
            search.take(entry.record)
    plan = plan_of(file, progress)
    if search is not None:
        search.go_by(file.search.strategy)
        dropped = search.drop(progress.reached)
    else:
        dropped = _dropped(plan, progress)
    progress.take(Entry(0.0, PlanCut(dropped)))
    return Remaining(plan, search, progress, plan, dropped)


def _dropped(plan: Plan, progress: Progress) -> dict[str, int]:
    """Return the runs on record that are unfinished and not in a plan; see `PlanCut`.

    Those that failed are among them: nobody needs them to be tried again.
    """
    here, reached = {run.id for run in plan.runs}, progress.reached
    return {
        name: reached.get(name, 0)
        for name, run in progress.planned.items()
        if name not in here and reached.get(name, 0) < run.milestones[-1]
    }


def plan_of(file: StudyFile, progress: Progress | None = None) -> Plan:
    """Return the runs of a study, or, where a strategy learns, about what it will come to.

    Parameters
    ----------
    file : StudyFile
        The study.
    progress : Progress, optional
        What is on record: runs that are known keep their milestones and get those that are new.
    """
    search, fixed, folds = file.search, dict(file.model.parameters), file.validation.total
    seed = file.study.seed
    if not known_ahead(search):
        return expected(blind_search(file), fixed, folds, seed)
    points = [
        {**proposal.hyperparameters, "epochs": proposal.epochs}
        for proposal in make(search, fixed, folds, seed).propose()
    ]
    if progress is None:
        return make_plan(points, fixed, folds)
    known = {
        name: Run(name, run.hyperparameters, run.fold, tuple(run.milestones))
        for name, run in progress.planned.items()
    }
    if search.strategy != "grid":
        least = progress.folds_at_first or folds
        points = _with_known(
            points, known.values(), progress.reached, (least, folds), search.trials, fixed
        )
    return fitted(make_plan(points, fixed, folds), known)


def _with_known(
    points: list[Hyperparameters],
    known: Iterable[Run],
    reached: Mapping[str, int],
    folds: tuple[int, int],
    trials: int,
    fixed: Hyperparameters,
) -> list[Hyperparameters]:
    """Return what is scored on all folds, of an earlier space too, and others as are left.

    `folds` are those that the study began with and those that there are now. What is scored on all
    of the first is not begun anew for the rounds that were added since: it goes on with these, as
    far as there are trials for it, first what has the most folds.
    """
    asked = [{**complete(fixed), **point} for point in points]
    here = {identity(point): point for point in asked}
    scored: dict[str, set[int]] = {}
    trained: dict[str, Hyperparameters] = {}
    for run in known:
        for epochs in run.milestones:
            point = {**run.hyperparameters, "epochs": epochs}
            if reached.get(run.id, 0) >= epochs:
                trained[name := identity(point)] = point
                scored.setdefault(name, set()).add(run.fold)
    first, now = folds
    found = [name for name, own in scored.items() if own.issuperset(range(first))]
    found.sort(key=lambda name: -len(scored[name]))
    whole = sum(len(scored[name]) == now for name in found)
    before = {name: trained[name] for name in found[: max(trials, whole)]}
    ours = [point for name, point in here.items() if name in before]
    others = [point for name, point in before.items() if name not in here]
    fresh = [point for name, point in here.items() if name not in before]
    return [*others, *ours, *fresh[: max(0, trials - len(before))]]


def blind_search(file: StudyFile, begun: bool = False) -> Search:
    """Return the search of a study whose scores are chance.

    Where there is nothing to learn from, it may as well draw by chance, which takes no time.

    Parameters
    ----------
    file : StudyFile
        The study.
    begun : bool
        Whether it will take in what is on record first: it then proposes nothing that the study
        has already, as a strategy that learns does.
    """
    search, fixed, folds = file.search, dict(file.model.parameters), file.validation.total
    seed, objectives = file.study.seed, search.objectives or [search.metric]
    key = "sampler" if search.strategy in HALVING else "strategy"
    # A plug-in's own points are not known before there are scores.
    learns = getattr(search, key) in LEARNING or getattr(search, key) not in BUILT_IN
    blind = search.model_copy(update={key: "random", "objectives": []} if learns else {})

    def begin() -> Strategy:
        if not begun or search.strategy not in LEARNING:
            return make(blind, fixed, folds, seed)
        from stormsweep.search.strategies.sampled import Unasked  # Optuna, which is there by then.

        return Unasked(Space.of(search, fixed), setting(search, fixed, folds, seed))

    return Search(
        begin,
        fixed,
        folds,
        merits_of(objectives),
        stops_of(file),
        first_folds=search.first_folds,
        objectives=len(objectives),
    )


def search_of(file: StudyFile, known: Callable[[], Sequence[Known]] = list) -> Search | None:
    """Return the search of a study whose strategy learns from scores; None for others."""
    search, fixed, folds = file.search, dict(file.model.parameters), file.validation.total
    if known_ahead(search):
        return None
    return Search(
        lambda: make(search, fixed, folds, file.study.seed),
        fixed,
        folds,
        merits_of(search.objectives or [search.metric]),
        stops_of(file),
        known(),
        first_folds=search.first_folds,
        objectives=len(search.objectives or [search.metric]),
    )


def names_of(file: StudyFile) -> list[str]:
    """Return the names of all hyperparameters, those that are there under a condition only too."""
    return sorted({*DEFAULTS, *file.model.parameters, *file.search.space})


def stops_of(file: StudyFile) -> list[int]:
    """Return the epochs at which a run is scored on its way: those that the space lists."""
    values: Any = file.search.space.get("epochs")
    fixed: Any = file.model.parameters.get("epochs", DEFAULT_EPOCHS)
    listed = values if isinstance(values, list) else ([] if values is not None else [fixed])
    return sorted(listed)


def merits_of(objectives: list[str]) -> Merits:
    """Return what turns the scores of a fit into merits: more is better.

    Parameters
    ----------
    objectives : list of str
        Names of scores.
    """
    signs = {name: 1.0 if METRICS[name] == "maximize" else -1.0 for name in objectives}

    def merits(scores: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(sign * scores.get(name, float("nan")) for name, sign in signs.items())

    return merits


def runs_left(runs: Iterable[Run], progress: Progress, retry_failed: bool = False) -> list[Run]:
    """Return the runs that are neither at their last milestone nor given up."""
    reached, given_up = progress.reached, () if retry_failed else progress.failed
    return [
        run
        for run in runs
        if reached.get(run.id, 0) < run.milestones[-1] and run.id not in given_up
    ]
