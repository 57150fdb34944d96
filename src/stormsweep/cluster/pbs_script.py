"""What is PBS's own in a job script: its directives, and what its jobs must do first themselves.

Nothing but checked values reaches a directive: qsub's way of reading quotes differs from a shell's
and between versions. Paths are left to bash, which opens the logs; PBS's own spool, which would
show them only when the job is over, goes to /dev/null.
"""

from __future__ import annotations

import math
import re
import shlex
from typing import TYPE_CHECKING

from stormsweep.cluster.pbs import JOB_ID
from stormsweep.config.sites import Site
from stormsweep.config.walltimes import walltime_seconds
from stormsweep.errors import UserError

if TYPE_CHECKING:
    from stormsweep.cluster.jobscript import Order


def directives(site: Site, order: Order) -> list[str]:
    """Return the ``#PBS`` lines of an order on a site."""
    if order.after is not None and not JOB_ID.fullmatch(order.after):
        raise ValueError(f"not the id of a job of PBS: {order.after!r}")
    nodes = site.nodes if order.nodes is None else order.nodes
    seconds = walltime_of(site, order)
    place = (["scatter"] if nodes > 1 else []) + (["exclhost"] if site.exclusive else [])
    values: list[tuple[str, str | None]] = [
        ("-N", order.name),
        ("-S", "/bin/bash"),
        ("-A", site.account),
        ("-q", site.partition),
        ("-l", f"select={nodes:d}:{_chunk(site)}"),
        ("-l", f"place={':'.join(place)}" if place else None),
        ("-l", None if seconds is None else f"walltime={_clock(seconds)}"),
        ("-W", None if order.after is None else f"depend=afterany:{order.after}"),
        ("-r", "y" if order.requeue else "n"),
        ("-j", "oe"),
        ("-o", "/dev/null"),
    ]
    return [f"#PBS {option} {value}" for option, value in values if value is not None]


def beginning(site: Site, order: Order) -> list[str]:
    """Return the first commands of the script, which do what PBS leaves to its jobs.

    Go to the folder that the job was submitted from, append to the logs, kept within the owner's
    group, and send the warning before the walltime, for which PBS has no option.
    """
    error = "2>&1" if order.error is None else f"2>>{_path(order.error)}"
    # Slurm hands down the umask of who submits; a job of PBS begins with that of the login shell.
    lines = ["umask g-w,o-rwx", 'cd -- "$PBS_O_WORKDIR" || exit 1']
    lines += [f"exec >>{_path(order.output)} {error}"]
    if order.warning_s is not None:
        seconds = walltime_of(site, order)
        if seconds is None:
            raise UserError("PBS warns a job of its end only if the site's `walltime` is set")
        pause = max(0, seconds - order.warning_s)
        # Twice in the background: the command must not find a child that it did not start.
        lines.append(f"((sleep {pause:d}; kill -USR1 $$) </dev/null >/dev/null 2>&1 &)")
    return lines


def walltime_of(site: Site, order: Order) -> int | None:
    """Return the seconds that a job may take; None: its queue's default."""
    if order.walltime_s is not None or site.walltime is None:
        return order.walltime_s
    return walltime_seconds(site.walltime)


def _chunk(site: Site) -> str:
    """Word what a job takes of each node."""
    # Without "ompthreads", so that NCPUS in the job is all that it has (pbs_resources(7B)).
    parts = [f"ncpus={site.cores}", "mpiprocs=1"]
    if site.memory_gb is not None and site.memory_gb != "all":
        parts.append(f"mem={math.ceil(site.memory_gb * 1024)}mb")
    for resource in (site.gres or "").split(","):
        name, _, count = resource.partition(":")
        if name:
            parts.append(f"{'ngpus' if name == 'gpu' else name}={count or 1}")
    return ":".join([*parts, *(one for one in (site.constraint or "").split("&") if one)])


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _path(pattern: str) -> str:
    """Word a path for bash in which ``%%`` and ``%j`` mean what they do to Slurm."""
    words = []
    for part in re.findall(r"%.|[^%]+|%", pattern, re.DOTALL):
        if part == "%j":
            words.append('"$PBS_JOBID"')
        elif part == "%%" or not part.startswith("%"):
            words.append(shlex.quote("%" if part == "%%" else part))
        else:
            raise ValueError(f"not the pattern of a log: {pattern!r}")
    return "".join(words)
