"""From repeats to the table of peers: pure functions.

Scores are compared configuration by configuration: a tool's mean over its rounds with the mean over
all repeats of the other tools that train with Keras's `fit`. Initial weights differ from repeat to
repeat, so the two differ by chance; how much is known from the scatter of those repeats.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t as student

#: Scores disagree where chance alone would make so great a difference less often than this; ten
#: tools that agree are then taken for odd once in a hundred benchmarks.
RARE = 0.001
_MIB = 1 << 20


@dataclass(frozen=True)
class Repeat:
    """One tool in one round.

    Attributes
    ----------
    tool : str
        Its name.
    round : int
        From 1.
    seconds : float
        Wall time of the whole process.
    peak_bytes : int
        Peak memory of all its processes.
    scores : dict of str to float
        Mean ROC AUC of each configuration; empty where the tool failed.
    problem : str
        Why it has no scores; empty where it has.
    version : str
        Package and version.
    """

    tool: str
    round: int
    seconds: float
    peak_bytes: int
    scores: dict[str, float]
    problem: str = ""
    version: str = ""


@dataclass(frozen=True)
class Agreement:
    """How a tool's scores compare with those of the other tools that use Keras's `fit`.

    Attributes
    ----------
    correlation : float
        Over the configurations; NaN where all scores are equal.
    mean : float
        Mean difference over the configurations.
    largest : float
        Greatest difference of one configuration, with its sign.
    chance : float
        Probability that chance alone makes a difference as striking in one of the configurations
        (Student's t, from the scatter of the other tools' repeats); NaN with fewer than three
        repeats to tell from.
    """

    correlation: float
    mean: float
    largest: float
    chance: float

    @property
    def agrees(self) -> bool | None:
        """Whether chance explains the differences; None where that cannot be told."""
        return None if math.isnan(self.chance) else self.chance >= RARE


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Return the spread; None where there are no values."""
        found = list(values)
        return cls(statistics.median(found), min(found), max(found)) if found else None

    def text(self, digits: int) -> str:
        """Return ``median (low to high)``, or the value alone where all are alike."""
        median, low, high = (f"{value:,.{digits}f}" for value in (self.median, self.low, self.high))
        return median if low == high else f"{median} ({low} to {high})"


def agreement(tool: str, repeats: Sequence[Repeat], ours: Sequence[str]) -> Agreement | None:
    """Compare the scores of a tool with those of the others.

    Parameters
    ----------
    tool : str
        Its name.
    repeats : sequence of Repeat
        Of all tools.
    ours : sequence of str
        Tools that do not train with Keras's `fit`: compared, but no reference for others.

    Returns
    -------
    Agreement or None
        None where the tool, or everybody else, has no scores.
    """
    good = [repeat for repeat in repeats if repeat.scores]
    own = [repeat.scores for repeat in good if repeat.tool == tool]
    others = [repeat.scores for repeat in good if repeat.tool not in (tool, *ours)]
    if not own or not others:
        return None
    keys = sorted(set(own[0]).intersection(*own, *others))
    mine = {key: statistics.fmean(scores[key] for scores in own) for key in keys}
    theirs = {key: statistics.fmean(scores[key] for scores in others) for key in keys}
    differences = {key: mine[key] - theirs[key] for key in keys}
    chance = math.nan
    if len(others) >= 3:
        error = math.sqrt(1 / len(own) + 1 / len(others))
        scatter = {key: statistics.stdev(scores[key] for scores in others) for key in keys}
        strangest = max(_ratio(abs(differences[key]), scatter[key] * error) for key in keys)
        one = 2 * float(student.sf(strangest, len(others) - 1))
        chance = -math.expm1(len(keys) * math.log1p(-one)) if one < 1 else 1.0
    try:
        correlation = statistics.correlation(list(mine.values()), list(theirs.values()))
    except statistics.StatisticsError:
        correlation = math.nan
    return Agreement(
        correlation,
        statistics.fmean(differences.values()),
        max(differences.values(), key=abs),
        chance,
    )


def _ratio(value: float, by: float) -> float:
    return value / by if by else (math.inf if value else 0.0)


