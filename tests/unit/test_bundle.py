"""Losing this: one prediction that does not fit fails a whole bundle, and runs that waited too."""

import weakref
from types import SimpleNamespace

import numpy as np

from stormsweep.study.bundle import _predicted
from stormsweep.study.worker import guarded


class Engine:
    """Stands for one whose device has room for two runs, on which a third cannot be predicted."""

    def predict(self, runs, rows):
        if len(runs) > 2 or "broken" in runs:
            raise MemoryError(f"no room for {len(runs)}")
        return [np.full(len(each), number) for number, each in enumerate(rows)]


def test_what_cannot_be_predicted_together_is_predicted_alone():
    def member(run):
        return SimpleNamespace(run=run, data=SimpleNamespace(validation=np.arange(3)))

    together = _predicted(Engine(), [member("one"), member("two")])
    assert [each.tolist() for each in together] == [[0, 0, 0], [1, 1, 1]]
    one, broken, two = _predicted(Engine(), [member(name) for name in ("one", "broken", "two")])
    assert one.tolist() == two.tolist() == [0, 0, 0]
    assert isinstance(broken, MemoryError)


class Held:
    """Stands for the states of runs, in the memory of a device."""


class Full:
    """Stands for an engine whose device has no room for one run beside the states of several."""

    def __init__(self):
        self.states = []

    def predict(self, runs, rows):
        states = Held()
        self.states.append(weakref.ref(states))
        if len(runs) > 1 or sum(one() is not None for one in self.states) > 1:
            raise MemoryError(f"no room for {len(runs)}")
        return [np.zeros(len(each)) for each in rows]


def test_what_several_runs_took_is_free_again_when_one_is_predicted_alone():
    """Losing this: runs that fit fail when they are scored, with all their epochs trained."""
    data = SimpleNamespace(validation=np.arange(3))
    members = [SimpleNamespace(run=name, data=data) for name in ("one", "two")]
    assert [each.tolist() for each in _predicted(Full(), members)] == [[0, 0, 0]] * 2


def test_an_error_of_jax_that_tells_of_memory_is_on_record_as_out_of_memory():
    """Losing this: a run that needs a larger GPU looks like one whose model is broken."""

    def work():
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")

    run = SimpleNamespace(id="r1")
    task = SimpleNamespace(run=run, from_epoch=0, to_epoch=1)
    order = SimpleNamespace(task=task, worker="w", session=1)
    assert guarded(order, work).failure == "out-of-memory"
