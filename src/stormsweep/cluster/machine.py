"""What this machine has, as far as this process may use it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

_GIB = 1 << 30
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
#: Made anew whenever a machine starts: no two machines have the same.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
#: Steps numbered from here on are none that srun made: batch script, external and interactive.
_SPECIAL_STEPS = 0xFFFFFFF0


def allowed() -> list[int]:
    """Return the numbers of the logical processors that this process may run on (affinity)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> int:
    """Return the number of cores this process may use.

    The fewest of: those it may run on (affinity), the quota of its cgroup (version 1 or 2) or of
    one above it, and those that Slurm or PBS gave the job or the step it is in.
    """
    given = slurm_cores(os.environ) or pbs_cores(os.environ)
    limits = (float(len(allowed())), _cgroup_cores(), given)
    return max(1, int(min(limit for limit in limits if limit)))


def slurm_cores(environment: Mapping[str, str]) -> int | None:
    """Return how many cores of this node Slurm gave to the job, or to the step's task.

    Clusters that do not confine jobs let a process see the whole node; what it was given stands in
    its environment only (sbatch(1) and srun(1), "output environment variables").

    Parameters
    ----------
    environment : mapping
        The process's environment.

    Returns
    -------
    int or None
        None outside a job, and where Slurm does not say.
    """
    if "SLURM_JOB_ID" not in environment:
        return None
    on_node = _whole(environment.get("SLURM_CPUS_ON_NODE")) or _of_node(environment)
    per_task = _whole(environment.get("SLURM_CPUS_PER_TASK"))
    # A batch script holds all that its job has on the node; a task of a step only its own part.
    # An interactive step (its number is one of the special ones) is like a batch script.
    step = _whole(environment.get("SLURM_STEP_ID"), least=0)
    if step is not None and step < _SPECIAL_STEPS and per_task:
        return per_task
    return on_node or per_task


def whole_cores(environment: Mapping[str, str]) -> bool:
    """Tell whether a job of Slurm's has whole cores, and is to use one hyperthread of each.

    Its processes may be let run on all hyperthreads (affinity); sbatch(1), "--hint".

    Examples
    --------
    >>> whole_cores({"SLURM_JOB_ID": "7", "SLURM_HINT": "nomultithread"})
    True
    """
    return "SLURM_JOB_ID" in environment and (
        environment.get("SLURM_HINT") == "nomultithread"
        or environment.get("SLURM_THREADS_PER_CORE") == "1"
    )


def slurm_memory(environment: Mapping[str, str]) -> float | None:
    """Return how many bytes of memory of this node Slurm gave to the job, or to the step.

    Parameters
    ----------
    environment : mapping
        The process's environment.

    Returns
    -------
    float or None
        None outside a job, where Slurm does not say, and for a job that has all of its node.

    Examples
    --------
    >>> job = {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "4"}
    >>> slurm_memory(job) / 2**20
    4000.0
    """
    if "SLURM_JOB_ID" not in environment:
        return None
    # Never both; in MiB. 0 asks for all of a node, and then neither need be there.
    if node := _whole(environment.get("SLURM_MEM_PER_NODE")):
        return float(node << 20)
    cpu, count = _whole(environment.get("SLURM_MEM_PER_CPU")), slurm_cores(environment)
    return float(cpu * count << 20) if cpu and count else None


def pbs_cores(environment: Mapping[str, str]) -> int | None:
    """Return how many cores of its first node PBS gave to the job that this runs in.

    ``NCPUS`` is that of the job's first chunk (pbs_resources(7B), "ompthreads"); the jobs that are
    submitted here have chunks of one kind only.

    Examples
    --------
    >>> pbs_cores({"PBS_JOBID": "7.desched1", "NCPUS": "36"}), pbs_cores({"NCPUS": "36"})
    (36, None)
    """
    return _whole(environment.get("NCPUS")) if "PBS_JOBID" in environment else None


def _of_node(environment: Mapping[str, str]) -> int | None:
    """Read ``16(x2),8``: cores on each node of the job, in the order of the nodes."""
    counts: list[int] = []
    for part in environment.get("SLURM_JOB_CPUS_PER_NODE", "").split(","):
        if found := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip()):
            counts += [int(found[1])] * int(found[2] or 1)
    node = _whole(environment.get("SLURM_NODEID"), least=0) or 0
    return counts[node] if node < len(counts) else None


def _whole(text: str | None, least: int = 1) -> int | None:
    return int(text) if text and text.isdigit() and int(text) >= least else None


def memory_gb() -> float:
    """Return the memory this process may use in GiB.

    The least of: the machine's, the limit of its cgroup or of one above it, and what Slurm gave the
    job or the step it is in.
    """
    limits = (
        float(psutil.virtual_memory().total),
        memory_limit(_CGROUPS, _read(_OWN_CGROUPS) or ""),
        slurm_memory(os.environ),
    )
    return min(limit for limit in limits if limit) / _GIB


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
            known = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "bf16")
            return [flag for flag in known if flag in flags]
    return []


