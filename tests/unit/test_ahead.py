"""Losing this: `plan` says of a study that grew that nothing is left, and `run` takes hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from stormsweep.config.study import StudyFile
from stormsweep.records import Entry, TaskDone
from stormsweep.results.journal import of_kind
from stormsweep.results.progress import progress_of
from stormsweep.study.remaining import remaining
from stormsweep.work import Run
from tests.journals import carried_out

RANGES: dict[str, Any] = {
    "batch_size": [16, 32, 64],
    "learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
    "epochs": [1, 3, 9],
}
LISTS: dict[str, Any] = {"batch_size": [16, 32, 64], "learning_rate": [0.01, 0.1], "epochs": [2]}
LONGER, ROUNDS = {"space": RANGES | {"epochs": [1, 3, 9, 18]}}, {"rounds": 2}


def study(space: dict[str, Any], rounds: int = 1, **search: Any) -> StudyFile:
    return StudyFile.model_validate(
        {
            "study": {"name": "a"},
            "search": {"space": space, **search},
            "validation": {"rounds": rounds},
        }
    )


def epochs_left(runs: Iterable[Run], entries: Sequence[Entry]) -> int:
    reached = progress_of(entries).reached
    return sum(max(0, run.milestones[-1] - reached.get(run.id, 0)) for run in runs)


def epochs_trained(entries: Sequence[Entry]) -> int:
    return sum(done.to_epoch - done.from_epoch for done in of_kind(entries, TaskDone))


@pytest.mark.parametrize(
    ("before", "changes", "exact"),
    [
        ({"strategy": "asha", "space": RANGES, "trials": 18}, LONGER, True),
        ({"strategy": "asha", "space": RANGES, "trials": 18}, {"trials": 27}, False),
        ({"strategy": "asha", "space": RANGES, "trials": 18}, ROUNDS, False),
        ({"strategy": "asha", "space": RANGES, "sampler": "tpe", "trials": 18}, LONGER, True),
        ({"strategy": "halving", "space": RANGES, "trials": 18}, LONGER, True),
        ({"strategy": "halving", "space": RANGES, "trials": 18}, {"trials": 27}, False),
        ({"strategy": "hyperband", "space": RANGES, "trials": 18}, LONGER, False),
        ({"strategy": "hyperband", "space": RANGES, "trials": 18}, {"trials": 27}, False),
        ({"strategy": "tpe", "space": RANGES | {"epochs": [4]}, "trials": 6}, {"trials": 9}, True),
        ({"strategy": "tpe", "space": RANGES | {"epochs": [4]}, "trials": 6}, ROUNDS, True),
        # What a grid has already, another strategy does not train again.
        ({"strategy": "grid", "space": LISTS}, {"strategy": "tpe", "trials": 2}, True),
        (
            {"strategy": "grid", "space": LISTS},
            {"strategy": "tpe", "trials": 4, "space": LISTS | {"batch_size": [16, 32, 64, 128]}},
            True,
        ),
        ({"strategy": "random", "space": RANGES | {"epochs": [4]}}, {"trials": 30}, True),
        ({"strategy": "grid", "space": LISTS}, {"space": LISTS | {"epochs": [2, 5]}}, True),
        ({"strategy": "grid", "space": LISTS}, ROUNDS, True),
    ],
)
def test_as_much_is_left_of_a_study_that_grew_as_is_then_trained(
    before: dict[str, Any], changes: dict[str, Any], exact: bool
) -> None:
    first, grown = study(**before), study(**(before | changes))
    entries = carried_out(first)
    assert epochs_left(remaining(first, entries).ahead(first, entries).runs, entries) == 0
    left = epochs_left(remaining(grown, entries).ahead(grown, entries).runs, entries)
    trained = epochs_trained(carried_out(grown, entries)) - epochs_trained(entries)
    nothing = "tpe" in changes.values() and "space" not in changes
    assert bool(trained) != nothing, "the case says something else than it should"
    assert left == trained if exact else 0.5 * trained <= left <= 2 * trained


@pytest.mark.parametrize("strategy", ["asha", "hyperband", "tpe"])
def test_of_a_study_that_was_stopped_the_rest_is_left(strategy: str) -> None:
    file = study(RANGES, strategy=strategy, trials=18)
    whole = carried_out(file)
    half = whole[: len(whole) // 2]
    left = epochs_left(remaining(file, half).ahead(file, half).runs, half)
    trained = epochs_trained(whole) - epochs_trained(half)
    assert 0.5 * trained <= left <= 2 * trained
