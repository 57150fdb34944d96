"""Strategies that learn from scores where to look next: Optuna's samplers, asked and told.

Nothing of Optuna's own memory counts. The trials are kept here (`Ledger`), and every proposal is
asked of a sampler made anew, seeded by the study and the trial's number: so a proposal follows from
the events before it, and an ask whose answer is not taken leaves no trace.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from stormsweep.config.study import SearchTable
from stormsweep.errors import StudyFileError
from stormsweep.search.proposals import Event, Known, Outcome, Proposal, Setting
from stormsweep.search.space import Interval, Space, Values
from stormsweep.search.strategies.ledger import Ledger
from stormsweep.search.strategies.untried import Untried
from stormsweep.work import Hyperparameters, identity

_SAMPLED_SEARCH = 0x5A3B1E
#: How often a sampler is asked for one trial before a point is drawn for it; a Gaussian process
#: takes a second an answer.
_ASKS, _SLOW_ASKS = 10, 4
#: Populations of NSGA-II: so many generations are aimed at, of so many trials.
_GENERATIONS, _LEAST, _MOST = 8, 8, 50


def make(search: SearchTable, space: Space, start: Setting) -> Sampled:
    """Make a strategy that asks Optuna; see `Sampled`.

    Raises
    ------
    StudyFileError
        If what the sampler needs is not installed.
    """
    if search.strategy == "gp" and find_spec("torch") is None:
        raise StudyFileError(
            'search.strategy: given "gp"; its Gaussian process is computed by PyTorch, which is '
            "not installed: pip install torch, or use tpe"
        )
    return Sampled(search.strategy, space, start)


@dataclass(frozen=True, slots=True)
class _Axis:
    """A hyperparameter as Optuna sees it: lists by the place of a value, numbers in order.

    Attributes
    ----------
    distribution : BaseDistribution
        For Optuna.
    values : list
        The values in the order of their places; empty for ranges.
    """

    distribution: BaseDistribution
    values: list[Any]

    @classmethod
    def of(cls, given: Values) -> _Axis:
        if isinstance(given, Interval):
            if given.integer:
                low, high = int(given.low), int(given.high)
                return cls(IntDistribution(low, high, log=given.log), [])
            return cls(FloatDistribution(given.low, given.high, log=given.log), [])
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in given):
            return cls(IntDistribution(0, len(given) - 1), sorted(given))
        return cls(CategoricalDistribution(range(len(given))), list(given))

    def param(self, value: Any) -> Any:
        """Return what stands for a value of the space."""
        if not self.values:
            return value
        kinds = [(type(one), one) for one in self.values]
        return kinds.index((type(value), value))

    def value(self, param: Any, given: Values) -> Any:
        """Return the value that Optuna's answer stands for."""
        return given.clipped(param) if isinstance(given, Interval) else self.values[param]

    @property
    def numeric(self) -> bool:
        """Whether nearer places are more alike, and there is more than one."""
        return not isinstance(self.distribution, CategoricalDistribution) and (
            not self.distribution.single()
        )


