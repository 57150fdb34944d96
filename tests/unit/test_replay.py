"""Losing these: figures about strategies that no training would bear out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stormsweep.records import RunPlanned
from stormsweep.results import journal
from stormsweep.scaling.replay import Answers, Replay, replay
from stormsweep.search.proposals import Event, Proposal, Setting
from stormsweep.search.strategies.halving import Asha, Hyperband, SuccessiveHalving
from tests.journals import simulate

#: Of nine points: the score at epoch 1, and at epoch 3. Point 5 is slow at first.
EARLY = [0.50, 0.60, 0.70, 0.55, 0.65, 0.52, 0.58, 0.51, 0.53]
LATE = [0.60, 0.70, 0.80, 0.61, 0.75, 0.90, 0.62, 0.63, 0.64]


class Listed:
    """A sampler that proposes the points 0, 1, 2, ... at the given epochs."""

    def __init__(self, points: int, epochs: int, folds: int = 3) -> None:
        self._points, self._epochs, self._folds, self._begun = points, epochs, folds, 0

    def propose(self) -> Sequence[Proposal]:
        return [
            Proposal(number, {"x": number}, self._epochs, self._folds)
            for number in range(self._begun, self._points)
        ]

    def take(self, event: Event) -> None:
        self._begun += isinstance(event, Proposal)


def scores(point: dict[str, Any], fold: int) -> dict[str, float]:
    known = (EARLY if point["epochs"] == 1 else LATE)[point["x"]]
    return {"roc_auc": known + 0.01 * (fold - 1), "loss": 1 - known}


def answers(folder: Path, **changes: Any) -> Answers:
    simulate(folder, {"x": list(range(9)), "epochs": [1, 3]}, scores=scores, **changes)
    return Answers.of(journal.read(folder / "journal.jsonl"))


def halved(grid: Answers, workers: int = 1, **keys: Any) -> Replay:
    setting = Setting((1, 3), 3, 9, 0)
    folds = keys.get("first_folds", 3)
    return replay(SuccessiveHalving(Listed(9, 1, folds), setting, **keys), grid, workers)


def test_false_eliminations_are_counted(tmp_path: Path) -> None:
    """Points 2, 4 and 1 go on; 5, which is the best in the end, and nobody else was better."""
    grid = answers(tmp_path)
    assert grid.best == (5, 1)
    assert grid.noise == pytest.approx(0.01 / np.sqrt(3))
    found = halved(grid)
    first, last = found.rungs
    assert (first.trials, first.kept, first.failed) == (9, 3, 0)
    assert (first.eliminated_falsely, first.beyond_noise, first.best_dropped) == (1, 1, True)
    assert (last.trials, last.kept, last.eliminated_falsely, last.best_dropped) == (3, 0, 0, False)
    assert found.best == (2, 1)
    assert found.regret == pytest.approx(0.1)
    assert not found.within_noise


def test_in_hyperband_nobody_is_dropped_for_one_who_was_not_chosen(tmp_path: Path) -> None:
    """Its second bracket trains all its trials in full: they took nobody's place."""
    strategy = Hyperband(Listed(9, 1), Setting((1, 3), 3, 9, 0))
    found = replay(strategy, answers(tmp_path), bracket=strategy.bracket)
    # Of trials 0 to 4 the best goes on, which is the best of them in the end, too; 5 to 8 go on.
    assert (found.rungs[0].kept, found.rungs[0].eliminated_falsely) == (5, 0)
    plain = replay(Hyperband(Listed(9, 1), Setting((1, 3), 3, 9, 0)), answers(tmp_path))
    assert (plain.rungs[0].kept, plain.rungs[0].eliminated_falsely) == (5, 2)


