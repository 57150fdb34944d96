"""What mattered: the importance of hyperparameters, and what cannot be told from the best."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.patches
import numpy as np
import pandas as pd

from stormsweep.report import words
from stormsweep.report.hindsight import hindsight_table, hindsight_words
from stormsweep.report.interactions import interaction_picture
from stormsweep.report.material import Material
from stormsweep.report.parts import Cell, Part, Table, gather
from stormsweep.report.style import BLUE, PALE, RED, Picture, legend_above, new_figure
from stormsweep.results.contenders import LEAST_FOR_USUAL
from stormsweep.results.importance import MORE

#: Effects that are drawn, and configurations that the page lists; the files have all.
MOST_EFFECTS, MOST_CONTENDERS = 12, 30


def section(material: Material) -> Part | None:
    """Return what stands in the section; None where a study has nothing to compare."""
    if len(material.points) < 2 or material.summary.best is None:
        return None
    pictures = gather(material, importance_picture, interaction_picture)
    made = importance_table(material), contender_table(material), hindsight_table(material)
    texts = importance_words(material), contest_words(material), hindsight_words(material)
    tables = [table for table in made if table]
    return Part([text for some in texts for text in some], pictures, tables)


def effect_label(effect: str, first: str, second: str) -> str:
    """Return what an effect is called."""
    if not first:
        return words.capital(MORE)
    text = words.short(words.label(first), 28)
    if second:
        text += f" {words.TIMES} {words.short(words.label(second), 28)}"
    return words.capital(text)


def importance_words(material: Material) -> list[str]:
    """Say how much each hyperparameter mattered, and how far that can be trusted."""
    found = material.importance
    if found.needed:
        return [f"Importance of hyperparameters: {found.needed}."]
    table = found.effects
    sure = table[table["beyond_noise"] & (table["first"] != "")]
    count = words.number(found.configurations)
    whole = (
        f"all {count} configurations"
        if found.configurations == found.planned
        else f"{count} of {words.number(found.planned)} configurations planned"
    )
    texts = []
    if sure.empty:
        texts.append(
            "No hyperparameter is distinguishable from noise: with so few folds and "
            "configurations, differences like these come by chance."
        )
    else:
        row = sure.iloc[0].to_dict()
        name = effect_label(row["effect"], row["first"], row["second"])
        beside = "" if row["second"] else " on its own"
        texts.append(
            f"{name} mattered most: it explains{beside} {words.percent(row['share'])} of the "
            f"variance of {material.metric_label} over the space (95 % interval "
            f"{words.percent(row['low'])} to {words.percent(row['high'])})."
        )
    if found.method == "grid":
        texts[0] += f" Split exactly, of {whole}, which are a whole grid."
    else:
        texts[0] += (
            f" By a forest that learned the score from {whole}; it foretells "
            f"{words.percent(max(found.fit, 0.0))} of the variance of those it has not seen."
        )
        if found.filled:
            texts[0] += (
                f" {words.count(found.filled, 'score')} of trials that were stopped early are "
                "filled in with what others gained, or epochs would explain what their choice does."
            )
    if math.isfinite(found.fold_noise):
        texts[0] += (
            f" {words.percent(found.fold_noise, 1)} of the variance is chance of the "
            f"{words.count(found.folds, 'fold')}, about."
        )
    return texts


def contest_words(material: Material) -> list[str]:
    """Say how the best compares with the second, and name the cheapest that is as good."""
    table, label = material.contest, material.metric_label
    if len(table) < 2:
        return []
    second = table.iloc[1]
    if not math.isfinite(second["p"]):
        return []
    folds = material.study.folds
    gap = words.score(second["difference"])
    low, high = words.score(second["low"]), words.score(second["high"])
    text = (
        f"The best is better than the second by {gap} in {label} (95 % interval {low} to {high}, "
        f"p = {chance(second['p'])}, paired over {words.count(folds, 'fold')} and corrected for "
        "training sets that overlap). "
    )
    if folds < 5:
        half = words.score((second["high"] - second["low"]) / 2)
        text += (
            f"With {words.count(folds, 'fold')} that test is weak: it sees no difference below "
            f"{half}, so that none is seen does not mean that there is none. "
        )
    alike, cheapest = table[table["contender"]], table[table["cheapest"]].iloc[0]
    count = words.number(len(table) - 1)
    if len(alike) == 1:
        text += f"All {count} others can be told from the best, all comparisons counted."
        return [text]
    best = table.iloc[0]
    text += (
        f"{words.count(len(alike) - 1, 'other')} of {count} cannot be told from the best, all "
        "comparisons counted. "
    )
    if cheapest["configuration"] == best["configuration"]:
        return [text + "The best is also the cheapest of them."]
    share = cheapest["seconds"] / best["seconds"] if best["seconds"] > 0 else math.nan
    name = material.in_words(str(cheapest["configuration"]))
    return [
        f"{text}The cheapest of them is {name}: {label} "
        f"{words.score(cheapest[f'{material.metric}_mean'])}, in {words.percent(share)} of the "
        "best one's time."
    ]


def chance(p: float) -> str:
    """Return a p-value as papers write it.

    Examples
    --------
    >>> chance(0.0312), chance(0.00002)
    ('0.031', 'below 0.001')
    """
    if not math.isfinite(p):
        return words.NOTHING
    return f"{p:.2g}" if p >= 0.001 else "below 0.001"


def importance_picture(material: Material) -> Picture | None:
    """Show the share of each effect with its interval, beside what noise would have."""
    table = material.importance.effects.head(MOST_EFFECTS)
    if len(table) < 2:
        return None
    figure = new_figure(5.4, 0.24 * len(table) + 0.6, material.synthetic_note)
    axis = figure.subplots()
    at = np.arange(len(table))
    sure = table["beyond_noise"].to_numpy(dtype=bool)
    share = 100 * table["share"].to_numpy(dtype=float)
    axis.barh(at, share, 0.62, color=[BLUE if one else PALE for one in sure], lw=0)
    low, high = (100 * table[end].to_numpy(dtype=float) for end in ("low", "high"))
    axis.hlines(at, low, high, color="#222222", lw=1.1)
    noise = 100 * table["noise"].to_numpy(dtype=float)
    axis.plot(noise, at, "|", color=RED, ms=9, mew=1.4)
    labels = [effect_label(*row) for row in table[["effect", "first", "second"]].to_numpy()]
    axis.set_yticks(at, labels)
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.set_xlim(0, max(float(high.max()), float(np.nanmax(noise))) * 1.04)
    axis.grid(axis="x")
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(f"Share of the variance of {material.metric_label}, %")
    patch, line = mpl.patches.Patch, mpl.lines.Line2D
    handles: list[Any] = [patch(color=BLUE, lw=0)] if sure.any() else []
    texts = ["beyond noise"] if sure.any() else []
    if not sure.all():
        handles.append(patch(color=PALE, lw=0))
        texts.append("not distinguishable from noise")
    handles += [line([], [], color="#222222", lw=1.1)]
    handles += [line([], [], ls="", color=RED, marker="|", ms=8, mew=1.4)]
    legend_above(figure, handles, [*texts, "95 % interval", "by chance"])
    more = len(material.importance.effects) - len(table)
    return Picture(
        "importance",
        "What mattered",
        f"Share of the variance of the mean {material.metric_label} over the space that belongs "
        "to each hyperparameter on its own, and to two together beyond that "
        f"({words.TIMES}); what chance alone would have on average is marked."
        + (f" {words.count(more, 'more effect')} not shown." if more else ""),
        figure,
        material.importance.effects,
    )


def importance_table(material: Material) -> Table | None:
    """Return the effects as a table; None where there are none."""
    found = material.importance
    if found.effects.empty:
        return None
    rows: list[list[str]] = []
    for row in found.effects.head(4 * MOST_EFFECTS).to_dict("records"):
        low, high = words.percent(row["low"], 1), words.percent(row["high"], 1)
        remark = "beyond noise" if row["beyond_noise"] else "not distinguishable from noise"
        rows.append(
            [
                effect_label(row["effect"], row["first"], row["second"]),
                Cell(words.percent(row["share"], 1), row["share"]),
                Cell(f"{low} to {high}", row["low"]),
                Cell(words.percent(row["noise"], 1), row["noise"]),
                remark,
            ]
        )
    how = (
        "Intervals leave out one fold at a time"
        if found.method == "grid"
        else "Intervals come of forests on halves of the configurations and folds drawn anew"
    )
    return Table(
        "importance",
        "Importance of hyperparameters",
        ["Hyperparameter", "Share of variance", "95 % interval", "By chance", "Remark"],
        rows,
        f"{how}. The shares tell of this space only: wider ranges would explain more. A "
        "hyperparameter that matters little here may matter elsewhere.",
        frame=found.effects,
    )


def contender_table(material: Material) -> Table | None:
    """Return the best and what cannot be told from it."""
    table = material.contest
    alike = table[table["contender"]]
    if len(alike) < 2 or not np.isfinite(table["p"].iloc[1]):
        return None
    names = [name for name in material.columns if name in material.varied]
    header = ["Rank", *(words.capital(words.label(name)) for name in names)]
    header += [words.capital(material.metric_label), "Best is better by", "95 % interval"]
    header += ["p, adjusted", "Time of its tasks"]
    rows: list[list[str]] = []
    for row in _listed(alike).to_dict("records"):
        first = math.isnan(row["p"])
        cells: list[str] = [str(row["rank"])]
        cells += [words.short(words.value(row[material.columns[name]]), 32) for name in names]
        cells.append(words.score(row[f"{material.metric}_mean"]))
        ends = f"{words.score(row['low'])} to {words.score(row['high'])}"
        cells.append(Cell(words.NOTHING if first else words.score(row["difference"]), row["low"]))
        cells.append(Cell(words.NOTHING if first else ends, row["low"]))
        cells.append(Cell(chance(row["p_adjusted"]), row["p_adjusted"]))
        time = words.duration(row["seconds"]) + (", the cheapest" if row["cheapest"] else "")
        cells.append(Cell(time, row["seconds"]))
        rows.append(cells)
    left, many = len(alike) - len(rows), len(table) >= LEAST_FOR_USUAL
    usual = ", steadied by the spread that is usual among the configurations (Smyth 2004)"
    return Table(
        "contenders",
        "Not told from the best",
        header,
        rows,
        "Paired t-tests over the folds, corrected for overlapping training sets (Nadeau and Bengio "
        f"2003){usual if many else ''} and adjusted for the number of comparisons (Holm 1979). "
        "The interval is of each by itself."
        + (f" {words.number(left)} more are in the CSV." if left > 0 else ""),
        frame=table,
    )


def _listed(alike: pd.DataFrame) -> pd.DataFrame:
    """Return the first of them, the cheapest among them."""
    head = alike.head(MOST_CONTENDERS)
    if head["cheapest"].any():
        return head
    return pd.concat([head, alike[alike["cheapest"]]])
