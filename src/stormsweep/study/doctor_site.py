"""Is a site as sites.toml says, and does a job come back from it?"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from stormsweep.cluster.commands import wait
from stormsweep.cluster.jobscript import Order, job_script
from stormsweep.cluster.partitions import clock
from stormsweep.cluster.scheduler import Job, Scheduler, scheduler_of
from stormsweep.cluster.slurm import Slurm
from stormsweep.config.sites import LOCAL, Found, Site, locate_site
from stormsweep.errors import SchedulerError, StudyFileError, UserError
from stormsweep.study.admission import asked_of_slurm, fitting, refuse_setup
from stormsweep.study.doctor import Finding
from stormsweep.study.places import find
from stormsweep.wording import counted

#: The probe job asks for a minute, and is waited for so long, in seconds.
_PROBE_S, _PATIENCE_S = 60, 300.0
#: What the probe runs, on the first node: what the job was really given there.
_PROBE = """
import json, os, platform, sys
import stormsweep
from stormsweep.cluster import machine, topology
said = {"node": os.environ.get("SLURMD_NODENAME") or platform.node(), "cores": machine.cores()}
allotted = os.environ.get("SLURM_CPUS_ON_NODE") or os.environ.get("NCPUS")
said |= {"allotted_cores": allotted, "memory_gb": machine.memory_gb()}
said |= {"version": stormsweep.__version__, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
processors = machine.allowed()
said |= {"processors": len(processors), "whole": topology.read_topology().cores(processors)}
with open(sys.argv[1] + ".part", "w", encoding="utf-8") as stream:
    json.dump(said, stream)
os.rename(sys.argv[1] + ".part", sys.argv[1])
"""


def examine_site(
    name: str, folder: Path, patience: float = _PATIENCE_S, study: Path | None = None
) -> Iterator[Finding]:
    """Yield what a site is found to be, one finding at a time; a job is submitted at the end.

    Parameters
    ----------
    name : str
        A site of sites.toml.
    folder : Path
        Where studies would lie: the probe reports there. Of the site's shared folder if it has one.
    patience : float
        Seconds to wait for the probe job; then it is cancelled.
    study : Path, optional
        A study file or a study's directory: its site is meant where several have that name.

    Raises
    ------
    UserError
        For what the user can mend, in one line: no such site, no Slurm or PBS, a partition,
        walltime, memory or number of nodes that the cluster does not have (as far as its scheduler
        tells), a folder that cannot be used.
    """
    if study is None:
        found = locate_site(name, None, "--site")
    else:
        inside = study.is_dir()
        found = find(name, study / "study.toml" if inside else study, study, "--site")
    if name == LOCAL:
        raise UserError("--site: given 'local', which is this machine; doctor alone examines it")
    commands = scheduler_of(found.site)
    commands.needed()
    yield Finding(commands.name, commands.version())
    refuse_setup(found)
    if isinstance(commands, Slurm):
        partition = fitting(found, commands)
        longest = "no limit" if partition.longest is None else f"at most {clock(partition.longest)}"
        up = sum(node.usable for node in partition.nodes)
        nodes = f"{up} of {len(partition.nodes)} nodes up, {longest}"
        state = "" if partition.state == "up" else f"{partition.state}, "
        yield Finding("partition", f"{partition.name}: {state}{nodes}")
    else:
        queue = found.site.partition or "the default queue"
        meaning = (
            f"{commands.name} does not tell limits and nodes; the probe job shows what it takes"
        )
        yield Finding("partition", f"{queue}: not checked", meaning)
    shared = _shared(found, folder)
    yield Finding("folder", f"{shared} can be written to here")
    yield from _probe(found, commands, shared, patience)


def _shared(found: Found, folder: Path) -> Path:
    given = found.site.shared_folder
    place = folder if given is None else Path(os.path.expandvars(given))
    if not place.is_dir() or not os.access(place, os.W_OK):
        where = f"{place}" if given is None else f"{found.key('shared_folder')}: given {given!r}"
        raise UserError(f"{where}: must be a folder that is there and can be written to")
    return place.absolute()


def _probe(found: Found, commands: Scheduler, shared: Path, patience: float) -> Iterator[Finding]:
    place = shared / f".stormsweep-doctor-{uuid.uuid4().hex[:8]}"
    place.mkdir(0o700)
    id: str | None = None
    try:
        # The batch script's own node is the first of them: one node is enough to come back from.
        back, log = place / "answer.json", place / "log"
        order = Order(
            "stormsweep-doctor",
            [sys.executable, str(_write(place / "probe.py", _PROBE)), str(back)],
            str(log),
            walltime_s=_PROBE_S,
        )
        script = job_script(found.site, order)
        try:
            if isinstance(commands, Slurm):
                answer = asked_of_slurm(found, script, commands)
                if answer.away and not answer.start:
                    meaning = f"jobs wait in the queue: {answer.away}"
                    yield Finding("probe job", "not submitted", meaning, False)
                    return
                yield Finding("sbatch", f"would take it, {answer.start}".rstrip(", "))
            id = commands.submit(script, place)
        except SchedulerError as error:
            if not error.refused:
                raise
            refuses = f"{commands.name} refuses it"
            raise StudyFileError(f"{found.key('*')}: {refuses}: {error.said}") from None
        yield _come_back(commands, id, back, log, patience, found.site)
        id = None if commands.jobs([id]).get(id, Job("COMPLETED")).over else id
    finally:
        if id is not None:
            commands.cancel([id])
        shutil.rmtree(place, ignore_errors=True)


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _come_back(
    commands: Scheduler, id: str, answer: Path, log: Path, patience: float, site: Site
) -> Finding:
    seen = Job("PENDING")
    begun = time.monotonic()

    def come() -> bool:
        nonlocal seen
        if answer.exists():
            return True
        seen = commands.jobs([id]).get(id, Job("COMPLETED"))
        return seen.over

    if not wait(come, patience):
        why = f"{seen.state.lower()}, {seen.reason}" if seen.reason else seen.state.lower()
        meaning = "the queue may be long; the job is cancelled"
        return Finding(
            "probe job", f"{id}: not back within {patience:.0f} s ({why})", meaning, False
        )
    # What a node wrote may be seen a little later here, on a shared file system.
    if not wait(answer.exists, 30.0 if seen.state == "COMPLETED" else 0.0):
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        last = f"; its last line: {lines[-1]}" if lines else ""
        meaning = "is the folder shared, and Stormsweep's Python there on the nodes?"
        return Finding("probe job", f"{id}: {seen.state} without an answer{last}", meaning, False)
    said = json.loads(answer.read_text(encoding="utf-8"))
    cores = f"{counted(said['cores'], 'core')} ({said['allotted_cores']} by {commands.name})"
    value = f"{id}: back from {said['node']} after {time.monotonic() - begun:.0f} s, {cores}"
    gpus = f", GPUs {said['gpus']}" if said["gpus"] else ""
    meaning = _halved(site, said["processors"], said["whole"])
    return Finding("probe job", f"{value}, {said['memory_gb']:.1f} GiB{gpus}", meaning)


def _halved(site: Site, processors: int, cores: int) -> str:
    """Say so where a job's processors are hyperthreads of fewer cores than its site asks for."""
    if cores >= min(processors, site.cores):
        return ""
    mend = (
        "hyperthreads = false gets whole ones"
        if site.hyperthreads
        else "workers_per_node x threads_per_worker should be no more"
    )
    return f"{site.cores} cores were asked for, and hyperthreads of {cores} given; {mend}"
