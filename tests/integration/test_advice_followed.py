"""Advice that is followed must take what was foretold, or nobody follows it twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from stormsweep import Study
from stormsweep.records import SessionBegun, TaskDone
from stormsweep.results.journal import read
from stormsweep.study import advised
from tests.slurm.cluster import MiniSlurm

from .conftest import digits_study, tasks
from .test_submit import queue, said, submit, until, write_site

SPACE = "batch_size = [16, 32]\nlearning_rate = [0.003, 0.01]\nepochs = [8, 16, 24]"


def took(directory: Path) -> float:
    """Return the seconds from the begin of the last job until its last result."""
    entries = read(directory / "journal.jsonl")
    begun = [
        entry.time - entry.record.allotment["held_seconds"]
        for entry in entries
        if isinstance(entry.record, SessionBegun)
    ]
    return max(entry.time for entry in entries if isinstance(entry.record, TaskDone)) - begun[-1]


@pytest.mark.slow
def test_following_advice_takes_what_was_foretold(slurm: MiniSlurm, tmp_path: Path) -> None:
    """A part of the study is the pilot, and the rest is done as advised.

    The test cluster's nodes share the cores of one machine: the pilot has two of them busy, too.
    """
    write_site(tmp_path, workers=1, nodes=2)
    path = digits_study(tmp_path, **{"search__space": SPACE, "validation": "folds = 3"})
    job = submit(tmp_path, path, "--max-jobs", "1")
    directory = tmp_path / "runs" / "digits"
    until(lambda: len(tasks(directory)) >= 12, directory, 300)
    slurm.run("scancel", "--signal=USR1", "--batch", job)
    until(lambda: not queue(slurm), directory, 300)
    done = len(tasks(directory))

    pilot = Study.from_toml(directory)
    one, two = (pilot.simulate(nodes=nodes, site="mine") for nodes in (1, 2))
    assert one.tasks == two.tasks == pilot.plan().tasks - done
    # Two nodes keep to it and one does not, however unsure both are.
    between = (one.makespan.high + two.makespan.high) / 2
    assert two.makespan.high < between < one.makespan.high
    advice = pilot.advise(sites=["mine"], most_nodes=2, deadline=between)
    assert advice.chosen == two
    assert advice.because == "the cheapest within the deadline"
    advised.write(Study.from_toml(path), advice.asked)
    assert 'use = "mine"' in path.read_text()
    assert "nodes = 2" in path.read_text()

    submit(tmp_path, path)
    until(lambda: not queue(slurm), directory, 300)
    assert len(tasks(directory)) == pilot.plan().tasks
    low, _, high = two.makespan
    assert low <= took(directory) <= high, (two.makespan, took(directory), said(directory))
