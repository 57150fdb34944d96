"""Losing these: workers that crowd on some cores while others idle, or read far memory."""

from __future__ import annotations

import os
import re
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.cluster import machine
from stormsweep.cluster.topology import Topology, assign, pins, read_topology
from stormsweep.results import frames
from stormsweep.results.journal import read
from tests.journals import simulate


@st.composite
def machines(draw: st.DrawFn) -> tuple[Topology, list[int]]:
    """Draw any topology: nodes of different sizes, hyperthreads numbered in any order, gaps."""
    shape = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=6), max_size=4))
    places = [
        (node, core)
        for node, cores in enumerate(shape)
        for core, siblings in enumerate(cores)
        for _ in range(siblings)
    ] or [(0, 0)]
    numbers = draw(st.permutations(range(len(places))))
    node = {cpu: place[0] for cpu, place in zip(numbers, places, strict=True)}
    core = {cpu: 100 * place[0] + place[1] for cpu, place in zip(numbers, places, strict=True)}
    kept = draw(st.sets(st.sampled_from(numbers), min_size=1))
    return Topology(node, core), sorted(kept)


@given(machines(), st.integers(1, 12), st.integers(1, 12))
def test_cores_are_given_out_fairly_on_any_machine(
    drawn: tuple[Topology, list[int]], workers: int, threads: int
) -> None:
    topology, allowed = drawn
    shares = assign(topology, allowed, workers, threads)
    if workers * threads > len(allowed):
        assert shares == []
        return
    assert [len(share) for share in shares] == [threads] * workers
    used = [cpu for share in shares for cpu in share]
    assert len(set(used)) == len(used), "two workers share a logical processor"
    assert set(used) <= set(allowed)
    room = Counter(topology.node_of(cpu) for cpu in allowed)
    whole = sum(count // threads for count in room.values())
    straddling = sum(len({topology.node_of(cpu) for cpu in share}) > 1 for share in shares)
    assert straddling == max(0, workers - whole), "a worker straddles nodes that need not"
    for node in room:
        inside = [cpu for cpu in used if topology.node_of(cpu) == node]
        there = {topology.core_of(cpu) for cpu in allowed if topology.node_of(cpu) == node}
        taken = {topology.core_of(cpu) for cpu in inside}
        assert len(taken) == min(len(there), len(inside)), "a core idles beside a crowded one"


def test_a_two_socket_machine_with_hyperthreads_is_laid_out_as_one_would_by_hand() -> None:
    # Two sockets of two cores; Linux numbers second hyperthreads after all first ones.
    topology = Topology({cpu: cpu // 2 % 2 for cpu in range(8)}, {cpu: cpu % 4 for cpu in range(8)})
    assert assign(topology, range(8), 2, 2) == [(0, 1), (2, 3)]
    assert assign(topology, range(8), 4, 2) == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert assign(topology, range(8), 2, 1) == [(0,), (2,)]
    assert assign(topology, range(8), 1, 8) == [tuple(range(8))]
    assert assign(topology, range(8), 3, 3) == []


def test_the_topology_is_read_as_linux_writes_it(tmp_path: Path) -> None:
    for node, cpus in (("node0", "0-1,4-5"), ("node1", "2-3,6-7")):
        (tmp_path / "node" / node).mkdir(parents=True)
        (tmp_path / "node" / node / "cpulist").write_text(f"{cpus}\n")
    for cpu in range(8):
        folder = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    found = read_topology(tmp_path)
    assert [found.node_of(cpu) for cpu in range(8)] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert [found.core_of(cpu) for cpu in range(8)] == [0, 1, 2, 3, 0, 1, 2, 3]
    nothing = read_topology(tmp_path / "elsewhere")
    assert assign(nothing, [3, 5], 2, 1) == [(3,), (5,)]


def test_only_a_study_that_fills_the_machine_is_pinned_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "allowed", lambda: [0, 1, 2, 3])
    assert len(pins("auto", 4, 1)) == 4
    assert pins("auto", 2, 1) == []
    assert len(pins(True, 2, 1)) == 2
    assert pins(True, 5, 1) == []
    assert pins(False, 4, 1) == []
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert pins("auto", 4, 1) == []


@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        ({}, None),
        ({"SLURM_CPUS_ON_NODE": "4"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "4"}, 16),
        (
            {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "16", "SLURM_CPUS_PER_TASK": "4"}
            | {"SLURM_STEP_ID": "0"},
            4,
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967290", "SLURM_CPUS_ON_NODE": "8"}, 8),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "16(x2),8", "SLURM_NODEID": "2"}, 8),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "16(x2),8"}, 16),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2"}, 2),
        ({"SLURM_JOB_ID": "7"}, None),
    ],
)
def test_a_slurm_job_uses_what_it_was_given(environment: dict[str, str], cores: int | None) -> None:
    assert machine.slurm_cores(environment) == cores


def test_a_containers_share_of_the_processor_counts(tmp_path: Path) -> None:
    second, first = tmp_path / "second", tmp_path / "first"
    (second / "system/job/step").mkdir(parents=True)
    (second / "system/job/cpu.max").write_text("250000 100000\n")
    (second / "system/job/step/cpu.max").write_text("max 100000\n")
    assert machine.quota(second, "0::/system/job/step\n") == 2.5
    (second / "cpu.max").write_text("150000 100000\n")
    assert machine.quota(second, "0::/system/job/step\n") == 1.5
    for group, quota in (("", "-1"), ("job", "400000")):
        (first / "cpu,cpuacct" / group).mkdir(parents=True)
        (first / "cpu,cpuacct" / group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (first / "cpu,cpuacct" / group / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.quota(first, "4:cpu,cpuacct:/job\n2:memory:/job\n") == 4.0
    assert machine.quota(first, "4:cpu,cpuacct:/\n0::/\n") is None


def test_journals_of_before_the_layout_was_kept_are_read(tmp_path: Path) -> None:
    simulate(tmp_path, {"batch_size": [64]}, folds=2, milestones=[1])
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    old = tmp_path / "old.jsonl"
    bare = re.compile(rb',"threads":0,"cores":\[\],"crc":"[0-9a-f]{8}"\}$')
    assert any(bare.search(line) for line in lines)
    cut = [bare.sub(b"}", line) for line in lines]
    old.write_bytes(
        b"".join(
            line + b"\n" if line in lines else line[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(line)
            for line in cut
        )
    )
    table = frames.tasks(read(old))
    assert list(table["threads"]) == [1, 1]
    assert list(table["cores"]) == ["", ""]
