"""The tables, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stormsweep.cluster import machine


def of(found: Mapping[str, Any]) -> str:
    """Return what was found as Markdown."""
    return "\n".join(_lines(found)) + "\n"


def _equal(grids: Mapping[str, Any], together: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how far behind the best strategies are that train every trial to its end."""
    seeds = next(iter(grids.values()))["equal"][0]["seeds"]
    yield ""
    yield (
        "Strategies that train every trial to its end, at equal numbers of trials: how far the "
        f"best that was found is behind the grid's, median of {seeds} seeds (mean, most):"
    )
    yield ""
    rows = {
        (seed, row["trials"], row["name"]): row
        for seed, one in grids.items()
        for row in one["equal"]
    }
    names = list(dict.fromkeys(name for *_, name in rows))
    yield "| grid | trials | " + " | ".join(names) + " |"
    yield "| " + " | ".join(["---"] * (2 + len(names))) + " |"
    for seed, trials in dict.fromkeys((seed, trials) for seed, trials, _ in rows):
        cells = [
            f"{row['median']:.4f} ({row['mean']:.4f}, {row['most']:.4f})"
            for name in names
            if (row := rows[seed, trials, name])
        ]
        yield f"| seed {seed} | {trials} | " + " | ".join(cells) + " |"
    yield ""
    yield (
        "The searches of all grids together, against random search of the same grid, number of "
        "trials and seed:"
    )
    yield ""
    yield (
        "| strategy | trials | behind the grid's best, median (mean, most) | random search "
        "| nearer to the best than random search | further |"
    )
    yield "| " + " | ".join(["---"] * 6) + " |"
    chance = {row["trials"]: row for row in together if row["name"] == names[0]}
    for row in together:
        if row["name"] != names[0]:
            behind, at_random = (
                f"{one['median']:.4f} ({one['mean']:.4f}, {one['most']:.4f})"
                for one in (row, chance[row["trials"]])
            )
            yield (
                f"| {row['name']} | {row['trials']} | {behind} | {at_random} "
                f"| {row['ahead']:.0%} | {row['behind']:.0%} |"
            )


