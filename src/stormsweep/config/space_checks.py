"""What makes no sense in ``[search]``: each mistake is a ValueError that names its key."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stormsweep.config.conditions import among, kept, parents_first
from stormsweep.config.expressions import Expression, Meanings, parse
from stormsweep.config.strategies import BUILT_IN, HALVING, KNOWN_AHEAD, plugins
from stormsweep.errors import nearest

if TYPE_CHECKING:
    from stormsweep.config.study import SearchTable

#: Points that are tried to find one that keeps to all constraints.
_POINTS = 10_000
#: Points at which constraints must be computable before one that keeps to them is good enough.
_COMPUTED = 500
#: What no training can do without: these have no conditions.
_ALWAYS = ("batch_size", "epochs")
#: What the engine gives the optimizer of a model that its builder leaves uncompiled.
_RATE = "learning_rate"


def check_strategy(name: str) -> None:
    """Refuse a strategy that nobody knows."""
    if name in BUILT_IN:
        return
    known = [*BUILT_IN, *plugins()]
    if name not in known:
        raise ValueError(f"must be one of {', '.join(known)}{nearest(name, known)}")


def check_search(search: SearchTable) -> None:
    """Refuse keys and values of ``[search]`` that do not go together."""
    strategy = search.strategy
    if strategy in BUILT_IN:
        _check_keys(search)
    _check_objectives(search)
    samples = samples_of(search)
    for name, given in search.space.items():
        if not isinstance(given, list) and not hasattr(given, "values") and samples == "grid":
            raise ValueError(
                f"search.space.{name}: given a range; a grid needs a list of values; "
                "all other strategies take ranges"
            )
    _check_conditions(search)
    if strategy in HALVING:
        _check_milestones(search)
    if samples == "cma-es" and not any(map(_numeric, search.space.values())):
        raise ValueError(
            'search.strategy: given "cma-es", which moves along numbers; search.space must have '
            "a range or a list of numbers without a condition"
        )
    for text in search.constraints:
        _parsed(text)


def check_meant(search: SearchTable, folds: int, fixed: Mapping[str, Any]) -> None:
    """Refuse what could be carried out, but is hardly meant.

    A file that says it can be read: a study that was begun with it keeps its name and its scores.

    Parameters
    ----------
    search : SearchTable
        ``[search]`` of a study that is not begun yet.
    folds : int
        Of all rounds together.
    fixed : mapping
        Hyperparameters that are not searched: ``[model.parameters]``.
    """
    if _RATE in fixed:
        _check_rate(f"model.parameters.{_RATE}", fixed[_RATE])
    for name, given in search.space.items():
        key, values = f"search.space.{name}", list[Any]()
        if isinstance(given, list):
            values = given
        elif hasattr(given, "values"):
            key, values = f"{key}.values", given.values
        else:
            key, values = f"{key}.low", [given.low]
        for value in values if name == _RATE else ():
            _check_rate(key, value)
        _check_kinds(key, values)
    epochs = search.space.get("epochs")
    alone = isinstance(epochs, list) and len(epochs) == 1
    if search.strategy in HALVING and alone and (search.first_folds or folds) == folds:
        raise ValueError(
            f"search.space.epochs: given {epochs!r}, where no trial can be dropped; "
            f"{search.strategy} needs two or more, such as [1, 3, 9], or search.first_folds below "
            f"{folds}"
        )


def _check_rate(key: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or value <= 0:
        quotes = ", without quotes" if isinstance(value, str) else ""
        raise ValueError(f"{key}: given {value!r}; must be a number above 0{quotes}")


def _check_kinds(key: str, values: list[Any]) -> None:
    """Refuse a list in which a number or a truth value stands in quotes, or beside the other.

    Where all are numbers in quotes, they would have no order.

    Other texts may stand beside them, and false beside numbers but 0, which it equals: off, or so
    much of it. TOML has no word for none.
    """
    if all(isinstance(one, str) and _spells_number(one) for one in values):
        raise ValueError(f"{key}: given {values!r}; must be numbers without quotes")
    truths = [one for one in values if isinstance(one, bool)]
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    for text in (one for one in values if isinstance(one, str)):
        if numbers and _spells_number(text):
            raise ValueError(
                f"{key}: given {text!r} beside numbers; must be a number without quotes"
            )
        if truths and text.lower() in ("true", "false"):
            raise ValueError(f"{key}: given {text!r} beside true or false; must be without quotes")
    if True in truths and numbers:
        few = len(truths) <= len(numbers)
        odd, others = (True, "numbers") if few else (numbers[0], "true and false")
        raise ValueError(
            f"{key}: given {odd!r} beside {others}; must be all numbers, or all true and false"
        )
    if truths and 0 in numbers:
        raise ValueError(f"{key}: given False beside 0, which is the same; must be one of the two")


def _spells_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def samples_of(search: SearchTable) -> str:
    """Return the strategy that chooses which points are begun; of halvings the sampler."""
    return search.sampler if search.strategy in HALVING else search.strategy


def check_constraints(
    search: SearchTable, fixed: Mapping[str, Any], meant: Meanings | None = None
) -> None:
    """Refuse constraints that name what is not there, or that no point of the space keeps to.

    Parameters
    ----------
    search : SearchTable
        ``[search]``, sound in itself.
    fixed : mapping
        Hyperparameters outside the space, those with defaults too.
    meant : mapping, optional
        What values of the space stand for, where they do.
    """
    if not search.constraints:
        return
    expressions = [_parsed(text, meant) for text in search.constraints]
    known = [*search.space, *(name for name in fixed if name not in search.space)]
    for expression in expressions:
        for name in sorted(expression.names):
            if name not in known:
                raise ValueError(
                    f"search.constraints: {expression.text!r} names {name}"
                    f"{nearest(name, known)}; must be of {', '.join(known)}"
                )
    count, found = 0, False
    outside = {name: value for name, value in fixed.items() if name not in search.space}
    for point in _points(search):
        there = {**outside, **point}
        # All are computed, so that one which cannot be is found.
        hold = [_holds(one, there) for one in expressions if one.names <= there.keys()]
        found = found or all(hold)
        count += 1
        if found and count >= _COMPUTED:
            break
    if found:
        return
    raise ValueError(
        f"search.constraints: none of {count:,} points of the space keeps to all of them; "
        "must leave some"
    )


def _holds(expression: Expression, point: Mapping[str, Any]) -> bool:
    try:
        return expression.holds(point)
    except ValueError as error:
        known = expression.known(point)
        where = ", ".join(f"{name} = {known[name]!r}" for name in sorted(known))
        raise ValueError(f"search.constraints: {expression.text!r} {error} at {where}") from None


def _parsed(text: str, meant: Meanings | None = None) -> Expression:
    try:
        return parse(text, meant)
    except ValueError as error:
        raise ValueError(f"search.constraints: {text!r} {error}") from None


def _check_keys(search: SearchTable) -> None:
    """Refuse keys that would do nothing."""
    uses: dict[str, tuple[str, ...]] = {
        "objectives": ("nsga2",),
        "sampler": HALVING,
        "reduction": HALVING,
        "first_folds": HALVING,
    }
    for key, strategies in uses.items():
        given = getattr(search, key)
        default = type(search).model_fields[key].get_default(call_default_factory=True)
        if given != default and search.strategy not in strategies:
            raise ValueError(
                f"search.{key}: given {given!r} beside strategy = {search.strategy!r}, which has "
                f"no use for it; it is for {', '.join(strategies)}; remove it"
            )
    most = type(search).model_fields["trials"].default
    if search.trials != most and samples_of(search) == "grid":
        key = "sampler" if search.strategy in HALVING else "strategy"
        raise ValueError(
            f'search.trials: given {search.trials} beside {key} = "grid", which tries all that '
            "there is; remove it, or choose another"
        )
    if search.known is not None and search.strategy in KNOWN_AHEAD:
        raise ValueError(
            f"search.known: given {str(search.known)!r} beside strategy = {search.strategy!r}, "
            "which learns from no score; remove it"
        )
    if search.strategy in HALVING:
        others = [name for name in [*BUILT_IN, *plugins()] if name not in HALVING]
        if search.sampler not in others:
            raise ValueError(
                f"search.sampler: given {search.sampler!r}; must be one of {', '.join(others)}"
                f"{nearest(search.sampler, others)}"
            )


def _check_objectives(search: SearchTable) -> None:
    from stormsweep.config.study import METRICS

    for index, one in enumerate(search.objectives):
        if one not in METRICS:
            raise ValueError(
                f"search.objectives: given {one!r}; must be of {', '.join(METRICS)}"
                f"{nearest(one, METRICS)}"
            )
        if one in search.objectives[:index]:
            raise ValueError(f"search.objectives: given {one!r} twice; must be different scores")
    if search.objectives and search.metric not in search.objectives:
        raise ValueError(
            f"search.objectives: given {search.objectives!r}; search.metric, {search.metric!r}, "
            "must be among them"
        )


def _check_conditions(search: SearchTable) -> None:
    when = {
        name: dict(given.when)
        for name, given in search.space.items()
        if not isinstance(given, list) and given.when
    }
    for name, conditions in when.items():
        key = f"search.space.{name}.when"
        if name in _ALWAYS:
            raise ValueError(
                f"{key}: given {conditions!r}; every training has {name}, so it cannot depend on "
                "others; remove it, or say what goes together in search.constraints"
            )
        for other, values in conditions.items():
            others = [one for one in search.space if one != name]
            if other not in others:
                raise ValueError(
                    f"{key}: names {other}{nearest(other, others)}; must be another "
                    f"hyperparameter of search.space{_list(others)}"
                )
            if not values:
                raise ValueError(f"{key}.{other}: given []; must have at least one value")
            for value in values:
                if not _inside(value, search.space[other]):
                    raise ValueError(
                        f"{key}.{other}: given {value!r}, which search.space.{other} never is"
                    )
    try:
        parents_first(search.space, when)
    except ValueError as error:
        raise ValueError(f"search.space: when: {error}; there must be no circle") from None


def _check_milestones(search: SearchTable) -> None:
    epochs = search.space.get("epochs")
    if not isinstance(epochs, list):
        given = "nothing" if epochs is None else "a range"
        raise ValueError(
            f"search.space.epochs: given {given}; {search.strategy} needs a list, such as "
            "[1, 3, 9]: trials are compared at each and the best go on"
        )
    for name, values in search.space.items():
        if not isinstance(values, list) and "epochs" in values.when:
            raise ValueError(
                f"search.space.{name}.when: names epochs, which are many in a trial of "
                f"{search.strategy}; remove it"
            )
    for text in search.constraints:
        if "epochs" in _parsed(text).names:
            raise ValueError(
                f"search.constraints: {text!r} names epochs, which are many in a trial of "
                f"{search.strategy}; remove it"
            )


def _numeric(given: Any) -> bool:
    """Tell whether CMA-ES can move along a hyperparameter."""
    if not isinstance(given, list):
        return not given.when and not hasattr(given, "values")
    numbers = [one for one in given if isinstance(one, int | float) and not isinstance(one, bool)]
    return len(numbers) == len(given) > 1


def _inside(value: Any, given: Any) -> bool:
    if isinstance(given, list) or hasattr(given, "values"):
        return among(value, given if isinstance(given, list) else given.values)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (
        number and given.low <= value <= given.high and (not given.integer or value == int(value))
    )


def _points(search: SearchTable) -> Iterator[dict[str, Any]]:
    """Yield all points of a small space of lists, or many of another."""
    when = {
        name: given.when
        for name, given in search.space.items()
        if not isinstance(given, list) and given.when
    }
    lists = {
        name: given if isinstance(given, list) else given.values
        for name, given in search.space.items()
        if isinstance(given, list) or hasattr(given, "values")
    }
    if len(lists) == len(search.space) and math.prod(map(len, lists.values())) <= _POINTS:
        for values in itertools.product(*lists.values()):
            yield kept(dict(zip(lists, values, strict=True)), when)
        return
    chance = random.Random(0)
    for _ in range(_POINTS):
        yield kept(
            {
                name: chance.choice(lists[name]) if name in lists else _drawn(given, chance)
                for name, given in search.space.items()
            },
            when,
        )


def _drawn(given: Any, chance: random.Random) -> float | int:
    if given.integer and not given.log:
        return chance.randint(int(given.low), int(given.high))
    if not given.log:
        return chance.uniform(given.low, given.high)
    value = math.exp(chance.uniform(math.log(given.low), math.log(given.high)))
    return round(value) if given.integer else value


def _list(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""
