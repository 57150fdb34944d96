"""Losing these: workers that crowd on some cores while others idle, or a layout that is no good.

The workers here are fakes with a given speed; real ones are in tests/integration.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.cluster import machine
from stormsweep.cluster.pool import Broken, Event, Finished, WorkerReady
from stormsweep.cluster.topology import Topology, assign, pins, read_topology
from stormsweep.config.study import SiteChoice
from stormsweep.errors import DivergedError, RunError
from stormsweep.records import LayoutTried, RunFailed, SessionBegun
from stormsweep.results import frames
from stormsweep.results.journal import of_kind, read
from stormsweep.search.plan import make_plan
from stormsweep.search.space import grid
from stormsweep.study import worker
from stormsweep.study.layout import (
    Layout,
    Room,
    Tried,
    candidates,
    choose,
    crowded,
    decided,
    telling,
)
from stormsweep.study.orders import Orders
from stormsweep.study.trial import Crew, UntrainableError, find_layout
from stormsweep.training.engine import AdvanceResult, FoldData
from stormsweep.work import Run, Sample, Sampled, Task
from tests import journals
from tests.unit.test_execute import PLAN, STUDY, WELCOME, FakePool, train


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
    # A job that has whole cores fills them with one thread of each.
    hyperthreads = Topology({}, {0: 0, 1: 1, 2: 0, 3: 1})
    monkeypatch.setattr("stormsweep.cluster.topology.read_topology", lambda: hyperthreads)
    assert pins("auto", 2, 1, whole_cores=True) == [(0,), (1,)]
    assert pins("auto", 2, 1) == []
    assert pins("auto", 1, 1, whole_cores=True) == []
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


@pytest.mark.parametrize(
    ("environment", "mebibytes"),
    [
        ({"SLURM_MEM_PER_NODE": "1000"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "1000", "SLURM_CPUS_ON_NODE": "4"}, 1000),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "4"}, 4000),
        (
            # A step, on nodes with two hyperthreads a core: Slurm counts those that it may use.
            {"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "4"}
            | {"SLURM_STEP_ID": "0", "SLURM_CPUS_PER_TASK": "2"},
            2000,
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "0", "SLURM_CPUS_ON_NODE": "4"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_MEM_PER_CPU": "1000"}, None),
    ],
)
def test_the_memory_of_a_slurm_job_is_what_it_was_given(
    environment: dict[str, str], mebibytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where jobs are not confined, workers would take the memory of neighbours' jobs."""
    given = machine.slurm_memory(environment)
    assert given == (None if mebibytes is None else mebibytes * 2**20)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    here = machine.memory_gb()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert machine.memory_gb() == (here if mebibytes is None else min(here, mebibytes / 1024))


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
    (second / "system/job/memory.max").write_text("4000\n")
    (first / "memory" / "job").mkdir(parents=True)
    (first / "memory" / "job" / "memory.limit_in_bytes").write_text("5000\n")
    assert machine.memory_limit(second, "0::/system/job/step\n") == 4000
    assert machine.memory_limit(first, "4:cpu,cpuacct:/job\n2:memory:/job\n") == 5000
    assert machine.memory_limit(first, "2:memory:/\n") is None


def test_kills_for_memory_are_counted_where_the_system_counts_them(tmp_path: Path) -> None:
    """Files as Linux 5 and 6 write them, in both versions of control groups."""
    second, first = tmp_path / "second", tmp_path / "first"
    step = second / "system.slice/slurmstepd.scope/job_7/step_0/user/task_0"
    step.mkdir(parents=True)
    events = "low 0\nhigh 0\nmax 183\noom 2\noom_kill 2\noom_group_kill 0\n"
    (step / "memory.events").write_text(events)
    (second / "system.slice" / "memory.events").write_text(events.replace("2", "5"))
    groups = f"0::/{step.relative_to(second)}\n"
    assert machine.memory_kills(second, groups) == 2
    job = first / "memory/slurm/uid_0/job_7/step_0"
    job.mkdir(parents=True)
    (job / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    v1 = "9:memory:/slurm/uid_0/job_7/step_0\n4:cpu,cpuacct:/\n0::/\n"
    assert machine.memory_kills(first, v1) == 3
    # In a container its own group is the root.
    assert machine.memory_kills(job.parents[2], "9:memory:/docker/0a1b\n") is None
    (first / "memory" / "memory.oom_control").write_text("oom_kill_disable 0\noom_kill 4\n")
    assert machine.memory_kills(first, "9:memory:/docker/0a1b\n") == 4
    # Kernels before 4.13, and machines without any.
    (job / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
    (first / "memory" / "memory.oom_control").unlink()
    assert machine.memory_kills(first, v1) is None
    assert machine.memory_kills(tmp_path, "") is None


MACHINE = Room("node", 8, 64.0, 1.0, 54)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.5, 500), st.floats(0.1, 30))
def test_layouts_fit_into_the_machine(cores: int, runs: int, memory: float, each: float) -> None:
    room = Room("node", cores, memory, each, runs)
    listed = candidates(room)
    assert 1 <= len(listed) <= 4
    assert listed[0].threads == 1
    assert len(set(listed)) == len(listed)
    for layout in listed:
        assert layout.workers * layout.threads <= cores
        assert layout.workers <= runs
        assert layout.workers == 1 or layout.workers * each <= 0.9 * memory


