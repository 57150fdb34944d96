"""A strategy at work: its proposals become runs, and scores become its outcomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stormsweep.records import (
    PlanCut,
    Proposed,
    Record,
    RunFailed,
    RunPlanned,
    SearchEnded,
    StudyBegun,
    TaskDone,
)
from stormsweep.search.growth import beside, family
from stormsweep.search.plan import complete
from stormsweep.search.proposals import Known, Outcome, Proposal, Strategy
from stormsweep.work import Hyperparameters, Run, identity

#: Scores of a fit to what counts for the strategy, each turned so that more is better.
Merits = Callable[[Mapping[str, float]], tuple[float, ...]]


#: Where runs are trained in bundles, how many a worker a strategy is asked for ahead.
_AT_ONCE = 8


def ahead(idle: int, bundle: int) -> int:
    """Return how many tasks are to wait before a strategy is left alone.

    It is asked as late as can be, since with each score it knows better.

    Parameters
    ----------
    idle, bundle : int, int
        Workers without work, and runs of a bundle at most.
    """
    return idle * min(bundle, _AT_ONCE)


@dataclass(slots=True)
class _Awaited:
    """A proposal without an outcome: its runs' first names, and the folds that are not scored."""

    proposal: Proposal
    names: list[str]
    folds: set[int] = field(default_factory=set)


