"""Ctrl-C, heard also where Python would lose it.

Python raises KeyboardInterrupt wherever the program happens to be. In a callback of the garbage
collector, or of a library that passes over errors, it is printed and gone. So it is noted too, and
looked for where the driver's loop comes round.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_noted = threading.Event()


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Note Ctrl-C while this lasts; `check` raises what was lost.

    Only the main thread of a process can do that: in others nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def note(number: int, frame: Any) -> None:
        _noted.set()
        before(number, frame)

    _noted.clear()
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _noted.clear()


def check() -> None:
    """Raise the KeyboardInterrupt that was noted, if there was one.

    Raises
    ------
    KeyboardInterrupt
        Once for each.
    """
    if _noted.is_set():
        _noted.clear()
        raise KeyboardInterrupt
