"""PBS's commands (PBS Professional, OpenPBS): the one place that runs qsub, qstat, qselect, qdel.

As in `stormsweep.cluster.slurm`, every command has a time after which it is killed, its output is
checked before it is believed, and one that fails is shown whole.

Written from the manual pages of OpenPBS and from what its commands are on record to print; it has
not met a real server yet. Where versions differ, the oldest form is used: qstat's text, because
its JSON is none where a variable of a job is ``005`` or holds a comma or a quote (OpenPBS's issue
1255 and pull request 2049), and with two jobs in version 18.
"""

from __future__ import annotations

import contextlib
import os
import pwd
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
from stormsweep.cluster.pbs_jobs import VARIABLE, job_of, mark_of, read_jobs
from stormsweep.cluster.scheduler import Job
from stormsweep.errors import NoSchedulerError, PbsError

_JOB_ID = re.compile(r"[0-9]{1,12}\.[A-Za-z0-9][A-Za-z0-9_.-]{0,200}")
#: Seconds after which a job that a lost qsub may have submitted is looked for, again and again.
_LOOK_AGAIN = (0.0, 1.0, 3.0)
#: Seconds in which a job just submitted may be unknown to qstat: some sites answer from a cache.
_FRESH_S = 90.0
#: Finished jobs that are looked through for a key, at most; servers remember weeks of them.
_RECENT = 200
_COMMANDS = ("qsub", "qstat", "qselect", "qdel")
_MARK = "stormsweep-"
#: What the server's absence, restart or overload looks like in the commands' words.
_PASSING = (
    "cannot connect to server",
    "couldn't connect to",
    "connection refused",
    "connection reset",
    "connection timed out",
    "no route to host",
    "communication failure",
    "protocol error",
    "end of file",
    "invalid credential",
    "temporarily unavailable",
    "try again",
)
_NO_HISTORY = re.compile(r"job.history", re.IGNORECASE)
_UNKNOWN = re.compile(r"(q\w+: )?(Unknown Job Id|.*Job has finished).*", re.IGNORECASE)


def needed() -> None:
    """Refuse to go on where there is no PBS.

    Raises
    ------
    UserError
        If qsub or another of its commands is not on the path.
    """
    if not all(shutil.which(name) for name in _COMMANDS):
        raise NoSchedulerError(
            "there is no PBS here (qsub, qstat, qselect and qdel are not all on the PATH); "
            "log in to a node of the cluster that has them, or use the site local"
        )


