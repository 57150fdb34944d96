"""Showing a study while it runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from stormsweep.wording import counted, duration, folds, percent, point, span

if TYPE_CHECKING:
    from stormsweep.study.watching import State

#: Plain lines come this often, in seconds.
_EVERY = 10.0


def display() -> Plain | Live:
    """Return the display that suits where standard error goes."""
    return Live() if sys.stderr.isatty() else Plain()


def full_display() -> Plain | Live:
    """Return the display of `watch`: with the workers and the last failures."""
    return Full() if sys.stderr.isatty() else Following()


class Plain:
    """Plain lines: one for each stage, then one every ten seconds, or as often as is said."""

    def __init__(self, every: float = _EVERY) -> None:
        self._stage, self._every = "", every
        self._last = 0.0
        self._done = -1

    def stage(self, what: str, share: float) -> None:
        """Say that a stage began, and every ten seconds how far it is."""
        if what != self._stage:
            self._stage, self._last = what, time.monotonic()
            self._print(f"{what} ...")
        elif 0 < share < 1 and time.monotonic() - self._last > self._every:
            self._last = time.monotonic()
            self._print(f"{what}: {percent(share)}")

    def state(self, state: State) -> None:
        """Say every ten seconds, and at the end, how far the study is."""
        over = state.tasks_done >= state.tasks
        due = time.monotonic() - self._last > self._every
        if not (due or (over and state.tasks_done != self._done)):
            return
        self._last, self._done = time.monotonic(), state.tasks_done
        parts = [f"{state.tasks_done}/{state.tasks} tasks ({percent(state.share)})"]
        if state.speed:
            parts.append(state.speed)
        if not over and (left := _left(state)):
            parts.append(left)
        if state.busy is not None:
            parts.append(f"{state.busy}/{state.workers} workers busy")
        if state.nodes_waiting:
            parts.append(_queued(state.nodes_waiting))
        parts += _tail(state)
        self._print(", ".join(parts))

    def note(self, text: str) -> None:
        """Print the line."""
        self._print(text)

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Live:
    """A live display: a bar, the rate, the time left, the best so far."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._console = Console(stderr=True)
        self._progress = Progress(
            # What stands in brackets is the user's, such as a text value: no markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[more]}", markup=False),
            console=self._console,
        )
        self._bars: dict[str, Any] = {}

    def stage(self, what: str, share: float) -> None:
        """Move the bar of a stage."""
        self._progress.update(self._bar(what), completed=share)

    def state(self, state: State) -> None:
        """Move the bar of the training."""
        busy = "" if state.busy is None else f"{state.busy}/"
        workers = f"{busy}{state.workers} workers{' busy' if busy else ''}"
        more = f"{state.tasks_done}/{state.tasks} tasks, {workers}"
        if state.speed:
            more += f", {state.speed}"
        if state.nodes_waiting:
            more += f", {_queued(state.nodes_waiting)}"
        if state.tasks_done < state.tasks and (left := _left(state)):
            more += f", {left}"
        self._progress.update(self._bar("training"), completed=state.share, more=more)
        best = ", ".join(_tail(state))
        self._progress.update(self._bar("", total=None), more=best)

    def note(self, text: str) -> None:
        """Print the line above the bars."""
        self._console.print(text, style="yellow", markup=False, highlight=False)

    def _bar(self, what: str, total: float | None = 1.0) -> Any:
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=total, more="")
        return self._bars[what]

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


class Full(Live):
    """What `Live` shows, and beneath it who does what, and the last failures."""

    def __init__(self) -> None:
        super().__init__()
        from rich.live import Live as Screen

        self._state: State | None = None
        self._screen = Screen(
            get_renderable=self._all, console=self._console, refresh_per_second=2.0
        )

    def state(self, state: State) -> None:
        """Show all of it."""
        self._state = state
        super().state(state)

    def _all(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        parts: list[Any] = [self._progress]
        if self._state is not None:
            # The bars, the headings and the failures have their places.
            room = self._console.size.height - 7 - len(self._state.failures)
            parts += [self._table(self._state, max(3, room))] if self._state.at_work else []
            parts += [Text(f"failed: {line}", "yellow") for line in self._state.failures]
        return Group(*parts)

    def _table(self, state: State, room: int) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for heading in ("worker", "at", "fold", "epochs", "for"):
            table.add_column(heading, no_wrap=heading != "at")
        shown = state.at_work[:room]
        for one in shown:
            more = f" and {one.bundle - 1} more" if one.bundle > 1 else ""
            what = point(one.hyperparameters) + more
            epochs = f"{one.from_epoch}-{one.to_epoch}"
            table.add_row(one.worker, Text(what), str(one.fold), epochs, duration(one.seconds))
        busy = len(shown) if state.busy is None else state.busy
        if busy > len(shown):
            table.add_row(f"and {busy - len(shown)} more", "", "", "", "")
        return table

    def __enter__(self) -> Self:
        self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.stop()


class Following(Plain):
    """The plain lines of `watch`: failures too, each as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self._said: tuple[str, ...] = ()

    def state(self, state: State) -> None:
        """Say what failed since the last look, and every ten seconds how far the study is."""
        for line in state.failures:
            if line not in self._said:
                self.note(line)
        self._said = state.failures
        super().state(state)


def _queued(nodes: int) -> str:
    return "1 node waits in the queue" if nodes == 1 else f"{nodes} nodes wait in the queue"


def _left(state: State) -> str:
    """Word the time that is left, with its interval; empty where nothing is known."""
    if math.isnan(state.seconds_left):
        return ""
    low, high = state.left_between
    text = f"{duration(state.seconds_left)} left"
    if math.isnan(low):
        return text
    between = f"{duration(low)} or more" if math.isinf(high) else span(low, high)
    return f"{text} ({between})"


def _tail(state: State) -> list[str]:
    parts = []
    if state.leader is not None:
        scored = folds(state.leader.folds)
        values = point(state.leader.hyperparameters)
        parts.append(f"best {state.metric} {state.leader.mean:.4f} over {scored} ({values})")
    if state.failed:
        parts.append(counted(state.failed, "failed run"))
    return parts
