"""How long this worker process may still compute: until the walltime of the job that it runs in.

Whoever starts the process says so once; without a word there is no end. The clock is the process's
own: instants of two machines are never compared.
"""

from __future__ import annotations

import math
import time

_end = math.inf


def set_left(seconds: float) -> None:
    """Say how long this process may still compute.

    Parameters
    ----------
    seconds : float
        From now on; ``inf``: as long as it likes.
    """
    global _end
    _end = time.monotonic() + seconds


def left() -> float:
    """Return how many seconds this process may still compute; ``inf`` where nobody set an end."""
    return _end - time.monotonic()
