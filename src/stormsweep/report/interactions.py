"""How two hyperparameters act together: the mean score for every two values."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.colors
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stormsweep.report import words
from stormsweep.report.axes import MOST_STEPS, Scale, places, scale_of
from stormsweep.report.material import Material
from stormsweep.report.scored import sound
from stormsweep.report.style import WIDE, Picture, new_figure, plain_ticks

MOST_PAIRS, MOST_NAMES = 6, 5
#: Parts into which a range is cut, and configurations without which nothing is cut.
_PARTS, _LEAST = 5, 25
_MOST_NUMBERS = 64


@dataclass(frozen=True)
class _Cut:
    """A hyperparameter cut into its values, or into parts of its range."""

    name: str
    code: NDArray[np.int64]
    texts: list[str]


def interaction_picture(material: Material) -> Picture | None:
    """Show the mean score for every two hyperparameters, those that act together most first."""
    table = sound(material)
    if table.empty:
        return None
    cuts = [cut for name in material.varied[:MOST_NAMES] if (cut := _cut(material, table, name))]
    score = table[f"{material.metric}_mean"].to_numpy(dtype=float)
    pairs = [
        (_strength(means, counts), one, other, means, counts)
        for one, other in itertools.combinations(cuts, 2)
        for means, counts in [_means(one, other, score)]
        if (counts > 0).mean() >= 0.5
    ]
    if not pairs:
        return None
    pairs.sort(key=lambda pair: -pair[0])
    shown = pairs[:MOST_PAIRS]
    every = np.concatenate([means[counts > 0] for _, _, _, means, counts in shown])
    norm = mpl.colors.Normalize(float(every.min()), float(every.max()) + 1e-12)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(WIDE if columns > 1 else 4.2, 2.4 * rows, material.synthetic_note)
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn = None
    for axis, (_, one, other, means, counts) in zip(grid.flat, shown, strict=False):
        drawn = _draw(axis, one, other, np.where(counts > 0, means, np.nan), norm)
    for axis in grid.flat[len(shown) :]:
        axis.set_visible(False)
    bar = figure.colorbar(drawn, ax=grid, shrink=0.8, aspect=30, pad=0.015)
    bar.set_label(f"Mean {material.metric_label}")
    bar.outline.set_linewidth(0.5)
    return Picture(
        "score-interactions",
        f"{words.capital(material.metric_label)} over two hyperparameters",
        f"Each cell is the mean {material.metric_label} of all configurations with these values, "
        "or in these parts of a range. Where two hyperparameters act each on its own, every row "
        "has the same pattern; those that do so least come "
        "first. Empty: no configuration there."
        + (f" {len(pairs) - len(shown)} more pairs not shown." if len(pairs) > len(shown) else ""),
        figure,
        pd.concat([_frame(*pair[1:]) for pair in pairs], ignore_index=True),
    )


def _cut(material: Material, table: pd.DataFrame, name: str) -> _Cut | None:
    values = table[material.columns[name]]
    scale = scale_of(material, name, values)
    at = np.array(places(scale, values), dtype=float)
    if len(scale.values) <= MOST_STEPS:
        order = {scale.place(value): code for code, value in enumerate(scale.values)}
        texts = [words.short(words.value(value), 12) for value in scale.values]
        return _Cut(name, np.array([order[place] for place in at], dtype=np.int64), texts)
    if len(table) < _LEAST or scale.kind == "steps":
        return None
    edges = np.unique(np.quantile(at, np.linspace(0, 1, _PARTS + 1)))
    if len(edges) < 3:
        return None
    code = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
    texts = [f"{_plain(scale, a)} to {_plain(scale, b)}" for a, b in itertools.pairwise(edges)]
    return _Cut(name, code.astype(np.int64), texts)


def _plain(scale: Scale, value: float) -> str:
    whole = all(float(known).is_integer() for known in scale.values)
    return f"{value:.0f}" if whole else f"{value:.2g}"


def _means(one: _Cut, other: _Cut, score: Any) -> tuple[Any, Any]:
    """Return the mean score of each cell, and how many configurations it has."""
    shape = len(other.texts), len(one.texts)
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=int)
    np.add.at(sums, (other.code, one.code), score)
    np.add.at(counts, (other.code, one.code), 1)
    return sums / np.maximum(counts, 1), counts


def _strength(means: Any, counts: Any) -> float:
    """Return the variance of the cells that rows and columns on their own leave."""
    filled = np.where(counts > 0, means, means[counts > 0].mean())
    left = filled - filled.mean(axis=1, keepdims=True) - filled.mean(axis=0) + filled.mean()
    return float((left[counts > 0] ** 2).mean())


def _draw(axis: Any, one: _Cut, other: _Cut, means: Any, norm: Any) -> Any:
    # A picture keeps its colours on a dark page, on which numbers in cells could not be read.
    drawn = axis.pcolormesh(np.ma.masked_invalid(means), cmap="viridis", norm=norm, rasterized=True)
    if means.size <= _MOST_NUMBERS:
        size = 6.5 if means.shape[1] <= 4 else 5.0
        for (row, column), value in np.ndenumerate(means):
            if np.isfinite(value):
                colour = "black" if norm(value) > 0.55 else "white"
                at = column + 0.5, row + 0.5
                text = _short(value)
                axis.text(*at, text, ha="center", va="center", color=colour, fontsize=size)
    for which, cut in ((axis.xaxis, one), (axis.yaxis, other)):
        plain_ticks(which, [place + 0.5 for place in range(len(cut.texts))], cut.texts)
        which.set_label_text(words.capital(words.short(words.label(cut.name), 28)))
    if max(map(len, one.texts)) * len(one.texts) > 26:
        axis.tick_params(axis="x", labelrotation=40)
        for text in axis.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axis.tick_params(length=0, labelsize=6.5)
    axis.grid(visible=False)
    return drawn


def _short(value: float) -> str:
    """Return a number with three decimals, and without a zero that leads.

    Examples
    --------
    >>> _short(0.9412), _short(-0.05), _short(10.4123)
    ('.941', '-.050', '10.412')
    """
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}")


def _frame(one: _Cut, other: _Cut, means: Any, counts: Any) -> pd.DataFrame:
    rows, columns = np.nonzero(counts)
    return pd.DataFrame(
        {
            "first": one.name,
            "first_value": [one.texts[at] for at in columns],
            "second": other.name,
            "second_value": [other.texts[at] for at in rows],
            "configurations": counts[rows, columns],
            "mean": means[rows, columns],
        }
    )
