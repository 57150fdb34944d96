"""Slurm's commands: the one place that runs sbatch, squeue, scancel, sinfo and sacct.

Every command has a time after which it is killed, its output is checked before it is believed, and
one that fails is shown whole. Variables with which users set their own defaults (``SBATCH_*``,
``SQUEUE_FORMAT``) do not reach it: a job gets what its script asks for, also when the script is
submitted from within another job.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from stormsweep.cluster import commands
from stormsweep.cluster.commands import PATIENCE
from stormsweep.cluster.partitions import SINFO, Partition, read_partitions, read_time
from stormsweep.cluster.scheduler import Job
from stormsweep.errors import NoSchedulerError, SlurmError

#: Seconds after which a job that a lost sbatch may have submitted is looked for, again and again.
_LOOK_AGAIN = (0.0, 1.0, 3.0)
#: How the comments of all jobs begin that are submitted here.
_MARK = "stormsweep-"
_JOB_ID = re.compile(r"[0-9]{1,10}")
_PARSABLE = re.compile(r"([0-9]{1,10})(;[A-Za-z0-9_.-]+)?")
_STATE = re.compile(r"[A-Z_]+")
#: What of the environment reaches Slurm's commands of its own variables: which cluster it is.
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
_OURS = ("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SINFO_", "SALLOC_", "SRUN_", "SACCT_")
#: What slurmctld's absence, restart or overload looks like in the commands' words.
PASSING = (
    "unable to contact slurm controller",
    "connection refused",
    "connection timed out",
    "socket timed out",
    "zero bytes were transmitted",
    "temporarily unavailable",
    "temporarily disabled",
    "try again",
    "slurm backup controller in standby",
    "invalid authentication credential",
)


def available() -> bool:
    """Tell whether Slurm's commands are on the path here."""
    return all(shutil.which(name) for name in ("sbatch", "squeue", "scancel", "sinfo"))


def needed() -> None:
    """Refuse to go on where there is no Slurm.

    Raises
    ------
    UserError
        If sbatch or another of its commands is not on the path.
    """
    if not available():
        raise NoSchedulerError(
            "there is no Slurm here (sbatch, squeue, scancel and sinfo are not all on the PATH); "
            "log in to a node of the cluster that has them, or use the site local"
        )


