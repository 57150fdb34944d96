"""The faults: each strikes something that is there, and says what should be read of it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from tests.slurm.cluster import SlurmFailedError

from .world import World

#: A driver is gone: what its session would have recorded is not.
SESSION = "session"


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was injected.

    Attributes
    ----------
    what : str
        What it struck, in words.
    pids : tuple of int
        Worker processes that are lost by it for certain.
    words : tuple of str
        What the journal may call the loss of a worker; ``session``: a driver goes with it.
    """

    what: str
    pids: tuple[int, ...] = ()
    words: tuple[str, ...] = ()


Strike = Callable[[World, random.Random], Struck | None]


def worker_kill(world: World, chance: random.Random) -> Struck | None:
    workers = world.workers()
    if not workers:
        return None
    victim = chance.choice(workers)
    os.kill(victim.pid, signal.SIGKILL)
    return Struck(f"worker {victim.worker}", (victim.pid,), ("killed",))


def agent_kill(world: World, chance: random.Random) -> Struck | None:
    agents = world.agents()
    if not agents:
        return None
    pid = chance.choice(sorted(agents))
    lost = _of_node(world, agents[pid])
    os.kill(pid, signal.SIGKILL)
    return Struck(f"agent of node {agents[pid]}", lost, ("killed",))


def driver_kill(world: World, chance: random.Random) -> Struck | None:
    pid = world.driver()
    if pid is None:
        return None
    os.kill(pid, signal.SIGKILL)
    return Struck(f"driver {pid}", (), (SESSION,))


def job_cancel(world: World, chance: random.Random) -> Struck | None:
    return _on_job(world, chance, "cancelled", ["scancel"])


def requeue(world: World, chance: random.Random) -> Struck | None:
    """As an administrator does: our jobs ask Slurm not to."""
    jobs = world.running()
    if not jobs:
        return None
    job = chance.choice(jobs)
    lost = _on_nodes(world, job.nodes) if world.way == "run" else ()
    world.cluster.run("scontrol", "update", f"jobid={job.id}", "requeue=1")
    world.cluster.run("scontrol", "requeue", job.id)

    def now() -> None:
        # Slurm would hold it back for two minutes.
        with contextlib.suppress(SlurmFailedError, subprocess.TimeoutExpired):
            world.cluster.run("scontrol", "update", f"jobid={job.id}", "StartTime=now", "requeue=0")

    world.later(chance.uniform(9, 15), now)
    return Struck(f"job {job.id}", lost, _words(world, "cancelled", "preempted"))


def node_down(world: World, chance: random.Random) -> Struck | None:
    jobs = world.running()
    if not jobs:
        return None
    job = chance.choice(jobs)
    node = chance.choice(world.cluster.run("scontrol", "show", "hostnames", job.nodes).split())
    lost = _on_nodes(world, node) if world.way == "run" else ()
    _update(world, node, "state=down", "reason=faults")
    world.later(chance.uniform(2, 15), lambda: _update(world, node, "state=resume"))
    return Struck(f"node {node}", lost, _words(world, "node-failure"))


def slurmd_kill(world: World, chance: random.Random) -> Struck | None:
    jobs = world.running()
    if not jobs:
        return None
    node = chance.choice(
        world.cluster.run("scontrol", "show", "hostnames", chance.choice(jobs).nodes).split()
    )
    if not world.cluster.alive(node):
        return None  # Killed already, and not back yet.
    world.cluster.kill(node)
    # Slurm misses it after 20 s (SlurmdTimeout): some are back before.
    away = chance.uniform(1, 26)
    world.later(away, lambda: world.cluster.start_slurmd(node))
    return Struck(f"slurmd of {node} for {away:.0f} s", (), _words(world, "node-failure"))


def slurmctld_restart(world: World, chance: random.Random) -> Struck | None:
    return _slurmctld(world, chance, signal.SIGTERM)


def slurmctld_kill(world: World, chance: random.Random) -> Struck | None:
    return _slurmctld(world, chance, signal.SIGKILL)


def disk_full(world: World, chance: random.Random) -> Struck | None:
    if not world.small_disk or not world.directory.exists():
        return None
    world.fill_disk()
    seconds = chance.uniform(0.5, 8)
    world.later(seconds, world.empty_disk)
    return Struck(f"disk full for {seconds:.1f} s", (), (SESSION,))


