"""How numbers are worded in what is said to users, wherever it is said."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Word a duration.

    Parameters
    ----------
    seconds : float
        How long.

    Examples
    --------
    >>> duration(7.4), duration(312), duration(300), duration(7512)
    ('7 s', '5 min 12 s', '5 min', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
