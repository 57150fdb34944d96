"""One study from its command to its end, with faults at random instants."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.slurm.cluster import MiniSlurm, SlurmFailedError

from stormsweep.records import TaskDone
from stormsweep.results.journal import of_kind

from .judge import judge
from .kinds import KINDS, SESSION, Struck
from .world import World

#: Seconds from one fault to the next at least, and at most.
GAPS = (1.0, 9.0)
#: A kind that finds nothing to strike within so many seconds gives way to another.
_PATIENCE = 12.0
#: A study that is not done within so many seconds never will be, on a busy machine neither.
_LIMIT = 1800.0
#: Seconds from look to look for nodes that Slurm has drained.
_ROUND = 10.0
#: Seconds within which processes and jobs must be gone after the end; and jobs that only Slurm can
#: end any more: one whose slurmd was away is COMPLETING until slurmctld asks that the next time.
_GONE, _COMPLETING = 60.0, 300.0
#: How many of the faults wait for a worker to be there: starting takes long, and hits little.
_AT_WORK = 0.5
_TICK = 0.1


@dataclass(slots=True)
class Fault:
    """One fault: when, and what became of it."""

    kind: str
    at: float
    what: str
    pids: tuple[int, ...]
    words: tuple[str, ...]
    #: Workers that there were.
    workers: int
    #: A command met the trouble that was made for it; True where none was.
    met: bool = True
    #: Tasks that were given out again, and the seconds from when they were to when they were again.
    lost: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Story:
    """What became of one study."""

    number: int
    way: str
    walltime: str
    faults: list[Fault]
    violations: list[str]
    seconds: float
    commands: int
    sessions: int
    #: Runs set aside because they lost three workers to kills, and then tried again.
    set_aside: int
    gone: float
    #: Why the command was given again.
    again: list[str] = field(default_factory=list)
    #: Nodes that Slurm had drained by itself, and that were resumed.
    resumed: int = 0
    walltimes: list[Any] = field(default_factory=list)


class Trial:
    """A study under faults.

    Parameters
    ----------
    world : World
        The study.
    number : int
        Of the study in the campaign.
    walltime : str
        Of its jobs.
    chance : Random
        All that is random.
    kinds : dict of str to int
        The kinds that may strike, and how often each did so far.
    most : int
        Faults at most.
    tasks : int
        Tasks that the study has.
    """

    def __init__(
        self,
        world: World,
        number: int,
        walltime: str,
        chance: random.Random,
        kinds: dict[str, int],
        most: int,
        tasks: int,
    ) -> None:
        self.world, self.chance, self.most = world, chance, most
        self._kinds = {name: count for name, count in kinds.items() if world.way in KINDS[name][0]}
        self._tasks = tasks
        self.story = Story(number, world.way, walltime, [], [], 0.0, 0, 0, 0, 0.0)
        self._retry: list[str] = []
        self._drivers = 0
        self._due, self._waits = 0.0, chance.random() < _AT_WORK
        self._kind, self._tried = "", 0.0
        self._round = 0.0

    def go(self, reference: dict[tuple[str, int], dict[str, float]]) -> Story:
        """Live through it."""
        began = time.monotonic()
        story, world = self.story, self.world
        self._command()
        self._due = time.monotonic() + self.chance.uniform(*GAPS)
        while not self._over():
            world.look()
            world.mend()
            self._resume()
            self._maybe_strike()
            self._go_on()
            if time.monotonic() - began > _LIMIT:
                story.violations.append(f"not done within {_LIMIT:.0f} s: {world.last_words()}")
                break
            time.sleep(_TICK)
        world.mend(all_=True)
        story.seconds = time.monotonic() - began
        self._nothing_left()
        world.look()
        judge(story, world, reference)
        return story

    # The command, and the same again.

    def _command(self) -> None:
        self.story.commands += 1
        self._begun, self._troubles = time.time(), self.world.troubles("sbatch")
        self.world.start(*self._retry)

    def _over(self) -> bool:
        """Whether everything is on record and everybody went home."""
        process, world = self.world.process, self.world
        assert process is not None
        if process.poll() is None or len(self._done()) < self._tasks:
            return False
        if world.way == "run":
            return True
        jobs = world.jobs()
        return jobs is not None and not jobs

    def _done(self) -> set[tuple[str, int]]:
        found = of_kind(self.world.entries, TaskDone)
        return {(task.run, task.to_epoch) for task in found}

    def _go_on(self) -> None:
        """Give the command again where it ended, or its last job did; see that a fault ended it."""
        process, world, story = self.world.process, self.world, self.story
        assert process is not None
        if process.poll() is None or (world.way == "submit" and not self._queue_is_empty()):
            return
        world.look()
        if len(self._done()) >= self._tasks:
            return
        failed = self._notice_failures()
        cause = self._cause(bool(process.returncode))
        if failed or cause:
            story.again.append(cause or "failed runs are tried again")
        else:
            story.violations.append(
                f"it ended without cause, exit code {process.returncode}: {world.last_words()}"
            )
        # By a user who sees it a moment later.
        time.sleep(self.chance.uniform(0.0, 2.0))
        world.mend()
        self._command()

    def _resume(self) -> None:
        """See every few seconds to nodes that Slurm has drained by itself, as operators do.

        Not while Slurm is in trouble of our making: its commands would hang, and we with them.
        """
        if time.monotonic() >= self._round and not self.world.undo:
            self.story.resumed += len(self.world.resume_drained())
            self._round = time.monotonic() + _ROUND

    def _queue_is_empty(self) -> bool:
        """Look twice: a job is not in the queue yet that was just submitted."""
        if self.world.jobs() != []:
            return False
        time.sleep(1.0)
        return self.world.jobs() == []

    def _cause(self, refused: bool) -> str:
        """Return what may have ended what the last command began; empty: nothing did.

        `run` ends with its driver. What `submit` began does not.
        """
        away = ("slurmctld", "slurmd", "sbatch", "node down")
        recent = [fault for fault in self.story.faults if fault.at >= self._begun - 20]
        if self.world.way == "run":
            for fault in recent:
                if SESSION in fault.words:
                    return fault.kind
        else:
            held, began = self.world.held(), self.world.drivers_began()
            forgot = self.world.called_cancelled()
            before, self._drivers = self._drivers, began
            for fault in recent:
                if fault.kind in ("job cancelled", "disk full"):
                    return fault.kind
            if held:
                return "its jobs were ended before they recorded anything, three in a row"
            if forgot and any(fault.kind == "slurmctld killed" for fault in recent):
                return "Slurm, killed and back, called a job cancelled that was requeued before"
            if not refused and began == before and recent:
                return "its job was ended before its driver began"
        # Trouble made for sbatch stays until there is a call of it, however late.
        met = self.world.troubles("sbatch") > self._troubles
        if refused and (met or any(fault.kind.startswith(away) for fault in recent)):
            return "refused while Slurm was in trouble"
        return ""

    def _notice_failures(self) -> bool:
        """Have runs tried again that are given up; say whether there are any."""
        from stormsweep.results.progress import progress_of

        failed = progress_of(self.world.entries).failed
        if failed and not self._retry:
            self._retry = ["--retry-failed"]
            for failure in failed.values():
                if failure.failure == "killed":
                    self.story.set_aside += 1
                else:
                    self.story.violations.append(
                        f"a run failed ({failure.failure}): {failure.reason}"
                    )
        return bool(failed)

    # The faults.

    def _maybe_strike(self) -> None:
        now = time.monotonic()
        if now < self._due or len(self.story.faults) >= self.most or not self._kinds:
            return
        if self._waits:
            if self.world.workers():
                self._waits, self._due = False, now + self.chance.uniform(*GAPS) / 2
            return
        if not self._kind:
            fewest = min(self._kinds.values())
            rare = sorted(name for name, count in self._kinds.items() if count <= fewest + 1)
            self._kind, self._tried = self.chance.choice(rare), now
        kind = self._kind
        struck = self._strike(kind)
        if struck is None:
            if now - self._tried > _PATIENCE:
                self._kind = ""
                self._kinds[kind] += 1  # Others first.
            self._due = now + 0.3
            return
        self._kinds[kind] += 1
        self._kind, self._waits = "", self.chance.random() < _AT_WORK
        self._due = time.monotonic() + self.chance.uniform(*GAPS) / 2

    def _strike(self, kind: str) -> Struck | None:
        workers = len(self.world.workers())
        at = time.time()
        try:
            struck = KINDS[kind][1](self.world, self.chance)
        except (SlurmFailedError, subprocess.TimeoutExpired, ProcessLookupError):
            return None
        if struck is not None:
            fault = Fault(kind, at, struck.what, struck.pids, struck.words, workers)
            self.story.faults.append(fault)
            print(f"  {time.strftime('%H:%M:%S')} {kind}: {struck.what}", flush=True)
        return struck

    # The end.

    def _nothing_left(self) -> None:
        began, jobs = time.monotonic(), self.world.jobs()
        while time.monotonic() - began < _COMPLETING:
            jobs, processes = self.world.jobs(), list(self.world.processes())
            if jobs == [] and not processes:
                break
            ours = processes or jobs is None or any(job.state != "COMPLETING" for job in jobs)
            if ours and time.monotonic() - began > _GONE:
                break
            time.sleep(0.25)
        self.story.gone = time.monotonic() - began
        for pid, line in self.world.command_lines().items():
            # Where the study lay says nothing to anybody else.
            words = " ".join(line).replace(f"{self.world.folder}/", "")
            self.story.violations.append(f"process {pid} is left: {words[:200]}")
        for job in jobs or ():
            self.story.violations.append(f"job {job.id} is left: {job.state} {job.nodes}")


def keep(world: World, place: Path) -> None:
    """Keep what a study left, for whoever looks for the cause of a violation."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(world.folder, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.h5"))


def prepared(cluster: MiniSlurm) -> None:
    """Have all nodes up and idle before a study."""
    if not cluster.alive("slurmctld"):
        cluster.start_slurmctld()
    cluster.cancel_all()
