"""Losing these: a layout named best that is not, a subset that flatters, a law drawn over nothing.

Nothing is trained here: journals are written as measurements of given speeds would leave them.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.cluster.topology import Topology, assign, assign_across
from stormsweep.errors import DataError, UserError
from stormsweep.records import (
    Entry,
    Record,
    RunPlanned,
    SessionBegun,
    SessionEnded,
    TaskDone,
    WorkerEvent,
)
from stormsweep.report import scaling as drawn
from stormsweep.report import scaling_words as told_of
from stormsweep.report import write_report
from stormsweep.report.layouts import write_scaling
from stormsweep.report.words import TIMES
from stormsweep.scaling import measured
from stormsweep.scaling.design import (
    RUNS_EACH,
    Cell,
    Estimate,
    Part,
    Work,
    cells,
    choose_work,
    foreseen,
    spread,
)
from stormsweep.scaling.layouts import Layout, Node, layouts
from stormsweep.scaling.speedups import cell as read_cell
from stormsweep.scaling.speedups import over
from stormsweep.search.plan import Plan, make_plan
from stormsweep.search.space import grid
from stormsweep.study.ground import Ground, asked, named, with_cells
from stormsweep.study.study import Study
from stormsweep.work import Run
from tests import journals

SPACE: dict[str, Any] = {
    "batch_size": [128, 512],
    "learning_rate": [0.001, 0.005, 0.01],
    "epochs": [2, 6],
}
HERE = Node("this machine", 4)
TWO_SOCKETS = Node("this machine", 16, 2)


def plan_of(space: dict[str, Any], folds: int = 2) -> Plan:
    return make_plan(grid(space), {}, folds)


# What is measured.


def test_one_worker_of_one_thread_is_measured_unasked_and_first() -> None:
    found, left_out = layouts([2, 4], [1], [], HERE)
    assert found == [Layout(1, 1), Layout(2, 1), Layout(4, 1)]
    assert left_out == []
    again, _ = layouts([1, 2, 2], [1, 1], [], HERE)
    assert again == [Layout(1, 1), Layout(2, 1)]


def test_a_layout_wider_than_the_machine_is_refused_and_a_wide_combination_left_out() -> None:
    with pytest.raises(UserError, match="--workers: 8 workers x 1 thread is wider than the mach"):
        layouts([1, 8], [1, 2], [], HERE)
    with pytest.raises(UserError, match="--threads: given 5; this machine has 4 cores"):
        layouts([1], [5], [], HERE)
    found, left_out = layouts([1, 4], [1, 2], [], HERE)
    assert Layout(4, 2) not in found
    assert left_out == ["4 workers x 2 threads is wider than the machine; this machine has 4 cores"]


def test_where_threads_lie_is_asked_on_several_sockets_and_of_several_threads_only() -> None:
    found, _ = layouts([1, 8], [1, 2], [], TWO_SOCKETS)
    pins = {layout: {one.pin for one in found if one.cores == layout} for layout in (1, 2, 16)}
    assert pins == {
        1: {"within"},
        2: {"within", "across", "none"},
        16: {"within", "across", "none"},
    }
    assert {one.pin for one in found if one.threads == 1} == {"within"}
    assert {one.pin for one in layouts([2], [2], [], HERE)[0]} == {"within"}
    assert layouts([2], [1], ["none"], HERE)[0] == [
        Layout(1, 1, 1, "none"),
        Layout(2, 1, 1, "none"),
    ]
    with pytest.raises(UserError, match="this machine has one socket"):
        layouts([1], [2], ["across"], HERE)


def test_a_site_has_as_many_nodes_as_the_workers_need_each_with_as_many() -> None:
    node = Node("a node of site taki", 36, 2, several=True)
    found, _ = layouts([36, 72, 144], [1], [], node)
    assert [(one.workers, one.nodes) for one in found] == [(1, 1), (36, 1), (72, 2), (144, 4)]
    whole, _ = layouts([], [4], ["within"], node, nodes=[1, 2])
    assert whole[1:] == [Layout(9, 4, 1), Layout(18, 4, 2)]
    with pytest.raises(UserError, match="37 cannot be shared evenly among 2"):
        layouts([37], [1], [], node)
    gpus = Node("a node of site gpu", 36, 2, workers=4, several=True)
    assert [one.nodes for one in layouts([4, 8], [1], [], gpus)[0]] == [1, 1, 2]


def test_wrong_numbers_are_refused_and_none_means_as_fill_the_machine() -> None:
    assert [one.workers for one in asked(Node("it", 6), [], [1], [], [])[0]] == [1, 2, 4, 6]
    assert asked(Node("it", 6), [], [], [], [])[0] == asked(Node("it", 6), [], [1], [], [])[0]
    # A node that is wider than the study is filled as far as there are runs.
    wanted, _ = asked(Node("it", 36), [], [1], [], [], 18)
    assert [one.workers for one in wanted] == [1, 2, 4, 8, 16, 18]
    for arguments, said in (
        (([0], [1], [], []), "--workers: given 0"),
        (([1], [1], ["sideways"], []), "--pin: given 'sideways'; must be any of within"),
        (([], [1], [], [2]), "--nodes: is for sites of a cluster"),
        (([2], [1], [], [2]), "--nodes: given beside --workers"),
    ):
        with pytest.raises(UserError, match=said):
            asked(HERE, *arguments)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4, unique=True),
    st.integers(2, 4),
    st.integers(0, 99),
    st.data(),
)
def test_the_first_so_many_runs_have_all_batch_sizes_alike(
    sizes: list[int], folds: int, seed: int, data: st.DataObject
) -> None:
    runs = plan_of({"batch_size": sizes, "rate": [1, 2], "width": [3, 4]}, folds).runs
    ordered = spread(runs, seed)
    assert sorted(run.id for run in ordered) == sorted(run.id for run in runs)
    assert spread(runs, seed) == ordered
    count = data.draw(st.integers(1, len(runs)))
    had = [run.hyperparameters["batch_size"] for run in ordered[:count]]
    shares = [had.count(size) for size in sizes]
    assert max(shares) - min(shares) <= 1


def estimate_of(runs: Sequence[Run], epoch: float) -> Estimate:
    return Estimate(
        {run.id: epoch * 512 / run.hyperparameters["batch_size"] for run in runs}, 2.0, 3.0
    )


def test_every_worker_compiles_each_program_once() -> None:
    """Losing this: wide layouts, where each worker has few runs, are foreseen too short."""
    runs = plan_of({**SPACE, "batch_size": [64, 128, 256, 512], "width": [3, 4]}).runs
    free = dict.fromkeys([run.id for run in runs], 0.0)
    met = {
        any_batch: [
            Estimate(free, 2.0, 0.0, any_batch).cell(runs, Layout(workers, 1)) / 2.0
            for workers in (1, 2, len(runs))
        ]
        for any_batch in (False, True)
    }
    assert met == {False: [8, 8, 1], True: [2, 2, 1]}


def test_all_runs_are_measured_whole_where_there_is_time() -> None:
    runs = plan_of(SPACE).runs
    wanted = [Layout(1, 1), Layout(2, 1)]
    work = choose_work(runs, wanted, 3, False, estimate_of(runs, 0.1), 60, 0)
    assert sorted(work.runs, key=lambda run: run.id) == sorted(runs, key=lambda run: run.id)
    assert (work.why, work.weak) == ("", 0)


@given(st.floats(0.2, 6), st.integers(1, 4), st.booleans(), st.integers(0, 9))
def test_a_subset_keeps_batch_sizes_and_gives_each_worker_enough_within_the_time(
    epoch: float, widest: int, weak: bool, seed: int
) -> None:
    runs = plan_of({**SPACE, "batch_size": [128, 256, 512], "epochs": [2, 10]}, folds=4).runs
    wanted = [Layout(1, 1), Layout(widest, 1), Layout(1, 2)]
    estimate, minutes = estimate_of(runs, epoch), 30.0
    work = choose_work(runs, wanted, 3, weak, estimate, minutes, seed)
    assert foreseen(cells(work, wanted, 3, seed), work, estimate) <= 60 * minutes
    assert {run.hyperparameters["batch_size"] for run in work.runs} == {128, 256, 512}
    assert len(work.runs) >= RUNS_EACH * widest
    lasts = {run.milestones[-1] for run in work.runs}
    assert len(lasts) == 1
    if lasts != {10}:
        # Runs are made shorter only when there are no fewer to be had.
        assert len(work.runs) == max(3, RUNS_EACH * widest)
    assert bool(work.why) == (len(work.runs) < len(runs) or lasts != {10})
    assert work.weak * widest <= len(work.runs)
    assert bool(work.weak) == weak


def test_too_few_runs_and_too_little_time_are_refused() -> None:
    runs = plan_of(SPACE).runs
    with pytest.raises(UserError, match="--workers: given 16; the study has 12 runs"):
        choose_work(runs, [Layout(16, 1)], 1, False, estimate_of(runs, 1), 60, 0)
    by_nodes = named([Layout(16, 1, 2)], [], [2])
    with pytest.raises(UserError, match="--nodes: given 2, which hold 16 workers; the study has"):
        choose_work(runs, [Layout(16, 1, 2)], 1, False, estimate_of(runs, 1), 60, 0, by_nodes)
    with pytest.raises(UserError, match="--repeats: given 0; must be at least 1"):
        choose_work(runs, [Layout(1, 1)], 0, False, estimate_of(runs, 1), 60, 0)
    with pytest.raises(
        UserError, match=r"--minutes: given 0\.5; an epoch of 6 runs in every layout"
    ):
        choose_work(runs, [Layout(1, 1), Layout(2, 1)], 3, False, estimate_of(runs, 100), 0.5, 0)
    work = choose_work(runs, [Layout(1, 1), Layout(2, 1)], 1, False, estimate_of(runs, 2), 1, 0)
    assert work.why.endswith("would take more than 1 minute")


def test_every_repeat_has_all_layouts_in_an_order_of_its_own() -> None:
    runs = tuple(plan_of(SPACE).runs)
    wanted = [Layout(count, 1) for count in (1, 2, 3, 4)]
    ordered = cells(Work(runs, weak=3), wanted, 5, 1)
    assert ordered == cells(Work(runs, weak=3), wanted, 5, 1)
    assert ordered != cells(Work(runs, weak=3), wanted, 5, 2)
    assert len({one.name for one in ordered}) == len(ordered)
    # The widest layout's share of the work is all of it: that is measured once.
    block = len(ordered) // 5
    assert block == 2 * len(wanted) - 1
    orders = []
    for place in range(5):
        part = ordered[place * block : (place + 1) * block]
        assert {one.repeat for one in part} == {place + 1}
        assert {one.layout for one in part} == set(wanted)
        orders.append([(one.layout, one.runs) for one in part])
    assert len({tuple(order) for order in orders}) > 1


def test_a_part_of_a_plan_has_its_runs_and_milestones_alone() -> None:
    plan = plan_of(SPACE)
    first, second, *_ = plan.runs
    part = Part({second.id: (2,), first.id: (2, 3)}).of(plan)
    assert [run.id for run in part.runs] == [second.id, first.id]
    assert [run.milestones for run in part.runs] == [(2,), (2, 3)]
    assert part.tasks == 3
    # An epoch that the study has no configuration for is one of the part's.
    assert {point["epochs"] for point in part.configurations} == {2, 3}


def test_threads_lie_across_sockets_where_they_would_else_lie_within_one() -> None:
    topology = Topology({cpu: cpu // 2 % 2 for cpu in range(8)}, {cpu: cpu % 4 for cpu in range(8)})
    assert assign(topology, range(8), 2, 2) == [(0, 1), (2, 3)]
    assert assign_across(topology, range(8), 2, 2) == [(0, 2), (1, 3)]
    assert assign_across(topology, range(8), 1, 4) == [(0, 1, 2, 3)]
    assert assign_across(topology, range(8), 3, 3) == []


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_cores_across_sockets_are_each_given_once(
    sockets: int, inside: int, workers: int, threads: int
) -> None:
    topology = Topology({cpu: cpu % sockets for cpu in range(sockets * inside)}, {})
    shares = assign_across(topology, range(sockets * inside), workers, threads)
    if workers * threads > sockets * inside:
        assert shares == []
        return
    used = [cpu for share in shares for cpu in share]
    assert len(set(used)) == len(used) == workers * threads
    assert [len(share) for share in shares] == [threads] * workers
    # The first worker's lie on as many sockets as can be.
    assert topology.nodes(shares[0]) == min(threads, sockets)


# What measurements say.

Seconds = Callable[[Cell, int], float]


def write_cell(
    folder: Path,
    cell: Cell,
    runs: Sequence[Run],
    pace: float,
    node: dict[str, Any] | None = None,
    processor: str = "",
    host: str = "node17",
    **changes: Any,
) -> None:
    """Write the journal of a measurement whose tasks take `pace` seconds per 100 of a batch."""
    start, layout = journals.START, cell.layout
    lines: list[tuple[float, Record]] = [(start, journals.about(SPACE, 2))]
    lines += [
        (start, RunPlanned(run.id, run.hyperparameters, run.fold, list(run.milestones)))
        for run in runs
    ]
    site = "local" if node is None else "taki"
    allotted = {} if node is None else {"nodes": layout.nodes, **node}
    begun = SessionBegun(1, "node17", 1, site, layout.workers, layout.threads, allotted)
    lines.append((start, begun))
    for number in range(layout.workers):
        ready = WorkerEvent(1, str(number), "ready", host, number, processor=processor)
        lines.append((start + 1 + number, ready))
    began = start + layout.workers
    free = dict.fromkeys(map(str, range(layout.workers)), began)
    for run in runs:
        worker = min(free, key=lambda name: free[name])
        planned, epoch = RunPlanned(run.id, run.hyperparameters, run.fold, []), 0
        for stop in run.milestones:
            length = pace * (stop - epoch) * run.hyperparameters["batch_size"] / 100
            done = dataclasses.replace(
                journals.task(planned, epoch, stop, free[worker], worker),
                stopped=free[worker] + length,
                phases={"train": length},
                threads=layout.threads,
                **changes,
            )
            lines.append((done.stopped, done))
            free[worker], epoch = done.stopped, stop
    lines.append((max(free.values()) + 1, SessionEnded(1, "done")))
    with journals.writer(folder / "journal.jsonl") as append:
        for when, record in sorted(lines, key=lambda line: line[0]):
            append(when, record)


def scaled(
    directory: Path,
    wanted: Sequence[Layout],
    pace: Callable[[Cell], float],
    repeats: int = 3,
    weak: int = 0,
    made: Callable[[Cell], bool] = lambda _: True,
    **changes: Any,
) -> measured.Findings:
    """Write what measuring layouts leaves, and read it."""
    folder = directory / "scale" / "local"
    work = Work(tuple(spread(plan_of(SPACE).runs, 1)), weak)
    about: dict[str, Any] = {
        "study": "taki-2019",
        "seed": 1,
        "metric": "roc_auc",
        "engine": "tensorflow",
        "synthetic": True,
        "source": "twin",
        "fingerprint": "",
        "site": "local",
        "machine": "4 cores of an abacus",
        "node": "this machine",
        "cores": 4,
        "sockets": 1,
        "runs": {run.id: list(run.milestones) for run in work.runs},
        "weak": weak,
        "why": "",
        "estimate": asdict(Estimate({})),
        "left_out": [],
        "cells": {},
    }
    for cell in cells(work, wanted, repeats, 1):
        about["cells"][cell.name] = asdict(cell.layout) | {
            "runs": cell.runs,
            "repeat": cell.repeat,
        }
        if made(cell):
            write_cell(folder / cell.name, cell, work.runs[: cell.runs], pace(cell), **changes)
    (folder / "scale.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "scale.json").write_text(json.dumps(about), encoding="utf-8")
    (found,) = measured.read(directory)
    return found


def test_speed_ups_are_ratios_of_medians_with_what_repeats_allow(tmp_path: Path) -> None:
    # Repeats of one worker take 1.0, 1.1 and 1.2; those of two 1.0, 1.0 and 1.5 of that a task.
    paces = {(1, 1): 1.0, (1, 2): 1.1, (1, 3): 1.2, (2, 1): 1.0, (2, 2): 1.0, (2, 3): 1.5}
    found = scaled(
        tmp_path,
        [Layout(1, 1), Layout(2, 1)],
        lambda cell: paces[cell.layout.workers, cell.repeat],
    )
    one, two = found.strong.to_dict("records")
    assert (one["speedup"], one["efficiency"]) == (1.0, 1.0)
    # Twelve runs of two lengths do not divide quite evenly.
    evenly = one["low"] / two["low"]
    assert 1.8 < evenly < 2
    assert two["speedup"] == pytest.approx(evenly * 1.1 / 1.0)
    assert two["speedup_low"] == pytest.approx(evenly * 1.0 / 1.5)
    assert two["speedup_high"] == pytest.approx(evenly * 1.2 / 1.0)
    assert two["efficiency"] == pytest.approx(two["speedup"] / 2)
    # Workers that are ready one after another do not count against the work.
    assert (one["startup_seconds"], two["startup_seconds"]) == (1.0, 2.0)
    assert two["busy"] == pytest.approx(evenly / 2)
    assert two["core_hours"] == pytest.approx(2 * (two["seconds"] + 2.0) / 3600)
    assert found.best == two


def test_core_hours_are_those_of_whole_nodes_where_a_site_has_them_exclusive(
    tmp_path: Path,
) -> None:
    """One worker on a node of its own would look cheapest, and is charged most."""
    wanted = [Layout(1, 1), Layout(4, 1), Layout(8, 1, nodes=2)]
    found = scaled(tmp_path / "a", wanted, lambda _: 1.0, node={"cores_per_node": 4})
    held = found.strong["seconds"] + found.strong["startup_seconds"]
    charged = [4 * one["nodes"] for one in found.strong.to_dict("records")]
    assert list(found.strong["core_hours"] * 3600 / held) == pytest.approx(charged)
    said = " ".join(told_of.answer(found))
    assert f"Best layout: 8 workers {TIMES} 1 thread on 2 nodes" in said
    assert f"The fewest core-hours takes 4 workers {TIMES} 1 thread" in said
    # The efficiency is over the cores that were computed on.
    assert found.strong["efficiency"].tolist()[0] == 1
    # Nobody says how many cores a node has: what was computed on is not what is charged.
    unknown = scaled(tmp_path / "b", wanted, lambda _: 1.0, node={})
    assert unknown.strong["core_hours"].isna().all()
    assert "fewest core-hours" not in " ".join(told_of.answer(unknown))
    assert "the site says no cores_per_node" in told_of.strong_table(unknown).note


def test_weak_scaling_counts_the_work_that_there_was(tmp_path: Path) -> None:
    """Runs of a worker are an odd number of batch sizes that cost four to one."""
    wanted = [Layout(1, 1), Layout(2, 1), Layout(4, 1)]
    found = scaled(tmp_path, wanted, lambda _: 1.0, repeats=1, weak=3)
    table = found.weak.set_index("workers")
    cells_of = found.cells[found.cells["runs"] == 3 * found.cells["workers"]]
    # Nothing slows these workers down: all that is lost is what waits at the end.
    for workers, row in table.iterrows():
        busy = cells_of.set_index("workers").loc[workers, "busy"]
        first = cells_of.set_index("workers").loc[1, "busy"]
        assert row["efficiency"] == pytest.approx(busy / first)
    assert table.loc[4, "speedup"] > 2


def test_the_fastest_is_named_and_told_apart_only_where_repeats_do(tmp_path: Path) -> None:
    wanted = [Layout(1, 1), Layout(2, 1), Layout(1, 2)]
    sure = scaled(tmp_path / "sure", wanted, lambda one: 1.0 / one.layout.threads**0.5)
    said = " ".join(told_of.answer(sure))
    assert f"Best layout: 2 workers {TIMES} 1 thread" in said
    assert "All its repeats were faster than any of another layout" in said
    assert f"The fewest core-hours takes 1 worker {TIMES} 1 thread" in said
    near = scaled(
        tmp_path / "near",
        wanted,
        lambda one: (0.55 if one.layout.threads == 2 else 1.0) * (1 + 0.1 * one.repeat),
    )
    said = " ".join(told_of.answer(near))
    assert f"It is not told apart from 1 worker {TIMES} 2 threads" in said
    once = scaled(tmp_path / "once", wanted, lambda _: 1.0, repeats=1)
    assert "measured once only" in " ".join(told_of.answer(once))
    none = scaled(tmp_path / "none", wanted, lambda _: 1.0, made=lambda _: False)
    assert told_of.answer(none) == ["No layout is measured yet."]
    assert drawn.pictures(none) == []
    assert "9 of 9 measurements are not made yet." in none.remarks


def test_scores_that_differ_between_layouts_are_told_loudly(tmp_path: Path) -> None:
    wanted = [Layout(1, 1), Layout(2, 1)]
    alike = scaled(tmp_path / "alike", wanted, lambda _: 1.0, repeats=1)
    assert alike.different_scores == []
    assert any("scores are the same" in one for one in alike.remarks)
    folder = tmp_path / "alike" / "scale" / "local"
    work = Work(tuple(spread(plan_of(SPACE).runs, 1)))
    two = Cell(Layout(2, 1), len(work.runs), 1)
    shutil.rmtree(folder / two.name)
    write_cell(folder / two.name, two, work.runs, 1.0, scores={"roc_auc": 0.5})
    wrong = measured.read_site(folder)
    assert wrong.different_scores == ["2 workers x 1 thread and 1 worker x 1 thread"]
    assert any("scores are NOT the same" in one for one in wrong.remarks)


def test_processors_of_two_kinds_may_round_differently_and_those_of_one_may_not(
    tmp_path: Path,
) -> None:
    """Else every repeat on such a partition ends with an error that nothing can mend."""
    wanted = [Layout(1, 1), Layout(2, 1)]
    scaled(tmp_path, wanted, lambda _: 1.0, repeats=1, processor="old", scores={"roc_auc": 0.5})
    folder = tmp_path / "scale" / "local"
    work = Work(tuple(spread(plan_of(SPACE).runs, 1)))
    two = Cell(Layout(2, 1), len(work.runs), 1)

    def again(score: float, processor: str, host: str = "node18") -> measured.Findings:
        shutil.rmtree(folder / two.name)
        scores = {"roc_auc": score}
        more: dict[str, Any] = {"processor": processor, "host": host, "scores": scores}
        write_cell(folder / two.name, two, work.runs, 1.0, **more)
        return measured.read_site(folder)

    other = again(0.5 + 1e-7, "new")
    assert other.different_scores == []
    assert any("round differently: new, old." in one for one in other.remarks)
    # An error is no rounding, and one kind of processor does not round in two ways.
    assert again(0.6, "new").different_scores
    assert again(0.5 + 1e-7, "old").different_scores
    alike = again(0.5, "new")
    assert any(one.endswith("with the same number of threads.") for one in alike.remarks)
    # A journal that does not say: another machine may be of another kind.
    assert again(0.5 + 1e-7, "").different_scores == []


def test_what_was_interrupted_is_no_measurement(tmp_path: Path) -> None:
    whole = journals.simulate(tmp_path / "whole", SPACE)
    assert measured.over_in(whole)
    assert not measured.over_in(journals.simulate(tmp_path / "halves", SPACE, stops=(60.0,)))
    stopped = journals.simulate(tmp_path / "stopped", SPACE, stops=(60.0,), go_on=False)
    assert not measured.over_in(stopped)
    assert not measured.over_in(tmp_path)


def test_more_layouts_train_the_same_runs_and_what_was_measured_stays(tmp_path: Path) -> None:
    runs = plan_of(SPACE).runs
    narrow = [Layout(1, 1), Layout(2, 1)]
    found = scaled(tmp_path, narrow, lambda _: 1.0, repeats=3, made=lambda one: one.repeat < 3)
    more = with_cells(found.about, runs, [*narrow, Layout(4, 1)], 2, True, ["x"], found.folder)
    assert more["runs"] == found.about["runs"]
    assert more["weak"] == 2
    assert {"4x1.12-runs.1", "4x1.8-runs.2", "2x1.12-runs.2"} <= set(more["cells"])
    # The third repeat was asked for before, and neither made nor asked for now.
    assert "2x1.12-runs.3" not in more["cells"]
    one = with_cells(found.about, runs, [Layout(1, 1)], 1, False, [], found.folder)
    assert set(one["cells"]) == set(found.journals)
    few = {**found.about, "runs": dict(list(found.about["runs"].items())[:6])}
    with pytest.raises(UserError, match="was begun with 6 of 12 runs, too few for so many"):
        with_cells(few, runs, [*narrow, Layout(4, 1)], 1, False, [], found.folder)


def test_a_machine_that_was_shared_is_told(tmp_path: Path) -> None:
    found = scaled(tmp_path, [Layout(1, 1), Layout(2, 1)], lambda _: 1.0, repeats=1)
    assert not any("Other work" in one for one in found.remarks)
    name = next(iter(found.journals))
    (found.folder / name / "load.json").write_text('{"others_cores": 2.0}')
    (again,) = measured.read(tmp_path)
    told = [one for one in again.remarks if "Other work took up to 50 %" in one]
    assert "1 of 2 measurements" in told[0]


def test_no_law_is_fitted_to_two_numbers_of_workers(tmp_path: Path) -> None:
    two = scaled(tmp_path / "two", [Layout(1, 1), Layout(2, 1)], lambda _: 1.0)
    assert two.laws == {}
    assert told_of.law_rows(two) == []
    wanted = [Layout(count, 1) for count in (1, 2, 3, 4)]
    four = scaled(
        tmp_path / "four",
        wanted,
        # What Amdahl's law makes of a tenth that cannot be divided.
        lambda one: 1 + 0.1 * (one.layout.workers - 1) + 0.001 * one.repeat,
    )
    fitted = {law.name: law for law in four.laws[1, "within"]}
    assert set(fitted) == {"amdahl", "usl"}
    # A tenth, and what runs that do not divide evenly leave idle.
    assert 0.1 < fitted["amdahl"].parameters["serial_fraction"] < 0.2
    assert len(told_of.law_rows(four)) == 2
    assert "Workers of 1 thread follow" in " ".join(told_of.answer(four))


def test_a_law_is_not_called_the_best_where_no_other_was_tried(tmp_path: Path) -> None:
    """Three numbers of workers leave the universal law without one to be tried on."""
    counts = (1, 2, 4)
    three = scaled(tmp_path, [Layout(n, 1) for n in counts], lambda one: 1 + 0.1 * one.repeat)
    assert {law.name for law in three.laws[1, "within"]} == {"amdahl", "usl"}
    said = " ".join(told_of.answer(three))
    assert "Workers of 1 thread by Amdahl's law, which so few numbers of workers cannot" in said
    assert "law best" not in said
    picture = drawn.speedup_picture(three)
    assert picture is not None
    assert "fits best" not in picture.caption


def test_a_damaged_note_of_measurements_is_refused_in_one_line(tmp_path: Path) -> None:
    found = scaled(tmp_path, [Layout(1, 1)], lambda _: 1.0, repeats=1)
    (found.folder / "scale.json").write_text("{")
    with pytest.raises(DataError, match=r"scale\.json: is missing or damaged; remove"):
        measured.read(tmp_path)


def test_the_page_has_the_figures_and_the_tables(tmp_path: Path) -> None:
    wanted = [
        Layout(count, threads, pin=pin)
        for count in (1, 2, 4)
        for threads, pin in ((1, "within"), (2, "within"), (2, "across"), (2, "none"))
    ]
    pinned = {"within": 1.0, "across": 1.3, "none": 1.1}
    found = scaled(
        tmp_path,
        wanted,
        lambda one: pinned[one.layout.pin] / one.layout.threads**0.6 * (1 + 0.02 * one.repeat),
        weak=3,
    )
    page = write_scaling(found)
    folder = page.parent
    names = [f"scaling-{name}" for name in ("speedup", "weak", "layouts", "pinning", "batch-size")]
    for name in names:
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
        assert (folder / "figures" / f"{name}.pdf").stat().st_size > 5_000
        assert (folder / "figures" / f"{name}.csv").stat().st_size > 100
    assert {path.name for path in (folder / "tables").iterdir()} == {
        *("scaling-strong.csv", "scaling-weak.csv", "scaling-laws.csv"),
        *("scaling-strong.tex", "scaling-weak.tex", "scaling-laws.tex"),
        "scaling-measurements.csv",
    }
    text = page.read_text(encoding="utf-8")
    assert f"4 workers {TIMES} 2 threads, across sockets" in text


def test_the_report_of_the_study_shows_what_was_measured(
    tmp_path: Path, only_sections: Callable[..., None]
) -> None:
    only_sections("scaling")
    space = {"batch_size": [128], "learning_rate": [0.001], "epochs": [2]}
    journals.simulate(tmp_path, space)
    assert measured.read(tmp_path) == []
    scaled(tmp_path, [Layout(1, 1), Layout(2, 1)], lambda _: 1.0, repeats=1)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert '<section id="scaling">' in text
    assert f"Best layout: 2 workers {TIMES} 1 thread" in text
    assert (tmp_path / "report" / "figures" / "scaling-speedup.png").is_file()
    assert (tmp_path / "report" / "tables" / "scaling-strong.tex").is_file()


def test_times_are_from_the_last_workers_start_to_the_last_result() -> None:
    run = RunPlanned("r", {"batch_size": 8}, 0, [1])
    done = TaskDone("r", 0, 1, {}, "0", 1, 0, 4, 9, {"train": 5.0}, [0.1], 8, 1, 1.0, 17)
    entries = [
        Entry(0.0, journals.about(SPACE, 2)),
        Entry(0.0, run),
        Entry(1.0, SessionBegun(1, "n", 1, "local", 2, 1)),
        Entry(2.0, WorkerEvent(1, "0", "ready", "n", 1)),
        Entry(4.0, WorkerEvent(1, "1", "ready", "n", 2)),
        Entry(9.5, done),
        Entry(11.0, SessionEnded(1, "done")),
    ]
    told = read_cell(entries)
    assert (told["seconds"], told["startup_seconds"]) == (5.5, 3.0)
    assert told["busy"] == pytest.approx(5 / (2 * 5.5))
    assert over(entries)
    assert not over(entries[:-1])


@pytest.mark.parametrize(
    ("own", "asked_for", "takes"),
    [
        ("", None, "03:00:00"),
        ('walltime = "01:00:00"\nnodes = 2', None, "01:00:00"),
        ("", "90", "01:30:00"),
    ],
)
def test_jobs_of_a_measurement_take_as_long_as_those_of_the_study(
    tmp_path: Path, own: str, asked_for: str | None, takes: str
) -> None:
    """Losing this: measurements of minutes wait in the queue as jobs of the site's longest do."""
    (tmp_path / "sites.toml").write_text(
        '[site.two]\nscheduler = "slurm"\nwalltime = "03:00:00"\nworkers_per_node = 4\n'
    )
    file = tmp_path / "study.toml"
    file.write_text(f'[study]\nname = "a"\n[site]\nuse = "two"\n{own}\n')
    study = Study.from_toml(file, tmp_path / "runs")
    if asked_for is not None:
        study = study.with_walltime(asked_for)
    ground = Ground.of(study)
    measurement = ground.study(Layout(2, 1))
    assert f"#SBATCH --time={takes}\n" in measurement.node_script()
    assert "#SBATCH --nodes=1\n" in measurement.node_script()
    assert ground.found is not None
    assert ground.found.key("nodes").endswith("site.two.nodes")
    with pytest.raises(UserError, match="--walltime: given 04:00:00; a job may take 03:00:00 at"):
        Ground.of(study.with_walltime("04:00:00"))
