"""What each strategy does on a grid that was trained whole, in many orders of its points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stormsweep.config.study import SearchTable
from stormsweep.records import Entry
from stormsweep.results import facts
from stormsweep.results.summary import summary
from stormsweep.scaling.replay import Answers, Replay, replay
from stormsweep.search.strategies import make
from stormsweep.search.strategies.halving import Hyperband


@dataclass(frozen=True)
class Way:
    """A row of the table: a strategy, and how many workers it has."""

    name: str
    keys: dict[str, Any]
    workers: int = 1


WAYS = [
    Way("ASHA", {"strategy": "asha"}),
    Way("ASHA, one fold first", {"strategy": "asha", "first_folds": 1}),
    Way("ASHA, reduction 4", {"strategy": "asha", "reduction": 4}),
    Way("ASHA, 16 workers", {"strategy": "asha"}, workers=16),
    Way("ASHA, one fold first, 16 workers", {"strategy": "asha", "first_folds": 1}, workers=16),
    Way("halving", {"strategy": "halving"}),
    Way("halving, one fold first", {"strategy": "halving", "first_folds": 1}),
    Way("Hyperband", {"strategy": "hyperband"}),
    Way("Hyperband, one fold first", {"strategy": "hyperband", "first_folds": 1}),
]
#: Strategies of whole trials, compared at equal numbers of them with the first, over so many seeds
#: at most.
WHOLE = ("random", "sobol", "tpe", "cma-es", "nsga2")
TRIALS, SEEDS = (12, 16, 24), 50
#: Random search gets the training that these had.
COMPARED = ("ASHA", "ASHA, one fold first")


def table(search: SearchTable, answers: Answers, orders: int) -> list[dict[str, Any]]:
    """Replay all ways with so many seeds each; return a row a way.

    Parameters
    ----------
    search : SearchTable
        ``[search]`` of the grid.
    answers : Answers
        The grid.
    orders : int
        How often, each time with the grid's points in another order.
    """
    trials = len(answers.points)
    rows = []
    for way in WAYS:
        found = []
        for seed in range(orders):
            changes = {"sampler": "random", "trials": trials, **way.keys}
            strategy = make(search.model_copy(update=changes), {}, answers.folds, seed)
            bracket = strategy.bracket if isinstance(strategy, Hyperband) else None
            found.append(replay(strategy, answers, way.workers, bracket=bracket))
        rows.append(_row(way.name, answers, found))
        if way.name in COMPARED:
            rivals = [
                at_random(search, answers, seed, one.training) for seed, one in enumerate(found)
            ]
            rows.append(_row(f"random search, the training of {way.name}", answers, rivals))
    return rows


def equal_trials(search: SearchTable, answers: Answers, seeds: int) -> list[dict[str, Any]]:
    """Replay strategies that train every trial to the end; return a row a strategy and number."""
    space = {name: values for name, values in search.space.items() if name != "epochs"}
    whole = {"epochs": answers.epochs[-1]}
    rows = []
    for trials in TRIALS:
        for name in WHOLE:
            changes = {"strategy": name, "trials": trials, "space": space}
            asked = search.model_copy(update=changes)
            regret = [
                replay(make(asked, whole, answers.folds, seed), answers).regret
                for seed in range(seeds)
            ]
            rows.append(
                {"name": name, "trials": trials, "seeds": seeds}
                | {"regrets": [round(value, 6) for value in regret]}
                | spread(regret)
            )
    return rows


def spread(regret: Sequence[float]) -> dict[str, float]:
    """Return what the table says of how far searches are behind the grid's best."""
    return {
        "median": float(np.median(regret)),
        "mean": float(np.mean(regret)),
        "most": float(np.max(regret)),
    }


