"""What a worker does: fit one candidate on one split and score it, with what it holds for all.

A worker is given the estimator, the data and the splits once, over its line; a task is then a few
numbers and the parameters of one candidate.
"""

from __future__ import annotations

import contextlib
import io
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection._validation import _fit_and_score

from stormsweep.cluster.line import unpack
from stormsweep.records import SplitScored

#: A worker is given so many short tasks at once that it has enough for this long: each message
#: costs the process of the search some milliseconds of a core that workers may need.
TOGETHER_SECONDS = 0.2

Split = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True, slots=True)
class SplitTask:
    """One candidate on one split.

    Attributes
    ----------
    trial, key : int, str
        Number of the candidate, and fingerprint of its parameters.
    split : int
        Number of the split.
    parameters : dict
        What is set on the estimator.
    candidates : int
        How many there are at most.
    """

    trial: int
    key: str
    split: int
    parameters: dict[str, Any]
    candidates: int

    @property
    def token(self) -> str:
        """Name of the task among those under way."""
        return f"{self.trial}-{self.split}"


@dataclass(frozen=True, slots=True)
class Materials:
    """What all tasks of a search have in common.

    Attributes
    ----------
    estimator : estimator
        Cloned for each task.
    X, y : object
        The data, as they were given.
    splits : sequence of (train, test)
        Rows of each split.
    options : dict
        Passed to scikit-learn's own `_fit_and_score`: scorer, parameters for fit and score, and
        what is to be returned, reported and done about errors.
    config : dict
        scikit-learn's configuration where the search was asked for.
    filters : list
        The filters for warnings there.
    """

    estimator: Any
    X: Any
    y: Any
    splits: Sequence[Split]
    options: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    filters: list[Any] = field(default_factory=list)

    @property
    def error_score(self) -> float | str:
        """What stands for the score of a fit that fails; ``"raise"``: the search ends."""
        value: float | str = self.options["error_score"]
        return value

    def failed(self, task: SplitTask, error: str, seconds: float = 0.0) -> SplitScored:
        """Return what is recorded of a task that every worker died of."""
        assert not isinstance(self.error_score, str)
        names = getattr(self.options["scorer"], "_scorers", None)
        score = float(self.error_score)
        scores = score if names is None else dict.fromkeys(names, score)
        return SplitScored(
            trial=task.trial,
            key=task.key,
            split=task.split,
            test_scores=scores,
            train_scores=scores if self.options["return_train_score"] else None,
            test_cases=len(self.splits[task.split][1]),
            fit_seconds=seconds,
            score_seconds=0.0,
            error=error,
            lost=True,
        )


def score(materials: Materials, task: SplitTask, **more: Any) -> SplitScored:
    """Fit a candidate on the training side of a split and score it on the other side.

    Parameters
    ----------
    materials : Materials
        What all tasks have in common.
    task : SplitTask
        The candidate and the split.
    **more : object
        Passed on to scikit-learn.

    Returns
    -------
    SplitScored
        The scores are those of `GridSearchCV`: the same function computes them.
    """
    train, test = materials.splits[task.split]
    options = materials.options
    if not isinstance(materials.error_score, str):
        options = options | {"error_score": _Instead(materials.error_score)}
    done = _fit_and_score(
        clone(materials.estimator),
        materials.X,
        materials.y,
        train=train,
        test=test,
        parameters=task.parameters,
        return_n_test_samples=True,
        return_times=True,
        split_progress=(task.split, len(materials.splits)),
        candidate_progress=(task.trial, task.candidates),
        **options,
        **more,
    )
    failed = done["fit_error"] is not None
    return SplitScored(
        trial=task.trial,
        key=task.key,
        split=task.split,
        test_scores=_plain(done["test_scores"]),
        train_scores=_plain(done["train_scores"]) if "train_scores" in done else None,
        test_cases=int(done["n_test_samples"]),
        fit_seconds=done["fit_time"],
        score_seconds=done["score_time"],
        error=done["fit_error"] or "",
        unscored=[] if failed else _unscored(done),
    )


class _Instead(float):
    """An `error_score`, so that it can be told from a score that happens to be as high."""


def _unscored(done: dict[str, Any]) -> list[str]:
    """Return the scores that could not be computed; scikit-learn only warns of them."""
    found = []
    for side in ("test", "train"):
        scores = done.get(f"{side}_scores")
        named = scores if isinstance(scores, dict) else {"score": scores}
        found += [f"{side}_{name}" for name, one in named.items() if isinstance(one, _Instead)]
    return found


def _plain(scores: Any) -> float | dict[str, float]:
    if isinstance(scores, dict):
        return {str(name): float(value) for name, value in scores.items()}
    return float(scores)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the packed materials; messages have an upper limit, data have none."""

    number: int
    total: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker sends back: the scores, and what the user would have seen on a terminal.

    Attributes
    ----------
    scored : SplitScored
        The scores.
    said : list of (message, category, file, line)
        The warnings.
    printed : str
        What was printed.
    """

    scored: SplitScored
    said: list[tuple[str, type[Warning], str, int]]
    printed: str


_parts: list[bytes] = []
#: What this worker process holds; it serves one search.
_held: Materials | None = None


def hold(part: Part) -> None:
    """Take in a piece of the materials; with the last one the worker is ready for tasks."""
    global _held
    if part.number == 0:
        _parts.clear()
    _parts.append(part.content)
    if part.number == part.total - 1:
        packed = b"".join(_parts)
        _parts.clear()
        _held = unpack(packed)


def work(tasks: Sequence[SplitTask]) -> list[Reply]:
    """Carry out tasks in a worker process, as the process of the search would.

    Returns
    -------
    list of Reply
        One for each task, in their order; fewer where they took longer than `TOGETHER_SECONDS`, or
        one of them, not the first, raised an error. What was done before is not lost, and whoever
        asks for that one again is told.

    Raises
    ------
    Exception
        What the first fit or its scorer raised, where errors are to be raised; with the worker's
        traceback as a note.
    """
    replies: list[Reply] = []
    enough = time.perf_counter() + TOGETHER_SECONDS
    for task in tasks:
        if replies and time.perf_counter() > enough:
            break
        try:
            replies.append(_work(task))
        except Exception:
            if not replies:
                raise
            break
    return replies


def _work(task: SplitTask) -> Reply:
    if _held is None:
        raise RuntimeError("this worker was given no data")
    printed = io.StringIO()
    try:
        with _as_there(_held) as said, contextlib.redirect_stdout(printed):
            scored = score(_held, task)
    except Exception as error:
        error.add_note("In the worker:\n" + "".join(traceback.format_exception(error)))
        raise
    return Reply(
        scored,
        [(str(one.message), one.category, one.filename, one.lineno) for one in said],
        printed.getvalue(),
    )


@contextlib.contextmanager
def _as_there(held: Materials) -> Iterator[list[warnings.WarningMessage]]:
    """Do as where the search was asked for: scikit-learn's configuration, filters for warnings."""
    with config_context(**held.config), warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        warnings.filters.extend(held.filters)  # type: ignore[attr-defined]
        yield said
