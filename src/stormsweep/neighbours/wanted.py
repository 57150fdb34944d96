"""What is taken from the tools of others, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stormsweep.errors import UserError, nearest
from stormsweep.neighbours.points import Point
from stormsweep.neighbours.told import check_score

_EPOCHS = "epochs"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to take from the tool of others.

    Attributes
    ----------
    study : str or None
        Name of the Optuna study; not needed where there is one.
    scores : dict of str to str
        What our scores are called there, by our names.
    names : dict of str to str
        What their hyperparameters are called here, by theirs.
    """

    study: str | None = None
    scores: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.scores:
            check_score("import: --metric", name)


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import.

    Attributes
    ----------
    points : list of Point
        Scored or not.
    source : str
        What was read, in words.
    passed_over : int
        Trials that failed, have not ended, were stopped before they had a score, or have no
        hyperparameters.
    not_finite : int
        Trials with a hyperparameter that is infinite or NaN, passed over too.
    unsure : int
        Trials that were stopped after nobody knows how many epochs, passed over too.
    """

    points: list[Point]
    source: str
    passed_over: int
    not_finite: int = 0
    unsure: int = 0

    @property
    def scored(self) -> int:
        """How many points have a score."""
        return sum(bool(point.scores) for point in self.points)


def named(point: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """Return hyperparameters by their names here.

    Raises
    ------
    UserError
        If two would be called the same.
    """
    renamed: dict[str, Any] = {}
    for name, value in point.items():
        ours = wanted.names.get(name, name)
        if ours in renamed:
            raise UserError(f"import: --rename: two hyperparameters would be called {ours!r}")
        renamed[ours] = value
    return renamed


def check_names(where: Path | str, points: Iterable[Mapping[str, Any]], wanted: Wanted) -> None:
    """Refuse a new name for a hyperparameter that no trial has.

    Parameters
    ----------
    where : path or str
        What is read, for the message.
    points : iterable of mapping
        Hyperparameters of all trials, by their names there.
    wanted : Wanted
        What they are called here.

    Raises
    ------
    UserError
        Naming the hyperparameters that there are.
    """
    known = list(dict.fromkeys(name for point in points for name in point))
    for theirs, ours in wanted.names.items():
        # Where there is none at all, nothing can be imported, which is said of the whole.
        if known and theirs not in known:
            raise UserError(
                f"{where}: --rename {theirs}={ours}{nearest(theirs, known)}: the trials have "
                f"{', '.join(known)}"
            )


def apart(point: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Take ``epochs`` out of hyperparameters."""
    epochs = point.get(_EPOCHS)
    if isinstance(epochs, float) and epochs.is_integer():
        epochs = int(epochs)
    sound = type(epochs) is int and epochs >= 1
    rest = {name: value for name, value in point.items() if name != _EPOCHS}
    return rest, int(epochs) if sound and epochs is not None else None


def scored_at(meant: int | None, last: int, whole: bool) -> int | None:
    """Return the epochs after which a trial has its score.

    Parameters
    ----------
    meant : int or None
        What it was to be trained for, where a hyperparameter says so.
    last : int
        The last epoch that it reported.
    whole : bool
        Whether it was trained for as long as it was meant to be.

    Examples
    --------
    >>> scored_at(100, 3, whole=False), scored_at(100, 3, whole=True), scored_at(None, 3, True)
    (3, 100, 3)
    """
    if meant is None:
        return last if last >= 1 else None
    return meant if whole else max(1, min(meant, last))


def is_score(name: str) -> bool:
    """Tell whether a name is that of one of our scores."""
    try:
        check_score("", name)
    except UserError:
        return False
    return True
