"""How the command line words numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def duration(seconds: float) -> str:
    """Word a duration.

    Examples
    --------
    >>> duration(7.4), duration(312), duration(7512)
    ('7 s', '5 min 12 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def hyperparameters(values: Mapping[str, Any]) -> str:
    """Word a configuration.

    Examples
    --------
    >>> hyperparameters({"batch_size": 128, "learning_rate": 0.001})
    'batch_size 128, learning_rate 0.001'
    """
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "nothing varied"
