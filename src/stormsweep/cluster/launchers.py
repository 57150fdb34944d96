"""What makes nodes: steps inside the driver's own allocation, or jobs of their own."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stormsweep.cluster import machine, slurm
from stormsweep.cluster.commands import wait
from stormsweep.cluster.jobscript import Order, job_script, worker_logs
from stormsweep.cluster.keeper import Ended
from stormsweep.cluster.scheduler import Job, Scheduler, scheduler_of
from stormsweep.cluster.worker_log import last_words
from stormsweep.config.sites import Site
from stormsweep.errors import SchedulerError, SlurmError, UserError

log = logging.getLogger(__name__)

#: Slurm's words for how a job ended, and ours.
_FAILURES = {
    "TIMEOUT": "walltime",
    "DEADLINE": "walltime",
    "NODE_FAIL": "node-failure",
    "BOOT_FAIL": "node-failure",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "PREEMPTED": "preempted",
    "OUT_OF_MEMORY": "out-of-memory",
    "FAILED": "killed",
}
#: What srun prints when a step ends before its time, and our word for it.
_SAID = (
    (re.compile(r"due to time limit", re.I), "walltime"),
    (re.compile(r"node fail", re.I), "node-failure"),
    (re.compile(r"due to preemption", re.I), "preempted"),
    (re.compile(r"oom.?kill|out of memory", re.I), "out-of-memory"),
    (re.compile(r"\bcancelled\b", re.I), "cancelled"),
)
#: How srun says that it could not even begin a step.
_NOT_BEGUN = re.compile(
    r"srun: error: (unable to (?:create step|confirm allocation) for job.*)", re.I
)
#: Seconds between two looks at the queue: at first, and at most.
_LOOKS = (1.0, 30.0)
#: A job that slurmctld does not know (it may be restarting) is missing after so many looks.
_MISSED = 3
#: Seconds that a step may take to end.
_END_SECONDS = 10.0


class StepLauncher:
    """Nodes of this job's own allocation, each by a step of its own.

    Parameters
    ----------
    job : str
        Number of this job.
    nodes : sequence of str
        Its nodes.
    cores : int
        Cores that a step takes of its node.
    logs : Path
        Folder of the study's logs.
    """

    renews = False

    def __init__(self, job: str, nodes: Sequence[str], cores: int, logs: Path) -> None:
        self._job, self._nodes, self._cores, self._logs = job, list(nodes), cores, logs
        self._steps: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        #: Nodes that are down, or at fault for good: they have no steps any more.
        self._failed: set[str] = set()
        #: Nodes at fault: they have steps where no other node is free, since what it was may pass.
        self._avoided: set[str] = set()
        self._granted: dict[str, float] = {}

    def places(self) -> int:
        """Return how many of the job's nodes are up and of use, as far as is known."""
        return len(self._nodes) - len(self._failed)

    def free(self) -> int:
        """Return how many of them have no step."""
        return len(self._free())

    def _free(self) -> list[str]:
        taken = {node for node, _ in list(self._steps.values())} | self._failed
        free = [node for node in self._nodes if node not in taken]
        return sorted(free, key=self._avoided.__contains__)

    def avoid(self, host: str, for_good: bool = False) -> None:
        """Start steps on a node only where no other is free, or `for_good` never."""
        (self._failed if for_good else self._avoided).add(host)

    def start(self, name: str, command: Sequence[str]) -> str:
        """Start a step on a node that has none."""
        node = self._free()[0]
        step = [
            "srun",
            f"--jobid={self._job}",
            "--nodes=1",
            "--ntasks=1",
            f"--nodelist={node}",
            f"--cpus-per-task={self._cores}",
            f"--job-name=node-{name}",
            "--input=none",
            "--mpi=none",
            "--export=ALL",
            *command,
        ]
        environment = slurm.environment(os.environ) | {"SLURM_JOB_ID": self._job}
        if machine.whole_cores(os.environ):
            # As srun's --hint, and told to the agent; of a job that has no whole cores it would be
            # refused.
            environment["SLURM_HINT"] = "nomultithread"
        with contextlib.ExitStack() as open_:
            try:
                out = open_.enter_context(open(self._log, "ab"))
                errors = open_.enter_context(open(self._errors(name), "wb"))
            except OSError as error:
                # A full disk has room again some time.
                raise SlurmError(f"its log cannot be written: {error}", "srun") from None
            try:
                process = subprocess.Popen(
                    step,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    env=environment,
                    # Ctrl-C is for the driver, which then ends its steps in order.
                    start_new_session=True,
                )
            except OSError as error:
                raise SlurmError(f"cannot be started: {error}", "srun", refused=True) from None
        self._steps[name] = node, process
        # The node is the job's, whatever the step waits for.
        self._granted[name] = time.monotonic()
        return f"step node-{name} of job {self._job} on {node}"

    def ended(self) -> Mapping[str, Ended]:
        """Return the steps that ended since the last call."""
        found: dict[str, Ended] = {}
        for name, (node, process) in list(self._steps.items()):
            code = process.poll()
            if code is None:
                continue
            del self._steps[name]
            said = self._said(name)
            found[name] = end = _step_end(code, said)
            if end.failure == "node-failure":
                self._failed.add(node)
        return found

    def granted(self) -> Mapping[str, float]:
        """Return the steps that were started since the last call."""
        return _ago(self._granted)

    def stop(self, names: Collection[str]) -> None:
        """Stop steps."""
        for name in names:
            if name in self._steps:
                # srun passes it on to the step; told twice within a second, it would kill it.
                self._steps[name][1].send_signal(signal.SIGTERM)

    def look(self) -> None:
        """Do nothing: the end of a step is known at once."""

    def close(self) -> None:
        """Stop all steps and wait until they are gone."""
        processes = [process for _, process in self._steps.values()]
        until = time.monotonic() + _END_SECONDS
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            # Agents find their driver gone, and leave by themselves: that is waited for first.
            for process in processes:
                if number and process.poll() is None:
                    process.send_signal(number)
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, until - time.monotonic()))
            until = time.monotonic() + _END_SECONDS
        for name in list(self._steps):
            self._said(name)
        self._steps.clear()

    @property
    def _log(self) -> Path:
        return self._logs / f"slurm-{self._job}.out"

    def _errors(self, name: str) -> Path:
        return self._logs / f".node-{self._job}-{name}.err"

    def _said(self, name: str) -> str:
        """Move what srun said of a step to the job's log."""
        path, text = self._errors(name), ""
        with contextlib.suppress(OSError):
            text = path.read_text(encoding="utf-8", errors="replace")
            path.unlink()
            with open(self._log, "a", encoding="utf-8") as out:
                out.write(text)
        return text


