"""Points known from elsewhere beside a study's space: how many it takes, and why it takes none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stormsweep.config.growth import DEFAULTS
from stormsweep.config.strategies import HALVING
from stormsweep.config.study import StudyFile
from stormsweep.errors import typed
from stormsweep.search.proposals import Known
from stormsweep.search.space import Interval, Space, Values
from stormsweep.work import Hyperparameters

#: Values that are shown of those that lie outside, or of a list, at most.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class KnownPoints:
    """The points of ``search.known``.

    Attributes
    ----------
    count : int
        How many there are.
    inside : int
        How many the space takes; the strategy passes over others.
    why : tuple of str
        If there are some and it takes none: why not, one line each.
    """

    count: int
    inside: int
    why: tuple[str, ...] = ()


def beside(file: StudyFile, known: Sequence[Known]) -> KnownPoints:
    """Say how many known points a study's space takes.

    Parameters
    ----------
    file : StudyFile
        The study.
    known : sequence of Known
        The points.
    """
    fixed = dict(file.model.parameters)
    space = Space.of(file.search, fixed)
    if file.search.strategy in HALVING:
        # Its trials are of all epochs.
        space = space.without("epochs")
    points = [space.whole(point.hyperparameters, point.epochs) for point in known]
    inside = sum(space.fit(point) is not None for point in points)
    why = () if inside else tuple(_why_none(space, fixed, points))
    return KnownPoints(len(points), inside, why)


def _why_none(
    space: Space, fixed: Hyperparameters, points: Sequence[Hyperparameters]
) -> Iterable[str]:
    """Yield why none of some points is one of a space."""
    needed = [name for name in space.values if name not in space.when]
    lacking = {name: sum(name not in point for point in points) for name in needed}
    lacking = {name: count for name, count in lacking.items() if count}
    given = dict.fromkeys(name for point in points for name in point)
    ours = {*DEFAULTS, *fixed, *space.values}
    strange = [name for name in given if name not in ours]
    if lacking:
        yield _names(lacking, strange, len(points))
    sound = [point for point in points if all(name in point for name in needed)]
    for name, values in space.values.items():
        alone = Space({name: values})
        odd = [one[name] for one in points if name in one and alone.fit({name: one[name]}) is None]
        if odd:
            yield (
                f"{name}: {_shown(odd)} in {_of(len(odd), len(points))}; the space has "
                f"{_allowed(values)}"
            )
            sound = [one for one in sound if name not in one or one[name] not in odd]
    if sound:
        yield (
            f"{_of(len(sound), len(points))}: not allowed by search.constraints, or by a condition"
        )


def _names(lacking: Mapping[str, int], strange: Sequence[str], total: int) -> str:
    """Say which names are missing, which are there instead, and how they are renamed."""
    parts = [f"{name} is missing in {_of(count, total)}" for name, count in lacking.items()]
    line = ", ".join(parts)
    if not strange:
        return line
    called = "is no hyperparameter" if len(strange) == 1 else "are no hyperparameters"
    pairs = renamed(lacking, strange)
    options = [f"{theirs}={ours}" for theirs, ours in pairs.items()] or ["THEIRS=OURS"]
    command = typed("import", "SOURCE", *(word for pair in options for word in ("--rename", pair)))
    return f"{line}; {', '.join(strange)} {called} of this study (import them anew: {command})"


def renamed(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    """Guess what names of others stand for: those that are alike, and initials.

    Examples
    --------
    >>> renamed(["batch_size", "learning_rate"], ["lr", "batch"])
    {'batch': 'batch_size', 'lr': 'learning_rate'}
    >>> renamed(["learning_rate"], ["momentum"])
    {}
    """
    left, pairs = list(theirs), dict[str, str]()
    for name in ours:
        initials = "".join(word[:1] for word in name.split("_"))
        hits = [initials] if initials in left else difflib.get_close_matches(name, left, n=1)
        for hit in hits:
            pairs[hit] = name
            left.remove(hit)
    return pairs


def _of(count: int, total: int) -> str:
    return "all of them" if count == total else f"{count:,} of them"


def _shown(values: Iterable[Any]) -> str:
    """Name some of the values, each once."""
    words = list(dict.fromkeys(map(repr, values)))
    return ", ".join(words[:_SHOWN]) + (" ..." if len(words) > _SHOWN else "")


def _allowed(values: Values) -> str:
    if isinstance(values, Interval):
        whole = "whole numbers " if values.integer else ""
        return f"{whole}{values.low:g} to {values.high:g}"
    return _shown(values)