def sbatch_fails(world: World, chance: random.Random) -> Struck | None:
    return _with_sbatch(world, chance, "fails")


def sbatch_hangs(world: World, chance: random.Random) -> Struck | None:
    """Mostly for some seconds; some of the time until it is killed."""
    return _with_sbatch(world, chance, chance.choice(["slow", "slow", "late", "late", "hangs"]))


def sbatch_nonsense(world: World, chance: random.Random) -> Struck | None:
    return _with_sbatch(world, chance, chance.choice(["nonsense", "chatty"]))


def srun_fails(world: World, chance: random.Random) -> Struck | None:
    """The next step is not started; for there to be one, an agent is killed."""
    return _with(world, chance, "srun", "fails", agent_kill)


#: By name: the ways of running that have it, and how it strikes.
KINDS: dict[str, tuple[tuple[str, ...], Strike]] = {
    "worker killed": (("run", "submit"), worker_kill),
    "agent killed": (("run", "submit"), agent_kill),
    "driver killed": (("run", "submit"), driver_kill),
    "job cancelled": (("run", "submit"), job_cancel),
    "job requeued": (("run", "submit"), requeue),
    "node down": (("run", "submit"), node_down),
    "slurmd killed": (("run", "submit"), slurmd_kill),
    "slurmctld restarted": (("run", "submit"), slurmctld_restart),
    "slurmctld killed": (("run", "submit"), slurmctld_kill),
    "disk full": (("run", "submit"), disk_full),
    "sbatch fails": (("run", "submit"), sbatch_fails),
    "sbatch hangs": (("run", "submit"), sbatch_hangs),
    "sbatch talks nonsense": (("run", "submit"), sbatch_nonsense),
    "srun fails": (("submit",), srun_fails),
}
#: Not struck at an instant: some studies have jobs of one minute, and each one that ends counts.
WALLTIME = "walltime reached"


def _words(world: World, *words: str) -> tuple[str, ...]:
    """Inside one job, what ends the job ends the driver."""
    return (SESSION,) if world.way == "submit" else words


def _of_node(world: World, number: str) -> tuple[int, ...]:
    return tuple(one.pid for one in world.workers() if one.worker.rsplit("-", 2)[1] == number)


def _on_nodes(world: World, name: str) -> tuple[int, ...]:
    return tuple(one.pid for one in world.workers() if one.host == name)


def _on_job(world: World, chance: random.Random, word: str, command: list[str]) -> Struck | None:
    jobs = world.running()
    if not jobs:
        return None
    job = chance.choice(jobs)
    lost = _on_nodes(world, job.nodes) if world.way == "run" else ()
    world.cluster.run(*command, job.id)
    return Struck(f"job {job.id}", lost, _words(world, word))


def _update(world: World, node: str, *changes: str) -> None:
    # Fails where it is so already, or Slurm is away: what struck before still holds.
    with contextlib.suppress(SlurmFailedError, subprocess.TimeoutExpired):
        world.cluster.run("scontrol", "update", f"nodename={node}", *changes)


def _slurmctld(world: World, chance: random.Random, number: int) -> Struck | None:
    if not world.cluster.alive("slurmctld"):
        return None
    world.cluster.kill("slurmctld", number)
    away = chance.uniform(0, 6)
    world.later(away, world.cluster.start_slurmctld)
    # One that is killed forgets the jobs of the last seconds; nothing else is lost.
    words = ("cancelled",) if number == signal.SIGKILL else ()
    return Struck(f"slurmctld for {away:.0f} s", (), _words(world, *words) if words else ())


def _with_sbatch(world: World, chance: random.Random, trouble: str) -> Struck | None:
    """The next sbatch meets trouble; for there to be one, what it replaces is killed."""
    return _with(
        world, chance, "sbatch", trouble, agent_kill if world.way == "run" else driver_kill
    )


def _with(
    world: World, chance: random.Random, command: str, trouble: str, strike: Strike
) -> Struck | None:
    world.trouble(command, trouble)
    struck = strike(world, chance)
    if struck is None:
        (world.tools / f"{command}.trouble").unlink(missing_ok=True)
        return None
    return Struck(f"{trouble}; {struck.what}", struck.pids, struck.words)
