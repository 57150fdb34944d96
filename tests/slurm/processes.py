"""Daemons that end with the process that started them, and what they may leave behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

#: In the environment of every daemon, and so of the slurmstepd's that slurmd starts: whose it is.
MARK = "STORMSWEEP_TEST_SLURM"
_PR_SET_PDEATHSIG = 1
#: Ports are taken from below those that the system gives to connections (from 32768 on Linux), so
#: that a daemon that is started again finds its own still free.
_PORTS = range(21000, 32000)


def start(command: list[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a daemon in the foreground that is killed when the thread that started it ends."""
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # `make slurm` blocks what stops it.

    with open(log, "ab") as stream:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=_clean() | {MARK: str(folder), "SLURM_CONF": str(folder / "slurm.conf")},
            # Ctrl-C in a terminal is for whoever started them, who then stops them in order.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _clean() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "USER", "LOGNAME", "TZ")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return found | {"PATH": f"{found.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"}


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    start_at = _PORTS.start + os.getpid() * 37 % len(_PORTS)
    order = [*range(start_at, _PORTS.stop), *range(_PORTS.start, start_at)]
    found: list[int] = []
    for port in order:
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"fewer than {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def of_cluster(folder: Path) -> set[int]:
    """Return every process of the cluster in `folder`: daemons, job steps and all they started.

    A step's processes have the environment of whoever submitted the job; they are known by their
    parents, and, should those be gone, by the names that only slurmd sets.
    """
    parents: dict[int, int] = {}
    found: set[int] = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            stat = (Path("/proc") / str(pid) / "stat").read_bytes()
            state, parent = stat.rpartition(b")")[2].split()[:2]
            if state in (b"Z", b"X"):
                continue
            parents[pid] = int(parent)
            environment = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
            ours = f"{MARK}={folder}".encode() in environment
            step = f"SLURM_CONF={folder}/slurm.conf".encode() in environment and any(
                entry.startswith(b"SLURMD_NODENAME=") for entry in environment
            )
            if ours or step:
                found.add(pid)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found - {os.getpid()}


def end(pids: set[int]) -> None:
    """Kill processes, whoever their parent is, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while time.monotonic() < until and any(_alive(pid) for pid in pids):
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
