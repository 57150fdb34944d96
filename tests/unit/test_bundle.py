"""Losing this: one prediction that does not fit fails a whole bundle, and runs that waited too."""

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


def test_an_error_of_jax_that_tells_of_memory_is_on_record_as_out_of_memory():
    """Losing this: a run that needs a larger GPU looks like one whose model is broken."""

    def work():
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")

    run = SimpleNamespace(id="r1")
    task = SimpleNamespace(run=run, from_epoch=0, to_epoch=1)
    order = SimpleNamespace(task=task, worker="w", session=1)
    assert guarded(order, work).failure == "out-of-memory"
