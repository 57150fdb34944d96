"""What this machine has, as far as this process may use it."""

from __future__ import annotations

import os
import platform
import resource
import socket
from pathlib import Path

import psutil

_GIB = 1 << 30


def cores() -> int:
    """Return the number of cores this process may run on (affinity), and its cgroup allows."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cgroup_cores()
    return max(1, int(min(allowed or 1, quota)) if quota else (allowed or 1))


def memory_gb() -> float:
    """Return the memory this process may use in GiB: the machine's, or its cgroup's limit."""
    total: float = psutil.virtual_memory().total
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _read(Path("/sys/fs/cgroup") / name)
        if limit and limit.isdigit():
            total = min(total, float(limit))
    return total / _GIB


def processor() -> str:
    """Return the processor's name as the system gives it."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """Return the vector instruction sets that matter for training, widest last."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            known = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
            return [flag for flag in known if flag in flags]
    return []


def host() -> str:
    """Return this machine's name."""
    return socket.gethostname()


def process_space() -> str:
    """Return which process numbers count here: containers of one host have their own."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def process_started(pid: int) -> float | None:
    """Return when a process of this machine started, or None when there is none.

    The number is good for telling one process from another, not as a time: where the system
    counts from its own start, setting the clock does not change it. A process that only waits to
    be reaped counts as gone.
    """
    stat = _read(Path(f"/proc/{pid}/stat"))
    if stat is not None:
        # The name in parentheses may hold anything; state and start follow it.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None


def allow_open_files(count: int) -> None:
    """Let this process have that many files and connections open, as far as the system allows.

    What a process may have without asking is 1,024 on most systems.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return
    allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _cgroup_cores() -> float | None:
    quota = (_read(Path("/sys/fs/cgroup/cpu.max")) or "").split()
    if len(quota) == 2 and quota[0].isdigit():
        return float(quota[0]) / float(quota[1])
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
