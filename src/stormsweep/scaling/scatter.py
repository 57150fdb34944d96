"""How single stretches are off what a model says: their usual scatter, and those that went astray.

A stretch that other work on the machine starves takes a hundred times as long as others like it.
Squared errors follow it, and a lognormal distribution that is wide enough to hold it foretells days
where minutes were measured. So it is set apart: the terms and the scatter are those of the others,
and what it lost is drawn as often as it was seen, in seconds. What is a few times slower stays with
the others, whose ratios are drawn as they were seen (a bootstrap: Davison and Hinkley 1997, chapter
6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stormsweep.scaling.durations import Lost
from stormsweep.scaling.terms import CLOCK, Reals, usual_of
from stormsweep.wording import duration

#: Astray is what took more than so many times as long as others like it, and lies so many standard
#: deviations (a robust one: that of the median's distances) beyond them.
_FAR, _SIGMAS = 4.0, 5.0
#: A standard deviation over the median of normal distances.
_SIGMA = 1.4826
#: Of fewer stretches nothing says what is usual, of all or of a worker.
_FEWEST = 4
#: The same of a model, and of a batch size and model: three are what a study of three folds has of
#: a configuration, and their median withstands one that went astray.
_FEWEST_ALIKE = 3
#: What runs of a bundle have in common: they go astray together, and count as one.
_ONCE = ["study", "session", "worker", "started"]
#: What goes astray in a part of a stretch must be such a share of it to count.
_MATTERS = 0.25
#: What is done at the start of a process.
_STARTING = ("open", "build", "compile")
#: Of all seconds, from which share on it is told that some were lost; and of those lost, from which
#: on a phase is named.
_TOLD, _NAMED = 0.02, 0.05
_DOING = {
    "open": "opening",
    "build": "building",
    "compile": "compiling",
    "train": "training",
    "score": "scoring",
    "checkpoint": "writing checkpoints",
    "rest": "between its phases",
}


@dataclass(frozen=True, slots=True)
class Outlier:
    """A stretch that took far longer than others like it; of a bundle all that it did together.

    Attributes
    ----------
    study, run, session, worker : str, str, int, str
        Which.
    seconds, usual : float
        What it took, and what others like it take.
    lost : dict of str to float
        Seconds beyond the usual in each phase that has any; ``rest`` is what no phase holds.
    opens : bool
        Whether it was the first of its process.
    """

    study: str
    run: str
    session: int
    worker: str
    seconds: float
    usual: float
    lost: dict[str, float]
    opens: bool

    @property
    def delay(self) -> float:
        """Seconds that it lost."""
        return max(0.0, self.seconds - self.usual)

    @property
    def starting(self) -> bool:
        """Whether it was the start of its process that took so long."""
        own = math.fsum(self.lost.get(phase, 0.0) for phase in _STARTING)
        return self.opens and own >= 0.5 * math.fsum(self.lost.values())


@dataclass(frozen=True, eq=False)
class Scatter:
    """How stretches are off what a model says.

    Attributes
    ----------
    tasks, workers : float
        Standard deviations of the logarithm, between stretches of a worker and between workers;
        those that went astray left out.
    ratios : ndarray
        What stretches took over what they should have, their workers' own pace aside: of mean 1.
    outliers : tuple of Outlier
        Those that went astray.
    starting, working : Lost
        What they lost, for every process that starts and for every task.
    stretches : int
        How many there are, with those.
    seconds : float
        Of all of them.
    """

    tasks: float
    workers: float
    ratios: Reals
    outliers: tuple[Outlier, ...]
    starting: Lost
    working: Lost
    stretches: int
    seconds: float

    def note(self, asked: str = "") -> str:
        """Return what there is to know of outliers, in one line; empty: they make no difference.

        Parameters
        ----------
        asked : str, optional
            The study that is spoken of anyway; another is named.
        """
        found = self.outliers
        if math.fsum(one.delay for one in found) <= _TOLD * self.seconds:
            return ""
        worst = max(found, key=lambda one: one.seconds)
        of = f" of {worst.study}" if worst.study != asked else ""
        who = f"run {worst.run}{of}, worker {worst.worker} of session {worst.session}"
        tasks = f"{len(found)} of {self.stretches:,} tasks"
        if len(found) == 1:
            return (
                f"{tasks} took {_brief(worst.seconds)}, {_where(found, ' of it')}, where "
                f"{_brief(worst.usual)} is usual ({who}): did other work disturb it? It is "
                "reckoned with as often as it was seen"
            )
        times = [one.seconds / max(one.usual, CLOCK) for one in found]
        return (
            f"{tasks} took {min(times):.0f} to {max(times):.0f} times as long as is usual and "
            f"{_where(found)} (the longest {_brief(worst.seconds)} instead of "
            f"{_brief(worst.usual)}: {who}): did other work disturb them? They are reckoned with "
            "as often as they were seen"
        )


def _where(found: Sequence[Outlier], of: str = "") -> str:
    """Say in which phases outliers lost most of their time, and how much."""
    sums = {
        phase: math.fsum(one.lost.get(phase, 0.0) for one in found)
        for phase in _DOING
        if any(phase in one.lost for one in found)
    }
    named = [phase for phase, lost in sums.items() if lost >= _NAMED * sum(sums.values())]
    words = [_DOING[phase] for phase in named]
    doing = " and ".join(([", ".join(words[:-1])] if words[1:] else []) + words[-1:])
    lost = _brief(sum(sums[phase] for phase in named))
    return f"{lost}{of} lost {doing}" if of else f"lost {lost} {doing}"


def _brief(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 9.95 else duration(seconds)


def astray(
    table: pd.DataFrame, told: Mapping[str, Reals], seconds: Mapping[str, Reals]
) -> NDArray[np.bool_]:
    """Return which stretches took far longer than others like them.

    They are judged by terms that such stretches hardly move, beside others of their model, of their
    batch size and model, and of their worker: one that is slow in all it does is no outlier. What
    is done once for a process is known from few stretches, of which the outlier may be one; so they
    are judged without it as well.

    Parameters
    ----------
    table : DataFrame
        From `stormsweep.scaling.observed.observations`.
    told, seconds : mapping
        What they did and took; see `stormsweep.scaling.terms`.
    """
    found = np.zeros(len(table), bool)
    if len(table) < _FEWEST:
        return found
    usual, first = usual_of(told, seconds), told["opens"] > 0
    whole = _total(seconds)
    again = {phase: ~first if phase == "compile" else phase != "open" for phase in seconds}
    counts: tuple[Mapping[str, Any], ...] = dict.fromkeys(seconds, True), again
    for counted in counts:
        took, about = (
            _total({phase: values * counted[phase] for phase, values in each.items()})
            for each in (seconds, usual)
        )
        off = np.log(np.maximum(took, CLOCK) / np.maximum(about, CLOCK))
        off, spread = _centred(off, table)
        far = off > max(math.log(_FAR), _SIGMAS * spread)
        found |= far & (took - about > _MATTERS * whole)
    return found


def _total(seconds: Mapping[str, Any]) -> Reals:
    return np.asarray(sum(seconds.values()), float)


def _centred(off: Reals, table: pd.DataFrame) -> tuple[Reals, float]:
    """Return logarithms less the median of those alike, where there are enough to know one.

    And their standard deviation, as the median of their distances says.
    """
    once = ~table.duplicated(_ONCE)
    left = pd.Series(off - np.median(off), index=table.index)
    for by, fewest in (
        # Of batch sizes from a range each may have one stretch: the model says more than nothing.
        (["parameters"], _FEWEST_ALIKE),
        (["batch_size", "parameters"], _FEWEST_ALIKE),
        (["study", "session", "worker"], _FEWEST),
    ):
        groups: Any = left.where(once).groupby([table[name] for name in by])
        left = left - groups.transform("median").where(groups.transform("count") >= fewest, 0.0)
    # The middle one of three lies at their median whatever they scatter: one of each group is not
    # counted, the nearest.
    alike = table[once].groupby(["batch_size", "parameters"]).size()
    own = float((alike >= _FEWEST_ALIKE).sum()) / float(once.sum())
    spread = float(left[once].abs().quantile((1 + own) / 2))
    return np.asarray(left, float), _SIGMA * spread


def scatter(
    table: pd.DataFrame,
    seconds: Mapping[str, Reals],
    usual: Mapping[str, Reals],
    out: NDArray[np.bool_],
) -> Scatter:
    """Return how stretches are off what a model says of them.

    Parameters
    ----------
    table : DataFrame
        From `stormsweep.scaling.observed.observations`.
    seconds, usual : mapping
        What they took and should have taken, phase by phase.
    out : ndarray of bool
        Which of them went astray.
    """
    about, took = _total(usual), table["seconds"].to_numpy(float)
    off = np.log(took / np.maximum(about, 1e-9))
    body = table[~out].reset_index(drop=True)
    tasks, workers, left = _spread(body, pd.Series(off[~out]))
    ratios = np.exp(left)
    once = ~table.duplicated(_ONCE).to_numpy(bool)
    opens = table["opens"].to_numpy(bool)
    outliers = tuple(
        _outlier(
            table.iloc[place],
            {phase: float(values[place]) for phase, values in seconds.items()},
            {phase: float(values[place]) for phase, values in usual.items()},
        )
        for place in np.flatnonzero(once & out)
    )
    return Scatter(
        tasks,
        workers,
        ratios / ratios.mean(),
        outliers,
        _lost([one.delay for one in outliers if one.starting], int((once & opens).sum())),
        _lost([one.delay for one in outliers if not one.starting], int(once.sum())),
        int(once.sum()),
        float(took.sum()),
    )


def _outlier(row: Any, took: Mapping[str, float], usual: Mapping[str, float]) -> Outlier:
    bundle = float(row["bundle"])
    more = {phase: bundle * (took[phase] - usual[phase]) for phase in took}
    return Outlier(
        str(row["study"]),
        str(row["run"]),
        int(row["session"]),
        str(row["worker"]),
        bundle * float(row["seconds"]),
        bundle * sum(usual.values()),
        {phase: seconds for phase, seconds in more.items() if seconds > 0},
        bool(row["opens"]),
    )


def _lost(seconds: list[float], of: int) -> Lost:
    return Lost(len(seconds) / of, tuple(seconds)) if seconds else Lost()


def _spread(table: pd.DataFrame, off: pd.Series) -> tuple[float, float, Reals]:
    """Return the scatter between tasks of a worker, that between workers, and the tasks' own.

    All are logarithms. The last are as far apart as the first says: what is left of a worker's
    tasks when their mean is taken off is less than what they scatter.
    """
    groups: Any = off.groupby([table["study"], table["session"], table["worker"]])
    sizes, means = groups.size().to_numpy(float), groups.mean().to_numpy(float)
    free = len(off) - len(sizes)
    if free < 1:
        return float(off.std(ddof=0)), 0.0, (off - off.mean()).to_numpy(float)
    left = (off - groups.transform("mean")).to_numpy(float)
    within = float((left**2).sum()) / free
    left = left * math.sqrt(len(off) / free)
    if len(sizes) < 2:
        return math.sqrt(within), 0.0, left
    # One-way analysis of variance, groups of unequal sizes.
    about = float(np.average(means, weights=sizes))
    mean_square = float((sizes * (means - about) ** 2).sum()) / (len(sizes) - 1)
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(sizes) - 1)
    between = math.sqrt(max(0.0, (mean_square - within) / size))
    return math.sqrt(within), between, left
