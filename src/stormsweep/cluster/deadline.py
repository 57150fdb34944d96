"""How long this worker process may still compute: until the walltime of the job that it runs in.

Whoever starts the process says so once; without a word there is no end. The clock is the process's
own: instants of two machines are never compared.
"""

from __future__ import annotations

import math
import time

_end = math.inf
_whole = math.inf


def set_left(seconds: float, whole: float = math.inf) -> None:
    """Say how long this process may still compute.

    Parameters
    ----------
    seconds : float
        From now on; ``inf``: as long as it likes.
    whole : float
        What its job had when it began; ``inf``: unknown.
    """
    global _end, _whole
    _end, _whole = time.monotonic() + seconds, whole


def left() -> float:
    """Return how many seconds this process may still compute; ``inf`` where nobody set an end."""
    return _end - time.monotonic()


def share() -> float:
    """Return what is left as a share of what the job had; 1 where that is unknown."""
    return 1.0 if math.isinf(_whole) else max(0.0, left()) / _whole