class Pbs:
    """PBS's commands, for one driver.

    Parameters
    ----------
    patience : float
        Seconds that a command may take before it is killed.
    """

    name = "PBS"

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._fresh: dict[str, float] = {}
        self._history = True

    def needed(self) -> None:
        """Refuse to go on where there is no PBS; see `needed`."""
        needed()

    def version(self) -> str:
        """Return the version of PBS, such as ``PBS 2022.1.1``."""
        out = self._run(["qstat", "--version"])
        said = re.search(r"pbs_version\s*=\s*(\S+)", out)
        return f"PBS {said[1]}" if said else "PBS of an unknown version"

    def submit(self, script: str, folder: Path, key: str = "") -> str:
        """Submit a batch script.

        Every job carries a mark of its own in a variable. Where qsub is killed because it hangs, or
        says what cannot be understood, the mark tells whether there is a job all the same.

        Parameters
        ----------
        script : str
            The script's text.
        folder : Path
            Where the job starts, and what relative paths in the script mean.
        key : str
            By which `jobs_of` finds the job again: letters, digits and ``-``.

        Returns
        -------
        str
            The job's id, such as ``1234567.desched1``.

        Raises
        ------
        PbsError
            If no job was submitted; `PbsError.passing` tells whether trying later makes sense.
        """
        if not re.fullmatch(r"[A-Za-z0-9-]*", key):
            raise ValueError(f"not a key: {key!r}")
        mark = f"{_MARK}{key}-{uuid.uuid4().hex}"
        # "-f": without it, qsub leaves a process of its own behind that talks to the server.
        command = ["qsub", "-f", "-v", f"{VARIABLE}={mark}"]
        id = commands.submitted(
            lambda: self._run(command, script, folder),
            lambda line, out: _id(line, command, out),
            lambda: self._marked(mark),
        )
        self._fresh[id] = time.monotonic()
        return id

    def jobs(self, ids: Collection[str]) -> dict[str, Job]:
        """Return what became of jobs, with one qstat for them all.

        Returns
        -------
        dict
            By id; without those that the server does not know any more (how long it remembers
            finished jobs is the site's choice). A job submitted here a moment ago is ``PENDING``
            until qstat knows it.

        Raises
        ------
        PbsError
            If qstat fails or says what cannot be understood.
        """
        wanted = _checked(ids)
        known = self._qstat(wanted)
        found = {id: job_of(known[id]) for id in wanted if id in known}
        now = time.monotonic()
        self._fresh = {
            id: since
            for id, since in self._fresh.items()
            if now - since < _FRESH_S and id not in found
        }
        fresh = [id for id in wanted if id in self._fresh]
        return found | {id: Job("PENDING", "not yet shown by qstat") for id in fresh}

    def jobs_of(self, key: str) -> dict[str, Job]:
        """Return the user's jobs that were submitted with a key, by id, those just over too.

        Raises
        ------
        PbsError
            If a command fails or says what cannot be understood.
        """
        mine = self._qstat(self._mine()).items()
        return {
            id: job_of(facts) for id, facts in mine if mark_of(facts).startswith(f"{_MARK}{key}-")
        }

    def cancel(self, ids: Collection[str]) -> None:
        """Cancel jobs; those that are over already do not matter.

        Raises
        ------
        PbsError
            If one that is not over could not be cancelled.
        """
        wanted = _checked(ids)
        if not wanted:
            return
        commands.cancelled(lambda: self._run(["qdel", *wanted]), lambda: self.jobs(wanted))

    def _mine(self) -> list[str]:
        """Return the ids of the user's jobs: all that are not over, and the last that are."""
        user = ["-u", pwd.getpwuid(os.getuid()).pw_name]
        found: list[str] = []
        for command in (["qselect", *user], ["qselect", "-x", *user]):
            out = self._remembered(command)
            # "[...]": arrays, which are somebody else's; "@...": who keeps the job now.
            ids = [word.partition("@")[0] for word in out.split()]
            if not all(re.match(r"[0-9]+[\[.]", id) for id in ids):
                raise _nonsense(command, out, "ids of jobs are expected")
            ids = [id for id in ids if _JOB_ID.fullmatch(id)]
            if "-x" in command:
                ids = sorted(ids, key=lambda id: int(id.partition(".")[0]))[-_RECENT:]
            found += ids
        return list(dict.fromkeys(found))

    def _qstat(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return all that qstat says of jobs, by id."""
        if not ids:  # It would tell of everybody's.
            return {}
        command = ["qstat", "-x", "-f", *ids]
        try:
            out = self._remembered(command)
        except PbsError as error:
            # One that is not known fails it, after it told of the others.
            said = [line.strip() for line in error.err.splitlines() if line.strip()]
            if not said or not all(_UNKNOWN.fullmatch(line) for line in said):
                raise
            out = error.out
        try:
            return read_jobs(out)
        except ValueError as error:
            raise _nonsense(command, out, str(error)) from None

    def _remembered(self, command: list[str]) -> str:
        """Run a command that asks for finished jobs (``-x``), as far as the site keeps them."""
        if self._history:
            try:
                return self._run(command)
            except PbsError as error:
                if "-x" not in command or not _NO_HISTORY.search(error.err):
                    raise
                self._history = False
        return self._run([word for word in command if word != "-x"])

    def _marked(self, mark: str) -> str | None:
        """Return the id of the job with this mark, if there is one."""
        for pause in _LOOK_AGAIN:
            time.sleep(pause)
            with contextlib.suppress(PbsError):
                for id, facts in self._qstat(self._mine()).items():
                    if mark_of(facts) == mark and _JOB_ID.fullmatch(id):
                        return id
        return None

    def _run(self, command: Sequence[str], stdin: str = "", folder: Path | None = None) -> str:
        return run(command, stdin, folder, self._patience).stdout


def run(
    command: Sequence[str],
    stdin: str = "",
    folder: Path | None = None,
    patience: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Run a command of PBS to its end, or kill it and all that it started.

    Raises
    ------
    PbsError
        If it cannot be started, takes too long, or its exit code is not 0.
    """
    manner = commands.Manner(PbsError, _PASSING, environment(os.environ))
    return commands.run(command, stdin, folder, patience, manner)


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for PBS's commands: without what changes how scripts are read.

    Examples
    --------
    >>> environment({"PATH": "/bin", "PBS_DPREFIX": "#QSUB", "PBS_SERVER": "desched1"})
    {'PATH': '/bin', 'PBS_SERVER': 'desched1'}
    """
    return {name: value for name, value in given.items() if name not in ("PBS_DPREFIX", VARIABLE)}


def _nonsense(command: Sequence[str], out: str, why: str) -> PbsError:
    return PbsError(f"said what cannot be understood: {why}", shlex.join(command), 0, out)


def _id(line: str, command: Sequence[str], out: str) -> str:
    if not _JOB_ID.fullmatch(line):
        raise _nonsense(command, out, "the id of a job is expected")
    return line


def _checked(ids: Collection[str]) -> list[str]:
    return commands.checked(ids, _JOB_ID, "the id of a job of PBS")
