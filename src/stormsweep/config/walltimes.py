"""What a walltime leaves for work: rules that workers, drivers and simulations have in common."""

from __future__ import annotations

#: What of a walltime is kept for leaving, and at least and at most so many seconds of it.
_LEAVING_SHARE, _LEAST_S, _MOST_S = 0.1, 10.0, 120.0
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
