"""From the repeats of the pruned search to its page: pure functions.

A round's common score is the greatest that every tool of the round reached: the least of their
best. Who is first there is told from the times at which each had a configuration's last fold.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from table import Spread

#: Behind the common score: what initial weights and the order of batches make of one configuration.
NEAR = 0.01


@dataclass(frozen=True)
class Search:
    """One tool in one round.

    Attributes
    ----------
    tool : str
        Its name.
    round : int
        From 1.
    seconds : float
        Wall time of the whole process.
    scores : list of (float, int, int, float)
        Seconds after the start, number of the configuration, rung, mean ROC AUC over the folds.
    """

    tool: str
    round: int
    seconds: float
    scores: list[tuple[float, int, int, float]]

    @classmethod
    def of(cls, record: dict[str, Any]) -> Search:
        """Return a repeat as `pruned.json` has it."""
        began = record["began"]
        scores = [
            (time - began, point, epochs, score) for time, point, epochs, score in record["scores"]
        ]
        return cls(record["tool"], record["round"], record["seconds"], scores)

    @property
    def best(self) -> float:
        """The best score."""
        return max(score for *_, score in self.scores)

    @property
    def highest(self) -> dict[int, int]:
        """Of each configuration the highest rung."""
        found: dict[int, int] = {}
        for _, point, epochs, _ in self.scores:
            found[point] = max(epochs, found.get(point, 0))
        return found

    @property
    def training(self) -> int:
        """Epochs of one fold that were trained, over all configurations."""
        return sum(self.highest.values())

    def until(self, score: float) -> float:
        """Return the seconds until a configuration had so high a score."""
        return min(time for time, *_, found in self.scores if found >= score)


def common(searches: Sequence[Search]) -> dict[int, float]:
    """Return each round's common score."""
    rounds = {search.round for search in searches}
    return {
        number: min(search.best for search in searches if search.round == number)
        for number in rounds
    }


def page(state: dict[str, Any], labels: dict[str, str], ours: Sequence[str]) -> str:
    """Return the Markdown page of what is known.

    Parameters
    ----------
    state : dict
        ``settings``, ``data``, ``machine``, ``packages`` and ``repeats``.
    labels : dict of str to str
        Of each tool.
    ours : sequence of str
        The tools that others are compared with; the first for the ratios.
    """
    searches = [Search.of(kept) for kept in state["repeats"] if not kept["problem"]]
    problems = {kept["tool"]: kept["problem"] for kept in state["repeats"] if kept["problem"]}
    versions = {kept["tool"]: kept["version"] for kept in state["repeats"] if kept["version"]}
    # A round counts where all tools that ever ran are in it.
    tools = [name for name in labels if any(search.tool == name for search in searches)]
    whole = {
        number
        for number in {search.round for search in searches}
        if ours[0] in tools
        and {search.tool for search in searches if search.round == number} == set(tools)
    }
    counted = [search for search in searches if search.round in whole]
    size, settings = state["data"], state["settings"]
    loads = [kept["load"] for kept in state["repeats"]]
    lines = [
        "# The same pruned search by Optuna, Ray Tune and Stormsweep",
        "",
        f"Storm CNN on synthetic storms (the twin): {size['patches']:,} patches with "
        f"{size['events']:,} events, 3 folds by run date. Random search of {settings['points']} "
        "configurations (batch size, learning rate, filters), the same in the same order for all; "
        "asynchronous successive halving, reduction 3, scored at "
        f"{', '.join(map(str, settings['rungs']))} epochs.",
        f"{state['machine']}; {', '.join(state['packages'])}. Rounds: {len(whole)}, each with "
        "points of its own and each tool once, in random order; load of the machine before a "
        f"repeat {min(loads, default=0):.1f} to {max(loads, default=0):.1f}.",
        "",
        "| | whole search s | against ours | epochs trained a fold | s until the common score "
        f"| against ours | s until {NEAR} behind it | against ours | best ROC AUC |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, label in labels.items():
        label = f"{label} ({versions[name]})" if name in versions else label
        mine = [search for search in counted if search.tool == name]
        if not mine:
            lines.append(f"| {label} | {problems.get(name, 'not run')} | | | | | | | |")
            continue
        cells = [label, *_cells(mine, counted, ours[0])]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_sentences(counted, labels, ours), ""]
    lines += [
        "Median (least to greatest); ratios are taken within each round. The common score of a "
        "round is the greatest that every tool reached in it. Times are from the start of the "
        "process, imports included, to the score of the last fold; the scores of one configuration "
        "differ between tools by its initial weights and the order of batches, so that who finds "
        "a good score first is partly chance: the whole search is the steadier measure. Optuna "
        "and Ray Tune end a trial at a rung or let it go on; Stormsweep pauses all of them, and "
        "goes on with any that is among the best by then, from its checkpoint. Every score: "
        "`pruned.json`.",
        "",
    ]
    return "\n".join(lines)


def _cells(mine: Sequence[Search], everyone: Sequence[Search], base: str) -> list[str]:
    goals = common(everyone)
    theirs = {search.round: search for search in everyone if search.tool == base}
    columns: list[tuple[list[float], list[float]]] = []
    for behind in (0.0, NEAR):
        times = [search.until(goals[search.round] - behind) for search in mine]
        reference = [theirs[search.round].until(goals[search.round] - behind) for search in mine]
        columns.append((times, [a / b for a, b in zip(times, reference, strict=True)]))
    ratios = [search.seconds / theirs[search.round].seconds for search in mine]
    return [
        _text([search.seconds for search in mine], 1),
        _text(ratios, 2),
        _text([search.training for search in mine], 0),
        *(cell for times, over in columns for cell in (_text(times, 1), _text(over, 2))),
        _text([search.best for search in mine], 4),
    ]


def _sentences(
    searches: Sequence[Search], labels: dict[str, str], ours: Sequence[str]
) -> list[str]:
    """Say what the table comes to, and whether the tools' scores are those of the same networks."""
    lines = []
    for name in dict.fromkeys(search.tool for search in searches if search.tool not in ours):
        pace, whole, until, alike = [], [], [], []
        goals = common(searches)
        for search in (search for search in searches if search.tool == name):
            mine = next(s for s in searches if (s.tool, s.round) == (ours[0], search.round))
            whole.append(search.seconds / mine.seconds)
            until.append(search.until(goals[search.round]) / mine.until(goals[search.round]))
            pace.append(search.seconds / search.training / (mine.seconds / mine.training))
            alike.append(_correlation(search, mine))
        lines.append(
            f"- Against {labels[name]}: {_text(until, 2)} times as fast to the same score, "
            f"{_text(whole, 2)} times as fast through the search, {_text(pace, 2)} times for each "
            f"epoch; scores at the first rung correlate by {_text(alike, 3)}."
        )
    return lines


def _correlation(one: Search, other: Search) -> float:
    first = min(epochs for _, _, epochs, _ in one.scores)
    here, there = (
        {point: score for _, point, epochs, score in search.scores if epochs == first}
        for search in (one, other)
    )
    both = sorted(here.keys() & there.keys())
    return statistics.correlation([here[p] for p in both], [there[p] for p in both])


def _text(values: Sequence[float], digits: int) -> str:
    spread = Spread.of(values)
    return spread.text(digits) if spread else "-"
