"""Studies in notebooks: what Jupyter shows of one, and how far it is while it runs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stormsweep.errors import StormsweepError
from stormsweep.markup import facts, table, text
from stormsweep.study.watching import Silent, State, Watcher
from stormsweep.wording import counted, duration, folds, percent, point

if TYPE_CHECKING:
    from stormsweep.study.study import Study

#: The display is drawn again this often at most, in seconds.
_EVERY = 0.5
#: Configurations that a study shows, and notes that a display keeps.
_BEST, _NOTES = 5, 20


def usual_watcher() -> Watcher:
    """Return who is shown what goes on where nobody is named: a notebook, or nobody."""
    return NotebookProgress() if in_notebook() else Silent()


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook, which can be shown HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class NotebookProgress:
    """A watcher that draws bars in the output of a notebook's cell, and draws over them.

    `Study.run` and others take it by themselves in a notebook. Its methods are those of every
    `Watcher`.

    Parameters
    ----------
    every : float
        Seconds between drawings.
    """

    def __init__(self, every: float = _EVERY) -> None:
        self._every = every
        self._last = -math.inf
        self._stages: dict[str, float] = {}
        self._state: State | None = None
        self._notes: list[str] = []
        self._handle: Any = None

    def stage(self, what: str, share: float) -> None:
        """Move the bar of a stage."""
        new = what not in self._stages
        self._stages[what] = share
        self._draw(new or share >= 1)

    def state(self, state: State) -> None:
        """Move the bar of the training."""
        done = self._state is None or state.tasks_done != self._state.tasks_done
        self._state = state
        self._draw(done and state.tasks_done >= state.tasks)

    def note(self, text: str) -> None:
        """Keep the line beneath the bars."""
        self._notes = [*self._notes, text][-_NOTES:]
        self._draw(True)

    def _repr_html_(self) -> str:
        """Return all of it as HTML."""
        rows = [_bar(what, share, "") for what, share in self._stages.items()]
        if self._state is not None:
            rows += [_bar("training", self._state.share, ", ".join(_said(self._state)))]
        lines = [*self._notes, *(self._state.failures if self._state is not None else ())]
        notes = "".join(f"<div>{text(line)}</div>" for line in lines)
        best = _best(self._state) if self._state is not None else ""
        return f"<div><table>{''.join(rows)}</table>{best}{notes}</div>"

    def _draw(self, now: bool) -> None:
        if not now and time.monotonic() - self._last < self._every:
            return
        self._last = time.monotonic()
        from IPython.display import HTML, display

        shown = HTML(self._repr_html_())  # type: ignore[no-untyped-call]
        if self._handle is None:
            self._handle = display(shown, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(shown)


def _bar(what: str, share: float, more: str) -> str:
    return (
        f"<tr><th>{text(what)}</th><td><progress max='1' value='{share:.4f}'></progress></td>"
        f"<td>{percent(share)}</td><td>{text(more)}</td></tr>"
    )


def _said(state: State) -> Iterator[str]:
    yield f"{state.tasks_done:,} of {state.tasks:,} tasks"
    busy = "" if state.busy is None else f"{state.busy} of "
    yield f"{busy}{state.workers} workers{' busy' if busy else ''}"
    if state.speed:
        yield state.speed
    if state.tasks_done < state.tasks and not math.isnan(state.seconds_left):
        yield f"{duration(state.seconds_left)} left"
    if state.failed:
        yield counted(state.failed, "failed run")


def _best(state: State) -> str:
    if state.leader is None:
        return ""
    leader = state.leader
    scored, values = folds(leader.folds), point(leader.hyperparameters)
    said = f"best {state.metric} {leader.mean:.4f} over {scored}: {values}"
    return f"<div>{text(said)}</div>"


def study_html(study: Study) -> str:
    """Return a study as a notebook shows it: what it is, how far it is, its best configurations.

    A study whose journal cannot be read is shown with the reason; displaying never raises.
    """
    file = study.file
    rows: list[tuple[str, Any]] = [
        ("directory", study.directory),
        ("data", file.data.source),
        ("model", file.model.build),
        ("search", f"{file.search.strategy}, by {file.search.metric}"),
        ("folds", file.validation.total),
    ]
    rows += [(name, _values(values)) for name, values in file.search.space.items()]
    if not study.recorded:
        return facts(file.study.name, [*rows, ("state", "not begun")])
    try:
        summary, best = study.summary(), study.results().head(_BEST)
    except StormsweepError as error:
        return facts(file.study.name, rows, [str(error)])
    metric = f"{file.search.metric}_mean"
    kept = ["rank", *[name for name in best.columns if name in {*file.search.space, "epochs"}]]
    kept += [name for name in (metric, f"{file.search.metric}_sd", "folds") if name in best.columns]
    shown = table(kept, best[kept].to_numpy(dtype=object).tolist()) if len(best) else ""
    # Its own title says which study it is.
    return facts(file.study.name, rows) + summary._repr_html_() + shown


def _values(values: Any) -> str:
    if isinstance(values, list):
        return ", ".join(map(str, values))
    low, high = getattr(values, "low", None), getattr(values, "high", None)
    if low is None:
        return ", ".join(map(str, getattr(values, "values", ())))
    return f"{low} to {high}{', logarithmic' if getattr(values, 'log', False) else ''}"