def test_the_usual_candidates_are_the_expected_ones() -> None:
    def pairs(cores: int, runs: int = 1000) -> list[tuple[int, int]]:
        room = Room("node", cores, 1000.0, 1.0, runs)
        return [(layout.workers, layout.threads) for layout in candidates(room)]

    assert pairs(1) == [(1, 1)]
    assert pairs(2) == [(2, 1), (1, 2)]
    assert pairs(8) == [(8, 1), (4, 2), (2, 4), (1, 8)]
    assert pairs(36) == [(36, 1), (18, 2), (9, 4), (1, 36)]
    assert (3, 12) in pairs(36, runs=3)


def test_the_fastest_is_chosen_and_fewer_threads_where_it_is_close() -> None:
    def tried(*rates: float, memory: float = 900.0) -> list[Tried]:
        sizes = ((4, 1), (2, 2), (1, 4))
        return [Tried(Layout(*size), rate, memory) for size, rate in zip(sizes, rates, strict=True)]

    won = choose(tried(21_000, 16_400, 9_000), 60.0, "patches")
    assert won is not None
    assert (won.workers, won.threads) == (4, 1)
    assert won.why == "21,000 patches/s against 16,400 of 2 x 2, 9,000 of 1 x 4"
    close = choose(tried(9_700, 10_000, 9_900), 60.0, "cases")
    assert close is not None
    assert close.threads == 1
    better = choose(tried(9_000, 10_000, 9_900), 60.0, "cases")
    assert better is not None
    assert better.threads == 2
    small = choose(tried(21_000, 16_400, 9_000), 2.0, "cases")
    assert small is not None
    assert small.workers == 2
    assert "4 x 1 (too much memory)" in small.why
    assert choose([Tried(Layout(4, 1), 0.0, failure="no")], 60.0, "cases") is None


def test_a_study_keeps_its_threads_and_is_not_tried_again() -> None:
    site = SiteChoice(workers="auto")
    assert site.threads_per_worker == "auto"
    assert decided(site, MACHINE, []) is None
    measured = Tried(Layout(4, 2), 21_000.0).plain()
    found = LayoutTried("node", 8, 4, 2, "fast", [measured], 9.0)
    begun = SessionBegun(1, "node", 7, "local", 4, 2)
    kept = decided(site, MACHINE, [begun, found])
    assert kept is not None
    assert (kept.workers, kept.threads) == (4, 2)
    smaller = decided(site, replace(MACHINE, cores=6), [begun, found])
    assert smaller is not None
    assert (smaller.workers, smaller.threads) == (3, 2)
    by_hand = decided(site, MACHINE, [SessionBegun(1, "node", 7, "local", 2, 1)])
    assert by_hand is not None
    assert (by_hand.workers, by_hand.threads) == (8, 1)


@pytest.mark.parametrize("tried", [[], [Tried(Layout(8, 1), 0.0, failure="no memory").plain()]])
def test_a_trial_that_came_to_nothing_is_made_again_once_the_model_is_mended(
    tried: list[dict[str, Any]],
) -> None:
    """Losing this: a study of days on the layout that a typing mistake in its model left it."""
    site, (run, *_) = SiteChoice(workers="auto"), journals.plan([{"batch_size": 8}], 2, [1, 2])
    began = [
        SessionBegun(1, "node", 7, "local", 8, 1),
        LayoutTried("node", 8, 8, 1, "a trial fails (NameError)", tried, 2.0),
        RunFailed(run.run, 0, 1, "error", "NameError", "0", 1),
    ]
    assert decided(site, MACHINE, telling(began)) is None
    trained = [journals.task(run, 0, 1), journals.task(run, 1, 2)]
    kept = telling([*began, *trained])
    assert kept == [*began[:2], trained[0]], "a long journal has little of it"
    layout = decided(site, MACHINE, kept)
    assert layout is not None, "scores are those of one number of threads"
    assert (layout.workers, layout.threads) == (8, 1)


