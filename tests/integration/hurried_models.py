"""The small CNN in workers that have little time.

A worker imports this before its first task. Its deadline counts questions instead of seconds, so
that the time is over at the same place on every machine: asked so often whether there is time,
`deadline.left` says that there is none. With a file ``die`` in the folder one worker dies instead.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

from stormsweep.cluster import deadline

#: A worker may train some ten epochs.
QUESTIONS = 15

deadline.set_left(1e6)
_left, _asked = deadline.left, 0
_digits_cnn = runpy.run_path(str(Path(__file__).with_name("small_models.py")))["digits_cnn"]


def _count() -> float:
    global _asked
    _asked += 1
    if _asked == QUESTIONS - 2 and Path("die").exists():
        Path("die").unlink()
        os.kill(os.getpid(), 9)
    if _asked == QUESTIONS:
        deadline.set_left(0.0)
    return _left()


deadline.left = _count


def digits_cnn(input_shape: tuple[int, ...], learning_rate: float, filters: int = 4) -> Any:
    """Build the same model as small_models.py."""
    return _digits_cnn(input_shape, learning_rate, filters)
