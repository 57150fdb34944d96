"""Stopping: Ctrl-C and the scheduler's SIGTERM end a command alike, with the line to go on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stoppable(go_on: Callable[[], str], kept: str) -> Iterator[None]:
    """End the block on Ctrl-C or SIGTERM with one line.

    Parameters
    ----------
    go_on : callable
        Returns the command that goes on.
    kept : str
        What is said to be kept where the study says nothing itself.

    Raises
    ------
    StudyInterrupted
        With that line.
    """
    from stormsweep.errors import StudyInterrupted

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, StudyInterrupted) as stopped:
        why = str(stopped) or kept
        raise StudyInterrupted(f"interrupted; {why}; go on with: {go_on()}") from None
