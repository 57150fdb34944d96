"""Losing this: somebody asks for a hundred nodes where ten are as fast, and pays for them."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest

from stormsweep.errors import UserError
from stormsweep.scaling import advice
from stormsweep.scaling.advice import Advice, Budget
from stormsweep.scaling.durations import Durations
from stormsweep.scaling.foretold import Foretold, foretell
from stormsweep.scaling.machine import Machine, Wait
from stormsweep.search.plan import Plan, make_plan, structure
from stormsweep.search.space import grid


def plan_of(rates: int, batches: tuple[int, ...] = (128,)) -> Plan:
    space: dict[str, Any] = {
        "batch_size": list(batches),
        "learning_rate": [0.1 * (n + 1) for n in range(rates)],
        "epochs": [5, 10],
    }
    return make_plan(grid(space), {}, 3)


def foreteller(plan: Plan, **changes: Any) -> Any:
    count = len(plan.runs)
    values: dict[str, Any] = {
        "epoch": [60.0 * 128 / run.hyperparameters["batch_size"] for run in plan.runs],
        "before": [0.0] * count,
        "ending": [1.0] * count,
        "compiling": [5.0] * count,
        "program": [structure(run) for run in plan.runs],
        "scatter": 0.05,
    }
    known = Durations(**values | changes)
    return lambda machine: foretell(plan, [1000] * 3, known, machine, 1, 10)


NODE = Machine("mine", workers_per_node=4, cores_per_node=4, start_up=(10.0,))


def advised(plan: Plan, most: int = 32, node: Machine = NODE, **asked: Any) -> Advice:
    changes = asked.pop("changes", {})
    return advice.advise([advice.sized(node, most)], foreteller(plan, **changes), **asked)


def test_the_front_holds_what_nothing_is_faster_and_cheaper_than() -> None:
    found = advised(plan_of(8))
    assert {one.machine.nodes for one in found.candidates} == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}
    times = [one.makespan.median for one in found.front]
    costs = [one.core_hours.median for one in found.front]
    assert times == sorted(times, reverse=True)
    assert costs == sorted(costs)
    for one in found.candidates:
        beaten = [
            other
            for other in found.front
            if other.makespan.median <= one.makespan.median
            and other.core_hours.median <= one.core_hours.median
        ]
        assert beaten
    assert found.knee in found.front
    assert found.chosen is found.knee
    assert found.because.startswith("the knee: ")


def test_a_deadline_chooses_the_cheapest_and_a_budget_the_fastest() -> None:
    free = advised(plan_of(8))
    middle = free.front[len(free.front) // 2]
    by_time = advised(plan_of(8), deadline=middle.makespan.high)
    assert by_time.chosen.makespan.high <= middle.makespan.high
    for one in by_time.candidates:
        if one.makespan.high <= middle.makespan.high:
            assert one.core_hours.median >= by_time.chosen.core_hours.median
    budget = Budget(middle.core_hours.high, "core-h")
    by_cost = advised(plan_of(8), budget=budget)
    assert by_cost.chosen.core_hours.high <= budget.amount
    for one in by_cost.candidates:
        if one.core_hours.high <= budget.amount:
            assert one.makespan.median >= by_cost.chosen.makespan.median


def test_what_nothing_meets_is_said_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"--deadline: nothing is done in 1 min; the nearest is mine"
    ):
        advised(plan_of(2), deadline=60.0)
    with pytest.raises(UserError, match=r"--budget: nothing keeps to 0.1 core-h; the nearest is"):
        advised(plan_of(2), budget=Budget(0.1, "core-h"))
    with pytest.raises(UserError, match=r"'mine' has no prices"):
        advised(plan_of(2), budget=Budget(10.0, "money"))
    short = dataclasses.replace(NODE, walltime=90.0)
    with pytest.raises(UserError, match="does not fit into the walltime"):
        advised(plan_of(1), node=short, changes={"epoch": [200.0] * 3})


def test_money_counts_where_all_sites_have_prices() -> None:
    dear = dataclasses.replace(NODE, name="dear", price_per_core_hour=3.0)
    cheap = dataclasses.replace(NODE, name="cheap", price_per_core_hour=1.0, start_up=(60.0,))
    tell = foreteller(plan_of(4))
    families = [advice.sized(node, 2) for node in (dear, cheap)]
    assert advice.advise(families, tell).unit == "money"
    found = advice.advise(families, tell, deadline=1e6)
    assert found.chosen.machine.name == "cheap"
    families.append(advice.sized(NODE, 2))
    assert advice.advise(families, tell).unit == "core-h"


@pytest.mark.parametrize(
    ("rates", "node", "changes", "said"),
    [
        (4, NODE, {}, r"more than 3 nodes hardly help: nothing left to share: 12 runs"),
        (1, NODE, {}, r"more than 1 node hardly helps: nothing left to share: 3 runs"),
        (40, dataclasses.replace(NODE, start_up=(1e5,)), {}, "start-up: "),
        (40, dataclasses.replace(NODE, wait=Wait(1e5)), {}, "the queue: "),
        (40, NODE, {"driver": 50.0}, "overhead: the driver is busy"),
        (40, NODE, {"dispatch": 3000.0}, "overhead: .* passes between tasks"),
    ],
)
def test_where_nodes_stop_helping_the_reason_is_what_time_goes_to(
    rates: int, node: Machine, changes: dict[str, Any], said: str
) -> None:
    (limit,) = advised(plan_of(rates), node=node, changes=changes).limits
    assert re.search(said, limit), limit


def test_the_longest_run_is_named_where_it_alone_is_long() -> None:
    plan = plan_of(8, (128, 2048))
    epochs = [60.0 if run.hyperparameters["batch_size"] == 128 else 1.0 for run in plan.runs]
    epochs[0] = 3000.0
    (limit,) = advised(plan, changes={"epoch": epochs}).limits
    assert "the longest run takes 8 h" in limit


def test_more_nodes_that_still_help_are_not_called_useless() -> None:
    (limit,) = advised(plan_of(60), most=4).limits
    assert "4 nodes, the most tried, still help" in limit
    (limit,) = advised(plan_of(60), most=1).limits
    assert limit.endswith("1 node, the most tried, still helps")


def test_the_walltime_asked_for_holds_the_study_and_no_more_than_the_site_allows() -> None:
    (one,) = [foreteller(plan_of(2))(NODE)]
    asked = advice.walltime_for(one, math.inf)
    assert asked % 900 == 0
    assert one.makespan.high + 60 <= asked <= 1.3 * one.makespan.high + 1800
    assert advice.walltime_for(one, 600.0) == 600.0


def test_the_wait_in_the_queue_however_uncertain_is_no_part_of_the_walltime() -> None:
    """Losing this: hours are asked for, and waited for, for a job of seconds."""
    tell = foreteller(plan_of(2))
    asked = advice.walltime_for(tell(NODE), math.inf)
    for wait in (Wait(3600.0), Wait(3600.0, 2.0)):
        assert advice.walltime_for(tell(dataclasses.replace(NODE, wait=wait)), math.inf) == asked


@pytest.mark.parametrize("longest", [86400.0, math.inf])
def test_who_asks_for_the_walltime_that_is_advised_needs_no_more_jobs(longest: float) -> None:
    """Epochs of two hours: what is left after the first is too little to begin the second."""
    plan = make_plan(grid({"batch_size": [128], "learning_rate": [0.1], "epochs": [2]}), {}, 3)
    tell = foreteller(plan, epoch=[7200.0] * 3)
    node = dataclasses.replace(NODE, walltime=longest)
    found = advice.advise([[node]], tell)
    tight = advice.walltime_for(found.chosen, longest)
    assert tell(dataclasses.replace(node, walltime=tight)).jobs.median == 2
    asked = found.asked
    assert asked == tell(dataclasses.replace(node, walltime=asked.machine.walltime))
    assert asked.jobs == found.chosen.jobs
    assert asked.makespan.high == pytest.approx(found.chosen.makespan.high)
    assert tight < asked.machine.walltime < 2 * tight


def test_the_sites_own_walltime_is_kept_where_none_that_is_shorter_does() -> None:
    node = dataclasses.replace(NODE, walltime=3600.0)
    found = advice.advise([[node]], foreteller(plan_of(8)))
    assert found.chosen.jobs.median > 1
    assert found.asked is found.chosen


def test_the_numbers_are_those_of_a_simulation_of_the_same_layout() -> None:
    tell = foreteller(plan_of(8))
    found = advice.advise([advice.sized(NODE, 8)], tell)
    for one in found.candidates:
        again: Foretold = tell(one.machine)
        assert again == one


def test_costs_that_nothing_compares_are_refused_before_anything_is_simulated() -> None:
    def never(machine: Machine) -> Foretold:
        raise AssertionError(machine)

    fast = dataclasses.replace(NODE, name="fast", gpus_per_node=4)
    with pytest.raises(UserError, match="fast has GPUs and mine has none"):
        advice.advise([[NODE], [fast]], never)
    with pytest.raises(UserError, match="mine has no GPUs"):
        advice.advise([[NODE]], never, budget=Budget(20.0, "gpu-h"))


def test_gpu_hours_are_known_where_the_cores_of_whole_nodes_are_not() -> None:
    whole = dataclasses.replace(NODE, gpus_per_node=4, cores_per_node=math.nan)
    found = advised(plan_of(4), 2, whole, budget=Budget(1e6, "gpu-h"))
    assert (found.unit, found.chosen.cost) == ("gpu-h", None)
    assert advised(plan_of(4), 2, whole).unit == "gpu-h"
    priced = dataclasses.replace(whole, price_per_gpu_hour=2.0)
    assert advised(plan_of(4), 2, priced).unit == "money"
    with pytest.raises(UserError, match="set cores_per_node"):
        advised(plan_of(4), 2, whole, budget=Budget(1e6, "core-h"))


def test_a_gpu_site_without_prices_is_ranked_by_gpu_hours() -> None:
    found = advised(plan_of(4), 4, dataclasses.replace(NODE, gpus_per_node=4))
    assert found.unit == "gpu-h"
