"""Is this machine ready for a study, and what does it mean for one?"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stormsweep import __version__
from stormsweep.cluster import machine
from stormsweep.study.layout import MEMORY_SHARE, WORKER_GB

#: Python's minor versions that the locked packages are resolved for.
_PYTHONS = ((3, 11), (3, 13))
_DISK_GB = 2.0
_PROBE = """
import json, sys, time
begun = time.perf_counter()
module = __import__(sys.argv[1])
said = {"version": module.__version__, "seconds": time.perf_counter() - begun}
if sys.argv[1] == "jax":
    said["devices"] = sorted({device.platform for device in module.devices()})
else:
    said["devices"] = sorted({d.device_type for d in module.config.list_physical_devices()})
print(json.dumps(said))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact about the machine and what it means.

    Attributes
    ----------
    name, value, meaning : str
        What was looked at, what was found, what follows for a study.
    ok : bool
        False where no study can run.
    """

    name: str
    value: str
    meaning: str = ""
    ok: bool = True


def examine(import_engines: bool = True) -> Iterator[Finding]:
    """Yield what this machine has, one finding at a time.

    Parameters
    ----------
    import_engines : bool
        Import TensorFlow and JAX, each in a process of its own; takes some seconds.
    """
    yield _python()
    yield _cores()
    yield _memory()
    yield _instructions()
    if import_engines:
        yield _tensorflow()
        yield _jax()
    yield _slurm()
    yield _disk()


def _python() -> Finding:
    low, high = _PYTHONS
    fits = low <= sys.version_info[:2] <= high
    return Finding(
        "Python",
        f"{platform.python_version()}, Stormsweep {__version__}",
        "" if fits else f"Python {low[0]}.{low[1]} to {high[0]}.{high[1]} is needed",
        fits,
    )


def _cores() -> Finding:
    usable, all_cores = machine.cores(), os.cpu_count() or 1
    value = f"{usable} usable of {all_cores} ({machine.processor()})"
    layout = f'a study uses them all with workers = {usable}, or what a trial finds with "auto"'
    if usable < all_cores:
        layout += "; the rest is kept from this process by its affinity or cgroup"
    return Finding("cores", value, layout)


def _memory() -> Finding:
    total = machine.memory_gb()
    workers = max(0, int(MEMORY_SHARE * total / WORKER_GB))
    enough = workers >= 1
    meaning = f"enough for about {workers} workers of the storm CNN (1 GiB each, data shared)"
    return Finding(
        "memory", f"{total:.1f} GiB", meaning if enough else "too little for one worker", enough
    )


def _instructions() -> Finding:
    found = machine.instruction_sets()
    meaning = 'precision = "bfloat16" would be emulated and slow: keep "float32"'
    if machine.computes_bfloat16():
        meaning = 'precision = "bfloat16" is computed in hardware'
    elif not found:
        meaning = 'whether precision = "bfloat16" is computed in hardware is not known'
    return Finding("instruction sets", ", ".join(found) or "none known", meaning)


def _tensorflow() -> Finding:
    said, error = _import("tensorflow")
    if said is None:
        return Finding(
            "TensorFlow", f"cannot be imported: {error}", "nothing can be trained", False
        )
    return Finding(
        "TensorFlow",
        f"{said['version']} ({', '.join(said['devices'])})",
        f"each worker spends {said['seconds']:.0f} s importing it, once",
    )


def _jax() -> Finding:
    said, _ = _import("jax")
    if said is None:
        meaning = "needed for engine.use = \"jax\" only: pip install -e '.[gpu]' in the checkout"
        return Finding("JAX", "not installed", meaning)
    devices = ", ".join(said["devices"])
    meaning = 'engine.use = "jax" trains on GPUs here'
    if not {"gpu", "cuda", "rocm"} & set(said["devices"]):
        meaning = 'finds no GPU: engine.use = "jax" would be slower than "tensorflow"'
    return Finding("JAX", f"{said['version']} ({devices})", meaning)


def _import(module: str) -> tuple[dict[str, Any] | None, str]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, module],
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return None, "no answer within 300 s"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"exit code {done.returncode}"
    return json.loads(done.stdout.strip().splitlines()[-1]), ""


def _slurm() -> Finding:
    if shutil.which("sbatch") is None:
        return Finding("Slurm", "no sbatch here", "studies run on this machine only")
    meaning = "studies run on this machine only, as yet; doctor --site NAME tries a site"
    try:
        done = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("Slurm", f"sbatch is there, sinfo fails: {error}", meaning)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no word"]
        return Finding("Slurm", f"sbatch is there, but no cluster answers ({lines[-1]})", meaning)
    return Finding("Slurm", done.stdout.strip(), meaning)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    writable = os.access(Path.cwd(), os.W_OK)
    meaning = "studies go to runs/ and data to data/ in this folder"
    if not writable:
        meaning = "this folder cannot be written to: change to one that can"
    elif free < _DISK_GB:
        meaning = f"less than {_DISK_GB:.0f} GiB: too little for data and checkpoints"
    return Finding("disk", f"{free:.1f} GiB free here", meaning, writable and free >= _DISK_GB)
