"""Figures of the scores: over the grid, of the best configurations."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.patches
import matplotlib.ticker
import numpy as np
import pandas as pd

from stormsweep import wording
from stormsweep.report import words
from stormsweep.report.axes import Layout, Scale, grid_layout, places, scale_of
from stormsweep.report.material import Material
from stormsweep.report.scored import drawn, limits, sound
from stormsweep.report.slices import slice_picture
from stormsweep.report.style import (
    BLUE,
    COLOURS,
    GREY,
    MARKERS,
    NARROW,
    PALE,
    RED,
    WIDE,
    Picture,
    legend_above,
    new_figure,
)

MOST_BEST = 15


def score_pictures(material: Material) -> list[Picture]:
    """Return the figures of the score over the space; none where nothing is scored."""
    table = sound(material)
    if table.empty:
        return []
    if not material.varied:
        return [_fold_picture(material)]
    layout = grid_layout(material)
    if layout is None:
        return [slice_picture(material, table)]
    pictures = _grid_pictures(material, table, layout)
    if len(material.varied) > 1:
        pictures.append(slice_picture(material, table))
    return pictures


def _grid_pictures(material: Material, table: pd.DataFrame, layout: Layout) -> list[Picture]:
    """Score against `x`, one line for each value of `lines`, standard deviations beneath."""
    chosen = _best_over_others(material, table, layout)
    mean, sd = f"{material.metric}_mean", f"{material.metric}_sd"
    scale = scale_of(material, layout.x, table[material.columns[layout.x]])
    ends = limits(chosen[mean]), (0.0, _above(chosen[sd]))
    pictures = []
    every: list[int | None] = [*layout.epochs] or [None]
    for epochs in every:
        part = chosen if epochs is None else chosen[chosen["epochs"] == epochs]
        figure = new_figure(NARROW, 3.2, material.synthetic_note)
        top, low = figure.subplots(2, 1, sharex=True, height_ratios=(2.1, 1))
        handles, texts = _draw_lines(material, (top, low), part, layout, scale)
        scale.apply(top, label=False)
        scale.apply(low)
        top.tick_params(labelbottom=False)
        top.set(ylabel=words.capital(material.metric_label), ylim=ends[0])
        low.set(ylabel="SD over folds", ylim=ends[1])
        low.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, min_n_ticks=3))
        figure.align_ylabels([top, low])
        among = "" if epochs is None else words.point({"epochs": epochs})
        title = words.capital(among) if epochs is not None and len(layout.epochs) > 1 else ""
        if title:
            top.set_title(title, loc="left")
        legend = words.capital(words.short(words.label(layout.lines), 40)) if layout.lines else ""
        legend_above(figure, handles, texts, legend)
        name = f"score-{_slug(layout.x)}" + (f"-epochs-{epochs}" if epochs is not None else "")
        heading = f"{words.capital(material.metric_label)} against {words.label(layout.x)}"
        pictures.append(
            Picture(
                name,
                heading + (f", {among}" if among else ""),
                _grid_caption(material, part, layout, among),
                figure,
                drawn(material, part),
            )
        )
    return pictures


def _best_over_others(material: Material, table: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    if not layout.others:
        return table
    # The table stands in the order of the ranks: the first of each group is its best.
    axes = [material.columns[name] for name in (layout.x, layout.lines) if name]
    return table.drop_duplicates([*axes, "epochs"], keep="first")


def _draw_lines(
    material: Material, axes: tuple[Any, Any], part: pd.DataFrame, layout: Layout, scale: Scale
) -> tuple[list[Any], list[str]]:
    """Draw one line for each value of `layout.lines` into both axes; return the legend."""
    x = material.columns[layout.x]
    if layout.lines is None:
        groups: list[tuple[Any, pd.DataFrame]] = [(None, part)]
        values: list[Any] = [None]
    else:
        column = material.columns[layout.lines]
        values = sorted(material.configurations[column].unique().tolist(), key=_order)
        named = material.study.space.get(layout.lines)
        if isinstance(named, list) and values and isinstance(values[0], str):
            order_of = {words.value(value): place for place, value in enumerate(named)}
            values.sort(key=lambda value: order_of.get(words.value(value), len(named)))
        groups = [(value, part[part[column] == value]) for value in values]
    handles, texts = [], []
    for value, rows in groups:
        index = values.index(value)
        style: dict[str, Any] = {"color": COLOURS[index], "marker": MARKERS[index]}
        at = np.array(places(scale, rows[x]))
        order = np.argsort(at, kind="stable")
        for axis, kind in zip(axes, ("mean", "sd"), strict=True):
            heights = rows[f"{material.metric}_{kind}"].to_numpy(dtype=float)
            width = 0.0 if scale.kind == "steps" else 1.3 if kind == "mean" else 1.0
            axis.plot(at[order], heights[order], **style, linewidth=width)
            hollow = ~rows["complete"].to_numpy(dtype=bool)
            axis.plot(at[hollow], heights[hollow], **style, linestyle="", markerfacecolor="white")
        if value is not None:
            handles.append(mpl.lines.Line2D([], [], **style))
            texts.append(words.short(words.value(value), 24))
    return handles, texts


def _grid_caption(material: Material, part: pd.DataFrame, layout: Layout, among: str) -> str:
    study = material.study
    folds = wording.folds(study.folds, study.rounds, "validation fold", words.TIMES)
    text = (
        f"Mean {material.metric_label} over {folds} against "
        f"{words.label(layout.x)}{' after ' + among if among else ''}"
    )
    if layout.lines:
        text += f", one line for each {words.label(layout.lines)}"
    text += "; beneath, the standard deviation over the folds."
    if layout.others:
        names = " and ".join(words.label(name) for name in layout.others)
        text += f" Each point is the best over {names}, and so is flattered by the choice."
    if not part["complete"].all():
        text += " Hollow markers: not all folds are scored."
    return text


def _fold_picture(material: Material) -> Picture:
    """Show the folds of the only configuration."""
    fits, row = material.fits, material.configurations.iloc[0]
    figure = new_figure(NARROW, 2.2, material.synthetic_note)
    axis = figure.subplots()
    axis.plot(fits["fold"] + 1, fits[material.metric], "o", color=BLUE, ms=6)
    mean, low, high = (float(row[f"{material.metric}_{x}"]) for x in ("mean", "low", "high"))
    handles: list[Any] = [mpl.lines.Line2D([], [], ls="", marker="o", color=BLUE, ms=6)]
    texts = ["fold"]
    axis.axhline(mean, color=GREY, linewidth=1.0)
    handles.append(mpl.lines.Line2D([], [], color=GREY, linewidth=1.0))
    texts.append("mean")
    if np.isfinite(low):
        axis.axhspan(low, high, color=PALE, alpha=0.45, linewidth=0)
        handles.append(mpl.patches.Patch(color=PALE, alpha=0.45, linewidth=0))
        texts.append("95 % interval")
    plain_folds = list(range(1, material.study.folds + 1))
    axis.set_xticks(plain_folds)
    axis.set(xlim=(0.4, plain_folds[-1] + 0.6), xlabel="Validation fold")
    axis.set_ylabel(words.capital(material.metric_label))
    legend_above(figure, handles, texts)
    return Picture(
        "score-folds",
        f"{words.capital(material.metric_label)} on each fold",
        f"The study's only configuration: {material.metric_label} on each validation fold, its "
        "mean, and the 95 % t-interval of the mean over folds.",
        figure,
        fits[["configuration", "fold", material.metric]],
    )


def best_picture(material: Material) -> Picture | None:
    """Show the best configurations side by side: folds, mean and interval."""
    table = sound(material).head(MOST_BEST)
    if len(table) < 2:
        return None
    contest = material.contest
    apart = dict(zip(contest["configuration"], ~contest["contender"], strict=True))
    names = [name for name in material.columns if name in material.varied]
    labels = [
        words.short(" · ".join(words.brief(row[material.columns[name]]) for name in names), 48)
        for _, row in table.iterrows()
    ]
    figure = new_figure(WIDE, 0.22 * len(table) + 0.6, material.synthetic_note)
    axis = figure.subplots()
    low_shown = []
    for place, (_, row) in enumerate(table.iterrows()):
        colour = RED if apart.get(row["configuration"], False) else BLUE
        colour = colour if row["complete"] else GREY
        own = material.fits.loc[
            material.fits["configuration"] == row["configuration"], material.metric
        ]
        low, high = row[f"{material.metric}_low"], row[f"{material.metric}_high"]
        axis.plot([low, high], [place, place], color=colour, linewidth=1.2, solid_capstyle="butt")
        axis.plot(own, [place] * len(own), "|", color="#222222", ms=6, mew=0.9)
        face = colour if row["complete"] else "white"
        axis.plot(row[f"{material.metric}_mean"], place, "o", color=colour, mfc=face, ms=5)
        low_shown += [low, high, *own]
    axis.set_yticks(range(len(table)), labels)
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.grid(axis="x")
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(words.capital(material.metric_label))
    axis.set_xlim(limits(pd.Series(low_shown)))
    header = words.short(" · ".join(words.label(name) for name in names), 90)
    axis.set_title(words.capital(header), loc="left", fontsize=8, color=GREY)
    kinds = [(BLUE, BLUE, "not told apart from the best")] if table["complete"].any() else []
    if any(apart.get(name, False) for name in table["configuration"]):
        kinds.append((RED, RED, "differs from the best"))
    if not table["complete"].all():
        kinds.append((GREY, "white", "not all folds scored"))
    handles = [
        mpl.lines.Line2D([], [], color=line, mfc=face, marker="o", ms=5) for line, face, _ in kinds
    ]
    handles.append(mpl.lines.Line2D([], [], ls="", color="#222222", marker="|", ms=6))
    texts = [*(text for _, _, text in kinds), "fold"]
    legend_above(figure, handles, texts)
    return Picture(
        "best-configurations",
        f"The best {len(table)} configurations",
        f"Mean {material.metric_label} with its 95 % t-interval over folds, and the folds "
        f"themselves, the best on top. Configurations are named by {header}. All of them "
        "were validated on the same cases, so intervals that overlap do not rule out a difference: "
        "the colour tells the paired comparison, with the number of comparisons counted.",
        figure,
        drawn(material, table)
        .assign(differs=[apart.get(name, False) for name in table["configuration"]])
        .merge(_by_fold(material, table["configuration"]), on="configuration"),
    )


def _by_fold(material: Material, names: pd.Series[Any]) -> pd.DataFrame:
    """Return one row a configuration with its score on each fold."""
    own = material.fits[material.fits["configuration"].isin(names)]
    paired = own.pivot_table(index="configuration", columns="fold", values=material.metric)
    paired.columns = [f"{material.metric}_fold_{int(fold) + 1}" for fold in paired.columns]
    return paired.reset_index()


def _above(values: pd.Series[Any]) -> float:
    finite = values[np.isfinite(values.to_numpy(dtype=float))].astype(float)
    return float(finite.max()) * 1.12 if len(finite) and finite.max() > 0 else 1.0


def _order(value: Any) -> tuple[int, Any]:
    missing = value is None or value != value
    return (2, "") if missing else (0, value) if isinstance(value, int | float) else (1, str(value))


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())[:40]