def _real(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what ASHA took where it was trained, not replayed."""
    yield "ASHA as a study, trained by one worker of one thread as the grids were:"
    yield ""
    yield (
        "| grid | tasks | training, of the grid's epochs | seconds of its tasks | of the grid's "
        "| behind the grid's best | fold noise |"
    )
    yield "| " + " | ".join(["---"] * 7) + " |"
    for row in rows:
        yield (
            f"| seed {row['seed']} | {row['tasks']} | {row['epochs'] / row['grid_epochs']:.1%} "
            f"| {row['seconds']:.0f} of {row['grid_seconds']:.0f} "
            f"| {row['seconds'] / row['grid_seconds']:.1%} "
            f"| {row['behind']:.4f} | {row['fold_noise']:.4f} |"
        )
    yield ""


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    grids = found["grids"]
    first = next(iter(grids.values()))["grid"]
    yield "Successive halving on grids whose full answer is known."
    yield ""
    yield (
        f"The storm CNN on the twin (`benchmarks/halving/study.toml`): {first['points']} "
        f"configurations of batch size, learning rate, filters and dropout, {first['folds']} folds "
        f"by run date, {' '.join(map(str, first['epochs']))} epochs, {len(grids)} "
        f"{'grid' if len(grids) == 1 else 'grids'} trained whole, each with storms, folds, initial "
        "weights and batches of its own seed."
    )
    yield "Strategies were replayed on their scores: nothing is trained twice, and since a run's"
    yield "scores do not depend on the order of the work, a replay proposes what a study would."
    yield (
        f"Each has {found['orders']} seeds a grid, that is orders of the points, reduction 3, and "
        "the random sampler; one worker unless more are named."
    )
    yield ""
    yield (
        "| grid | best ROC AUC, mean of folds | fold noise | configurations within it of the best "
        "| rank correlation of the scores at 1, 2, 4 epochs with those at 8 | trained in, s |"
    )
    yield "| " + " | ".join(["---"] * 6) + " |"
    for seed, one in grids.items():
        grid = one["grid"]
        correlations = ", ".join(f"{value:.2f}" for value in grid["rank_correlation"])
        yield (
            f"| seed {seed} | {grid['best_score']:.4f} | {grid['fold_noise']:.4f} "
            f"| {grid['within_noise_of_best']} of {grid['points']} | {correlations} "
            f"| {grid['training_seconds']:,.0f} |"
        )
    yield ""
    yield "All grids together:"
    yield ""
    yield (
        "| strategy | training, of the grid's epochs | of its seconds | behind the grid's best, "
        "median (9 of 10 below) | within fold noise | within paired noise | reached the best |"
    )
    yield "| " + " | ".join(["---"] * 7) + " |"
    for row in found["together"]:
        yield (
            f"| {row['name']} | {row['training_share']:.1%} | {row['seconds_share']:.1%} "
            f"| {row['regret'][1]:.4f} ({row['regret'][2]:.4f}) | {row['within_noise']:.0%} "
            f"| {row['within_paired']:.0%} | {row['reached_best']:.0%} |"
        )
    yield ""
    if "real" in found:
        yield from _real(found["real"])
    yield "Trials that were dropped, a search's mean:"
    yield ""
    yield (
        "| strategy | dropped | falsely: better in the end than one kept in their place "
        "| by more than the fold noise | searches that dropped the best they had |"
    )
    yield "| " + " | ".join(["---"] * 5) + " |"
    for row in found["together"]:
        if not row["name"].startswith("random"):
            yield (
                f"| {row['name']} | {row['dropped']:.1f} | {row['eliminated_falsely']:.1f} "
                f"| {row['beyond_noise']:.1f} | {row['best_dropped']:.0%} |"
            )
    yield from _equal(grids, found["equal"])
    for seed, one in grids.items() if len(grids) > 1 else ():
        yield ""
        yield f"Seed {seed}:"
        yield ""
        yield (
            "| strategy | training, of the grid's epochs | score reached, median | behind, median "
            "(most) | within fold noise | falsely dropped |"
        )
        yield "| " + " | ".join(["---"] * 6) + " |"
        for row in one["rows"]:
            yield (
                f"| {row['name']} | {row['training_share']:.1%} | {row['score']:.4f} "
                f"| {row['regret'][1]:.4f} ({row['regret'][3]:.4f}) | {row['within_noise']:.0%} "
                f"| {row['eliminated_falsely']:.1f} |"
            )
    yield ""
    yield "![Behind the grid's best against training](halving.png)"
    yield ""
    yield (
        "Fold noise: the standard error over folds of the grid's best mean. Paired noise: that of "
        "the differences between the grid's best and what was reached, fold by fold, which is less "
        "where folds are hard or easy for all. What is reached is the best mean over all folds at "
        "any milestone, for the grid, random search and halving alike; random search gets as many "
        "whole trials as the training allows, rounded up. Seconds are those of the grid's tasks, "
        f"on a machine shared with other work ({machine.processor()}): shares of epochs travel "
        "better."
    )
    yield ""
    yield from _verdict(found)
    yield ""
    yield from _care(found)
    if "note" in found:
        yield from ("", found["note"])


def _verdict(found: Mapping[str, Any]) -> Iterator[str]:
    """Say plainly whether the target is met."""
    yield "The target: the grid's best within its fold noise, for a quarter of its training."
    yield ""
    for row in found["together"]:
        if row["name"].startswith("random"):
            continue
        most = f"{row['training_share_most']:.1%}"
        cost = (
            f"{row['training_share']:.1%} of the training (at most {most}; "
            f"{row['seconds_share']:.1%} of the seconds)"
        )
        if row["target_met"] == 1:
            yield f"- {row['name']}: met in every search, for {cost}."
            continue
        word = "met" if row["target_met"] > 0.5 else "**missed**"
        yield (
            f"- {row['name']}: {word}, in {row['target_met']:.0%} of the searches, for {cost}; "
            f"{row['within_noise']:.0%} end within the noise, whatever they trained."
        )


def _care(found: Mapping[str, Any]) -> Iterator[str]:
    """Say what the figures do not show."""
    rows = {row["name"]: row for row in found["together"]}
    ours, chance = rows["ASHA"], rows["random search, the training of ASHA"]
    yield (
        "Read it with care. Few storms make the fold noise wide: with the same training, random "
        f"search ends within it in {chance['within_noise']:.0%} of the searches, too, but reaches "
        f"the grid's best in {chance['reached_best']:.0%} where ASHA does in "
        f"{ours['reached_best']:.0%}. Seconds count what every trial costs beside its epochs "
        "(building and compiling its model, scoring, checkpoints), which is much beside the short "
        "epochs of so small a twin, and little beside long ones. Halving ranks whole rungs, so "
        "that its result is the same in every order."
    )