def against(tool: str, base: str, repeats: Sequence[Repeat]) -> Spread | None:
    """Return the wall time of a tool divided by that of another in the same round."""
    times = {(repeat.tool, repeat.round): repeat.seconds for repeat in repeats if repeat.scores}
    return Spread.of(
        seconds / times[base, number]
        for (name, number), seconds in times.items()
        if name == tool and (base, number) in times
    )


def table(rows: Sequence[tuple[str, str]], repeats: Sequence[Repeat], ours: Sequence[str]) -> str:
    """Return the table in Markdown, a line a tool, and below it what it comes to.

    Parameters
    ----------
    rows : sequence of (str, str)
        Name and label of each tool, in order.
    repeats : sequence of Repeat
        All there are; of a tool that failed, its failures too.
    ours : sequence of str
        Stormsweep's two rows, the one that others are compared with first.
    """
    lines = [
        "| | wall s | against ours, float32 | against ours, bfloat16 | peak memory MiB "
        "| scores: correlation, largest difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, label in rows:
        mine = [repeat for repeat in repeats if repeat.tool == name]
        good = [repeat for repeat in mine if repeat.scores]
        version = next((repeat.version for repeat in good if repeat.version), "")
        label = f"{label} ({version})" if version else label
        if not good:
            reason = mine[-1].problem if mine else "not run"
            lines.append(f"| {label} | {reason} | | | | |")
            continue
        cells = [
            _text(Spread.of(repeat.seconds for repeat in good), 1),
            *(_text(against(name, base, repeats), 2) for base in ours),
            _text(Spread.of(repeat.peak_bytes / _MIB for repeat in good), 0),
            _scores(agreement(name, repeats, ours)),
        ]
        failed = len(mine) - len(good)
        cells[0] += f"; failed {failed} of {len(mine)}" if failed else ""
        lines.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _text(spread: Spread | None, digits: int) -> str:
    return spread.text(digits) if spread else "-"


def _scores(found: Agreement | None) -> str:
    if found is None:
        return "-"
    said = "too few repeats to judge"
    if found.agrees is not None:
        said = f"p {found.chance:.2g}" if found.agrees else f"p {found.chance:.0e}: disagrees"
    correlation = "-" if math.isnan(found.correlation) else f"{found.correlation:.3f}"
    return f"{correlation}, {found.largest:+.4f} ({said})"


def summary(
    labels: dict[str, str],
    two_processes: Sequence[str],
    repeats: Sequence[Repeat],
    ours: Sequence[str],
) -> str:
    """Return in sentences how much faster and smaller ours are, and whether scores agree.

    Parameters
    ----------
    labels : dict of str to str
        Label of each tool.
    two_processes : sequence of str
        Peers that run two processes side by side.
    repeats : sequence of Repeat
    ours : sequence of str
    """
    peers = [name for name in labels if name not in ours]
    lines = []
    for base in ours:
        spreads = {name: spread for name in peers if (spread := against(name, base, repeats))}
        if not spreads:
            continue
        name = min(spreads, key=lambda each: spreads[each].median)
        lines.append(
            f"- {labels[base]}: {spreads[name].text(2)} times as fast as the fastest peer "
            f"({labels[name]})."
        )
    memory = {
        name: spread.median
        for name in labels
        if (
            spread := Spread.of(r.peak_bytes / _MIB for r in repeats if r.tool == name and r.scores)
        )
    }
    doubles = [name for name in two_processes if name in memory and name not in ours]
    for base in ours:
        if base in memory and doubles:
            least = min(doubles, key=memory.__getitem__)
            lines.append(
                f"- {labels[base]}: peak memory {memory[base]:,.0f} MiB; the least of the peers "
                f"that run two processes {memory[least]:,.0f} MiB ({labels[least]})."
            )
    judged = {name: found for name in labels if (found := agreement(name, repeats, ours))}
    odd = [labels[name] for name, found in judged.items() if found.agrees is False]
    if odd:
        lines.append(f"- Scores that chance does not explain: {', '.join(odd)}.")
    elif judged and all(found.agrees for found in judged.values()):
        lines.append(
            "- All scores agree: chance explains how each tool's differ from those of the others "
            f"(p at least {min(found.chance for found in judged.values()):.2g})."
        )
    return "\n".join(lines) + "\n"


def key_of(configuration: dict[str, Any]) -> str:
    """Return one name for a configuration, whatever the order of its hyperparameters."""
    return ", ".join(f"{name}={configuration[name]}" for name in sorted(configuration))
