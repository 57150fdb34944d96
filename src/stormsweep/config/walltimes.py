"""Walltimes read, and what they leave for work: rules of workers, drivers and simulations."""

from __future__ import annotations

import re

_DAYS = re.compile(r"(?P<d>[0-9]{1,4})-(?P<h>[0-9]{1,2})(:(?P<m>[0-9]{2})(:(?P<s>[0-9]{2}))?)?")
_HOURS = re.compile(r"(?P<h>[0-9]{1,5}):(?P<m>[0-9]{2}):(?P<s>[0-9]{2})")
_MINUTES = re.compile(r"(?P<m>[0-9]{1,7})")
#: What of a walltime is kept for leaving, and at least and at most so many seconds of it.
_LEAVING_SHARE, _LEAST_S, _MOST_S = 0.1, 10.0, 120.0
#: The least that workers are given to end, in seconds.
_END_S = 1.0
#: An epoch may take longer than the last one, by this factor; so may what follows it.
_SLACK = 1.25
#: Beside that so many seconds must be left: for a file system that hesitates.
_SPARE = 5.0
#: Where it was not measured yet, scoring and writing a checkpoint takes this share of an epoch.
UNMEASURED = 0.5
#: How often a worker's time may be over before a run has got on by an epoch, until the run is given
#: up, and the share of its job's time that a worker must have had for that to count.
STANDSTILLS, MUCH = 3, 0.5
#: Jobs in a row without progress after which no further one is submitted: the next is the last.
MOST_IDLE = 2


def walltime_seconds(walltime: str) -> int:
    """Return how long a walltime is, in seconds.

    Parameters
    ----------
    walltime : str
        One of Slurm's forms: ``HH:MM:SS``, ``D-HH``, ``D-HH:MM``, ``D-HH:MM:SS``, or minutes.

    Raises
    ------
    ValueError
        If it is none of them, or is no time at all. ``MM:SS``, which Slurm knows too, is refused:
        who writes ``04:00`` means four hours, and would get four minutes.

    Examples
    --------
    >>> walltime_seconds("04:00:00"), walltime_seconds("1-00:00:00"), walltime_seconds("90")
    (14400, 86400, 5400)
    """
    hits = (form.fullmatch(walltime) for form in (_DAYS, _HOURS, _MINUTES))
    found = next((hit for hit in hits if hit), None)
    parts = {name: int(text) for name, text in found.groupdict().items() if text} if found else {}
    wrong = (
        parts.get("s", 0) > 59
        or (parts.get("m", 0) > 59 and "h" in parts)
        or (parts.get("h", 0) > 23 and "d" in parts)
    )
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    seconds = sum(number * units[name] for name, number in parts.items())
    if found is None or wrong or seconds == 0:
        minutes = re.fullmatch(r"[0-9]{1,3}:[0-9]{2}", walltime)
        hint = "Slurm reads this as minutes and seconds; " if minutes else ""
        raise ValueError(f'{hint}must be HH:MM:SS or D-HH:MM:SS, such as "04:00:00"')
    return seconds


def margin(seconds: float) -> float:
    """Return how long before the end of a job its work must be over, in seconds.

    Parameters
    ----------
    seconds : float
        What the job has, all together.

    Examples
    --------
    >>> margin(60), margin(600), margin(4 * 3600)
    (10.0, 60.0, 120.0)
    """
    return min(_MOST_S, max(_LEAST_S, _LEAVING_SHARE * seconds))


def ending(left: float) -> float:
    """Return how long a driver may wait for the end of its workers, in seconds.

    As long again is left for what it does after that: to see to the job that goes on. Nodes leave
    when a third of the `margin` is left, if nothing else ends them before.

    Parameters
    ----------
    left : float
        What is left of its job.

    Examples
    --------
    >>> ending(40.0), ending(-3.0)
    (20.0, 1.0)
    """
    return max(_END_S, left / 2)


def needed(epoch: float, beside: float) -> float:
    """Return how many seconds must be left for another epoch to be begun.

    Parameters
    ----------
    epoch, beside : float
        What an epoch takes; scoring and the checkpoint.

    Examples
    --------
    >>> needed(60.0, 20.0)
    105.0
    """
    return _SPARE + _SLACK * (epoch + beside)
