"""Advice that is followed must take what was foretold, or nobody follows it twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from stormsweep import Study
from stormsweep.records import SessionBegun, TaskDone
from stormsweep.results.journal import read
from stormsweep.study import advised
from tests.slurm.cluster import MiniSlurm

from .conftest import digits_study
from .test_submit import queue, said, submit, until, write_site

SPACE = "batch_size = [16, 32]\nlearning_rate = [0.003, 0.01]\nepochs = [8, 16, 24]"


def took(directory: Path) -> float:
    """Return the seconds from the begin of the only session until the last result."""
    entries = read(directory / "journal.jsonl")
    (begun,) = (entry.time for entry in entries if isinstance(entry.record, SessionBegun))
    return max(entry.time for entry in entries if isinstance(entry.record, TaskDone)) - begun


@pytest.mark.slow
def test_following_advice_takes_what_was_foretold(slurm: MiniSlurm, tmp_path: Path) -> None:
    write_site(tmp_path, workers=1, nodes=1)
    text = {"search__space": SPACE, "validation": "folds = 3"}
    submit(tmp_path, digits_study(tmp_path, "pilot", **text))
    directory = tmp_path / "runs" / "pilot"
    until(lambda: not queue(slurm), directory, 300)
    pilot = Study.from_toml(directory)
    one, two = (pilot.simulate(nodes=nodes, site="mine") for nodes in (1, 2))
    # What was fitted on is met: else nothing further is worth looking at.
    measured = took(directory)
    assert one.makespan.low <= measured <= one.makespan.high, (one.makespan, measured)
    between = (one.makespan.low + two.makespan.high) / 2
    assert two.makespan.high < between < one.makespan.low
    advice = pilot.advise(sites=["mine"], most_nodes=2, deadline=between)
    assert advice.chosen == two
    assert advice.because == "the cheapest within the deadline"

    path = digits_study(tmp_path, "followed", **text)
    advised.write(Study.from_toml(path), advice.chosen)
    assert 'use = "mine"' in path.read_text()
    submit(tmp_path, path)
    directory = tmp_path / "runs" / "followed"
    until(lambda: not queue(slurm), directory, 300)
    measured = took(directory)
    assert two.makespan.low <= measured <= two.makespan.high, (
        two.makespan,
        measured,
        said(directory),
    )
