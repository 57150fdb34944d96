"""Losing these: a table of pruned searches that takes the first good score for whose it is not."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import benchmarks
import pytest

LABELS = {"peer": "a peer", "absent": "one that is not there", "ours": "Stormsweep"}


@pytest.fixture
def pruned(monkeypatch: pytest.MonkeyPatch) -> Any:
    folder = Path(benchmarks.__file__).parent / "peers"  # Its files are scripts beside each other.
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("pruned_table")


def record(tool: str, number: int, slower: float, best: float) -> dict[str, Any]:
    """Three configurations: the first is best early, the second in the end, the third is cut."""
    scores = [
        (10, 0, 1, 0.70),
        (20, 1, 1, 0.69),
        (30, 2, 1, 0.60),
        (60, 0, 3, 0.72),
        (90, 1, 3, best),
    ]
    began = 1000.0 * number
    return {
        "tool": tool,
        "round": number,
        "began": began,
        "load": 0.1,
        "seconds": 100 * slower,
        "problem": "",
        "version": f"{tool} 1",
        "scores": [(began + time * slower, *rest) for time, *rest in scores],
    }


def test_the_common_score_is_one_that_all_reached_and_each_is_timed_to_it(pruned: Any) -> None:
    searches = [
        pruned.Search.of(record("peer", 1, 2, 0.75)),
        pruned.Search.of(record("ours", 1, 1, 0.80)),
        pruned.Search.of(record("ours", 2, 1, 0.71)),
    ]
    goals = pruned.common(searches)
    assert goals == {1: 0.75, 2: 0.72}
    assert [search.until(goals[search.round]) for search in searches] == [180, 90, 60]
    assert searches[0].training == 3 + 3 + 1


def test_ratios_are_of_the_same_round_and_a_round_that_lacks_a_tool_does_not_count(
    pruned: Any,
) -> None:
    repeats = [
        record("peer", 1, 3, 0.75),
        record("ours", 1, 1, 0.75),
        record("peer", 2, 8, 0.75),
        record("ours", 2, 2, 0.75),
        record("ours", 3, 7, 0.75),
    ]
    state = {
        "settings": {"points": 3, "rungs": [1, 3]},
        "data": {"patches": 100, "events": 5},
        "machine": "a machine",
        "packages": ["Python 3"],
        "repeats": repeats,
    }
    page = pruned.page(state, LABELS, ("ours",))
    (line,) = (line for line in page.splitlines() if line.startswith("| a peer (peer 1)"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:3] == ["550.0 (300.0 to 800.0)", "3.50 (3.00 to 4.00)"]
    assert cells[4:6] == ["495.0 (270.0 to 720.0)", "3.50 (3.00 to 4.00)"]
    assert "Rounds: 2" in page
    assert "| one that is not there | not run |" in page
    assert "Against a peer: 3.50 (3.00 to 4.00) times as fast to the same score" in page