def test_no_epoch_of_a_fold_is_counted_twice(tmp_path: Path) -> None:
    grid = answers(tmp_path)
    assert grid.training == 9 * 3 * 3
    assert halved(grid).training == 9 * 3 + 3 * 3 * 2
    # First on one fold: all nine; five on the others; three go on, one of them on all folds.
    assert halved(grid, first_folds=1).training == 9 + 5 * 2 + 3 * 2 + 2 * 2
    assert halved(grid).seconds == pytest.approx(
        grid.seconds[:, 0].sum() + (grid.seconds[:, 1] - grid.seconds[:, 0])[[2, 4, 1]].sum()
    )


def test_all_of_the_grid_is_the_grid(tmp_path: Path) -> None:
    grid = answers(tmp_path)
    found = replay(Listed(9, 3), grid)
    assert found.training == grid.training
    assert found.seconds == found.makespan == pytest.approx(grid.training_seconds)
    assert found.best == grid.best
    assert found.regret == 0
    assert found.within_noise
    assert found.points == tuple(range(9))


def test_a_search_may_be_stopped_at_so_much_training(tmp_path: Path) -> None:
    found = replay(Listed(9, 3), answers(tmp_path), training=20)
    assert found.training == 27
    assert found.points == (0, 1, 2)
    assert found.best == (2, 1)


def test_workers_side_by_side_take_less_time_for_the_same_training(tmp_path: Path) -> None:
    grid = answers(tmp_path)
    alone, together = halved(grid), halved(grid, workers=4)
    assert together.training == alone.training
    assert alone.seconds / 4 < together.makespan < alone.makespan


def test_asha_on_a_grid_is_what_it_would_be_in_a_study(tmp_path: Path) -> None:
    found = replay(Asha(Listed(9, 1), Setting((1, 3), 3, 9, 0)), answers(tmp_path))
    told = [(outcome.trial, outcome.epochs) for outcome in found.outcomes]
    assert told == [
        *((0, 1), (1, 1), (2, 1), (2, 3), (3, 1), (4, 1), (5, 1), (4, 3)),
        *((6, 1), (7, 1), (8, 1), (1, 3)),
    ]


def test_what_failed_has_no_score_and_is_dropped(tmp_path: Path) -> None:
    # Run 6 is point 2 on its first fold.
    grid = answers(tmp_path, fail={6: ("diverged", "loss is nan", "")})
    found = halved(grid)
    assert (found.rungs[1].trials, found.rungs[1].failed) == (3, 1)
    assert found.best == (4, 1)


def test_less_of_a_loss_is_better(tmp_path: Path) -> None:
    grid = answers(tmp_path, metric="loss")
    assert grid.sign == -1
    assert grid.best == (5, 1)
    assert halved(grid).regret == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("proposal", "says"),
    [
        (Proposal(0, {"x": 77}, 1, 3), "is not on the grid; its score is not known"),
        (Proposal(0, {"x": 1}, 2, 3), "epoch 2 on fold 0: is not on the grid, which has epochs 1"),
        (Proposal(0, {"x": 1}, 1, 4), "epoch 1 on fold 3: is not on the grid"),
    ],
)
def test_what_is_not_on_the_grid_is_not_made_up(
    tmp_path: Path, proposal: Proposal, says: str
) -> None:
    class Astray:
        def propose(self) -> Sequence[Proposal]:
            return [proposal]

        def take(self, event: Event) -> None: ...

    with pytest.raises(ValueError, match=says):
        replay(Astray(), answers(tmp_path))


def test_a_search_that_was_no_grid_has_no_full_answer(tmp_path: Path) -> None:
    simulate(tmp_path, {"x": [1, 2], "epochs": [1, 3]}, scores=scores)
    entries = journal.read(tmp_path / "journal.jsonl")
    entries = [e for e in entries if getattr(e.record, "to_epoch", 1) == 1]
    short = next(e.record for e in entries if isinstance(e.record, RunPlanned))
    short.milestones.pop()
    with pytest.raises(ValueError, match="a replay needs a grid"):
        Answers.of(entries)
