"""What may change in the file of a study that was begun: it may grow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stormsweep.config.study import Choices, Range, StudyFile

#: What is taken for these where a study file does not say.
DEFAULTS = {"batch_size": 128, "epochs": 10}


def resettled(old: StudyFile, new: StudyFile) -> StudyFile:
    """Return a study file with the places of its files as another one names them.

    Data and builders are known by what they hold, and known points are kept with the study: where
    they lie may change as long as they are called the same.

    Parameters
    ----------
    old, new : StudyFile
        The file as it was run, and as it is now; both with absolute places.

    Returns
    -------
    StudyFile
        The old one; ``data.path``, ``data.source``, ``model.build`` and ``search.known`` are those
        of the new one where only the folder is another.
    """
    data, search, model = old.data, old.search, old.model
    if _same_name(data.path, new.data.path):
        data = data.model_copy(update={"path": new.data.path})
    if _same_function(data.source, new.data.source):
        data = data.model_copy(update={"source": new.data.source})
    if _same_name(search.known, new.search.known):
        search = search.model_copy(update={"known": new.search.known})
    if _same_function(model.build, new.model.build):
        model = model.model_copy(update={"build": new.model.build})
    return old.model_copy(update={"data": data, "search": search, "model": model})


def _same_name(one: Path | None, other: Path | None) -> bool:
    return one is not None and other is not None and one.name == other.name


def _same_function(one: str, other: str) -> bool:
    """Tell whether two functions stand in files of one name, and are called the same."""
    (file, _, function), (place, _, called) = one.rpartition(":"), other.rpartition(":")
    both = file.endswith(".py") and place.endswith(".py")
    return both and function == called and Path(file).name == Path(place).name


def shrunk(old: StudyFile, new: StudyFile) -> list[str]:
    """Say what of a study's search is lost in another file of it.

    Values, ranges that are wider, trials and another strategy may be added: what was trained is a
    part of what is to be trained then. A hyperparameter that was fixed may be searched, where its
    value is one of those. The training part may be split in more rounds.

    Parameters
    ----------
    old, new : StudyFile
        The file as it was run, and as it is now.

    Returns
    -------
    list of str
        A line for each thing that is lost; empty: the search is the same, or grew.

    Examples
    --------
    >>> search = {"search": {"space": {"epochs": [5, 10]}}, "study": {"name": "x"}}
    >>> more = {"search": {"space": {"epochs": [5, 10, 20]}}, "study": {"name": "x"}}
    >>> few, many = StudyFile.model_validate(search), StudyFile.model_validate(more)
    >>> shrunk(few, many), shrunk(many, few)
    ([], ['search.space.epochs was [5, 10, 20], is [5, 10] (a study may only grow)'])
    """
    lost = []
    # Another strategy counts its own, and a grid has as many as it has.
    same = new.search.strategy == old.search.strategy != "grid"
    if same and new.search.trials < old.search.trials:
        lost.append(
            f"search.trials was {old.search.trials}, is {new.search.trials} (a study may only grow)"
        )
    if new.validation.rounds < old.validation.rounds:
        was, now = old.validation.rounds, new.validation.rounds
        lost.append(f"validation.rounds was {was}, is {now} (a study may only grow)")
    if new.search.known != old.search.known:
        lost.append(
            f"search.known was {old.search.known or 'unset'}, is {new.search.known or 'unset'} "
            "(what the strategy knew is part of the study)"
        )
    before, after = _space(old), _space(new)
    for name in dict.fromkeys([*before, *after]):
        key = f"search.space.{name}" if name in new.search.space else f"model.parameters.{name}"
        if name not in before:
            lost.append(f"{key} is new, and what was trained knows nothing of it")
        elif name not in after:
            lost.append(f"{_key(old, name)} was {_show(before[name])}, is gone")
        elif not _holds(after[name], before[name]):
            lost.append(
                f"{key} was {_show(before[name])}, is {_show(after[name])} (a study may only grow)"
            )
    return lost


def grew(old: StudyFile, new: StudyFile) -> bool:
    """Tell whether the search of a study is another now."""
    old = resettled(old, new)
    return (
        old.search != new.search
        or old.model.parameters != new.model.parameters
        or old.validation.rounds != new.validation.rounds
    )


def _key(file: StudyFile, name: str) -> str:
    return f"search.space.{name}" if name in file.search.space else f"model.parameters.{name}"


def _space(file: StudyFile) -> dict[str, Any]:
    """Return all hyperparameters with what they may be, those that are fixed too."""
    fixed = {name: [value] for name, value in (DEFAULTS | dict(file.model.parameters)).items()}
    return fixed | dict(file.search.space)


def _holds(more: Any, less: Any) -> bool:
    """Tell whether values or a range hold all of others."""
    conditions = [one.when if isinstance(one, Range | Choices) else {} for one in (more, less)]
    if conditions[0] != conditions[1]:
        return False
    more, less = (one.values if isinstance(one, Choices) else one for one in (more, less))
    if isinstance(less, Range):
        return (
            isinstance(more, Range)
            and more.low <= less.low
            and less.high <= more.high
            and (more.integer, more.log) == (less.integer, less.log)
        )
    if isinstance(more, Range):
        return all(
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and more.low <= value <= more.high
            and (not more.integer or isinstance(value, int))
            for value in less
        )
    # By their JSON: 0 and 0.0 are equal, but other values of the space.
    return {*map(json.dumps, less)} <= {*map(json.dumps, more)}


def _show(values: Any) -> str:
    if isinstance(values, Range | Choices):
        return json.dumps(values.model_dump(exclude_defaults=True))
    return json.dumps(values)
