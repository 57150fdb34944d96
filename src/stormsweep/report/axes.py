"""Which hyperparameter goes where in a figure: decided from the study's own space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import pandas as pd

from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.style import plain_ticks

#: More distinct values than these do not go on an axis, into a legend, or on a figure each.
MOST_STEPS, MOST_LINES, MOST_FIGURES = 16, 8, 6
#: Labels of values on an axis, at most.
MOST_LABELS = 9
#: Least distance of values that have labels, as a share of the axis; and of those that have room
#: about them, as a share of what it is where they lie evenly.
_LABELS_APART, _EVEN = 0.09, 0.25
_FIRST_ON_X = ("batch_size", "learning_rate")
_FIRST_AS_LINES = ("learning_rate", "batch_size")


@dataclass(frozen=True)
class Layout:
    """How a grid of configurations is drawn.

    Attributes
    ----------
    x : str
        The hyperparameter on the horizontal axis.
    lines : str or None
        One line for each of its values.
    others : list of str
        What varies besides; each point is the best over these.
    epochs : list of int
        One figure for each number of epochs; empty where ``epochs`` is on the horizontal axis.
    """

    x: str
    lines: str | None
    others: list[str]
    epochs: list[int]


def grid_layout(material: Material) -> Layout | None:
    """Return how to draw the study as lines over a grid, or None where it is no grid.

    ``batch_size`` goes on the horizontal axis and ``learning_rate`` makes the lines, as in the 2019
    study, where the study varies them; else what it does vary, numbers first.
    """
    table, columns = material.configurations, material.columns
    steps = {
        name: table[columns[name]].nunique(dropna=False)
        for name in material.varied
        if name not in material.continuous
    }
    if len(steps) < len(material.varied) or not steps or table.empty:
        return None
    epochs = sorted(int(value) for value in table["epochs"].unique())
    names = [name for name in steps if name != "epochs"]
    if not names:
        return Layout("epochs", None, [], [])
    if len(epochs) > MOST_FIGURES:
        return None
    numeric = [name for name in names if _numeric(table[columns[name]])]
    x = _first(_FIRST_ON_X, names, [*numeric, *names])
    rest = [name for name in names if name != x]
    lines = None
    if rest:
        few = [name for name in rest if steps[name] <= MOST_LINES]
        lines = _first(_FIRST_AS_LINES, few, few) if few else None
    if steps[x] > MOST_STEPS:
        return None
    # A random draw of few points out of many leaves lines full of holes.
    shown = table[[columns[name] for name in ([x, lines] if lines else [x])]].drop_duplicates()
    if len(shown) < 0.5 * steps[x] * (steps[lines] if lines else 1):
        return None
    return Layout(x, lines, [name for name in rest if name != lines], epochs)


def _numeric(series: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series)


def _first(wanted: Sequence[str], allowed: list[str], otherwise: list[str]) -> str:
    return next((name for name in wanted if name in allowed), otherwise[0])


@dataclass(frozen=True)
class Scale:
    """Where the values of a hyperparameter lie on an axis.

    Attributes
    ----------
    values : list
        The distinct values, in order.
    kind : str
        ``log2``, ``log``, ``linear``, or ``steps`` for what is no number.
    ranged : bool
        Whether the values are drawn from a range, not listed.
    """

    name: str
    values: list[Any]
    kind: str
    ranged: bool = False

    def place(self, given: Any) -> float:
        """Return the coordinate of a value."""
        return float(self.values.index(given)) if self.kind == "steps" else float(given)

    @property
    def by_value(self) -> bool:
        """Whether each value stands for itself: one of a list, or of a range with room about it."""
        if len(self.values) > MOST_STEPS:
            return False
        apart = not self.ranged or self._least_gap() * (len(self.values) - 1) >= _EVEN
        return self.kind == "steps" or apart

    @property
    def labelled(self) -> bool:
        """Whether every value has its label: few do, whose labels keep clear of each other."""
        clear = self.kind == "steps" or self._least_gap() >= _LABELS_APART
        return len(self.values) <= MOST_LABELS and clear

    def _least_gap(self) -> float:
        """Return the least distance of two values, as a share of the axis; 1 of a single one."""
        at = [math.log(v) if self.kind in ("log", "log2") else float(v) for v in self.values]
        return min((b - a for a, b in itertools.pairwise(at)), default=1.0) / (at[-1] - at[0] or 1)

    def apply(self, axes: Any, label: bool = True) -> None:
        """Set the horizontal axis of `axes`: scale, limits, ticks and label."""
        places = [self.place(value) for value in self.values]
        if self.kind in ("log2", "log"):
            axes.set_xscale("log", base=2 if self.kind == "log2" else 10)
            low, high = math.log(min(places)), math.log(max(places))
            margin = 0.06 * (high - low) or 0.5
            axes.set_xlim(math.exp(low - margin), math.exp(high + margin))
        else:
            margin = 0.06 * (max(places) - min(places)) or 0.5
            axes.set_xlim(min(places) - max(margin, 0.5 * (self.kind == "steps")), 0)
            axes.set_xlim(right=max(places) + max(margin, 0.5 * (self.kind == "steps")))
        if self.labelled:
            texts = [words.short(words.value(value), 16) for value in self.values]
            plain_ticks(axes.xaxis, places, texts)
            self._tilt(axes, texts)
        elif self.kind == "steps":
            step = math.ceil(len(places) / MOST_LABELS)
            texts = [words.short(words.value(value), 16) for value in self.values[::step]]
            plain_ticks(axes.xaxis, places[::step], texts)
            self._tilt(axes, texts)
        elif self.kind in ("log2", "log"):
            powers = self.log_ticks()
            plain_ticks(axes.xaxis, powers, [f"{value:.6g}" for value in powers])
        else:
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
            axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        if label:
            text = words.capital(words.short(words.label(self.name), 40))
            log = {"log2": " (log₂ scale)", "log": " (log scale)"}.get(self.kind, "")
            axes.set_xlabel(text + log)

    def _tilt(self, axes: Any, texts: list[str]) -> None:
        width = axes.figure.get_figwidth() / axes.get_gridspec().ncols - 0.7
        if sum(map(len, texts)) * 0.066 + 0.07 * len(texts) > width:
            axes.tick_params(axis="x", labelrotation=40)
            for text in axes.get_xticklabels():
                text.set(ha="right", rotation_mode="anchor")

    def log_ticks(self) -> list[float]:
        """Return where a logarithmic axis of many values has its ticks."""
        low, high = float(min(self.values)), float(max(self.values))
        base = 2 if self.kind == "log2" else 10
        first, last = math.ceil(math.log(low, base) - 1e-9), math.floor(math.log(high, base) + 1e-9)
        powers = [float(base) ** power for power in range(first, last + 1)]
        if base == 10 and len(powers) < 3:
            powers = [m * 10.0**p for p in range(first - 1, last + 1) for m in (1, 2, 5)]
            powers = [value for value in powers if low * 0.9 <= value <= high * 1.1]
        # Long labels need the room of two.
        most = 6 if max((len(f"{value:.6g}") for value in powers), default=0) <= 5 else 4
        return powers[:: math.ceil(len(powers) / most) or 1]


def scale_of(material: Material, name: str, values: pd.Series[Any]) -> Scale:
    """Return the scale on which the values of a hyperparameter are best seen."""
    return scale_for(name, values, material.study.space.get(name))


def scale_for(name: str, values: pd.Series[Any], declared: Any = None) -> Scale:
    """Return the scale for values, where need be by what the study's space says of them."""
    present = values.dropna()
    if not _numeric(values) or len(present) < len(values):
        return Scale(name, _steps(declared, [words.value(value) for value in values]), "steps")
    distinct = sorted(present.unique().tolist())
    ranged = isinstance(declared, dict)
    log = ranged and bool(declared.get("log"))
    if min(distinct) > 0:
        if name == "batch_size" or _powers_of_two(distinct):
            return Scale(name, distinct, "log2" if len(distinct) > 1 else "linear", ranged)
        if log or max(distinct) / min(distinct) >= 8:
            return Scale(name, distinct, "log", ranged)
    return Scale(name, distinct, "linear", ranged)


def places(scale: Scale, values: pd.Series[Any]) -> list[float]:
    """Return the coordinates of values on a scale."""
    if scale.kind == "steps":
        return [scale.place(words.value(value)) for value in values]
    return [scale.place(value) for value in values]


def _steps(declared: Any, shown: list[str]) -> list[str]:
    """Return the distinct values in the order of the study file; others follow, sorted."""
    order = [words.value(value) for value in declared] if isinstance(declared, list) else []
    known = set(shown)
    return [*(text for text in order if text in known), *sorted(known - set(order))]


def _powers_of_two(values: list[Any]) -> bool:
    return len(values) > 2 and all(v >= 1 and float(v) == 2 ** round(math.log2(v)) for v in values)
