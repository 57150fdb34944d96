"""What is verified: the best configuration, once, unless another look is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stormsweep.errors import UserError, typed
from stormsweep.records import Entry, Verified
from stormsweep.results import facts, frames
from stormsweep.results.journal import of_kind
from stormsweep.results.summary import Summary, summary
from stormsweep.study.delivery import FOLDER, is_of
from stormsweep.study.held_out import check_test_part, unscorable

#: The threshold where no fold has one: that of the more likely of two outcomes.
_EVEN = 0.5


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be verified.

    Attributes
    ----------
    configuration, hyperparameters : str, dict
        The best configuration, ``epochs`` included.
    stops : tuple of int
        Epochs after which a checkpoint is kept, the last one that of the configuration.
    threshold : float
        Decision threshold: the mean over folds of the one with the best CSI.
    threshold_folds : tuple of int
        How many folds have one, of how many.
    look : int
        How often the test part will have been scored.
    finished : bool
        Whether every planned run is finished or failed.
    recorded : Verified, optional
        The look whose model is lost: it is made again, and no score comes of it.
    """

    configuration: str
    hyperparameters: dict[str, Any]
    stops: tuple[int, ...]
    threshold: float
    threshold_folds: tuple[int, int]
    look: int
    finished: bool
    recorded: Verified | None = None


def looks(entries: Sequence[Entry]) -> list[Verified]:
    """Return all looks at the test part, in order."""
    return of_kind(entries, Verified)


def choose(
    directory: Path, entries: Sequence[Entry], again: bool = False, unfinished: bool = False
) -> Choice | Verified:
    """Decide what to verify; a look that was taken stands unless another one is asked for.

    Parameters
    ----------
    directory : Path
        The study's directory.
    entries : sequence of Entry
        The journal.
    again : bool
        Whether the test part may be scored another time.
    unfinished : bool
        Whether the best so far will do.

    Returns
    -------
    Choice or Verified
        What to do, or the last look, which stands. Where its model is lost or changed, that is to
        be made again.

    Raises
    ------
    UserError
        If there is no test part, it is of one class, there is nothing to choose from, or the study
        is not finished.
    """
    known = looks(entries)
    if known and not again:
        last = known[-1]
        return last if is_of(directory / FOLDER, last) else _lost(last)
    look = summary(entries)
    if not facts.study(entries).data.get("test"):
        raise UserError(
            f"{directory}: the study keeps no cases as a test part, so nothing can be verified; "
            "set data.test_from or data.test_fraction in another study"
        )
    check_test_part(facts.study(entries).data, directory)
    best = look.best
    if best is None:
        raise UserError(_nothing(directory, look))
    if not (look.finished and best.complete) and not unfinished:
        raise UserError(
            f"{directory}: {_open(look)}; finish it with `{typed('run', directory)}`, or verify "
            "the best so far with --unfinished"
        )
    threshold, folds = decision_threshold(entries, best.configuration)
    return Choice(
        configuration=best.configuration,
        hyperparameters=best.hyperparameters,
        stops=stops(int(best.hyperparameters["epochs"])),
        threshold=threshold,
        threshold_folds=folds,
        look=len(known) + 1,
        finished=look.finished,
    )


def _lost(look: Verified) -> Choice:
    """Return what makes the model of a look again, whatever is the best by now."""
    having, folds = look.threshold_folds or (0, 0)
    return Choice(
        configuration=look.configuration,
        hyperparameters=look.hyperparameters,
        stops=stops(int(look.hyperparameters["epochs"])),
        threshold=look.threshold,
        threshold_folds=(having, folds),
        look=look.look,
        finished=look.finished,
        recorded=look,
    )


def decision_threshold(
    entries: Sequence[Entry], configuration: str
) -> tuple[float, tuple[int, int]]:
    """Return the mean over folds of the threshold with the best critical success index.

    A fold whose cases are all of one class has no such threshold and is left out.

    Returns
    -------
    tuple of float and tuple of int
        The threshold, 0.5 where no fold has one; how many folds have one, and of how many.
    """
    table = frames.fits(entries)
    own = table[table["configuration"] == configuration]
    found = own["csi_threshold"].dropna() if "csi_threshold" in own else own["fold"][:0]
    return float(found.mean()) if len(found) else _EVEN, (len(found), len(own))


def threshold_source(look: Verified) -> str:
    """Say where the decision threshold of a look comes from.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> [threshold_source(SimpleNamespace(threshold_folds=[n, 3])) for n in (2, 0)]
    ['from 2 of 3 folds of the cross-validation', 'as no fold has a threshold']
    """
    if not look.threshold_folds:
        return "of unrecorded origin"
    having, folds = look.threshold_folds
    if not having:
        return "as no fold has a threshold"
    if having < folds:
        return f"from {having} of {folds} folds of the cross-validation"
    return "from cross-validation"


def stops(epochs: int, most: int = 8) -> tuple[int, ...]:
    """Return the epochs after which the final fit keeps a checkpoint, evenly spread.

    Examples
    --------
    >>> stops(15), stops(3)
    ((2, 4, 6, 8, 10, 12, 14, 15), (1, 2, 3))
    """
    return tuple(sorted({math.ceil(epochs * k / most) for k in range(1, most + 1)}))


def awaits_look(entries: Sequence[Entry]) -> bool:
    """Tell whether the search is done, and there is a test part to score that nobody looked at."""
    look = summary(entries)
    whole = look.finished and look.best is not None and look.best.complete
    data = facts.study(entries).data
    scorable = bool(data.get("test")) and not unscorable(data)
    return whole and scorable and not of_kind(entries, Verified)


def _nothing(directory: Path, look: Summary) -> str:
    if look.runs_failed and look.finished:
        return f"{directory}: all {look.runs_failed} runs failed; there is no model to verify"
    return (
        f"{directory}: no configuration has a score yet; run the study first: "
        f"`{typed('run', directory)}`"
    )


def _open(look: Summary) -> str:
    if not look.finished:
        return f"{look.runs_finished} of {look.runs_planned} runs are done"
    return f"{look.runs_failed} runs failed, and no configuration is scored on all its folds"
