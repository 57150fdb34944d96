"""Losing these: fits trained twice or never, and a search that nobody asked for."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stormsweep.search.plan import Queue, cost, make_plan, structure
from stormsweep.search.space import DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS, Interval, grid, size
from stormsweep.search.strategies import propose
from stormsweep.work import Run, identity

spaces = st.fixed_dictionaries(
    {
        "epochs": st.lists(st.integers(1, 20), min_size=1, max_size=3, unique=True),
        "batch_size": st.lists(st.integers(1, 64), min_size=1, max_size=3, unique=True),
        "rate": st.lists(st.floats(1e-4, 1), min_size=1, max_size=3, unique=True),
    }
)


def test_the_2019_grid_needs_half_the_training() -> None:
    space: dict[str, Any] = {
        "batch_size": [128, 256, 512, 1024, 2048, 4096],
        "learning_rate": [0.001, 0.005, 0.01],
        "epochs": [5, 10, 15],
    }
    plan = make_plan(grid(space), {}, 3)
    assert len(plan.configurations) == 54
    assert plan.fits == 162
    assert len(plan.runs) == 54
    assert plan.epochs == 810
    assert plan.epochs_unshared == 1620
    assert plan.tasks == 162
    assert {run.milestones for run in plan.runs} == {(5, 10, 15)}


@given(spaces, st.integers(2, 5))
def test_every_fit_is_a_milestone_of_exactly_one_run(space: dict[str, Any], folds: int) -> None:
    plan = make_plan(grid(space), {"width": 8}, folds)
    served = [
        (identity({**run.hyperparameters, "epochs": epochs}), run.fold)
        for run in plan.runs
        for epochs in run.milestones
    ]
    wanted = [(identity(values), fold) for values in plan.configurations for fold in range(folds)]
    assert sorted(served) == sorted(wanted)
    assert len({run.id for run in plan.runs}) == len(plan.runs)
    assert plan.epochs <= plan.epochs_unshared
    assert all("epochs" not in run.hyperparameters for run in plan.runs)


def test_batch_size_and_epochs_have_defaults() -> None:
    plan = make_plan([{"rate": 0.1}], {}, 2)
    assert plan.configurations[0]["batch_size"] == DEFAULT_BATCH_SIZE
    assert plan.runs[0].milestones == (DEFAULT_EPOCHS,)


@given(spaces, st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_random_search_draws_different_points_of_the_space(
    space: dict[str, Any], seed: int, trials: int
) -> None:
    points = propose("random", space, trials, seed)
    assert len(points) == min(trials, size(space))
    assert len({identity(point) for point in points}) == len(points)
    assert all(point[name] in values for point in points for name, values in space.items())
    assert points == propose("random", space, trials, seed)


@given(
    st.floats(1e-6, 1e3),
    st.floats(1.000001, 1e3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["random", "sobol"]),
)
@example(0.999, 0.9999999 / 0.999, False, 0, "sobol")
def test_ranges_are_kept(low: float, factor: float, log: bool, seed: int, strategy: str) -> None:
    """Losing this: a decay of 1, or a trial of a halving that is none of the space."""
    interval = Interval(low, low * factor, log)
    drawn = [point["x"] for point in propose(strategy, {"x": interval}, 10, seed)]
    for value in [*drawn, interval.at(0), interval.at(1 - 1e-12)]:
        assert interval.low <= value <= interval.high


def test_a_seed_draws_what_it_drew_before() -> None:
    """Losing this: a study that is gone on with has other trials than it had."""
    x, y = Interval(1e-4, 0.1, log=True), Interval(1 / 3, 5)
    space = {"x": x, "y": y, "n": [1, 2]}
    assert propose("random", space, 2, 7) == [
        {"x": 0.000985998, "y": 4.98751, "n": 1},
        {"x": 0.0512458, "y": 3.73547, "n": 2},
    ]
    # Where a Sobol search looks.
    assert [x.at(share) for share in (0, 0.3, 0.9)] == [0.0001, 0.000794328, 0.0501187]
    assert [y.at(share) for share in (0, 0.3, 0.9)] == [1 / 3, 1.73333, 4.53333]


@given(st.integers(1, 50), st.integers(1, 50), st.booleans(), st.integers(0, 2**32 - 1))
def test_integer_ranges_reach_both_ends_and_no_further(
    low: int, width: int, log: bool, seed: int
) -> None:
    interval = Interval(low, low + width, log, integer=True)
    drawn = {point["n"] for point in propose("random", {"n": interval}, 1000, seed)}
    assert all(isinstance(value, int) for value in drawn)
    assert drawn == set(range(low, low + width + 1))


def test_a_grid_of_a_range_is_refused() -> None:
    with pytest.raises(TypeError, match="rate is a range"):
        list(grid({"rate": Interval(0, 1)}))


@given(
    spaces,
    st.integers(2, 3),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_any_number_of_workers_does_every_task_once_and_in_order(
    space: dict[str, Any], folds: int, workers: int, seed: int
) -> None:
    """Workers finish in any order, some lose or pause their task; all is done once, in order."""
    chance = random.Random(seed)
    plan = make_plan(grid(space), {}, folds)
    queue = Queue(plan.runs, {}, (), [1000] * folds)
    done: dict[str, list[tuple[int, int]]] = {run.id: [] for run in plan.runs}
    trained: dict[str, list[int]] = {run.id: [] for run in plan.runs}
    held: list[str | None] = [None] * workers
    running: dict[int, Any] = {}
    while queue or running:
        for number in range(workers):
            if number not in running and (task := queue.take(held[number])) is not None:
                running[number] = task
        number = chance.choice(list(running))
        task = running.pop(number)
        assert task.start == (trained[task.run.id] or [0])[-1], "it does not go on where it was"
        what = chance.random()
        if what < 0.2:
            queue.put_back(task)
            held[number] = None
        elif what < 0.4:
            at = chance.randint(task.start, task.to_epoch - 1)
            trained[task.run.id] += range(task.start + 1, at + 1)
            queue.paused(task, at)
            held[number] = None
        else:
            trained[task.run.id] += range(task.start + 1, task.to_epoch + 1)
            done[task.run.id].append((task.from_epoch, task.to_epoch))
            held[number] = task.run.id
            queue.done(task)
    for run in plan.runs:
        steps = list(itertools.pairwise((0, *run.milestones)))
        assert done[run.id] == steps
        assert trained[run.id] == list(range(1, run.milestones[-1] + 1))


def test_the_longest_run_goes_first_and_small_batches_count_as_longer() -> None:
    plan = make_plan(grid({"batch_size": [512, 32], "epochs": [5, 10]}), {}, 2)
    queue = Queue(plan.runs, {}, (), [1000, 2000])
    first = queue.take()
    assert first is not None
    assert first.run.hyperparameters["batch_size"] == 32
    assert first.run.fold == 1
    assert cost(1, 1000, 32) > cost(1, 1000, 512)


def test_a_resumed_queue_leaves_out_what_is_done_or_failed() -> None:
    plan = make_plan(grid({"epochs": [2, 4]}), {}, 3)
    finished, half, failed = plan.runs
    queue = Queue(plan.runs, {finished.id: 4, half.id: 2}, [failed.id], [10, 10, 10])
    task = queue.take()
    assert task is not None
    assert (task.run, task.from_epoch, task.to_epoch) == (half, 2, 4)
    assert queue.take() is None


def test_a_paused_run_goes_on_at_its_epoch_and_counts_as_shorter() -> None:
    plan = make_plan(grid({"epochs": [4, 8]}), {}, 3)
    paused, other, third = plan.runs
    reached = {paused.id: 4, other.id: 4, third.id: 4}
    queue = Queue(plan.runs, reached, (), [10, 10, 10], paused={paused.id: 7})
    tasks = [queue.take() for _ in plan.runs]
    assert [task and task.run for task in tasks] == [other, third, paused]
    last = tasks[-1]
    assert last is not None
    assert (last.from_epoch, last.to_epoch, last.start) == (4, 8, 7)


@given(
    st.lists(st.tuples(st.sampled_from([32, 128, 512]), st.integers(1, 4)), min_size=1, max_size=8),
    st.integers(0, 2**32),
)
def test_whatever_comes_back_the_longest_run_is_taken(
    made: list[tuple[int, int]], seed: int
) -> None:
    """A worker without a run in memory always gets the one with the most left."""
    chance = random.Random(seed)
    runs = [
        Run(f"r{number}", {"batch_size": batch}, 0, tuple(range(1, stops + 1)))
        for number, (batch, stops) in enumerate(made)
    ]
    queue = Queue(runs, {}, (), [1000])
    left = {run.id: run.milestones[-1] for run in runs}

    def cost_left(name: str) -> float:
        run = next(run for run in runs if run.id == name)
        return cost(left[name], 1000, run.hyperparameters["batch_size"])

    out: list[Any] = []
    while queue or out:
        if queue and (not out or chance.random() < 0.6):
            waiting = [name for name in left if left[name] and name not in {t.run.id for t in out}]
            task = queue.take()
            assert task is not None
            assert cost_left(task.run.id) == max(cost_left(name) for name in waiting)
            out.append(task)
            continue
        task = out.pop(chance.randrange(len(out)))
        if chance.random() < 0.3:
            queue.put_back(task)
        else:
            queue.done(task)
            left[task.run.id] -= 1


@given(spaces, st.integers(2, 3), st.integers(1, 9), st.integers(0, 99))
def test_bundles_do_every_task_once_and_mix_nothing_but_rates_and_folds(
    space: dict[str, Any], folds: int, limit: int, seed: int
) -> None:
    chance = random.Random(seed)
    space = {**space, "learning_rate": space["rate"]}
    del space["rate"]
    plan = make_plan(grid(space), {}, folds)
    queue = Queue(plan.runs, {}, (), [100] * folds, structure)
    small = {run.id: chance.randint(1, 2) for run in plan.runs if chance.random() < 0.3}
    held: list[str] = []
    done: list[tuple[str, int]] = []
    while queue:
        bundle = queue.take_bundle(held, limit, small)
        assert 1 <= len(bundle) <= limit
        alike = {(structure(t.run), t.from_epoch, t.to_epoch, t.start) for t in bundle}
        assert len(alike) == 1
        assert all(len(bundle) <= small.get(task.run.id, limit) for task in bundle)
        held = [task.run.id for task in bundle]
        for task in bundle:
            what = chance.random()
            if what < 0.2:
                queue.put_back(task)
            elif what < 0.4:
                queue.paused(task, chance.randint(task.start, task.to_epoch - 1))
            else:
                queue.done(task)
                done.append((task.run.id, task.to_epoch))
    assert sorted(done) == sorted((run.id, stop) for run in plan.runs for stop in run.milestones)


def test_a_bundle_takes_all_that_only_differ_in_rate_and_fold() -> None:
    plan = make_plan(grid({"batch_size": [64, 8], "learning_rate": [0.1, 0.2, 0.3]}), {}, 3)
    queue = Queue(plan.runs, {}, (), [100] * 3, structure)
    first = queue.take_bundle(limit=64)
    assert len(first) == 9
    assert {task.run.hyperparameters["batch_size"] for task in first} == {8}
    assert len(queue.take_bundle(limit=4)) == 4
    assert len(queue.take_bundle(limit=64)) == 5
    assert queue.take_bundle(limit=64) == []
