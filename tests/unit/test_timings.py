"""Losing these: what a study says it cost, and where the time went, is not what it was."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormsweep.records import Entry, NodeEvent, TaskPaused
from stormsweep.results import spans
from stormsweep.scaling import timings
from stormsweep.scaling.accounts import account
from stormsweep.study import stretches
from tests.worlds import CHARGED, GPU_PRICE, GPUS, PRICE, WALLTIME, World

worlds = st.builds(
    World,
    seed=st.integers(0, 10**6),
    local=st.booleans(),
    bundle=st.integers(1, 4),
    kills=st.integers(0, 2),
    trouble=st.sampled_from([0.0, 0.1, 0.5]),
)
#: What an estimate of a clock may be off, in seconds: what a message takes.
_CLOCK = 0.2


@settings(max_examples=150, deadline=None)
@given(worlds)
def test_every_second_of_a_worker_is_accounted_for_as_it_was(world: World) -> None:
    truth, found = world.truth, account(world.entries)
    table = timings.workers(world.entries)
    off = 1e-3 if world.local else 3 * _CLOCK
    assert set(zip(table["session"], table["worker"], strict=True)) == set(truth.there)
    for row in table.to_dict("records"):
        key = int(row["session"]), str(row["worker"])
        parts = truth.parts(key)
        idle = parts["waiting"] + parts["rest"]
        assert row["waiting_seconds"] + row["rest_seconds"] == pytest.approx(idle, abs=2 * off)
        if not truth.sessions[key[0]][2]:
            # Which runs others had when the driver was killed is not on record.
            del parts["waiting"], parts["rest"]
        for part, seconds in parts.items():
            assert row[f"{part}_seconds"] == pytest.approx(seconds, abs=off), (key, part)
        spent = sum(row[f"{part}_seconds"] for part in timings.PARTS)
        assert spent == pytest.approx(row["available_seconds"], abs=off)
        assert row["ready"] == pytest.approx(truth.there[key][0][0])
    everything = [truth.parts(key) for key in truth.there]
    busy = sum(parts["busy"] for parts in everything)
    assert found.busy_seconds == pytest.approx(busy)
    assert found.train_seconds == pytest.approx(busy / 2)
    assert found.utilisation <= 1 + 1e-6 or math.isnan(found.utilisation)
    wall = sum(end - start for start, end, _ in truth.sessions.values())
    assert found.wall_seconds == pytest.approx(wall, abs=off * len(truth.sessions))
    assert found.overhead_seconds == pytest.approx(truth.driver)
    if truth.chains:
        assert found.longest_chain_seconds == pytest.approx(max(truth.chains.values()))
        assert truth.chains[found.longest_chain_run] == pytest.approx(found.longest_chain_seconds)
        assert found.longest_chain_seconds <= found.busy_seconds * world.bundle + 1e-6


@settings(max_examples=100, deadline=None)
@given(worlds)
def test_nothing_is_used_that_was_not_granted_nor_granted_that_was_not_asked(world: World) -> None:
    truth, found = world.truth, account(world.entries)
    used = 2 * sum(truth.parts(key)["busy"] for key in truth.there) / 3600
    assert found.core_hours_used == pytest.approx(used)
    assert found.core_hours_used <= found.core_hours_granted + 1e-9
    assert found.core_hours_granted <= found.core_hours_asked + 1e-9
    if world.local:
        wall = sum(end - start for start, end, _ in truth.sessions.values())
        assert found.core_hours_granted == pytest.approx(2 * world.workers * wall / 3600, abs=1e-3)
        assert (found.cost, found.gpu_hours_granted) == (None, 0.0)
        return
    held = sum(end - start for start, end in truth.nodes.values())
    assert found.held_seconds == pytest.approx(held, abs=3 * _CLOCK * world.workers)
    assert found.core_hours_granted == pytest.approx(CHARGED * held / 3600, abs=0.01)
    assert found.core_hours_asked == pytest.approx(CHARGED * WALLTIME * truth.asked_nodes / 3600)
    assert found.gpu_hours_granted == pytest.approx(GPUS * held / 3600, abs=0.01)
    assert found.gpu_hours_used <= found.gpu_hours_granted + 1e-9
    cost = PRICE * found.core_hours_granted + GPU_PRICE * found.gpu_hours_granted
    assert found.cost == pytest.approx(cost)


@settings(max_examples=100, deadline=None)
@given(worlds)
def test_what_tasks_took_on_the_way_needs_no_two_clocks_that_agree(world: World) -> None:
    table = timings.tasks(world.entries)
    known = table[table["returned"].notna()]
    way = known["sending_seconds"] + known["returning_seconds"]
    seconds = (known["returned"] - known["submitted"]) / known["bundle"] - known["seconds"]
    assert way.to_numpy() == pytest.approx(seconds.to_numpy(), abs=1e-4)
    assert (way >= 0).all()
    last = known["session"] == max(world.truth.sessions)
    assert (way[last] <= 2 * _CLOCK + 1e-4).all(), "clocks are up to 500 s apart"
    assert (known["queued_seconds"].dropna() >= -1e-6).all()
    assert (known["queued"].dropna() <= known["submitted"]).all()


def test_what_is_granted_at_once_was_not_granted_before_it_was_asked_for() -> None:
    asked, granted = (NodeEvent(1, "1", event) for event in ("asked", "granted"))
    node = spans.nodes([Entry(10.4, asked), Entry(10.0, granted)])[1, "1"]
    assert node.asked == node.granted == 10.4


def test_a_task_takes_what_it_took_though_the_clock_is_set_back_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = {"time": 1000.0, "perf_counter": 5.0}
    known = SimpleNamespace(time=lambda: now["time"], perf_counter=lambda: now["perf_counter"])
    monkeypatch.setattr(stretches, "time", known)
    clock = stretches.Clock()
    now |= {"time": 700.0, "perf_counter": 35.0}
    clock.lap("train")
    span = (999.0, clock.started, clock.started)
    made = TaskPaused("run", 0, 1, "0", 1, *span, {}, [], 96, 1, 0.0, 9, 1, [], bundle=1)
    assert stretches.timed(made, clock).seconds == sum(clock.phases.values()) == 30.0
    now["time"] = 1090.0
    assert stretches.timed(made, clock).seconds == 90.0, "a laptop slept meanwhile"