class Slurm:
    """Slurm's commands, for one driver.

    Parameters
    ----------
    patience : float
        Seconds that a command may take before it is killed.
    """

    name = "Slurm"

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._accounting = True

    def needed(self) -> None:
        """Refuse to go on where there is no Slurm; see `needed`."""
        needed()

    def version(self) -> str:
        """Return the version of Slurm, such as ``slurm-wlm 22.05.8``."""
        return self._run(["sinfo", "--version"]).strip()

    def partitions(self) -> dict[str, Partition]:
        """Return every partition with its limits and nodes, by name.

        Raises
        ------
        SlurmError
            If sinfo fails or says what cannot be understood.
        """
        out = self._run(SINFO)
        try:
            return read_partitions(out)
        except ValueError as error:
            raise _nonsense(SINFO, out, str(error)) from None

    def submit(
        self,
        script: str,
        folder: Path,
        key: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Submit a batch script.

        Every job carries a mark of its own as its comment. Where sbatch is killed because it hangs,
        or says what cannot be understood, the mark tells whether there is a job all the same: none
        is left behind unknown, and none is submitted twice.

        Parameters
        ----------
        script : str
            The script's text.
        folder : Path
            Where the job starts, and what relative paths in the script mean.
        key : str
            By which `jobs_of` finds the job again: letters, digits and ``-``. A key finds those
            of longer keys that begin with it and a ``-`` too.
        environment : mapping of str to str, optional
            What the job begins with, but for Slurm's own variables; none: this process's.

        Returns
        -------
        str
            The job's number.

        Raises
        ------
        SlurmError
            If no job was submitted; `SlurmError.passing` tells whether trying later makes sense.
        """
        mark = f"{_MARK}{key}-{uuid.uuid4().hex}"
        command = ["sbatch", "--parsable", f"--comment={mark}"]
        if environment is not None:
            # As all commands it is this process's, which may have been told where Slurm is since.
            command[0] = shutil.which(command[0]) or command[0]
        return commands.submitted(
            lambda: run(command, script, folder, self._patience, environment).stdout,
            lambda line, out: _number(line, command, out),
            lambda: self._marked(mark),
        )

    def test_only(self, script: str, folder: Path) -> str:
        """Ask whether a batch script would be taken, and when and where it would run.

        Returns
        -------
        str
            Slurm's line.

        Raises
        ------
        SlurmError
            If it would be refused, with Slurm's words, or the command fails.
        """
        command = ["sbatch", "--test-only"]
        done = run(command, script, folder, self._patience)
        return " ".join((done.stderr or done.stdout).split()).removeprefix("sbatch: ")

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        """Return what became of jobs, with one squeue for them all.

        Jobs that slurmctld forgot (after ``MinJobAge``, 5 minutes by default) are looked up in its
        accounting, where there is one.

        Returns
        -------
        dict
            By number; without those that nobody knows any more.

        Raises
        ------
        SlurmError
            If squeue fails or says what cannot be understood.
        """
        wanted = _checked(ids)
        if not wanted:
            return {}
        # Those of the user, not by number: a number that is not known any more would fail it.
        found = {id: job for id, job in self._queue()[0].items() if id in wanted}
        forgotten = [id for id in wanted if id not in found]
        return found | self._sacct(forgotten) if forgotten else found

    def states(self, ids: Collection[str]) -> dict[str, str]:
        """Return the states of jobs by Slurm's words; see `jobs`."""
        return {id: job.state for id, job in self.jobs(ids).items()}

    def jobs_of(self, key: str) -> dict[str, Job]:
        """Return the user's jobs that were submitted with a key, by number, those just over too.

        Raises
        ------
        SlurmError
            If squeue fails or says what cannot be understood.
        """
        jobs, marks = self._queue()
        return {id: job for id, job in jobs.items() if marks[id].startswith(f"{_MARK}{key}-")}

    def time_left(self, id: str) -> float:
        """Return the seconds until a running job's walltime is over; infinity where it has none.

        Raises
        ------
        SlurmError
            If squeue fails, or does not say.
        """
        command = ["squeue", "--noheader", f"--jobs={_checked([id])[0]}", "--format=%L"]
        out = self._run(command)
        try:
            left = read_time(out.strip())
        except ValueError:
            raise _nonsense(command, out, "a length of time is expected") from None
        return float("inf") if left is None else float(left)

    def waited(self, id: str) -> float:
        """Return the seconds that a job waited in the queue, from when it could have begun.

        One that goes on after another job could not before that was over.

        Raises
        ------
        SlurmError
            If squeue fails, or does not say.
        """
        columns = "--Format=EligibleTime:32,StartTime:32"
        command = ["squeue", "--noheader", "--states=all", f"--jobs={_checked([id])[0]}", columns]
        out = self._run(command)
        try:
            could, began = (dt.datetime.fromisoformat(word).timestamp() for word in out.split())
        except ValueError:
            raise _nonsense(command, out, "two times are expected") from None
        return max(0.0, began - could)

    def ended_for(self, id: str, restarts: int = 0) -> str:
        """Return why Slurm ends a job, such as ``TimeLimit``; empty: somebody cancelled it.

        Parameters
        ----------
        id : str
            The job's number.
        restarts : int
            How often it had been started again when it began: one that is requeued looks like one
            that is cancelled, but for this count.

        Raises
        ------
        SlurmError
            If squeue fails or says what cannot be understood.
        """
        # A job that is being ended is COMPLETING, whatever for.
        columns = "--Format=PreemptTime:32,RestartCnt:12,Reason:64"
        command = ["squeue", "--noheader", "--states=all", f"--jobs={_checked([id])[0]}", columns]
        out = self._run(command)
        words = out.split()
        if len(words) < 3 or not words[1].isdecimal():
            raise _nonsense(command, out, "a time, a count and a reason are expected")
        if words[0] not in ("N/A", "NONE"):
            return "Preempted"
        if int(words[1]) > restarts:
            return "Requeued"
        return "" if words[2] == "None" else words[2]

    def cancel(self, ids: Collection[str]) -> None:
        """Cancel jobs; those that are over already do not matter.

        Raises
        ------
        SlurmError
            If one that is not over could not be cancelled.
        """
        wanted = _checked(ids)
        if not wanted:
            return
        commands.cancelled(
            lambda: self._run(["scancel", "--quiet", *wanted]), lambda: self.jobs(wanted)
        )

    def _queue(self) -> tuple[dict[str, Job], dict[str, str]]:
        """Return the user's jobs, and their comments, by number."""
        command = [
            "squeue",
            "--all",
            "--noheader",
            "--states=all",
            f"--user={os.getuid()}",
            "--format=%i|%T|%r|%N|%M|%k",
        ]
        out = self._run(command)
        jobs, marks = {}, {}
        for line in out.splitlines():
            id, *rest = line.strip().split("|", 5)
            if len(rest) != 5 or not _STATE.fullmatch(rest[0]):
                raise _nonsense(command, out, f"{line!r} is not about a job")
            reason = "" if rest[1] == "None" else rest[1]
            jobs[id], marks[id] = Job(rest[0], reason, rest[2], _elapsed(rest[3])), rest[4]
        return jobs, marks

    def _sacct(self, ids: Sequence[str]) -> dict[str, Job]:
        if not self._accounting or shutil.which("sacct") is None:
            return {}
        columns = "--format=JobIDRaw,State,Reason,NodeList"
        command = ["sacct", "-X", "-n", "-P", "--delimiter=|", f"--jobs={','.join(ids)}", columns]
        try:
            out = self._run(command)
        except SlurmError as error:
            # Many clusters keep no accounts; that does not change while a driver runs.
            self._accounting = error.passing
            return {}
        jobs = {}
        for line in out.splitlines():
            id, *rest = line.strip().split("|")
            # "CANCELLED by 1000"
            word = rest[0].split()[0] if len(rest) == 3 and rest[0] else ""
            if id in ids and _STATE.fullmatch(word):
                reason = "" if rest[1] == "None" else rest[1]
                nodes = "" if rest[2] == "None assigned" else rest[2]
                jobs[id] = Job(word, reason, nodes)
        return jobs

    def _marked(self, mark: str) -> str | None:
        """Return the number of the job with this comment, if there is one."""
        for pause in _LOOK_AGAIN:
            time.sleep(pause)
            with contextlib.suppress(SlurmError):
                for id, comment in self._queue()[1].items():
                    if comment == mark and _JOB_ID.fullmatch(id):
                        return id
        return None

    def _run(self, command: Sequence[str]) -> str:
        return run(command, patience=self._patience).stdout


def run(
    command: Sequence[str],
    stdin: str = "",
    folder: Path | None = None,
    patience: float = PATIENCE,
    given: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm to its end, or kill it and all that it started.

    Parameters
    ----------
    command, stdin, folder, patience
        See `commands.run`.
    given : mapping of str to str, optional
        Its environment, but for what `environment` leaves out; none: this process's.

    Raises
    ------
    SlurmError
        If it cannot be started, takes too long, or its exit code is not 0.
    """
    own = environment(os.environ if given is None else given)
    manner = commands.Manner(SlurmError, PASSING, own)
    return commands.run(command, stdin, folder, patience, manner)


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for Slurm's commands: without anybody's options for them.

    Options in ``SBATCH_*`` would win over those of the script; ``SLURM_*`` of a job in which the
    driver runs would be handed down to the jobs it submits.

    Examples
    --------
    >>> environment({"PATH": "/bin", "SBATCH_PARTITION": "other", "SLURM_CONF": "/etc/slurm.conf"})
    {'PATH': '/bin', 'SLURM_CONF': '/etc/slurm.conf'}
    """
    return {
        name: value for name, value in given.items() if name in _KEPT or not name.startswith(_OURS)
    }


def _number(line: str, command: Sequence[str], out: str) -> str:
    said = _PARSABLE.fullmatch(line)
    if said is None:
        raise _nonsense(command, out, "the number of a job is expected")
    return said[1]


def _nonsense(command: Sequence[str], out: str, why: str) -> SlurmError:
    return SlurmError(f"said what cannot be understood: {why}", shlex.join(command), 0, out)


def _elapsed(text: str) -> float | None:
    """Read how long a job has run; None where Slurm has no answer (``INVALID``)."""
    try:
        seconds = read_time(text)
    except ValueError:
        return None
    return None if seconds is None else float(seconds)


def _checked(ids: Collection[str]) -> list[str]:
    return commands.checked(ids, _JOB_ID, "the number of a job")
