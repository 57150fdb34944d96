"""Until when this process may work: the walltime of its job, less what leaving takes."""

from __future__ import annotations

import math
import time

_until = math.inf


def set_left(seconds: float) -> None:
    """Say how many seconds are left from now; infinity: there is no end."""
    global _until
    _until = time.monotonic() + seconds


def left() -> float:
    """Return the seconds that are left; infinity where there is no end."""
    return _until - time.monotonic()
