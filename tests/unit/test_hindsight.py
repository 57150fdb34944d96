"""Losing these: a report that recommends dropping trials where that would have cost the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stormsweep.report.hindsight import hindsight_table, hindsight_words
from stormsweep.report.material import Material
from stormsweep.results import journal
from stormsweep.scaling.hindsight import hindsight
from tests.journals import simulate

#: Of nine points the score at the end; early scores have the same order, or the opposite one.
LATE = [0.60, 0.61, 0.62, 0.63, 0.64, 0.65, 0.70, 0.80, 0.90]


def entries(folder: Path, early: list[float], **changes: Any) -> Any:
    def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
        known = LATE if point["epochs"] == 3 else early
        return {"roc_auc": known[point["x"]] + 0.01 * (fold - 1), "loss": 0.5}

    simulate(folder, {"x": list(range(9)), "epochs": [1, 3]}, scores=scores, **changes)
    return journal.read(folder / "journal.jsonl")


def test_early_scores_that_tell_find_the_best_for_less(tmp_path: Path) -> None:
    found = hindsight(entries(tmp_path, [score - 0.1 for score in LATE]))
    assert found is not None
    assert (found.points, found.folds, found.orders) == (9, 3, 20)
    assert found.reached_best == found.within_noise == 1
    assert found.most_behind == 0
    # Nine points for one epoch, and three to five of them for two more.
    assert 15 / 27 <= found.training <= 19 / 27
    (rung,) = found.rungs.to_dict("records")
    assert (rung["epochs"], rung["trials"]) == (1, 9)
    assert 3 <= rung["kept"] <= 5
    assert rung["kept"] + rung["dropped"] == 9
    assert rung["best_dropped"] == 0


def test_early_scores_that_mislead_are_seen_to_cost_the_best(tmp_path: Path) -> None:
    found = hindsight(entries(tmp_path, [1 - score for score in LATE]), orders=30)
    assert found is not None
    # The best in the end is the worst early: it goes on only where it is begun before all others.
    assert found.reached_best < 0.3
    # Else the three that look best go on, which end with 0.60, 0.61 and 0.62.
    assert found.most_behind == pytest.approx(0.28)
    (rung,) = found.rungs.to_dict("records")
    assert rung["best_dropped"] > 0.7
    assert rung["dropped_falsely"] >= rung["beyond_noise"] > 2


def test_the_report_says_what_was_replayed_and_lists_what_was_dropped(tmp_path: Path) -> None:
    material = Material(entries(tmp_path, [score - 0.1 for score in LATE]))
    (text,) = hindsight_words(material)
    assert "in 20 orders" in text
    assert text.endswith("and finds the best in all of them.")
    table = hindsight_table(material)
    assert table is not None
    assert [row[0] for row in table.rows] == ["1"]
    assert table.frame is not None
    assert list(table.frame["dropped_falsely"]) == [float(table.rows[0][3])]


@pytest.mark.parametrize(
    ("space", "changes"),
    [
        ({"x": list(range(9)), "epochs": [3]}, {}),
        ({"x": list(range(5)), "epochs": [1, 3]}, {}),
        ({"x": list(range(9)), "epochs": [1, 3]}, {"folds": 1}),
        ({"x": list(range(9)), "epochs": [1, 3]}, {"stops": (20.0,), "go_on": False}),
    ],
    ids=["one number of epochs", "too few points", "one fold", "not done"],
)
def test_where_the_study_does_not_tell_nothing_is_said(
    tmp_path: Path, space: dict[str, Any], changes: dict[str, Any]
) -> None:
    simulate(tmp_path, space, **changes)
    found = journal.read(tmp_path / "journal.jsonl")
    assert hindsight(found) is None
    assert hindsight_words(Material(found)) == []
    assert hindsight_table(Material(found)) is None