def together_equal(grids: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of `equal_trials` with the searches of all grids together.

    Each is compared with random search of the same grid, number of trials and seed: in which share
    of the pairs it is ahead, and in which behind.
    """
    pooled = {
        (same[0]["trials"], same[0]["name"]): [value for row in same for value in row["regrets"]]
        for same in zip(*grids, strict=True)
    }
    rows = []
    for (trials, name), regrets in pooled.items():
        ahead = np.subtract(pooled[trials, WHOLE[0]], regrets)
        rows.append(
            {"name": name, "trials": trials, **spread(regrets)}
            | {"ahead": float(np.mean(ahead > 0)), "behind": float(np.mean(ahead < 0))}
        )
    return rows


def at_random(
    search: SearchTable, answers: Answers, seed: int, training: int | None = None
) -> Replay:
    """Replay a random search of whole trials: all epochs, all folds, scored at every milestone."""
    space = {name: values for name, values in search.space.items() if name != "epochs"}
    changes = {"strategy": "random", "trials": len(answers.points), "space": space}
    whole = {"epochs": answers.epochs[-1]}
    strategy = make(search.model_copy(update=changes), whole, answers.folds, seed)
    return replay(strategy, answers, training=training)


def random_curves(search: SearchTable, answers: Answers, orders: int) -> list[list[float]]:
    """Return how far random search is behind the grid's best after 1, 2, ... trials, by order."""
    best = float(answers.means[answers.best])
    reached = answers.means.max(axis=1)
    return [
        (best - np.maximum.accumulate(reached[list(at_random(search, answers, seed).points)]))
        .round(6)
        .tolist()
        for seed in range(orders)
    ]


def real(seed: int, answers: Answers, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return what a study of ASHA that was trained took and found, beside its grid."""
    done = facts.tasks_done(entries)
    best = summary(entries).best
    assert best is not None
    behind = float(answers.means[answers.best]) - answers.sign * best.mean
    return {
        "seed": seed,
        "tasks": len(done),
        "epochs": sum(task.to_epoch - task.from_epoch for task in done),
        "grid_epochs": answers.training,
        "seconds": sum(sum(task.phases.values()) for task in done),
        "grid_seconds": answers.training_seconds,
        "behind": behind,
        "fold_noise": answers.noise,
    }


def about(answers: Answers) -> dict[str, Any]:
    """Return what the grid's own answer is."""
    point, milestone = answers.best
    final = answers.means[:, -1]
    ranks = final.argsort().argsort()
    return {
        "points": len(answers.points),
        "epochs": list(answers.epochs),
        "folds": answers.folds,
        "training_epochs": answers.training,
        "training_seconds": answers.training_seconds,
        "best": {**answers.points[point], "epochs": answers.epochs[milestone]},
        "best_score": answers.sign * float(answers.means[answers.best]),
        "fold_noise": answers.noise,
        "within_noise_of_best": int(
            (answers.means.max(axis=1) >= answers.means[answers.best] - answers.noise).sum()
        ),
        # How far early scores tell late ones: Spearman's rank correlation with the last milestone.
        "rank_correlation": [
            float(np.corrcoef(early.argsort().argsort(), ranks)[0, 1])
            for early in answers.means.T[:-1]
        ],
        "rank_correlation_one_fold": [
            float(np.corrcoef(early.argsort().argsort(), ranks)[0, 1])
            for early in answers.merits[:, :, 0].T
        ],
    }


def _row(name: str, answers: Answers, found: Sequence[Replay]) -> dict[str, Any]:
    regrets = np.array([one.regret for one in found])
    return {
        "name": name,
        "orders": len(found),
        "training_share": _median(one.training / answers.training for one in found),
        "training_share_most": max(one.training / answers.training for one in found),
        "seconds_share": _median(one.seconds / answers.training_seconds for one in found),
        "trials": _median(len(one.points) for one in found),
        "score": answers.sign * (float(answers.means[answers.best]) - float(np.median(regrets))),
        "regret": [float(np.quantile(regrets, q)) for q in (0.1, 0.5, 0.9, 1.0)],
        "within_noise": float(np.mean([one.within_noise for one in found])),
        "within_paired": float(
            np.mean([one.regret <= _paired(answers, one.best) for one in found])
        ),
        "target_met": float(
            np.mean([one.within_noise and one.training <= answers.training / 4 for one in found])
        ),
        "reached_best": float(np.mean(regrets == 0)),
        "eliminated_falsely": _mean(_over(one, "eliminated_falsely") for one in found),
        "beyond_noise": _mean(_over(one, "beyond_noise") for one in found),
        "dropped": _mean(sum(r.trials - r.kept for r in one.rungs[:-1]) for one in found),
        "best_dropped": float(np.mean([any(r.best_dropped for r in o.rungs) for o in found])),
        "rungs": _rungs(found),
    }


def _paired(answers: Answers, reached: tuple[int, int]) -> float:
    """Return the standard error over folds of what the grid's best is ahead of another."""
    ahead = answers.merits[answers.best] - answers.merits[reached]
    return float(ahead.std(ddof=1) / np.sqrt(len(ahead)))


def _rungs(found: Sequence[Replay]) -> list[dict[str, Any]]:
    """Return means over orders, by fidelity."""
    fidelities = sorted({(rung.epochs, rung.folds) for one in found for rung in one.rungs})
    rows = []
    for fidelity in fidelities:
        there = [r for one in found for r in one.rungs if (r.epochs, r.folds) == fidelity]
        names = ("trials", "kept", "eliminated_falsely", "beyond_noise", "best_dropped")
        rows.append(
            {"epochs": fidelity[0], "folds": fidelity[1]}
            | {name: sum(getattr(rung, name) for rung in there) / len(found) for name in names}
        )
    return rows


def _over(one: Replay, name: str) -> int:
    return sum(getattr(rung, name) for rung in one.rungs)


def _median(values: Any) -> float:
    return float(np.median(list(values)))


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
