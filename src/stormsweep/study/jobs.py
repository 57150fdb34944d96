"""The Slurm jobs of a study, seen and ended from any node by what they are known by."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from stormsweep.cluster import slurm
from stormsweep.cluster.machine import host, process_space
from stormsweep.errors import SlurmError, UserError
from stormsweep.study.directory import study_key
from stormsweep.study.lock import driver_of, is_alive
from stormsweep.study.submission import driver_key

#: Seconds that Slurm may take where its answer is one of several things to show.
_SHORT = 5.0
#: Looks for jobs that came while others were cancelled.
_LOOKS = 5


def jobs_of(directory: Path) -> dict[str, slurm.Job] | None:
    """Return the study's jobs, those just over too; None: no Slurm here, or no answer at once."""
    if not slurm.available():
        return None
    try:
        return slurm.Slurm(_SHORT).jobs_of(study_key(directory))
    except SlurmError:
        return None


def cancel(directory: Path) -> list[str]:
    """End all of a study; see `stormsweep.study.study.Study.cancel`."""
    ended: list[str] = []
    driver = driver_of(directory)
    here = driver is not None and (
        (driver["host"], driver.get("space")) == (host(), process_space())
    )
    in_job = False
    if slurm.available():
        commands = slurm.Slurm()
        drivers = commands.jobs_of(driver_key(directory))
        in_job = any(not job.over and job.state != "PENDING" for job in drivers.values())
        if driver is not None and here and not in_job and is_alive(directory, driver):
            # First, or it would replace its workers' jobs.
            ended.append(_stopped(driver["pid"]))
            driver = None
        ended += _cancelled(directory, commands, set(drivers))
    if driver is None or in_job or not is_alive(directory, driver):
        return ended
    if here:
        return [*ended, _stopped(driver["pid"])]
    also = f" ({'; '.join(ended)})" if ended else ""
    raise UserError(
        f"{directory}: its driver is process {driver['pid']} on {driver['host']}, in no job of its "
        f"own; stop it there: kill -INT {driver['pid']}{also}"
    )


def _stopped(pid: int) -> str:
    os.kill(pid, signal.SIGINT)
    return f"process {pid} on this machine, the driver: interrupted"


def _cancelled(directory: Path, commands: slurm.Slurm, drivers: set[str]) -> list[str]:
    """Cancel the jobs that wait before those that run, so that none takes another's place."""
    done: dict[str, str] = {}
    for _ in range(_LOOKS):
        jobs = commands.jobs_of(study_key(directory))
        left = {
            id: job
            for id, job in jobs.items()
            if not (job.over or job.state == "COMPLETING" or id in done)
        }
        if not left:
            break
        waiting = [id for id, job in left.items() if job.state == "PENDING"]
        commands.cancel(waiting)
        commands.cancel([id for id in left if id not in waiting])
        for id, job in left.items():
            kind = "driver" if id in drivers else "job"
            where = f" on {job.nodes}" if job.nodes else ""
            done[id] = f"{kind} {id}, {job.state}{where}: cancelled"
    return list(done.values())
