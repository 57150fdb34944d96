"""Commands of a scheduler: run to their end, or killed; and looking again at growing intervals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stormsweep.cluster.scheduler import Job
from stormsweep.errors import SchedulerError

#: Seconds that a command may take. A busy scheduler answers late; Slurm's own limit is
#: ``MessageTimeout``, 10 s by default and up to 100 where clusters are large.
PATIENCE = 120.0
#: Linux's call by which a process asks for a signal at its parent's death (prctl(2)), and for what.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


class Manner(NamedTuple):
    """How the commands of one scheduler are run.

    Attributes
    ----------
    error : type
        What a failure is raised as.
    passing : sequence of str
        What trouble that passes looks like in their words, in small letters.
    environment : mapping
        Their environment.
    """

    error: type[SchedulerError]
    passing: Sequence[str]
    environment: Mapping[str, str]


def run(
    command: Sequence[str], stdin: str, folder: Path | None, patience: float, manner: Manner
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, or kill it and all that it started.

    Raises
    ------
    SchedulerError
        If it cannot be started, takes too long, or its exit code is not 0.
    """
    said = shlex.join(command)
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=manner.environment,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        raise manner.error(f"cannot be started: {error}", said, refused=True) from None
    try:
        out, err = process.communicate(stdin, timeout=patience)
    except subprocess.TimeoutExpired:
        raise manner.error(
            f"did not answer within {patience:.0f} s, and was killed", said, *_killed(process)
        ) from None
    except BaseException:
        _killed(process)
        raise
    if process.returncode:
        # One that was killed, with the job that it ran in, say, was told nothing.
        told = process.returncode > 0
        refused = told and not any(words in f"{out}{err}".lower() for words in manner.passing)
        raise manner.error("failed", said, process.returncode, out, err, refused)
    return subprocess.CompletedProcess(command, 0, out, err)


def submitted(
    ask: Callable[[], str], read: Callable[[str, str], str], look: Callable[[], str | None]
) -> str:
    """Submit a job once, whatever happens, and return its id.

    Parameters
    ----------
    ask : callable
        Submits it and returns what the command printed.
    read : callable
        Given the last line of that, and all of it; returns the id, or raises.
    look : callable
        Returns the id of a job that the command may have submitted all the same.

    Raises
    ------
    SchedulerError
        If no job was submitted.
    """
    try:
        out = ask()
        # Wrappers of some clusters print a greeting of their own before it.
        lines = [line.strip() for line in out.splitlines() if line.strip()]
        return read(lines[-1] if lines else "", out)
    except SchedulerError as error:
        found = None if error.refused else look()
        if found is None:
            raise
        return found


def cancelled(cancel: Callable[[], object], jobs: Callable[[], Mapping[str, Job]]) -> None:
    """Cancel jobs; a failure does not matter where they are over already.

    Raises
    ------
    SchedulerError
        If one that is not over could not be cancelled.
    """
    try:
        cancel()
    except SchedulerError:
        if not all(job.over or job.state == "COMPLETING" for job in jobs().values()):
            raise


def checked(ids: Collection[str], form: re.Pattern[str], what: str) -> list[str]:
    """Return ids of jobs, each once, all of them in the form that a scheduler gives them.

    Raises
    ------
    ValueError
        If one is not.
    """
    wanted = list(dict.fromkeys(ids))
    for id in wanted:
        if not form.fullmatch(id):
            raise ValueError(f"not {what}: {id!r}")
    return wanted


def wait(
    look: Callable[[], bool], patience: float, first: float = 0.5, longest: float = 15.0
) -> bool:
    """Look again and again, at growing intervals, until it is so.

    Parameters
    ----------
    look : callable
        Returns True when it is so.
    patience : float
        Seconds.
    first, longest : float
        Seconds before the second look, and between looks at most.

    Returns
    -------
    bool
        False: not within `patience`.
    """
    until, pause = time.monotonic() + patience, first
    while not look():
        if time.monotonic() >= until:
            return False
        time.sleep(min(pause, max(0.05, until - time.monotonic())))
        pause = min(1.5 * pause, longest)
    return True


def _die_with_parent() -> None:
    """Have a command that hangs not outlive a driver that is killed: nobody waits for it then.

    Runs between fork and exec, where other threads' locks may be held: it takes none.
    """
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _killed(process: subprocess.Popen[str]) -> tuple[int | None, str, str]:
    """Kill a command with all it started; return its exit code and what it had printed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        out, err = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:  # Stuck in the kernel, on a file system that hangs.
        out = err = ""
    return None, out, err