def computes_bfloat16() -> bool:
    """Tell whether the processor has instructions for bfloat16; else it is emulated, slowly."""
    return any(name.endswith("bf16") for name in instruction_sets())


def processor_seconds() -> tuple[float, float]:
    """Return the processor time spent so far on the cores this process may use, and its own part.

    Returns
    -------
    tuple of float and float
        Of everybody, and of this process with its children that live or were waited for. What a
        virtual machine was kept waiting for its host's processors counts as others' time.
    """
    usable, everybody = set(allowed()), 0.0
    for number, cpu in enumerate(psutil.cpu_times(percpu=True)):
        if number in usable:
            everybody += sum(cpu) - cpu.idle - getattr(cpu, "iowait", 0.0)
            # Linux counts a guest's time as its host's user time, too.
            everybody -= getattr(cpu, "guest", 0.0) + getattr(cpu, "guest_nice", 0.0)
    own = 0.0
    process = psutil.Process()
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            own += times.user + times.system
            own += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return everybody, own


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Slurm and the user say which in that variable; else NVIDIA's own tool knows.
    """
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        names = [name.strip() for name in said.split(",")]
        # What follows a name that is none does not count: so says the CUDA manual.
        valid = [bool(name) and name != "-1" and name != "NoDevFiles" for name in names]
        return names[: valid.index(False)] if False in valid else names
    return _nvidia("index")


def gpus_of_jax() -> list[str]:
    """Return the GPUs that JAX would use, as of `gpus`: none where it is told to use none."""
    return [] if os.environ.get("JAX_PLATFORMS") == "cpu" else gpus()


def gpu_names() -> list[str] | None:
    """Return what kinds of GPUs this process may use, by name; None where that is not known."""
    usable, kinds = gpus(), set[str]()
    for line in _nvidia("index,uuid,name") if usable else []:
        index, uuid, name = line.split(", ", 2)
        # What CUDA_VISIBLE_DEVICES names may be the begin of an identifier.
        if any(one == index or uuid.startswith(one) for one in usable):
            kinds.add(name)
    return sorted(kinds) if kinds or not usable else None


def _nvidia(what: str) -> list[str]:
    """Return what NVIDIA's own tool says of the GPUs, a line each; none where it cannot."""
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def host() -> str:
    """Return this machine's name."""
    return socket.gethostname()


def process_space() -> str:
    """Return which process numbers count here, and since when.

    Containers of one host have their own, and machines copied from one image the same name.
    """
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    return f"{numbers} {_read(_BOOT) or ''}".strip()


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
    return quota(_CGROUPS, _read(_OWN_CGROUPS) or "")


def quota(root: Path, groups: str) -> float | None:
    """Return how many cores' worth of time a process may use a second; None without a limit.

    Parameters
    ----------
    root : Path
        Where control groups are mounted.
    groups : str
        What ``/proc/self/cgroup`` says.

    Returns
    -------
    float or None
        The least of its group and of all above it, in version 1 and 2. In a container its own
        group may be mounted as the root: that counts too.
    """
    limits = [_limit(folder) for folder in _folders(root, groups, "cpu")]
    return min((limit for limit in limits if limit), default=None)


def memory_limit(root: Path, groups: str) -> float | None:
    """Return how many bytes of memory a process may use; None without a limit. See `quota`."""
    limits = [
        float(text)
        for folder in _folders(root, groups, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (text := _read(folder / name)) and text.isdigit()
    ]
    return min(limits, default=None)


def memory_kills(root: Path = _CGROUPS, groups: str | None = None) -> int | None:
    """Return how many processes of this process's control group the system killed for memory.

    Whatever was used up: the group's own limit, that of one above it, or the machine's memory.
    None where no group counts them. See `quota`; Linux keeps the count in ``memory.events``
    (version 2) or ``memory.oom_control`` (version 1), where it rises before the process dies.
    """
    for folder in _folders(root, _read(_OWN_CGROUPS) or "" if groups is None else groups, "memory"):
        for name in ("memory.events", "memory.oom_control"):
            if found := re.search(r"^oom_kill (\d+)$", _read(folder / name) or "", re.MULTILINE):
                return int(found[1])
    return None


def _folders(root: Path, groups: str, controller: str) -> Iterator[Path]:
    """Yield the folders of a process's control groups, its own first, that control something."""
    for line in groups.splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            mounts = [root, root / "unified"]
        elif controller in controllers.split(","):
            mounts = [root / controller, root / controllers]
        else:
            continue
        within = Path(path.lstrip("/"))
        for mount in mounts:
            yield from (mount / folder for folder in (within, *within.parents))


def _limit(group: Path) -> float | None:
    second = (_read(group / "cpu.max") or "").split()
    first = [_read(group / f"cpu.cfs_{what}_us") or "" for what in ("quota", "period")]
    for parts in (second, first):
        if len(parts) == 2 and all(part.isdigit() and int(part) for part in parts):
            return int(parts[0]) / int(parts[1])
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
