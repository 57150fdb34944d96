"""scikit-learn's callbacks (since 1.9), told of a search as `GridSearchCV` tells them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from stormsweep.sweepcv.tasks import SplitTask


class Callbacks:
    """The callbacks of one fit; where there are none, nothing is told.

    Parameters
    ----------
    estimator : SweepSearchCV
        Who has them.
    X, y : object
        The data.
    params : dict
        What else was passed to fit.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, params: dict[str, Any]) -> None:
        self._estimator = estimator
        weights = params.get("sample_weight")
        metadata = None if weights is None else {"sample_weight": weights}
        self._data = {"X": X, "y": y, "metadata": metadata}
        self._root: Any = None
        self._search: Any = None
        self._count = 0
        #: Of tasks that workers have: this process tells of them.
        self._away: dict[str, Any] = {}
        # Set on the search itself, or passed down by whatever it stands in.
        if getattr(estimator, "_skl_callbacks", None):
            stages = 1 + (estimator.refit is not False)
            self._root = estimator._init_callback_context(max_subtasks=stages)
            self._root.call_on_fit_task_begin(estimator=estimator, **self._data)

    @contextlib.contextmanager
    def search(self, tasks: int) -> Iterator[None]:
        """Tell of the search, in which there are so many tasks at most."""
        if self._root is None:
            yield
            return
        self._search = self._root.subcontext(
            task_name="search", max_subtasks=tasks, sequential_subtasks=False
        )
        self._search.call_on_fit_task_begin(estimator=self._estimator)
        yield
        self._search.call_on_fit_task_end(estimator=self._estimator)

    def here(self) -> dict[str, Any]:
        """Return what scikit-learn needs to tell of a task that this process does itself."""
        if self._root is None:
            return {}
        return {"caller": self._estimator, "callback_ctx": self._task()}

    def began(self, task: SplitTask) -> None:
        """Tell that a worker was given a task; once, even if it is given again."""
        if self._root is not None and task.token not in self._away:
            self._away[task.token] = self._task()
            self._away[task.token].call_on_fit_task_begin(estimator=self._estimator)

    def ended(self, task: SplitTask) -> None:
        """Tell that a worker's task is done, or given up."""
        if self._root is not None:
            self._away.pop(task.token).call_on_fit_task_end(estimator=self._estimator)

    @contextlib.contextmanager
    def refit(self, best: Any) -> Iterator[None]:
        """Tell of the fit of the best candidate on all data."""
        if self._root is None:
            yield
            return
        context = self._root.subcontext(task_name="refit-with-best-params")
        with context.propagate_callback_context(best):
            context.call_on_fit_task_begin(estimator=self._estimator, **self._data)
            yield
        context.call_on_fit_task_end(estimator=self._estimator, **self._data)

    def close(self) -> None:
        """Tell that all is done."""
        if self._root is not None:
            self._root.call_on_fit_task_end(estimator=self._estimator, **self._data)

    def _task(self) -> Any:
        number, self._count = self._count, self._count + 1
        return self._search.subcontext(task_name="candidate-split-evaluation", task_id=number)
