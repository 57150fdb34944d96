"""One study on the mini Slurm, and all of it that a fault can strike."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.slurm.cluster import MiniSlurm, SlurmFailedError

from stormsweep.records import Entry, SessionBegun, WorkerEvent
from stormsweep.results.journal import Follower
from stormsweep.study.directory import study_key
from stormsweep.study.lock import driver_of

#: In the environment of all that a study starts, on every node: none of it can hide.
MARK = "STORMSWEEP_FAULTS"
NAME, SITE = "faults", "here"
_SITES = """\
[site.{site}]
scheduler = "slurm"
partition = "batch"
walltime = "{walltime}"
nodes = 2
memory_gb = 3
workers_per_node = 1
"""
#: What of its first argument's words a command may meet; each trouble meets one call.
_WRAPPER = """\
#!/bin/bash
trouble=
case " $* " in
  *" --test-only "*) ;;
  *) if mv {tools}/{name}.trouble {tools}/{name}.taken 2>/dev/null; then
       trouble=$(<{tools}/{name}.taken)
       echo "$trouble" >>{tools}/{name}.log
     fi ;;
esac
away="{name}: error: Unable to contact slurm controller (connect failure)"
late="{name}: error: Batch job submission failed: Socket timed out on send/recv operation"
case $trouble in
  fails) echo "$away" >&2; exit 1 ;;
  late) {real} "$@" >/dev/null; sleep 2; echo "$late" >&2; exit 1 ;;
  hangs) exec sleep 1000 ;;
  slow) sleep 12 ;;
  nonsense) echo "Segmentation fault, or was it?"; exit 0 ;;
  chatty) {real} "$@" >/dev/null; echo "Your job is very important to us."; exit 0 ;;