def test_workers_that_are_allowed_more_memory_are_fewer_than_the_study_began_with() -> None:
    """Losing this: who gives a worker more memory has the system kill all of them."""
    began = [
        SessionBegun(1, "node", 7, "local", 8, 1),
        LayoutTried("node", 8, 8, 1, "fast", [Tried(Layout(8, 1), 21_000.0).plain()], 9.0),
    ]
    now = decided(SiteChoice(workers="auto"), replace(MACHINE, memory_gb=32, worker_gb=8.0), began)
    assert now is not None
    assert (now.workers, now.threads) == (3, 1)
    assert now.why == (
        "the study began with 8 workers, and there is room for 3 (54 runs; 8 GiB a worker, of 28.8)"
    )


def test_numbers_in_the_study_file_are_kept_and_one_auto_is_filled() -> None:
    def of(**site: Any) -> tuple[int, int]:
        layout = decided(SiteChoice(**site), MACHINE, [])
        assert layout is not None
        return layout.workers, layout.threads

    assert of() == (2, 1)
    assert of(workers=16) == (16, 1)
    assert of(workers="auto", threads_per_worker=2) == (4, 2)
    assert of(workers=3, threads_per_worker="auto") == (3, 2)
    assert "more threads than the 8 cores" in crowded(Layout(16, 1), 8)
    assert crowded(Layout(8, 1), 8) == ""


class FakeCrew:
    """Workers that train as fast as the test says, and remember that they were there."""

    def __init__(self, layout: Layout, rate: float | str) -> None:
        self.layout, self.rate = layout, rate
        self.joined = [WorkerReady(str(n), "node", n) for n in range(layout.workers)]

    def gather(self) -> None:
        pass

    def sample(self, seconds: float) -> list[Sampled]:
        if isinstance(self.rate, str):
            raise (UntrainableError if self.rate == "raises" else RunError)(self.rate)
        return [Sampled(round(self.rate * seconds), seconds, 500.0) for _ in self.joined]


def trial(rates: dict[int, float | str], patches: int) -> tuple[Any, list[Layout], list[Layout]]:
    """Try layouts whose workers have given rates; return what was found, who came and who left."""
    hired: list[Layout] = []
    gone: list[Layout] = []

    @contextlib.contextmanager
    def hire(layout: Layout) -> Iterator[Any]:
        hired.append(layout)
        yield SimpleNamespace(close=lambda: None, events=lambda _: iter(()), submit=None)
        gone.append(layout)

    plan = make_plan(grid({"batch_size": [64, 128, 512], "epochs": [10]}), {}, 3)
    with contextlib.ExitStack() as open_:
        found = find_layout(
            plan,
            [patches] * 3,
            replace(MACHINE, cores=4),
            hire,
            lambda layout, _run, _pool: cast(Any, FakeCrew(layout, rates[layout.threads])),
            lambda _what, _share: None,
            open_,
            "cases",
        )
        assert len(hired) - len(gone) == 1, "workers of other layouts are left"
        return found, hired, list(gone)


def test_a_short_study_keeps_the_workers_it_began_with() -> None:
    found, hired, gone = trial({1: 1000.0}, 10)
    assert [(one.workers, one.threads) for one in hired] == [(4, 1)]
    assert gone == []
    assert "more than it could win" in found.layout.why
    assert [event.worker for event in found.pool.events(0.0)] == ["0", "1", "2", "3"]
    assert list(found.pool.events(0.0)) == []


def test_a_long_study_gets_the_fastest_layout() -> None:
    found, hired, _ = trial({1: 1000.0, 2: 3000.0, 4: 1000.0}, 10_000_000)
    assert (found.layout.workers, found.layout.threads) == (2, 2)
    assert [one["patches_per_second"] for one in found.record.tried] == [4000, 6000, 1000]
    assert hired[-1] == found.layout
    last, hired, _ = trial({1: 1000.0, 2: "broken", 4: 9000.0}, 10_000_000)
    assert (last.layout.workers, last.layout.threads) == (1, 4)
    assert len(hired) == 3, "the last layout's workers are there already"
    assert "2 x 2 (broken)" in last.layout.why
    none, _, _ = trial({1: "broken", 2: "broken", 4: "broken"}, 10_000_000)
    assert (none.layout.workers, none.layout.threads) == (4, 1)
    assert "broken" in none.layout.why
    wrong, hired, _ = trial({1: "raises"}, 10_000_000)
    assert (wrong.layout.workers, len(hired)) == (4, 1)
    assert "raises" in wrong.layout.why


