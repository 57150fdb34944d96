"""Losing this: the models of time understand journals that tests write, not those of studies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stormsweep.records import WorkerEvent
from stormsweep.results.journal import of_kind, read
from stormsweep.scaling import runtime


def test_a_real_study_is_understood_and_its_time_given_back(digits: Path) -> None:
    entries = read(digits / "journal.jsonl")
    said = json.loads((digits / "environment.json").read_text(encoding="utf-8"))
    seen = runtime.observations(entries, said)
    began = [one for one in of_kind(entries, WorkerEvent) if one.event == "ready"]
    # Every worker opens the data and compiles for its first task.
    assert seen["opens"].sum() == len(began) == 2
    assert seen.loc[seen["opens"], "compiles"].all()
    assert seen.loc[seen["opens"], "builds"].all()
    # A worker that holds a run goes on with it: most tasks build nothing.
    assert seen["builds"].mean() < 0.8
    assert set(seen["workers"]) == {2}
    assert seen["neighbours"].max() <= 1.0 + 1e-9
    assert seen["neighbours"].median() > 0.5
    phases = [name for name in seen if name.endswith("_seconds")]
    # The phases are all that a task does.
    assert seen[phases].sum().sum() == pytest.approx(seen["seconds"].sum(), rel=0.05)
    found = runtime.fit(seen)
    assert "digits_cnn" in found.kind
    assert found.foretold(seen).sum() == pytest.approx(seen["seconds"].sum(), rel=0.1)
    # Tasks of some hundredths of a second, beside other tests: to the factor, not to the percent.
    assert runtime.check(seen).median < 0.6
