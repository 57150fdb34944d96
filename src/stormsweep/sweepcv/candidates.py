"""Which candidates are tried: from a grid or a space, by a strategy."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError
from sklearn.model_selection import ParameterGrid, ParameterSampler

from stormsweep.config.expressions import parse
from stormsweep.config.space_checks import check_constraints
from stormsweep.config.strategies import BUILT_IN, HALVING, KNOWN_AHEAD
from stormsweep.config.study import Range, SearchTable
from stormsweep.errors import StudyFileError, UserError, nearest
from stormsweep.search.proposals import Event, Proposal, Setting, Strategy
from stormsweep.search.space import Interval, Space, size
from stormsweep.search.strategies import begin

Parameters = dict[str, Any]
#: What `param_grid` may be: one space, or several of which each candidate is of one.
Spaces = Mapping[str, Any] | Sequence[Mapping[str, Any]]
#: Candidates of a search that learns or draws, where nobody says how many; as RandomizedSearchCV.
TRIALS = 10
#: Strategies take `epochs` for their own; a parameter of that name goes by another.
_EPOCHS, _RENAMED = re.compile(r"\bepochs\b"), "epochs_"
#: Which of several spaces a candidate is of.
_WHICH = "space"
#: Spaces with constraints are counted up to this size.
_COUNTABLE = 100_000
#: A split is trained whole or not at all: there is one epoch.
_EPOCH = 1


@dataclass(frozen=True, slots=True)
class Chooser:
    """A strategy, and the parameters that its proposals stand for.

    Attributes
    ----------
    strategy : Strategy
        Proposes.
    most : int
        How many candidates there are at most.
    values : mapping, optional
        Parameters whose values are no numbers or texts, by what the strategy knows them by.
    names : mapping of str to str, optional
        Parameters by what the strategy calls them; empty: it knows all as they are.
    """

    strategy: Strategy
    most: int
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def parameters(self, proposal: Proposal) -> Parameters:
        """Return the parameters of a candidate."""
        if not self.names:
            return proposal.hyperparameters
        return {
            self.names[name]: self.values[name][value] if name in self.values else value
            for name, value in proposal.hyperparameters.items()
            if name in self.names
        }


class Listed:
    """A strategy whose candidates are known from the first: a grid's, or drawn ones.

    Parameters
    ----------
    points : sequence of dict
        The candidates, in order; any may come twice.
    splits : int
        Splits of the cross-validation.
    """

    def __init__(self, points: Sequence[Parameters], splits: int) -> None:
        self._proposals = [
            Proposal(trial, point, _EPOCH, splits) for trial, point in enumerate(points)
        ]
        self._begun = 0

    def propose(self) -> Sequence[Proposal]:
        """Return all candidates that are not begun."""
        return self._proposals[self._begun :]

    def take(self, event: Event) -> None:
        """Take in what happened."""
        if isinstance(event, Proposal):
            self._begun = max(self._begun, event.trial + 1)


def chooser(
    name: str,
    spaces: Spaces,
    trials: int | None,
    seed: int | np.random.RandomState,
    splits: int,
    objectives: int = 1,
    constraints: Sequence[str] = (),
) -> Chooser:
    """Return what chooses the candidates of a search.

    Parameters
    ----------
    name : str
        Of the strategy. A grid has scikit-learn's order (`ParameterGrid`), and a random search
        without constraints draws what `RandomizedSearchCV` draws with the same seed
        (`ParameterSampler`).
    spaces : mapping or sequence of mappings
        Parameters, each with a list of values, a distribution of SciPy's (random search), or an
        `Interval`.
    trials : int, optional
        How many candidates; default: of a grid all, else `TRIALS`.
    seed : int or RandomState
        Of the strategy.
    splits : int
        Splits of the cross-validation.
    objectives : int
        How many merits an outcome has.
    constraints : sequence of str
        What must hold among parameters.

    Raises
    ------
    TypeError, ValueError
        If the space is none; scikit-learn's own words.
    UserError
        If the strategy does not take such a space.
    """
    listed = [spaces] if isinstance(spaces, Mapping) else list(spaces)
    if name == "grid":
        return _grid(listed, splits, trials, constraints)
    trials = TRIALS if trials is None else int(trials)
    listed = [
        {
            key: _sound(key, values) if isinstance(values, Interval) else values
            for key, values in space.items()
        }
        for space in listed
    ]
    if name == "random" and not constraints:
        drawn = [
            {
                key: _Drawn(values) if isinstance(values, Interval) else values
                for key, values in space.items()
            }
            for space in listed
        ]
        points = list(ParameterSampler(drawn, trials, random_state=seed))
        return Chooser(Listed(points, splits), len(points))
    if isinstance(seed, np.random.RandomState):
        seed = int(seed.randint(2**31))
    return _learning(name, listed, trials, seed, splits, objectives, constraints)


def _sound(key: str, given: Interval) -> Interval:
    """Return a range with plain numbers.

    Raises
    ------
    UserError
        If it is none.
    """
    plain = {name: _item(value) for name, value in dataclasses.asdict(given).items()}
    try:
        Range.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["param_grid", key, *map(str, first["loc"])])
        raise UserError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
    return Interval(**plain)


def _grid(
    spaces: list[Mapping[str, Any]], splits: int, trials: int | None, constraints: Sequence[str]
) -> Chooser:
    if trials is not None:
        raise UserError(f"trials: given {trials}; a grid has as many candidates as it has")
    if constraints:
        raise UserError("constraints: not for a grid; leave the candidates out of param_grid")
    for space in spaces:
        for key, values in space.items():
            if isinstance(values, Interval):
                raise UserError(
                    f"param_grid: {key} is a range; strategy='grid' needs lists, strategy='random' "
                    "draws from ranges"
                )
    points = list(ParameterGrid(spaces))
    return Chooser(Listed(points, splits), len(points))


def _learning(
    name: str,
    spaces: list[Mapping[str, Any]],
    trials: int,
    seed: int,
    splits: int,
    objectives: int,
    constraints: Sequence[str],
) -> Chooser:
    """Return a strategy of `stormsweep.search.strategies`, and what its proposals stand for."""
    allowed = [known for known in BUILT_IN if known not in HALVING]
    if name in HALVING:
        raise UserError(
            f"strategy: given {name!r}, which goes by epochs; allowed are {', '.join(allowed)}"
        )
    if name not in allowed:
        raise UserError(
            f"strategy: given {name!r}{nearest(name, allowed)}; allowed are {', '.join(allowed)}"
        )
    if constraints and len(spaces) > 1:
        raise UserError("constraints: param_grid is a list; they are for one dict")
    told = _Told(name, len(spaces))
    for number, space in enumerate(spaces):
        for key, values in space.items():
            told.add(key, values, number if len(spaces) > 1 else None)
    if len(spaces) > 1:
        told.space[_WHICH] = list(range(len(spaces)))
    try:
        table = SearchTable.model_validate(
            {
                "strategy": name,
                "trials": trials,
                "space": told.space,
                "constraints": [_EPOCHS.sub(_RENAMED, text) for text in constraints],
            }
        )
        searched = _constrained(table, told)
    except ValueError as error:
        raise UserError(_in_our_words(error)) from None
    try:
        strategy = begin(table, searched, Setting((_EPOCH,), splits, trials, seed, objectives))
    except StudyFileError as error:
        raise UserError(_in_our_words(error)) from None
    most = len(strategy.propose()) if name in KNOWN_AHEAD else _most(told, searched, trials)
    return Chooser(strategy, most, told.values, told.names)


def _most(told: _Told, searched: Space, trials: int) -> int:
    """Return how many candidates a strategy comes to at most, as far as that is quickly known."""
    if not searched.constraints:
        return int(min(trials, sum(told.sizes)))
    if searched.listed and size(searched.values) <= _COUNTABLE:
        return sum(1 for _ in itertools.islice(searched.grid(), trials))
    return trials


def _constrained(table: SearchTable, told: _Told) -> Space:
    """Return the space, whose constraints are about the values that texts stand for.

    Raises
    ------
    ValueError
        If constraints name what is not there, cannot be computed, or leave nothing.
    """
    meant: dict[str, dict[str, Any]] = {}
    for expression in map(parse, table.constraints):
        for name in expression.names & told.values.keys():
            meant[name] = {text: _compared(one) for text, one in told.values[name].items()}
    check_constraints(table, {}, meant)
    constraints = tuple(parse(text, meant) for text in table.constraints)
    return dataclasses.replace(Space.of(table, {}), constraints=constraints)


def _compared(value: Any) -> Any:
    """Return a value as constraints say it, which have lists for tuples.

    Raises
    ------
    ValueError
        If no constraint could say it.
    """
    if isinstance(value, list | tuple):
        return [_compared(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str | Mapping):
        return value
    raise ValueError(
        f"search.constraints: they name a parameter whose list holds a {type(value).__name__}; "
        "they compare numbers, texts, None, and lists and tuples of these"
    )


def _in_our_words(error: ValueError | StudyFileError) -> str:
    """Return what is wrong with a search as its caller knows it: not by keys of a study file."""
    text = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("<"))
        said = first["msg"].removeprefix("Value error, ")
        text = said if said.startswith("search.") or not place else f"search.{place}: {said}"
    text = text.replace("search.space", "param_grid").replace("search.", "")
    return re.sub(rf"\b{_RENAMED}\b", "epochs", text)


class _Told:
    """What a strategy is told of spaces: plain values, and each parameter by a name of its own."""

    def __init__(self, strategy: str, spaces: int) -> None:
        self._strategy = strategy
        #: How many combinations each space has.
        self.sizes = [1.0] * spaces
        #: As in a study file.
        self.space: dict[str, Any] = {}
        self.values: dict[str, dict[str, Any]] = {}
        self.names: dict[str, str] = {}

    def add(self, key: str, given: Any, number: int | None) -> None:
        """Tell of a parameter; of several spaces, it is there in that of a number only."""
        name = _EPOCHS.sub(_RENAMED, key) if number is None else f"{number}.{key}"
        self.names[name] = key
        when = {} if number is None else {"when": {_WHICH: [number]}}
        if isinstance(given, Interval):
            self.space[name] = dataclasses.asdict(given) | when
            self.sizes[number or 0] *= size({name: given})
            return
        if hasattr(given, "rvs") or isinstance(given, str) or not hasattr(given, "__iter__"):
            raise UserError(
                f"param_grid: {key}: given {given!r}; strategy={self._strategy!r} takes lists and "
                "stormsweep.Interval; distributions are for 'random' without constraints"
            )
        values = list(map(_item, given))
        if not values:
            raise ValueError(f"Parameter grid for parameter {key!r} need a non-empty sequence")
        if not all(map(_plain, values)):
            # What is no number or text goes by one.
            self.values[name] = {f"{n}: {one!r}"[:80]: one for n, one in enumerate(values)}
            values = list(self.values[name])
        self.sizes[number or 0] *= len(values)
        self.space[name] = {"values": values} | when if when else values


def _item(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _plain(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int | str)


class _Drawn:
    """An `Interval` as scikit-learn's sampler asks for one: a distribution."""

    def __init__(self, interval: Interval) -> None:
        self._interval = interval

    def rvs(self, random_state: np.random.RandomState) -> float | int:
        return self._interval.draw(np.random.default_rng(random_state.randint(2**31)))


def known_space(spaces: Spaces) -> Iterator[tuple[str, Any]]:
    """Yield every parameter of a space with its values, for a fingerprint."""
    for number, space in enumerate([spaces] if isinstance(spaces, Mapping) else spaces):
        for key, values in sorted(space.items()):
            if isinstance(values, Interval):
                yield f"{number}.{key}", repr(values)
            else:
                yield f"{number}.{key}", values if hasattr(values, "rvs") else list(values)
