"""Losing this: the whole archive no longer fits into the memory of a laptop."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stormsweep.cluster import machine
from stormsweep.data.prepared import PreparedData
from stormsweep.storms import synthesize
from stormsweep.storms.twin import MOST_PATCHES

from .conftest import command

pytestmark = pytest.mark.slow

STUDY = """
[study]
name = "full"
[data]
source = "ncar-storms"
path = "storms"
cache = "data"
[search.space]
epochs = [1]
"""


def memory_mb(process: psutil.Popen) -> float:
    """Memory of a process and its descendants: pages that several share count once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            facts = one.memory_full_info()
        except psutil.Error:
            continue
        total += getattr(facts, "pss", facts.rss)
    return total / 2**20


def watched(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run the command line; return its seconds and the most memory it took, in MiB."""
    begun, most = time.monotonic(), 0.0
    process = psutil.Popen(command(folder, *arguments), cwd=folder, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            most = max(most, memory_mb(process))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    assert process.wait() == 0
    return time.monotonic() - begun, most


@pytest.mark.timeout(3600)
def test_the_whole_archive_is_prepared_and_exported_in_bounded_memory(tmp_path: Path) -> None:
    synthesize(tmp_path / "storms", MOST_PATCHES, 3)
    (tmp_path / "study.toml").write_text(STUDY)
    seconds, most = watched(tmp_path, "data", "prepare", "study.toml")
    (folder,) = (tmp_path / "data" / "prepared").iterdir()
    data = PreparedData.open(folder)
    assert sum(part["count"] for part in data.manifest["parts"].values()) == MOST_PATCHES
    raw = sum(path.stat().st_size for path in (tmp_path / "storms").rglob("*.nc")) / 2**20
    say = [
        f"prepared {MOST_PATCHES:,} patches with {machine.cores()} cores in {seconds:.0f} s "
        f"({MOST_PATCHES / seconds:,.0f} patches/s, {raw / seconds:.0f} MiB/s of packed files), "
        f"{most:.0f} MiB of memory"
    ]
    peaks = [most]
    for name in ("npy", "netcdf", "zarr"):
        seconds, most = watched(tmp_path, "data", "export", "study.toml", name, "--format", name)
        say.append(f"exported as {name} in {seconds:.0f} s, {most:.0f} MiB of memory")
        peaks.append(most)
    print("\n".join(say), file=sys.stderr)
    assert max(peaks) < 1536, say
