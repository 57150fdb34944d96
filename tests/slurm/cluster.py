"""`MiniSlurm`: munged, slurmctld and four slurmd's of its own, started and stopped as one.

It has a configuration, ports, a munge key and socket of its own, so it meets neither a Slurm nor a
munged that is at work on the machine. Needs root, because slurmd does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from . import processes

#: Two kinds of nodes, after those of the 2019 study. Counts are Slurm's only: the processors and
#: the memory are this machine's, however many it has.
NODES = ("n2013-1", "n2013-2", "n2018-1", "n2018-2")
CPUS, MEMORY_MB = 2, 4000
GPU_NODE, _GPU_FILES = "n2018-2", ("/dev/null", "/dev/zero")

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "sinfo", "scancel")
_PREFIX = "stormsweep-slurm-"
_PATIENCE = 30.0
_CONFIGURATION = """\
ClusterName=stormsweep
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=20
KillWait=5
MessageTimeout=30
DefMemPerCPU=1000
GresTypes=gpu
NodeName=DEFAULT {size}
NodeName=n2013-[1-2] {place} Port=[{port0}-{port1}] Feature=hpcf2013
NodeName=n2018-1 {place} Port={port2} Feature=hpcf2018
NodeName=n2018-2 {place} Port={port3} Feature=hpcf2018 Gres=gpu:2
PartitionName=batch Nodes=n2013-[1-2] Default=YES MaxTime=INFINITE State=UP
PartitionName=high_mem Nodes=n2018-[1-2] MaxTime=1-00:00:00 State=UP
PartitionName=gpu Nodes=n2018-2 MaxTime=04:00:00 State=UP
"""


class SlurmFailedError(Exception):
    """The cluster does not start, or a command of Slurm fails; says what the daemons logged."""


def why_not() -> str | None:
    """Say in words why no cluster can be started here; None: it can."""
    missing = [program for program in _PROGRAMS if _which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: apt install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    return None


class MiniSlurm:
    """A Slurm of four nodes on this machine; a context manager.

    Commands find it by ``SLURM_CONF``, which `environment` holds. Nodes are in the partitions
    ``batch`` (n2013-1, n2013-2), ``high_mem`` (n2018-1, n2018-2, a day at most) and ``gpu``
    (n2018-2, four hours at most, whose two GPUs are given out and do not exist).

    Parameters
    ----------
    threads : int
        Hyperthreads of each of a node's two cores; Slurm counts them as processors.
    """

    def __init__(self, threads: int = 1) -> None:
        self.folder = Path()
        self._threads = threads
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._owner: int | None = None

    @property
    def conf(self) -> Path:
        """The configuration file."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to meet this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    def start(self) -> Self:
        """Start the daemons and wait until all nodes are idle.

        Raises
        ------
        SlurmFailedError
            With the daemons' logs.
        """
        reason = why_not()
        if reason is not None:
            raise SlurmFailedError(f"no Slurm can be started here: {reason}")
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            self._prepare()
            self._munged()
            self.start_slurmctld()
            for node in NODES:
                self.start_slurmd(node)
            self.wait_idle()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all daemons, jobs and whatever they started, and remove the folder."""
        for name in ("slurmctld", *NODES):
            daemon = self._daemons.get(name)
            if daemon is not None and daemon.poll() is None:
                daemon.send_signal(signal.SIGTERM)
        until = time.monotonic() + 3
        for name in ("slurmctld", *NODES):
            daemon = self._daemons.get(name)
            if daemon is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(max(0.0, until - time.monotonic()))
        processes.end(processes.of_cluster(self.folder))
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # What fault tests do to it.

    def start_slurmctld(self) -> None:
        """Start the controller, which takes up the jobs it knew, and wait until it answers."""
        self._start("slurmctld", [_program("slurmctld"), "-D", "-f", str(self.conf)])
        self._wait(lambda: self._ask("scontrol", "ping").returncode == 0, "slurmctld answers")

    def start_slurmd(self, node: str) -> None:
        """Start a node's daemon."""
        self._start(node, [_program("slurmd"), "-D", "-N", node, "-f", str(self.conf)])

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Kill ``slurmctld`` or a node's daemon, and wait until it is gone; jobs run on.

        A slurmctld that gets SIGTERM saves its state first. One that is killed forgets the jobs
        submitted in the last seconds, for good.
        """
        self._daemons[name].send_signal(number)
        self._daemons[name].wait()

    def alive(self, name: str) -> bool:
        """Tell whether ``slurmctld`` or a node's daemon is at work."""
        return self._daemons[name].poll() is None

    def wait_idle(self) -> None:
        """Wait until no job holds a node, and every node is up."""
        self._wait(self._all_idle, "all nodes are idle")

    def cancel_all(self) -> None:
        """Cancel all jobs, and wait until their nodes are idle again."""
        # Killed at once: what Slurm sends first, SIGTERM, it would give 5 s (KillWait) to.
        self._ask("scancel", "--signal=KILL", "--full", "--user=root")
        self._ask("scancel", "--user=root")
        for node in NODES:
            if self._daemons[node].poll() is not None:
                self.start_slurmd(node)
            # After a fault test a node may be down or drained; an error says that it is not.
            self._ask("scontrol", "update", f"nodename={node}", "state=resume")
        self._ask("scontrol", "update", "partitionname=batch", "state=up")
        self.wait_idle()

    def run(self, *command: str) -> str:
        """Run a command on this cluster and return what it prints.

        Raises
        ------
        SlurmFailedError
            If its exit code is not 0.
        """
        done = self._ask(*command)
        if done.returncode:
            raise SlurmFailedError(f"{' '.join(command)}: {done.stdout}{done.stderr}{self.logs()}")
        return done.stdout

    def logs(self) -> str:
        """Return the last lines of every daemon's log."""
        parts = []
        for log in sorted((self.folder / "log").glob("*")):
            text = log.read_text(encoding="utf-8", errors="replace").splitlines()
            parts.append(f"\n--- {log.name}\n" + "\n".join(text[-20:]))
        return "".join(parts)

    def _prepare(self) -> None:
        # Others may submit jobs too; the key is for munged alone.
        self.folder.chmod(0o755)
        for name in ("state", "spool", "log"):
            (self.folder / name).mkdir()
        # Held as long as this process lives: tells a later `sweep` whose folder this is.
        self._owner = os.open(self.folder / "owner", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        ctld, *ports = _ports()
        host = socket.gethostname().partition(".")[0]
        self.conf.write_text(
            _CONFIGURATION.format(
                host=host,
                folder=self.folder,
                ctld_port=ctld,
                place=f"NodeHostname={host} NodeAddr=127.0.0.1",
                size=f"{self._cores()} RealMemory={MEMORY_MB} State=UNKNOWN",
                **{f"port{number}": port for number, port in enumerate(ports)},
            ),
            encoding="utf-8",
        )
        # Slurm counts no GPU without a file; which does not matter, since no job is kept from any.
        lines = [f"NodeName={GPU_NODE} Name=gpu File={file}\n" for file in _GPU_FILES]
        (self.folder / "gres.conf").write_text("".join(lines), encoding="utf-8")

    def _cores(self) -> str:
        if self._threads == 1:
            return f"CPUs={CPUS}"
        layout = f"Sockets=1 CoresPerSocket={CPUS} ThreadsPerCore={self._threads}"
        return f"CPUs={CPUS * self._threads} {layout}"

    def _munged(self) -> None:
        names = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid"}
        names |= {"seed-file": "munged.seed", "log-file": "log/munged.log"}
        options = [f"--{name}={self.folder / file}" for name, file in names.items()]
        self._start("munged", [_program("munged"), "--foreground", *options])
        self._wait((self.folder / "munge.socket").exists, "munged listens")

    def _start(self, name: str, command: list[str]) -> None:
        log = self.folder / "log" / f"{name}.stderr"
        self._daemons[name] = processes.start(command, self.folder, log)

    def _all_idle(self) -> bool:
        done = self._ask("sinfo", "--noheader", "-N", "--format=%N|%T")
        lines = set(done.stdout.split())
        return done.returncode == 0 and lines == {f"{node}|idle" for node in NODES}

    def _wait(self, true: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _PATIENCE
        while not true():
            gone = [name for name, one in self._daemons.items() if one.poll() not in (None, -9)]
            if gone or time.monotonic() > until:
                why = f"{', '.join(gone)} ended" if gone else f"not within {_PATIENCE:.0f} s"
                raise SlurmFailedError(f"waiting until {what}: {why}{self.logs()}")
            time.sleep(0.05)

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            env=os.environ | self.environment,
        )


def sweep() -> None:
    """End what is left of clusters whose process was killed, and remove their folders."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            owner = os.open(folder / "owner", os.O_RDWR)
        except OSError:
            continue  # Just being made, or somebody else's.
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # At work.
        finally:
            os.close(owner)
        processes.end(processes.of_cluster(folder))
        shutil.rmtree(folder, ignore_errors=True)


def _ports() -> list[int]:
    """Return five free ports; the second and third follow each other, as Slurm writes them."""
    found = processes.free_ports(40)
    for one in found:
        if one + 1 in found:
            others = [port for port in found if port not in (one, one + 1)]
            return [others[0], one, one + 1, *others[1:3]]
    raise OSError("no two free ports follow each other")


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _program(name: str) -> str:
    return _which(name) or name