def _step_end(code: int, said: str) -> Ended:
    if code == 0:
        return Ended()
    lines = said.strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    for words, failure in _SAID:
        if words.search(said):
            return Ended(failure, f"its step ended{last}")
    not_begun = _NOT_BEGUN.search(said)
    if not_begun and any(words in not_begun[1].lower() for words in slurm.PASSING):
        return Ended("cancelled", f"its step did not begin: {not_begun[1]}")
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Ended("killed", f"its node's agent ended with {how}{last}")


@dataclass(slots=True)
class _Asked:
    id: str
    missed: int = 0
    ran: bool = False


class JobLauncher:
    """Nodes that are jobs of one node each.

    Parameters
    ----------
    site : Site
        What a job asks for.
    name : str
        Of the jobs.
    key : str
        By which the study's jobs are found; see `Scheduler.submit`.
    logs : Path
        Folder of the study's logs.
    folder : Path
        Where jobs start.
    commands : Scheduler, optional
        The commands of the site's scheduler.
    """

    renews = True

    def __init__(
        self,
        site: Site,
        name: str,
        key: str,
        logs: Path,
        folder: Path,
        commands: Scheduler | None = None,
    ) -> None:
        self._site, self._name, self._key = site, name, key
        self._logs, self._folder = logs, folder
        self._scheduler = commands or scheduler_of(site)
        self._jobs: dict[str, _Asked] = {}
        self._granted: dict[str, float] = {}
        #: Nodes at fault, which jobs are not to have, and those of them that are so for good.
        self._avoided: set[str] = set()
        self._shut: set[str] = set()
        self._pause, self._due = _LOOKS[0], 0.0
        self._swept = False

    def places(self) -> int:
        """Return how many jobs there may be: as many as the cluster lets be."""
        return 1 << 20

    def free(self) -> int:
        """Return how many could be submitted now: as many."""
        return 1 << 20

    def script(self, command: Sequence[str], anywhere: bool = False) -> str:
        """Return the job script for a command; `anywhere`: where what is wrong may pass, too."""
        log = worker_logs(self._logs, self._site.scheduler)
        avoided = self._shut if anywhere else self._avoided
        order = Order(self._name, command, log, nodes=1, exclude=sorted(avoided))
        return job_script(self._site, order)

    def avoid(self, host: str, for_good: bool = False) -> None:
        """Submit jobs that do not get a machine, as long as others fit, or `for_good` never."""
        self._avoided.add(host)
        if for_good:
            self._shut.add(host)

    def start(self, name: str, command: Sequence[str]) -> str:
        """Submit a job."""
        if not self._swept:
            # Jobs of a driver that was killed would find nobody to work for.
            left = self._scheduler.jobs_of(self._key).items()
            self._scheduler.cancel([id for id, job in left if not job.over])
            self._swept = True
        try:
            id = self._scheduler.submit(self.script(command), self._folder, self._key)
        except SchedulerError as error:
            if error.passing or self._avoided == self._shut:
                raise
            # No other node fits, say: what was wrong with these may have passed.
            script = self.script(command, anywhere=True)
            id = self._scheduler.submit(script, self._folder, self._key)
        self._jobs[name] = _Asked(id)
        self.look()
        return f"job {id}"

    def ended(self) -> Mapping[str, Ended]:
        """Return the jobs that ended since the last look; most calls do not look."""
        now = time.monotonic()
        if not self._jobs or now < self._due:
            return {}
        self._pause = min(1.5 * self._pause, _LOOKS[1])
        self._due = now + self._pause
        asked_for = list(self._jobs.items())
        known = self._scheduler.jobs([asked.id for _, asked in asked_for])
        found: dict[str, Ended] = {}
        requeued: list[str] = []
        for name, asked in asked_for:
            job = known.get(asked.id)
            asked.missed = asked.missed + 1 if job is None else 0
            if job is None and asked.missed < _MISSED:
                self.look()
            elif job is None:
                # One that slurmctld forgot when it was killed may run on; its agent is told to go.
                reason = f"{self._scheduler.name} does not know the job any more"
                reason += last_words(self._log(asked.id))
                found[name] = Ended("cancelled", reason, known=False)
            elif job.over:
                found[name] = self._end(asked.id, job)
            elif asked.ran and job.state == "PENDING":
                found[name] = Ended("cancelled", f"{self._scheduler.name} put it back in the queue")
                requeued.append(asked.id)
            elif job.state == "RUNNING" and not asked.ran:
                asked.ran = True
                self._granted[name] = time.monotonic() - (job.seconds or 0.0)
            if name in found:
                del self._jobs[name]
        if requeued:
            # Slurm holds them back for two minutes, and their agents would bear the names of those
            # that are gone: others take their places.
            with contextlib.suppress(SchedulerError):
                self._scheduler.cancel(requeued)
        return found

    def granted(self) -> Mapping[str, float]:
        """Return the jobs that were seen to run for the first time since the last call."""
        return _ago(self._granted)

    def stop(self, names: Collection[str]) -> None:
        """Cancel jobs."""
        ids = [self._jobs[name].id for name in names if name in self._jobs]
        if ids:
            self._scheduler.cancel(ids)
            self.look()

    def look(self) -> None:
        """Look at the queue soon."""
        self._pause, self._due = _LOOKS[0], min(self._due, time.monotonic() + 0.5)

    def close(self) -> None:
        """Cancel all jobs, and wait a little until they are over."""
        ids = [asked.id for asked in self._jobs.values()]
        if not ids:
            return
        # Those that wait are not to start; those that run leave by themselves, in order.
        known = self._scheduler.jobs(ids)
        self._scheduler.cancel([id for id, job in known.items() if job.state == "PENDING"])
        wait(lambda: self._left(ids) == [], 5.0)
        self._scheduler.cancel(self._left(ids))
        wait(lambda: self._left(ids) == [], _END_SECONDS)
        self._jobs.clear()

    def _left(self, ids: Sequence[str]) -> list[str]:
        known = self._scheduler.jobs(ids)
        return [id for id in ids if id in known and not known[id].over]

    def _end(self, id: str, job: Job) -> Ended:
        ran = job.seconds or 0.0
        if job.state == "COMPLETED":
            return Ended(seconds=ran)
        failure = _FAILURES.get(job.state, "killed")
        last = last_words(self._log(id)) if failure in ("killed", "out-of-memory") else ""
        reason = f" ({job.reason})" if job.reason else ""
        return Ended(failure, f"{self._scheduler.name} says {job.state}{reason}{last}", ran)

    def _log(self, id: str) -> Path:
        return self._logs / f"{self._site.scheduler}-{id}.out"


def _ago(granted: dict[str, float]) -> dict[str, float]:
    """Take all that is granted, one by one: another thread may put more in."""
    found = {}
    while granted:
        name, when = granted.popitem()
        found[name] = time.monotonic() - when
    return found


def own_job() -> tuple[str, list[str]]:
    """Return the number of the job that this process runs in, and its nodes.

    Raises
    ------
    UserError
        If it runs in none.
    SlurmError
        If scontrol fails.
    """
    job, nodes = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_JOB_NODELIST")
    if not job or not nodes:
        raise UserError(
            "this is no job of Slurm's: SLURM_JOB_ID and SLURM_JOB_NODELIST are not set"
        )
    return job, slurm.run(["scontrol", "show", "hostnames", nodes]).stdout.split()
