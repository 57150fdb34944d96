"""Losing these: a run for a fault of its node, or a record that says otherwise than what happened.

How runs, nodes and the driver get on together is in test_suspicion.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from stormsweep.cluster.pool import WorkerLost
from stormsweep.records import RunFailed, TaskRetried
from stormsweep.study.setbacks import Setback, Setbacks
from stormsweep.work import Run, Task, TaskOrder
from tests.unit.test_execute import done

PLACES = {"n1", "n2"}


WHY = "n1: one run after the other comes to nothing there, while others get on; "
WHY += "the last one: no space"


def others(place: str) -> bool:
    return bool(PLACES - {place})


def order(run: str, submitted: float = 100.0, session: int = 3, **of: Any) -> TaskOrder:
    task = Task(Run(run, of, 0, (2, 5)), 2, 5)
    told = {"task": task, "worker": "n1-7-0", "session": session, "submitted": submitted}
    return cast(TaskOrder, SimpleNamespace(**told))


def failed(one: TaskOrder, failure: str = "error") -> RunFailed:
    return RunFailed.of(one, failure, "no space")


def loss(failure: str, when: float = 104.0) -> WorkerLost:
    return WorkerLost("n1-7-0", "n1", 7, failure, "it died", "t", when=when)


def only(setbacks: Any) -> Setback:
    (setback,) = setbacks.values() if isinstance(setbacks, dict) else setbacks
    return cast(Setback, setback)


def take(setbacks: Setbacks, place: str) -> Task | None:
    return next(iter(setbacks.take(place, lambda tasks: [tasks[0]])), None)


def test_a_run_that_raised_waits_for_a_worker_of_another_node() -> None:
    setbacks, one = Setbacks(others), order("a")
    setback = only(setbacks.returned([one], [failed(one)], "n1", 104.0))
    assert setback.record == TaskRetried("a", 5, 1, "no space", "n1-7-0", 3, 4.0)
    assert setback.told == "run a failed on n1 (no space); it is tried elsewhere from epoch 2"
    assert not setback.here
    assert list(setbacks.elsewhere) == ["a"]
    assert take(setbacks, "n1") is None
    assert take(setbacks, "n2") == one.task
    assert take(setbacks, "n2") is None
    setback = only(setbacks.returned([one], [failed(one)], "n2", 108.0))
    assert setback.record == RunFailed("a", 2, 5, "error", "no space", "n1-7-0", 3, seconds=8.0)
    assert not setbacks.elsewhere


def test_no_node_is_suspected_of_what_a_model_did() -> None:
    """Losing this: a second node for each run that diverges, and for one bad run of a bundle."""
    setbacks, one, other = Setbacks(others), order("a"), order("b")
    diverged = failed(one, "diverged")
    assert isinstance(only(setbacks.returned([one], [diverged], "n1", 104.0)).record, RunFailed)
    found = setbacks.returned([one, other], [failed(one), done(other)], "n1", 104.0)
    assert found.keys() == {"a"}
    record = only(found).record
    assert isinstance(record, RunFailed)
    assert record.seconds == 2.0, "its share"
    assert not setbacks.elsewhere
    assert not setbacks.to_judge


def test_the_last_attempt_of_a_run_that_loses_its_workers_is_made_elsewhere() -> None:
    setbacks, one = Setbacks(others), order("a")
    told = "worker n1-7-0 was lost (it died); run a goes on from epoch 2"
    for attempt, here in ((2, True), (3, False)):
        setback = only(setbacks.lost([one], loss("killed"), "n1"))
        assert setback.record == TaskRetried("a", 5, attempt, "it died", "n1-7-0", 3, 4.0)
        assert (setback.here, setback.told) == (here, told)
    assert take(setbacks, "n2") == one.task
    record = only(setbacks.lost([one], loss("killed"), "n2")).record
    assert record == RunFailed("a", 2, 5, "killed", "it died, 3 times", "n1-7-0", 3, seconds=4.0)


def test_what_failed_where_no_other_node_was_says_nothing_of_a_node() -> None:
    """Losing this: a good node, for two bad runs and one that was lost by chance."""
    there, orders = {"n1"}, [order(run) for run in "abc"]
    setbacks = Setbacks(lambda place: bool(there - {place}))
    for one in orders[:2]:
        record = only(setbacks.returned([one], [failed(one)], "n1", 104.0)).record
        assert isinstance(record, RunFailed)
    there.add("n2")
    setbacks.returned(orders[2:], [failed(orders[2])], "n1", 104.0)
    assert not setbacks.doubted
    assert take(setbacks, "n2") == orders[2].task
    setbacks.returned(orders[2:], [done(orders[2])], "n2", 104.0)
    assert setbacks.judge({"n1": 0.0, "n2": 0.0}) == ({}, [])


def test_folds_of_one_bad_configuration_leave_no_node_in_doubt() -> None:
    """Losing this: the workers of a good node, idle until one elsewhere has tried a fold too."""
    setbacks = Setbacks(others)
    for name in "abcd":
        fold = order(name, x=1)
        setbacks.returned([fold], [failed(fold)], "n1", 104.0)
        assert setbacks.doubted == set()
    another = order("e", x=2)
    setbacks.lost([another], loss("killed"), "n1")
    assert setbacks.doubted == {"n1"}


def test_a_worker_that_is_lost_without_a_task_is_no_setback() -> None:
    assert Setbacks(others).lost([], loss("killed"), "n1") == []


def test_what_waits_for_another_node_waits_no_more_where_there_is_none_fit() -> None:
    """Losing this: a study that waits for ever for a node that is gone or gets no work."""
    setbacks, orders = (
        Setbacks(others),
        [order(run) for run in "abcd"],
    )
    for one in orders:
        setbacks.returned([one], [failed(one)], "n1", 104.0)
    assert setbacks.judge({"n1": 0.0, "n2": 0.0}) == ({}, [])
    found = [take(setbacks, "n2") for _ in "ab"]
    assert found == [one.task for one in orders[:2]]
    setbacks.returned([orders[0]], [done(orders[0])], "n2", 104.0)
    setbacks.returned([orders[1]], [failed(orders[1])], "n2", 104.0)
    last = order("e")
    setbacks.returned([last], [failed(last)], "n2", 104.0)
    # What is left waits for another than n1, and for another than n2, which is the only one now.
    assert setbacks.judge({"n1": 0.0, "n2": 0.0}) == ({"n1": WHY}, [last.task])
    assert list(setbacks.elsewhere) == ["c", "d"]
    assert setbacks.judge({"n1": 0.0}) == ({}, [orders[2].task, orders[3].task])
    assert not setbacks.elsewhere
