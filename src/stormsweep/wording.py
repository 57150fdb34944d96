"""How numbers and configurations are worded in what is said to users, wherever it is said."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

#: Units of time, and their seconds.
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def counted(number: int, noun: str) -> str:
    """Word a number with its noun.

    Examples
    --------
    >>> counted(1, "run"), counted(3, "run")
    ('1 run', '3 runs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def folds(count: int, rounds: int = 1, noun: str = "fold", times: str = "x") -> str:
    """Word how many folds there are.

    Parameters
    ----------
    count, rounds : int, int
        Folds of all rounds together, and rounds.
    noun, times : str, str
        What one is called, and the sign between rounds and folds.

    Examples
    --------
    >>> folds(1), folds(3), folds(6, 2)
    ('1 fold', '3 folds', '2 x 3 folds')
    """
    if rounds > 1:
        return f"{rounds} {times} {count // rounds} {noun}s"
    return counted(count, noun)


def amount(value: float) -> str:
    """Word core-hours, or money, with some three digits; less than a thousandth with one.

    Examples
    --------
    >>> amount(0.0194), amount(7.25), amount(1431.27), amount(0.00021), amount(float("nan"))
    ('0.019', '7.250', '1,431.3', '0.0002', 'not known')
    """
    if math.isnan(value):
        return "not known"
    if 0 < value < 0.001:
        return f"{Decimal(f'{value:.1g}'):f}"
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"


def money(value: float) -> str:
    """Word an amount of money: to the cent, and what is less with one digit.

    Examples
    --------
    >>> money(1431.268), money(7.25), money(0.0), money(0.00021)
    ('1,431.27', '7.25', '0.00', '0.0002')
    """
    return amount(value) if 0 < value < 0.01 else f"{value:,.2f}"


def percent(share: float, decimals: int = 0) -> str:
    """Word a share, with a space as the SI has it.

    Examples
    --------
    >>> percent(0.973), percent(0.0454, 2), percent(float("nan"))
    ('97 %', '4.54 %', 'unknown')
    """
    return "unknown" if math.isnan(share) else f"{100 * share:.{decimals}f} %"


def duration(seconds: float) -> str:
    """Word a duration.

    Parameters
    ----------
    seconds : float
        How long.

    Examples
    --------
    >>> duration(7.4), duration(312), duration(7200), duration(7512), duration(200000)
    ('7 s', '5 min 12 s', '2 h', '2 h 5 min', '2 d 8 h')
    """
    whole = round(seconds)
    for (large, size), (small, part) in itertools.pairwise(_UNITS):
        if whole >= size:
            count, rest = divmod(round(seconds / part), size // part)
            return f"{count} {large} {rest} {small}" if rest else f"{count} {large}"
    return f"{whole} s"


def span(low: float, high: float) -> str:
    """Word a duration of which the least and the most is known.

    Parameters
    ----------
    low, high : float, float
        In seconds.

    Examples
    --------
    >>> span(7.4, 312), span(300.2, 300.4)
    ('7 s to 5 min 12 s', '5 min')
    """
    first, last = duration(low), duration(high)
    return first if first == last else f"{first} to {last}"


def point(hyperparameters: Mapping[str, Any]) -> str:
    """Word a configuration.

    Examples
    --------
    >>> point({"batch_size": 128, "learning_rate": 0.001})
    'batch_size 128, learning_rate 0.001'
    """
    values = ", ".join(f"{name} {value}" for name, value in hyperparameters.items())
    return values or "nothing varied"