class Sampled:
    """Asks one of Optuna's samplers, one trial at a time, as soon as a worker has nothing to do.

    Trials without a score yet are known to the sampler as running. A point that was tried, or that
    breaks a constraint, is asked for again; where the sampler insists, an untried point is drawn.
    Failed trials count as worse than all others for TPE, and not at all for the others, until they
    were tried again with success. Of points
    that are known from elsewhere the best is proposed first, and any other if it is asked for.

    Parameters
    ----------
    name : {"tpe", "cma-es", "gp", "nsga2"}
        TPE: Bergstra et al., 2011, NeurIPS 24; multivariate: Falkner et al., 2018, ICML, PMLR 80.
        CMA-ES: Hansen, 2016, arXiv:1604.00772. Gaussian process with expected improvement: Jones et
        al., 1998, J. Global Optim. 13, 455-492. NSGA-II: Deb et al., 2002, IEEE Trans. Evol.
        Comput. 6, 182-197.
    space : Space
        The space.
    start : Setting
        Trials, folds, seed, objectives; the first of its epochs where the space has none.
    """

    def __init__(self, name: str, space: Space, start: Setting) -> None:
        self._name, self._space, self._start = name, space, start
        self._axes = {key: _Axis.of(values) for key, values in space.values.items()}
        self._order = space.names
        self._untried = Untried(space)
        self._wishes: dict[str, Hyperparameters] = {}
        self._numbers: set[int] = set()
        #: Trials of the ledger whose outcome is awaited, by the number of the proposal.
        self._awaited: dict[int, FrozenTrial | None] = {}
        #: Those that failed: what failed may be tried again.
        self._lost: dict[int, FrozenTrial] = {}
        #: Known points in the ledger, with how far their epochs are from those asked for.
        self._known: dict[str, tuple[int, FrozenTrial]] = {}
        #: Those of them that are not of this study.
        self._elsewhere: dict[str, Hyperparameters] = {}
        self._offer: tuple[Proposal, ...] | None = None
        #: The trial behind the offer, which joins the ledger when the offer is taken.
        self._asked: FrozenTrial | None = None
        self._ledger = Ledger()
        with _quiet():
            self._study = optuna.create_study(
                storage=self._ledger, directions=["maximize"] * start.objectives
            )

    # What samplers note at trials when asked is a part of the search for these two.
    @property
    def _notes(self) -> bool:
        return self._name in ("cma-es", "nsga2")

    def propose(self) -> Sequence[Proposal]:
        """Return the next trial; see `Strategy`."""
        if self._offer is None:
            point = None
            if len(self._numbers) < self._start.trials:
                point = next(iter(self._wishes.values()), None) or self._best() or self._ask()
            self._offer = () if point is None else (self._proposal(point),)
        return self._offer

    def take(self, event: Event) -> None:
        """Take in what happened; see `Strategy`."""
        match event:
            case Proposal():
                self._begin(event)
            case Outcome():
                if not self._end(event):
                    return
            case Known():
                self._learn(event)
        self._offer = self._asked = None

    def _begin(self, proposal: Proposal) -> None:
        """Take a proposal in, which may be another than the one that would come."""
        if proposal.trial in self._numbers:
            return
        said = self._space.whole(proposal.hyperparameters, proposal.epochs)
        point = self._space.fit(said)
        if point is not None and self._notes:
            self.propose()
        asked = self._asked
        self._numbers.add(proposal.trial)
        self._awaited[proposal.trial] = None
        name = identity(said if point is None else point)
        self._untried.discard(name)
        self._wishes.pop(name, None)
        if point is not None:
            trial = self._ledger.add(TrialState.RUNNING, *self._params(point))
            if asked is not None and self._notes:
                trial.system_attrs = asked.system_attrs
            else:
                self._found(trial)
            self._awaited[proposal.trial] = trial

    def _end(self, outcome: Outcome) -> bool:
        """Take in what came of a proposal; tell whether it says anything new."""
        number, sound = outcome.trial, self._sound(outcome.merits)
        again = self._lost.pop(number, None) if sound else None
        trial = self._awaited.pop(number, None) or again
        if trial is None:
            return False
        if sound:
            trial.state, trial.values = TrialState.COMPLETE, list(outcome.merits)
        else:
            trial.state = TrialState.PRUNED
            self._lost[number] = trial
        return True

    def _learn(self, known: Known) -> None:
        """Take in a known point, if it is one of the space."""
        point = self._space.fit(self._space.whole(known.hyperparameters, known.epochs))
        if point is None:
            return
        name = identity(point)
        if not known.merits:
            self._wishes.setdefault(name, point)
            return
        if not self._sound(known.merits):
            return
        # What is searched has a default among the fixed ones as well.
        space, values = self._space, known.hyperparameters
        fixed = {key: one for key, one in space.fixed.items() if key not in space.values}
        epochs = point.get("epochs", self._start.epochs[0])
        if (
            known.here
            and known.folds >= self._start.folds
            and known.epochs == epochs
            and all(fixed.get(key, one) == one for key, one in values.items())
        ):
            self._untried.discard(name)
        if not known.here:
            self._elsewhere.setdefault(name, point)
        distance = abs(known.epochs - epochs)
        if name not in self._known:
            trial = self._ledger.add(TrialState.COMPLETE, *self._params(point), known.merits)
            self._known[name] = distance, trial
            self._found(trial)
        elif distance < self._known[name][0]:
            self._known[name] = distance, self._known[name][1]
            self._known[name][1].values = list(known.merits)

    def _best(self) -> Hyperparameters | None:
        """Return the best known point, unless it was tried or is scored in this study.

        Of several objectives the first counts. Points of other epochs than those asked for count
        after all of the nearest.
        """
        if not self._elsewhere:
            return None

        def good(name: str) -> tuple[int, float]:
            distance, trial = self._known[name]
            return -distance, trial.values[0]

        point = self._elsewhere[max(self._elsewhere, key=good)]
        return point if self._untried.has(point) else None

    def _found(self, trial: FrozenTrial) -> None:
        """Count a trial that the sampler did not propose among the first generation."""
        if self._name == "nsga2":
            trial.system_attrs[NSGAIISampler._get_generation_key()] = 0

    def _ask(self) -> Hyperparameters | None:
        """Return an untried point that keeps to the constraints; None where there is none."""
        if self._untried.none:
            return None
        length, number = len(self._ledger.trials), self._next
        point: Hyperparameters | None = None
        trial: FrozenTrial | None = None
        try:
            with _quiet():
                for attempt in range(_SLOW_ASKS if self._name == "gp" else _ASKS):
                    # Answers that are no use stay for a while: they look like trials under way,
                    # near which there is nothing to be found.
                    point, trial = self._answer(self._seed(number, attempt))
                    if self._untried.has(point):
                        break
                    point = None
        except (ArithmeticError, ValueError, RuntimeError):
            point = None  # Numerical trouble of a sampler: a point that it did not choose, then.
        self._ledger.forget(length)
        if point is None:
            point = self._untried.draw(np.random.default_rng(self._seed(number, _ASKS)))
        self._asked = trial
        return point

    def _answer(self, seed: int) -> tuple[Hyperparameters, FrozenTrial]:
        self._study.sampler = self._sampler(seed)
        trial = self._study.ask()
        point: Hyperparameters = {}
        for name in self._order:
            if self._space.there(name, point):
                axis = self._axes[name]
                param = trial._suggest(name, axis.distribution)
                point[name] = axis.value(param, self._space.values[name])
        ordered = {name: point[name] for name in self._space.values if name in point}
        return ordered, self._ledger.trials[trial.number]

    def _sampler(self, seed: int) -> BaseSampler:
        trials = self._start.trials
        begin = min(10, max(5, trials // 4))
        match self._name:
            case "tpe":
                grouped = bool(self._space.when)
                return TPESampler(
                    seed=seed,
                    n_startup_trials=begin,
                    multivariate=True,
                    group=grouped,
                    constant_liar=True,
                )
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=begin)
            case "cma-es":
                return CmaEsSampler(
                    seed=seed, warn_independent_sampling=False, source_trials=self._sources()
                )
            case _:
                population = min(_MOST, max(_LEAST, trials // _GENERATIONS))
                return NSGAIISampler(seed=seed, population_size=population)

    def _sources(self) -> list[FrozenTrial] | None:
        """Return known points as a start for CMA-ES (Nomura et al., 2021, AAAI 35, 9188-9196)."""
        numeric = {
            name: axis.distribution
            for name, axis in self._axes.items()
            if axis.numeric and name not in self._space.when
        }
        sources = []
        for _, known in self._known.values():
            params = {name: known.params[name] for name in numeric}
            source = Ledger().add(TrialState.COMPLETE, params, numeric, known.values)
            sources.append(source)
        # Its best tenth counts: of fewer than ten, the best one.
        return sources * math.ceil(10 / len(sources)) if sources and numeric else None

    def _params(self, point: Hyperparameters) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        # Of CMA-ES all points have the same dimensions: what is there under a condition is drawn.
        left = self._space.when if self._name == "cma-es" else ()
        axes = {
            name: self._axes[name] for name in self._order if name in point and name not in left
        }
        params = {name: axis.param(point[name]) for name, axis in axes.items()}
        return params, {name: axis.distribution for name, axis in axes.items()}

    def _sound(self, merits: tuple[float, ...]) -> bool:
        return len(merits) == self._start.objectives and all(map(math.isfinite, merits))

    @property
    def _next(self) -> int:
        return max(self._numbers, default=-1) + 1

    def _proposal(self, point: Hyperparameters) -> Proposal:
        values = {name: value for name, value in point.items() if name != "epochs"}
        epochs = point.get("epochs", self._start.epochs[0])
        return Proposal(self._next, values, epochs, self._start.folds)

    def _seed(self, number: int, attempt: int) -> int:
        entropy = [self._start.seed, _SAMPLED_SEARCH, number, attempt]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


class Unasked(Sampled):
    """Draws points where `Sampled` asks Optuna: for a study foretold, whose scores are chance.

    It has as many trials as the sampler would have, and leaves out the same points.

    Parameters
    ----------
    space, start
        As in `Sampled`.
    """

    def __init__(self, space: Space, start: Setting) -> None:
        super().__init__("tpe", space, start)

    def _ask(self) -> Hyperparameters | None:
        return self._untried.draw(np.random.default_rng(self._seed(self._next, _ASKS)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from printing, for as long as it is asked here."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
