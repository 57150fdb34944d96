"""The Slurm jobs of a study, seen and ended from any node by what they are known by."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil

from stormsweep.cluster import slurm
from stormsweep.cluster.machine import host
from stormsweep.cluster.pool import END_SECONDS
from stormsweep.cluster.scheduler import Job
from stormsweep.errors import SlurmError, StormsweepError, UserError
from stormsweep.records import SessionBegun
from stormsweep.study.directory import study_key
from stormsweep.study.lock import ask_to_stop, driver_of, is_alive, is_here, take_back_stop
from stormsweep.study.places import scheduler_used, was_submitted
from stormsweep.study.staff import private_folder
from stormsweep.study.submission import driver_key

#: Seconds that Slurm may take where its answer is one of several things to show.
_SHORT = 5.0
#: Seconds that a driver may take to end its journal and its workers, and to let go of its study: on
#: this machine, and on another, which may see what is written here a minute later.
_ENDING_S, _ELSEWHERE_S = END_SECONDS + 30.0, END_SECONDS + 90.0
#: How long until it is told again.
_AGAIN_S = 15.0
#: Looks for jobs that came while others were cancelled.
_LOOKS = 5


def may_have_jobs(directory: Path) -> bool:
    """Tell whether a study may have jobs of Slurm's; of one that ran on this machine it has none.

    A study's site is written down before its first job is submitted, or where it only moves to a
    site now, once it has workers there: until then its nodes' orders tell.
    """
    return scheduler_used(directory) == "slurm" or private_folder(directory).exists()


def jobs_of(directory: Path) -> dict[str, Job] | None:
    """Return the study's jobs, those just over too; None: no Slurm here, or no answer at once."""
    if not slurm.available():
        return None
    if not may_have_jobs(directory):
        return {}
    try:
        return slurm.Slurm(_SHORT).jobs_of(study_key(directory))
    except SlurmError:
        return None


def last_driver(directory: Path) -> tuple[float, SessionBegun] | None:
    """Return the last session of a study's journal, and when it began."""
    from stormsweep.results.journal import each

    found = None
    for entry in each(directory / "journal.jsonl"):
        if isinstance(entry.record, SessionBegun):
            found = entry.time, entry.record
    return found


def at_work_still(directory: Path, driver: tuple[float, SessionBegun] | None) -> bool:
    """Say whether a driver is there, though it may have let go of the study.

    It has its report to write. On its own machine its process tells, elsewhere its job.
    """
    if driver is None:
        return False
    when, session = driver
    if session.host != host():
        return any(not job.over for job in (jobs_of(directory) or {}).values())
    try:
        process = psutil.Process(session.pid)
        # One that began later has only the number.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() < when
    except psutil.Error:
        return False


def cancel(directory: Path) -> list[str]:
    """End all of a study; see `stormsweep.study.study.Study.cancel`."""
    driver = driver_of(directory)
    jobs: Jobs | None = None
    trouble: SlurmError | None = None
    try:
        jobs = Jobs(directory) if slurm.available() else None
    except SlurmError as error:
        # Where it has no jobs it does not matter that there is nobody to ask.
        trouble = error if may_have_jobs(directory) else None
    ended: list[str] = []
    in_job = jobs is not None and jobs.driven
    alive = driver is not None and not in_job and is_alive(directory, driver)
    if driver is not None and alive and is_here(driver):
        # Before its jobs, or it would replace them.
        _tell(directory, driver)
        if jobs is not None:
            ended += jobs.cancel()
        _await_end(directory, driver, ended)
        ended.insert(0, f"{_named(driver)}, the driver: interrupted")
    elif driver is not None and alive:
        if trouble is not None and was_submitted(directory):
            # It ends its job then, and another goes on.
            raise trouble
        try:
            _tell(directory, driver)
            # Nothing is cancelled before it knows.
            _await_end(directory, driver, ended)
        finally:
            take_back_stop(directory)
        ended.append(f"{_named(driver)}, the driver: interrupted")
    if jobs is not None:
        ended += jobs.cancel()
    if trouble is not None:
        if not ended:
            raise trouble
        ended.append(f"jobs it may have: Slurm does not say ({trouble.said})")
    return ended


def _await_end(directory: Path, driver: dict[str, Any], ended: list[str]) -> None:
    """Wait until a driver let go of its study, or is gone.

    It is told again now and then: Python drops what a signal raises where it comes in the middle of
    an import, which a driver that has just begun is full of. One that says it is ending is left to
    it: told again it would not wait for its workers any more.
    """
    patience, there = (_ENDING_S, "") if is_here(driver) else (_ELSEWHERE_S, " there")
    until = time.monotonic() + patience
    again = time.monotonic() + _AGAIN_S
    while (now := driver_of(directory)) is not None and now["token"] == driver["token"]:
        if not is_alive(directory, driver):
            return
        if time.monotonic() > until:
            also = f" ({'; '.join(ended)})" if ended else ""
            raise StormsweepError(
                f"{directory}: its driver, {_named(driver)}, was told to end {patience:.0f} s ago "
                f"and is still at work; kill -KILL {driver['pid']}{there} ends it, and loses "
                f"nothing that was recorded{also}"
            )
        if time.monotonic() > again and not now.get("ending"):
            _tell(directory, driver)
            again += _AGAIN_S
        time.sleep(0.1)


def _tell(directory: Path, driver: dict[str, Any]) -> None:
    name = driver.get("stop", "SIGINT")
    if is_here(driver):
        with contextlib.suppress(ProcessLookupError):
            os.kill(driver["pid"], signal.Signals[name])
        return
    try:
        ask_to_stop(directory, driver)
    except OSError as error:
        raise UserError(
            f"{directory}: its driver, {_named(driver)}, cannot be told to end from here: "
            f"{error.strerror}; stop it there: kill -{name[3:]} {driver['pid']}"
        ) from None


def _named(driver: dict[str, Any]) -> str:
    where = "this machine" if is_here(driver) else driver["host"]
    return f"process {driver['pid']} on {where}"


class Jobs:
    """The jobs of a study, to be ended.

    Parameters
    ----------
    directory : Path
        The study's directory.

    Raises
    ------
    SlurmError
        If Slurm cannot be asked.
    """

    def __init__(self, directory: Path) -> None:
        self._key, self._commands = study_key(directory), slurm.Slurm()
        self._drivers = self._commands.jobs_of(driver_key(directory))

    @property
    def driven(self) -> bool:
        """Whether one of them is at work as the driver."""
        return any(not job.over and job.state != "PENDING" for job in self._drivers.values())

    def cancel(self) -> list[str]:
        """Cancel those that wait before those that run, so that none takes another's place.

        Returns
        -------
        list of str
            A line for each.
        """
        done: dict[str, str] = {}
        for _ in range(_LOOKS):
            left = {
                id: job
                for id, job in self._commands.jobs_of(self._key).items()
                if not (job.over or job.state == "COMPLETING" or id in done)
            }
            if not left:
                break
            waiting = [id for id, job in left.items() if job.state == "PENDING"]
            self._commands.cancel(waiting)
            self._commands.cancel([id for id in left if id not in waiting])
            for id, job in left.items():
                kind = "driver" if id in self._drivers else "job"
                where = f" on {job.nodes}" if job.nodes else ""
                done[id] = f"{kind} {id}, {job.state}{where}: cancelled"
        return list(done.values())