esac
exec {real} "$@"
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A job in the queue."""

    id: str
    state: str
    nodes: str


class World:
    """A study, its processes and its jobs.

    Parameters
    ----------
    cluster : MiniSlurm
        At work, and this study's alone.
    folder : Path
        Of this study; it lies beside the ``data`` and ``digits.npz`` of the campaign.
    way : str
        ``run`` or ``submit``.
    text : str
        The study file.
    walltime : str
        Of each job.
    disk_mb : int
        Size of the small disk under the study's directory; 0: it lies on the machine's.
    """

    def __init__(
        self, cluster: MiniSlurm, folder: Path, way: str, text: str, walltime: str, disk_mb: int
    ) -> None:
        self.cluster, self.folder, self.way = cluster, folder, way
        self.tools, self.runs = folder / "tools", folder / "runs"
        self.directory = self.runs / NAME
        self.token = uuid.uuid4().hex
        self.entries: list[Entry] = []
        #: When what was done is to be undone, and how.
        self.undo: list[tuple[float, Callable[[], object]]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._workers: dict[int, WorkerEvent] = {}
        self._mounted = False
        self._held = 0
        self._cancelled = 0
        for each in (self.tools, self.runs):
            each.mkdir(parents=True)
        (folder / f"{NAME}.toml").write_text(text, encoding="utf-8")
        (folder / "sites.toml").write_text(_SITES.format(site=SITE, walltime=walltime))
        for name in ("sbatch", "srun"):
            wrapper = self.tools / name
            wrapper.write_text(
                _WRAPPER.format(name=name, real=shutil.which(name), tools=self.tools)
            )
            wrapper.chmod(0o755)
        if disk_mb:
            size = f"size={disk_mb}m,mode=755"
            command = ["mount", "-t", "tmpfs", "-o", size, "faults", str(self.runs)]
            self._mounted = subprocess.run(command, capture_output=True).returncode == 0
        self._follower = Follower(self.directory / "journal.jsonl")
        self.environment = os.environ | cluster.environment | {MARK: self.token}
        self.environment["PATH"] = f"{self.tools}:{os.environ['PATH']}"

    @property
    def small_disk(self) -> bool:
        """Whether the study's directory lies on a disk of its own."""
        return self._mounted

    # The command.

    def start(self, *more: str) -> None:
        """Give the command: the same one each time."""
        words = [self.way, f"{NAME}.toml", "--site", SITE, *more]
        if self.way == "run":
            words.append("--no-report")
        with open(self.folder / "command.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stormsweep", *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def last_words(self) -> str:
        """Return the last line that the command printed, without where on this machine it ran."""
        text = (self.folder / "command.log").read_text(errors="replace").strip()
        return text.rpartition("\n")[2].replace(f"{self.folder.parent}{os.sep}", "")

    # What there is.

    def look(self) -> None:
        """Read on in the journal."""
        for entry in self._follower.new():
            self.entries.append(entry)
            record = entry.record
            if isinstance(record, SessionBegun):
                self._workers.clear()
            elif isinstance(record, WorkerEvent):
                if record.event == "ready":
                    self._workers[record.pid] = record
                else:
                    self._workers.pop(record.pid, None)

    def workers(self) -> list[WorkerEvent]:
        """Return the workers that are ready and live."""
        ours = set(self.processes())
        return [one for pid, one in self._workers.items() if pid in ours]

    def processes(self) -> Iterator[int]:
        """Yield all processes of this study, whoever started them, but zombies."""
        mark = f"{MARK}={self.token}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        yield int(entry.name)

    def command_lines(self) -> dict[int, list[str]]:
        """Return the command lines of all processes of this study."""
        found = {}
        for pid in self.processes():
            with contextlib.suppress(psutil.Error):
                found[pid] = psutil.Process(pid).cmdline()
        return found

    def agents(self) -> dict[int, str]:
        """Return the nodes' agents: process and the node's number in the session."""
        lines = self.command_lines().items()
        return {
            pid: line[-1]
            for pid, line in lines
            if line[1:3] == ["-m", "stormsweep.cluster.node"] and "srun" not in line[0]
        }

    def driver(self) -> int | None:
        """Return the driver's process, if it lives."""
        told = driver_of(self.directory)
        if told is not None and told["pid"] in self.processes():
            return int(told["pid"])
        if self.way == "run" and self.process is not None and self.process.poll() is None:
            return self.process.pid
        return None

    def jobs(self) -> list[Job] | None:
        """Return the jobs that are not over; None: Slurm does not answer."""
        try:
            lines = self.cluster.run("squeue", "--noheader", "--format=%i|%T|%N").splitlines()
        except (SlurmFailedError, subprocess.TimeoutExpired):
            return None
        return [Job(*line.strip().split("|")) for line in lines]

    def running(self) -> list[Job]:
        """Return the jobs that run."""
        return [job for job in self.jobs() or () if job.state == "RUNNING"]

    @property
    def key(self) -> str:
        """By which the study's jobs are known."""
        return study_key(self.directory)

    def held(self) -> bool:
        """Whether the chain's last word was that it stops: its jobs recorded nothing."""
        log = self.directory / "logs" / f"slurm-{SITE}.err"
        said = log.read_text(errors="replace") if log.exists() else ""
        known, self._held = self._held, said.count("jobs recorded nothing")
        return self._held > known

    def called_cancelled(self) -> bool:
        """Whether a job of the chain ended at once: Slurm calls the one before it cancelled."""
        log = self.directory / "logs" / "driver.log"
        said = log.read_text(errors="replace") if log.exists() else ""
        known, self._cancelled = self._cancelled, said.count("was cancelled: this one does not go")
        return self._cancelled > known

    def drivers_began(self) -> int:
        """Return how many jobs of the chain got as far as their driver's first line."""
        log = self.directory / "logs" / f"slurm-{SITE}.out"
        said = log.read_text(errors="replace") if log.exists() else ""
        return said.count(" of at most ")

    # What is done to it.

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Have something done in so many seconds."""
        self.undo.append((time.monotonic() + seconds, do))

    def resume_drained(self) -> list[str]:
        """Resume nodes that Slurm took out of service by itself; return them.

        A controller that was killed forgets its last seconds, and may begin a job whose number a
        node still knows. It drains that node ("Duplicate jobid"), and an operator has to resume it.
        """
        try:
            said = self.cluster.run("sinfo", "--noheader", "--Node", "--format=%N|%T|%E")
            lines = [line.split("|", 2) for line in said.splitlines()]
            drained = sorted(
                {
                    name
                    for name, state, reason in lines
                    if state.startswith("drain") and reason == "Duplicate jobid"
                }
            )
            for name in drained:
                self.cluster.run("scontrol", "update", f"nodename={name}", "state=resume")
        except (SlurmFailedError, subprocess.TimeoutExpired):
            return []  # Slurm is away: the next round will do.
        return drained

    def mend(self, all_: bool = False) -> None:
        """Undo what is to be undone by now."""
        now = time.monotonic()
        due = [one for one in self.undo if all_ or one[0] <= now]
        self.undo = [one for one in self.undo if one not in due]
        for _, do in due:
            do()

    def trouble(self, command: str, kind: str) -> None:
        """Have the next call of a command meet trouble."""
        (self.tools / f"{command}.trouble").write_text(kind)

    def troubles(self, command: str) -> int:
        """Return how many calls of a command met trouble."""
        log = self.tools / f"{command}.log"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def fill_disk(self) -> None:
        """Leave not one byte on the small disk."""
        with contextlib.suppress(OSError), open(self.runs / ".filler", "wb", buffering=0) as stream:
            while True:
                stream.write(bytes(1 << 16))

    def empty_disk(self) -> None:
        """Give the room back."""
        (self.runs / ".filler").unlink(missing_ok=True)

    def close(self) -> None:
        """End all that is left of the study."""
        with contextlib.suppress(SlurmFailedError, subprocess.TimeoutExpired):
            self.mend(all_=True)
        for _ in range(3):
            for pid in list(self.processes()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self.runs)], capture_output=True)