class Search:
    """What a study with a strategy that learns is to train, as far as anybody knows by now.

    Everything follows from the records taken in, in the order of the journal: a search that was
    stopped goes on with the very next proposal. Where the study got more folds since, what was
    proposed on all folds that there were counts as proposed on all that there are.

    Parameters
    ----------
    begin : callable
        Returns the strategy, anew; it must propose the same for the same events.
    fixed : dict
        Hyperparameters outside the space.
    folds : int
        Folds of the cross-validation.
    merits : callable
        What of a fit's scores counts.
    stops : iterable of int
        Epochs at which runs are scored on the way to a later one.
    known : sequence of Known
        Points whose scores are known from elsewhere.
    objectives : int
        How many merits an outcome has.
    first_folds : int, optional
        On how many folds trials are first scored: such proposals stay as they were.
    """

    def __init__(
        self,
        begin: Callable[[], Strategy],
        fixed: Hyperparameters,
        folds: int,
        merits: Merits,
        stops: Iterable[int] = (),
        known: Sequence[Known] = (),
        first_folds: int | None = None,
        objectives: int = 1,
    ) -> None:
        self.objectives = objectives
        self._begin, self._fixed, self._folds = begin, fixed, folds
        self._merits, self._stops, self._known = merits, sorted(set(stops)), known
        #: How many folds there were as the journal has it by now.
        self._first_folds, self._there = first_folds, folds
        #: All runs by id, in the order in which they came up, each with all its milestones.
        self.runs: dict[str, Run] = {}
        self._first: dict[str, str] = {}
        #: Merits of what is scored, by a run's first name and epoch.
        self._scored: dict[tuple[str, int], tuple[float, ...]] = {}
        self._failed: set[str] = set()
        #: What the strategy proposed, of which trials, and the runs that serve it.
        self._proposed: set[tuple[int, int, int]] = set()
        self._trials: set[int] = set()
        self._wanted: set[str] = set()
        self._awaited: dict[tuple[int, int, int], _Awaited] = {}
        #: Those that failed: their runs may be tried again.
        self._lost: dict[tuple[int, int, int], _Awaited] = {}
        #: Which proposals wait for a run, by its first name; those that failed too.
        self._waiting: dict[str, set[tuple[int, int, int]]] = {}
        #: Whether it is on record that there is nothing more to propose.
        self.ended = False
        self._name = ""
        self._strategy = self._anew()

    def _anew(self) -> Strategy:
        strategy = self._begin()
        for point in self._known:
            strategy.take(point)
        return strategy

    def wanted(self, reached: Mapping[str, int]) -> list[Run]:
        """Return the runs that the strategy proposed, and others that are trained to their end.

        What another strategy left half trained before is not gone on with.

        Parameters
        ----------
        reached : mapping of str to int
            Run to its last milestone on record.
        """
        return [
            run
            for run in self.runs.values()
            if run.id in self._wanted or reached.get(run.id, 0) >= run.milestones[-1]
        ]

    @property
    def trials(self) -> int:
        """How many trials the strategy has proposed."""
        return len(self._trials)

    @property
    def scores(self) -> dict[int, list[tuple[float, ...]]]:
        """The merits of fits that are scored, by epoch."""
        found: dict[int, list[tuple[float, ...]]] = {}
        for (_, epoch), merits in self._scored.items():
            if merits:
                found.setdefault(epoch, []).append(merits)
        return found

    def like(self, run: Run, epoch: int) -> tuple[float, ...]:
        """Return the mean merits of a run's configuration on all folds that are scored.

        At the epoch, or the last one before it that any fold is scored at; empty: there is none.
        """
        own = self._first[run.id].rpartition("-f")[0]
        for stop in sorted((stop for stop in run.milestones if stop <= epoch), reverse=True):
            folds = (self._scored.get((f"{own}-f{fold}", stop)) for fold in range(self._folds))
            if there := [merits for merits in folds if merits]:
                return _mean(there)
        return ()

    @property
    def over(self) -> bool:
        """Whether the strategy has nothing more to propose and waits for nothing."""
        return not self._awaited and not self._strategy.propose()

    def more(self) -> tuple[list[Proposed], list[Run]]:
        """Ask the strategy once, and take in what it proposes.

        Returns
        -------
        tuple of list of Proposed and list of Run
            For the journal; and the runs that are new or have further milestones. There are none
            where all that was proposed is scored already: ask again. Both are empty where there is
            nothing before another outcome.
        """
        proposed: list[Proposed] = []
        changed: dict[str, Run] = {}
        for proposal in self._strategy.propose():
            changed |= {run.id: run for run in self._take_proposal(proposal)}
            told = dict(proposal.hyperparameters), proposal.epochs, proposal.folds
            proposed.append(Proposed(proposal.trial, *told))
        return proposed, list(changed.values())

    def take(self, record: Record) -> list[Run]:
        """Take in the next record of the journal, or of this session.

        Returns
        -------
        list of Run
            The runs that are new or have further milestones by it.
        """
        match record:
            case TaskDone() as done if done.run in self._first:
                self.scored(done.run, done.to_epoch, self._merits(done.scores))
            case RunFailed(run=run) if run in self._first:
                self.given_up(run)
            case RunPlanned() as plan:
                return self._plan(plan)
            case Proposed(trial, hyperparameters, epochs, folds):
                if folds == self._there != self._first_folds:
                    folds = self._folds
                proposal = Proposal(trial, hyperparameters, epochs, folds)
                if (trial, epochs, folds) not in self._proposed:
                    return self._take_proposal(proposal)
            case SearchEnded():
                self.ended = True
            case PlanCut(runs=left):
                for run, last in left.items():
                    self._cut(run, last)
            case StudyBegun(strategy=name, folds=folds):
                self.go_by(name)
                if folds > self._there:
                    self.ended = False
                self._there = folds
            case _:
                pass
        return []

    def go_by(self, strategy: str) -> None:
        """Say by which strategy the study goes from now on; see `take`."""
        if self._name and strategy != self._name:
            self._another()
        self._name = strategy

    def drop(self, reached: Mapping[str, int]) -> dict[str, int]:
        """Leave runs that the strategy did not ask for where they are.

        Parameters
        ----------
        reached : mapping of str to int
            Run to its last milestone on record.

        Returns
        -------
        dict of str to int
            As in `PlanCut`.
        """
        left = {
            run.id: reached.get(run.id, 0)
            for run in self.runs.values()
            if run.id not in self._wanted
            and reached.get(run.id, 0) < run.milestones[-1]
            # Others are named after it.
            and f"{run.id}.1" not in self.runs
        }
        for run, last in left.items():
            self._cut(run, last)
        return left

    def _cut(self, name: str, last: int) -> None:
        if (run := self.runs.get(name)) is None:
            return
        self._failed.discard(name)
        stops = tuple(epoch for epoch in run.milestones if epoch <= last)
        if stops:
            self.runs[name] = replace(run, milestones=stops)
        else:
            del self.runs[name], self._first[name]

    def _another(self) -> None:
        """Begin with another strategy: what was scored until now are points that it knows."""
        for kept in (
            self._awaited,
            self._lost,
            self._waiting,
            self._proposed,
            self._trials,
            self._wanted,
        ):
            kept.clear()
        self._strategy, self.ended = self._anew(), False
        for point in self._points():
            self._strategy.take(point)

    def _points(self) -> list[Known]:
        """Return the configurations that are scored on all folds."""
        folds: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        points: dict[tuple[str, int], Hyperparameters] = {}
        for (name, epochs), merits in self._scored.items():
            run = self.runs[name]
            key = identity(run.hyperparameters), epochs
            points[key] = run.hyperparameters
            folds.setdefault(key, []).append(merits)
        return [
            Known(points[key], key[1], self._folds, _mean(merits), here=True)
            for key, merits in folds.items()
            if len(merits) >= self._folds and all(merits)
        ]

    def _plan(self, plan: RunPlanned) -> list[Run]:
        before = self.runs.get(plan.run)
        stops = {*plan.milestones, *(before.milestones if before else ())}
        run = Run(plan.run, plan.hyperparameters, plan.fold, tuple(sorted(stops)))
        if run == before:
            return []
        self._keep(run, f"{identity(plan.hyperparameters)}-f{plan.fold}")
        return [run]

    def _keep(self, run: Run, first: str) -> None:
        self.runs[run.id], self._first[run.id] = run, first

    def _take_proposal(self, proposal: Proposal) -> list[Run]:
        self._strategy.take(proposal)
        self.ended = False
        values = {**complete(self._fixed), **proposal.hyperparameters}
        values.pop("epochs", None)
        own = identity(values)
        stops = {stop for stop in self._stops if stop <= proposal.epochs} | {proposal.epochs}
        waits = _Awaited(proposal, [f"{own}-f{fold}" for fold in range(proposal.folds)])
        changed: list[Run] = []
        for fold, first in enumerate(waits.names):
            for run in beside(self.runs, Run(first, values, fold, tuple(sorted(stops)))):
                self._keep(run, first)
                changed.append(run)
            serving = [run for run in family(self.runs, first) if proposal.epochs in run.milestones]
            self._wanted |= {run.id for run in serving}
            if (first, proposal.epochs) not in self._scored:
                waits.folds.add(fold)
                # Planned before, and not trained: it waits for nobody else.
                changed += [run for run in serving if run not in changed]
        key = (proposal.trial, proposal.epochs, proposal.folds)
        self._proposed.add(key)
        self._trials.add(proposal.trial)
        self._awaited[key] = waits
        for first in waits.names:
            self._waiting.setdefault(first, set()).add(key)
        if self._hopeless(waits) or not waits.folds:
            self._settle(key)
            return [run for run in changed if run.id not in self._failed]
        return changed

    def _hopeless(self, waits: _Awaited) -> bool:
        """Tell whether a run that the proposal waits for has failed before its epoch."""
        return any(
            run.id in self._failed and waits.proposal.epochs in run.milestones
            for fold in waits.folds
            for run in family(self.runs, waits.names[fold])
        )

    def scored(self, run: str, epoch: int, merits: tuple[float, ...]) -> None:
        """Take in the score of a run at one of its milestones; see `take`."""
        first = self._first[run]
        self._failed.discard(run)
        self._scored[first, epoch] = merits if all(map(math.isfinite, merits)) else ()
        for key in list(self._waiting.get(first, ())):
            waits = self._awaited.get(key) or self._lost[key]
            if waits.proposal.epochs == epoch:
                waits.folds.discard(self.runs[run].fold)
                if not waits.folds:
                    self._settle(key)

    def given_up(self, run: str) -> None:
        """Take in that a run failed; see `take`."""
        self._failed.add(run)
        for key in list(self._waiting.get(self._first[run], ())):
            if key in self._awaited and self._hopeless(self._awaited[key]):
                self._settle(key)

    def _settle(self, key: tuple[int, int, int]) -> None:
        """Tell the strategy what came of a proposal, or of one that had failed."""
        again = self._lost.pop(key, None)
        waits = again or self._awaited.pop(key)
        merits: tuple[float, ...] = ()
        if waits.folds:
            self._lost[key] = waits
        else:
            for first in waits.names:
                self._waiting[first].discard(key)
            each = [self._scored[first, waits.proposal.epochs] for first in waits.names]
            merits = _mean(each) if all(each) else ()
        if merits or again is None:
            self._strategy.take(Outcome(*key, merits))


def _mean(merits: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Return the means over folds of each objective."""
    return tuple(math.fsum(each) / len(merits) for each in zip(*merits, strict=True))
