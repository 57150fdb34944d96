"""What came of a simulated study: how long it took, what for, and what every worker did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from stormsweep.work import Run, Task


class Stint(NamedTuple):
    """What a worker did at one go: a task, or a bundle of them.

    Attributes
    ----------
    worker, job : int, int
        Which, and in which job of a chain, both from 0.
    tasks : list of Task
        What it was given.
    submitted, started, stopped : float
        Seconds since the study was asked for.
    epoch : int
        Where it ended; as the task's own end, unless it was paused or lost.
    end : str
        ``done``, ``paused``, ``lost`` or ``walltime`` (lost because its job ended).
    factor : float
        What it took, over what was foreseen.
    compiled, opened : bool
        Whether the worker had to compile the program, and to open the data.
    delay : float
        Seconds of it that were lost, as now and then some are.
    """

    worker: int
    job: int
    tasks: list[Task]
    submitted: float
    started: float
    stopped: float
    epoch: int
    end: str
    factor: float
    compiled: bool
    opened: bool
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the time of the worker that was at work last went to; together, the makespan.

    Attributes
    ----------
    waiting, starting, busy, idle, overhead : float
        Seconds in the queue; until workers were ready; at tasks; without work that could be given
        out; between tasks, where there was.
    """

    waiting: float
    starting: float
    busy: float
    idle: float
    overhead: float

    @property
    def whole(self) -> float:
        """All of it."""
        return self.waiting + self.starting + self.busy + self.idle + self.overhead


@dataclass(frozen=True, slots=True)
class Simulated:
    """One simulated study.

    Attributes
    ----------
    makespan : float
        Seconds from asking until the last result.
    core_hours, gpu_hours : float
        Charged: of all nodes, from when they were granted until they were given back.
    cost : float or None
        That at the site's prices; None where it has none.
    busy, available : float
        Worker-seconds at tasks; that workers were there, from ready to gone.
    wasted : float
        Worker-seconds of work that was lost with its workers.
    parts : Parts
        What the makespan went to.
    longest_chain : float
        Seconds at tasks of the run that took most: no number of workers makes it shorter.
    driver_busy : float
        Seconds that the driver was busy.
    tasks, jobs, lost : int
        Tasks done, jobs that ran (nodes, where each is a job), workers lost.
    given_up : tuple of str
        Runs for which one epoch does not fit into a walltime: they fail; where jobs follow each
        other, each of which tries again, they are what the last jobs were at for nothing.
    finished : bool
        False where the jobs of the chain ended before the study.
    stints : list of Stint
        All that workers did, where it was asked for.
    ready : list of tuple
        Job, worker, and when it came and went, where it was asked for.
    runs : tuple of Run
        The runs that a strategy asked for; empty where they were all known ahead.
    """

    makespan: float
    core_hours: float
    gpu_hours: float
    cost: float | None
    busy: float
    available: float
    wasted: float
    parts: Parts
    longest_chain: float
    driver_busy: float
    tasks: int
    jobs: int
    lost: int
    given_up: tuple[str, ...]
    finished: bool
    stints: list[Stint] = field(default_factory=list)
    ready: list[tuple[int, int, float, float]] = field(default_factory=list)
    runs: tuple[Run, ...] = ()

    @property
    def utilisation(self) -> float:
        """Share of their time that workers were at tasks."""
        return self.busy / self.available if self.available else 0.0