class Raising(FakePool):
    """Workers that cannot train the model, and find out one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Finished] = []

    def submit(
        self, worker: str, pid: int, token: str, function: Callable[[Any], Any], argument: Any
    ) -> None:
        assert worker not in [one.worker for one in self.answers], "it is busy"
        if token == "welcome":
            super().submit(worker, pid, token, function, argument)
            return
        order = argument.order if isinstance(argument, Sample) else argument
        failed = RunFailed(order.task.run.id, 0, 1, "error", "it raises", worker, order.session)
        self.answers.append(Finished(worker, token, failed))

    def events(self, timeout: float) -> Iterator[Event]:
        yield from super().events(timeout)
        if self.answers:
            yield self.answers.pop(0)


def test_a_model_that_raises_while_layouts_are_tried_is_failed_runs_with_their_reason(
    tmp_path: Path,
) -> None:
    """Losing this: a traceback instead, from the workers that had not answered yet."""
    data: Any = SimpleNamespace(path=tmp_path, fingerprint="f")
    with contextlib.ExitStack() as open_:
        found = find_layout(
            PLAN,
            [100, 100],
            replace(MACHINE, cores=2),
            lambda _layout: contextlib.nullcontext(cast(Any, Raising())),
            lambda _layout, run, pool: Crew(STUDY, data, None, run, pool),
            lambda _what, _share: None,
            open_,
            "cases",
        )
        assert found.layout.why == "a trial fails (it raises)"
        failed = of_kind(train(tmp_path, cast(Any, found.pool)), RunFailed)
    assert {(one.run, one.reason) for one in failed} == {(run.id, "it raises") for run in PLAN.runs}


class Diverging:
    """A run whose loss is no number in its third epoch, nor in any after it."""

    def __init__(self) -> None:
        self.epoch = self.asked = 0

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def restore(self, state: dict[str, int], epoch: int) -> None:
        assert state == {"epoch": epoch}
        self.epoch = epoch

    def advance(self, to_epoch: int) -> AdvanceResult:
        assert to_epoch == self.epoch + 1
        self.epoch, self.asked = to_epoch, self.asked + 1
        if self.epoch >= 3:
            raise DivergedError(f"the training loss is nan in epoch {self.epoch}")
        return AdvanceResult([0.5], 32, 4, 0.0, 1.0)


def test_a_run_that_diverges_is_as_good_as_any_to_measure_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Losing this: no layout is tried, for good, because one learning rate of many is too high."""
    run, clock = Diverging(), itertools.count(0, 0.25)
    data = FoldData(*(np.zeros(100, np.int64),) * 4, None, 0.5)
    monkeypatch.setattr(worker, "fold_of", lambda _order: data)
    monkeypatch.setattr(worker, "builder_of", lambda *_: [None])
    engine = SimpleNamespace(start=lambda *_: run)
    monkeypatch.setattr(worker, "engine_for", lambda _order: engine)
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    task = Task(Run("r", {"batch_size": 8}, 0, (1,)), 0, 1)
    order = Orders(STUDY, cast(Any, SimpleNamespace(path="", fingerprint="")), Path(), None)
    found = worker.sample_task(Sample(order.order(task, "", "0", 1), 2.0))
    assert isinstance(found, Sampled)
    assert run.asked > 2 * 3
    assert found.patches == (run.asked - 1) * 32, "the first epoch warms up"


def test_a_layout_one_of_whose_workers_cannot_be_set_up_is_given_up_at_once() -> None:
    """Losing this: ten minutes of waiting for a worker that will not come."""

    class Uneven(FakePool):
        def submit(self, worker: str, *given: Any) -> None:
            fails = Broken(worker, "welcome", OSError("no GPU"))
            self.queue.append(Finished(worker, "welcome", WELCOME) if worker == "0" else fails)

    data = cast(Any, SimpleNamespace(path=Path("data"), fingerprint="f"))
    with pytest.raises(RunError, match="h: a worker could not be set up: OSError"):
        Crew(STUDY, data, None, PLAN.runs[0], cast(Any, Uneven())).gather()


def test_journals_of_before_the_layout_was_kept_are_read(tmp_path: Path) -> None:
    journals.simulate(tmp_path, {"batch_size": [64]}, folds=2, milestones=[1])
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    old = tmp_path / "old.jsonl"
    bare = re.compile(rb',"threads":0,"cores":\[\],"bundle":1,"resumed":-1,"crc":"[0-9a-f]{8}"\}$')
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
    assert list(table["from_epoch"]) == [0, 0]
