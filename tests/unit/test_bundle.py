"""Losing this: one prediction that does not fit fails a whole bundle, and runs that waited too."""

from types import SimpleNamespace

import numpy as np

from stormsweep.study.bundle import _predicted


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
