"""Figures of a comparison's scores: over the grid, and their differences to the baseline."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd

from stormsweep.report import words
from stormsweep.report.axes import MOST_FIGURES, MOST_LINES, MOST_STEPS, Scale, places, scale_for
from stormsweep.report.style import (
    BLUE,
    COLOURS,
    GREY,
    MARKERS,
    NARROW,
    RED,
    WIDE,
    Picture,
    legend_above,
    new_figure,
)
from stormsweep.scaling.comparison import Comparison

#: So many differences are drawn; all are in the table.
MOST_DIFFERENCES = 36
#: From so many studies on, each learning rate (or whatever makes the lines) has a panel of its own.
MOST_OVERLAID = 2


def note(found: Comparison) -> str:
    """Return what stands at the foot of every figure where data are synthetic."""
    made = [side.label for side in found.sides if side.synthetic]
    if not made:
        return ""
    return "synthetic data" + (
        "" if len(made) == len(found.sides) else f": {words.short(', '.join(made), 60)}"
    )


def line_style(place: int) -> dict[str, Any]:
    """Return colour and marker of a line by its place."""
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def score_pictures(found: Comparison) -> list[Picture]:
    """Show the score over the grid as in 2019, the studies over each other.

    One line for each learning rate, one figure for each number of epochs, standard deviations
    beneath.
    """
    table = found.scores[np.isfinite(found.scores["mean"].to_numpy(dtype=float))]
    if table.empty:
        return []
    varied = [name for name in found.common if len(_distinct(table[name])) > 1]
    epochs = sorted(int(value) for value in table["epochs"].unique())
    x = found.x if found.x in varied else varied[0] if varied else "epochs"
    if x == "epochs":
        if len(epochs) == 1:
            return []
        epochs = []
    scale = scale_for(x, table[x])
    if len(scale.values) > MOST_STEPS or len(epochs) > MOST_FIGURES:
        return []
    rest = [name for name in varied if name != x]
    few = [name for name in rest if len(_distinct(table[name])) <= MOST_LINES]
    lines = "learning_rate" if "learning_rate" in few else few[0] if few else ""
    others = [name for name in rest if name != lines]
    # The best over what is not drawn, as in a study's own report.
    chosen = table.sort_values("mean", ascending=not found.higher, kind="stable")
    chosen = chosen[
        ~_hashable(chosen[["study", *{x, *([lines] if lines else []), "epochs"}]]).duplicated()
    ]
    made = []
    every: list[int | None] = [*epochs] or [None]
    for number in every:
        part = chosen if number is None else chosen[chosen["epochs"] == number]
        made.append(_score_picture(found, chosen, part, scale, lines, others, number, len(epochs)))
    return made


def _score_picture(
    found: Comparison,
    whole: pd.DataFrame,
    part: pd.DataFrame,
    scale: Scale,
    lines: str,
    others: list[str],
    epochs: int | None,
    figures: int,
) -> Picture:
    values: list[Any] = sorted(_hashable(whole[lines]).unique().tolist()) if lines else [None]
    studies = [side.label for side in found.sides]
    apart = len(studies) > MOST_OVERLAID and lines != ""
    columns = values if apart else [None]
    width = WIDE if apart else NARROW
    figure = new_figure(width, 3.2 if len(studies) == 1 else 3.5, note(found))
    grid = figure.subplots(
        2, len(columns), sharex=True, sharey="row", height_ratios=(2.1, 1), squeeze=False
    )
    for column, panel in enumerate(columns):
        for value in [panel] if apart else values:
            for number, study in enumerate(studies):
                own = part[part["study"] == study]
                own = own if value is None else own[_hashable(own[lines]) == value]
                style = _score_style(number, number if apart else values.index(value), apart)
                at = np.array(places(scale, own[scale.name]))
                order = np.argsort(at, kind="stable")
                for row, what in enumerate(("mean", "sd")):
                    heights = own[what].to_numpy(dtype=float)
                    line = "" if scale.kind == "steps" else style["linestyle"]
                    grid[row][column].plot(
                        at[order], heights[order], **{**style, "linestyle": line}
                    )
        if apart:
            title = f"{words.capital(words.label(lines))} {words.value(panel)}"
            grid[0][column].set_title(title, loc="left")
        scale.apply(grid[0][column], label=False)
        scale.apply(grid[1][column])
        grid[0][column].tick_params(labelbottom=False)
    _limits(found, whole, grid)
    among = "" if epochs is None else words.point({"epochs": epochs})
    if among and figures > 1 and not apart:
        grid[0][0].set_title(words.capital(among), loc="left")
    _score_legend(figure, found, values, lines, apart, among if figures > 1 else "")
    label = words.score_label(found.score)
    heading = f"{words.capital(label)} against {words.label(scale.name)}"
    return Picture(
        f"score-{slug(scale.name)}" + (f"-epochs-{epochs}" if epochs is not None else ""),
        heading + (f", {among}" if among else ""),
        _score_caption(found, scale, lines, others, among, apart),
        figure,
        part.drop(columns=["point", "shared"]),
    )


def _score_style(study: int, colour: int, apart: bool) -> dict[str, Any]:
    style: dict[str, Any] = {**line_style(colour), "linestyle": "-"}
    if study and not apart:
        style |= {"linestyle": (0, (4, 2)), "markerfacecolor": "white"}
    return style


def _limits(found: Comparison, whole: pd.DataFrame, grid: Any) -> None:
    mean, sd = whole["mean"].to_numpy(float), whole["sd"].to_numpy(float)
    margin = 0.06 * (mean.max() - mean.min()) or 0.02
    grid[0][0].set_ylim(mean.min() - margin, mean.max() + margin)
    most = np.nanmax(sd) if np.isfinite(sd).any() else 0.0
    grid[1][0].set_ylim(0, 1.12 * most or 1.0)
    grid[0][0].set_ylabel(words.capital(words.score_label(found.score)))
    grid[1][0].set_ylabel("SD over folds")
    grid[1][0].yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, min_n_ticks=3))
    grid[0][0].figure.align_ylabels([grid[0][0], grid[1][0]])


def _score_legend(
    figure: Any, found: Comparison, values: list[Any], lines: str, apart: bool, among: str
) -> None:
    handles, texts = [], []
    studies = [side.label for side in found.sides]
    for number, study in enumerate(studies if len(studies) > 1 else []):
        style = _score_style(number, number if apart else 0, apart)
        if not apart:
            style |= {"color": "#333333", "marker": "o"}
        handles.append(mpl.lines.Line2D([], [], **style))
        texts.append(words.short(study, 40))
    if not apart and lines:
        for place, value in enumerate(values):
            handles.append(mpl.lines.Line2D([], [], **line_style(place)))
            texts.append(words.short(words.value(value), 24))
    title = words.capital(words.label(lines)) if lines and not apart else ""
    if title and len(studies) > 1:
        title = f"Study (line) and {words.label(lines)} (colour)"
    legend_above(figure, handles, texts, title or words.capital(among))


def _score_caption(
    found: Comparison, scale: Scale, lines: str, others: list[str], among: str, apart: bool
) -> str:
    text = (
        f"Mean {words.score_label(found.score)} over the validation folds against "
        f"{words.label(scale.name)}{' after ' + among if among else ''}"
    )
    if apart:
        text += f", one panel for each {words.label(lines)} and one line for each study"
    elif lines:
        text += f", one line for each {words.label(lines)}"
        text += " and study" if len(found.sides) > 1 else ""
    text += "; beneath, the standard deviation over the folds"
    if any(side.published_sd != 1 for side in found.sides):
        text += ", the published ones as published (the number of folds in the denominator"
        text += ")" if len(found.sides) == 1 else "; for one's own one less)"
    text += "."
    if others:
        names = " and ".join(words.label(name) for name in others)
        text += f" Each point is the best over {names}, and so is flattered by the choice."
    keys = {side.same_folds for side in found.sides}
    if len(found.sides) > 1 and (len(keys) > 1 or "" in keys):
        text += " The studies were not validated on the same cases."
    return text


def difference_picture(found: Comparison) -> Picture | None:
    """Show how much better than the baseline each shared configuration is, with its interval."""
    table = found.differences
    table = table[np.isfinite(table["low"].to_numpy(dtype=float))]
    studies = list(dict.fromkeys(table["study"]))
    if not studies:
        return None
    most = max(MOST_DIFFERENCES // len(studies), 1)
    names = [name for name in [*found.common, "epochs"] if len(_distinct(table[name])) > 1]
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for study in studies:
        who = [words.short(study, 20)] if len(studies) > 1 else []
        mean = found.overall[found.overall["study"] == study].iloc[0].to_dict()
        if np.isfinite(mean["low"]) and mean["configurations"] > 1:
            rows.append((" · ".join([*who, "mean of all"]), "#000000", mean))
        for row in table[table["study"] == study].head(most).to_dict("records"):
            text = " · ".join([*who, *(words.brief(row[name]) for name in names)])
            apart = row["low"] > 0 or row["high"] < 0
            rows.append((text, RED if row["beyond"] else BLUE if apart else GREY, row))
    figure = new_figure(WIDE, 0.7 + 0.2 * len(rows), note(found))
    axis = figure.subplots()
    for place, (_, colour, row) in enumerate(rows):
        marker = {"marker": "D", "ms": 5} if "configurations" in row else {"marker": "o", "ms": 4.5}
        axis.plot([row["low"], row["high"]], [place] * 2, color=colour, lw=1.5)
        axis.plot(row["difference"], place, color=colour, **marker)
    axis.axvline(0, color="#333333", lw=0.8)
    axis.set_yticks(range(len(rows)), [words.short(text, 52) for text, _, _ in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="x")
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    label = words.score_label(found.score)
    axis.set_xlabel(
        f"{words.capital(label)}: better than {words.short(found.baseline.label, 30)} by"
    )
    head = [*(["study"] if len(studies) > 1 else []), *map(words.label, names)]
    axis.set_title(words.capital(" · ".join(head)), loc="left", fontsize=8, color=GREY)
    used = {colour for _, colour, _ in rows}
    kinds = {
        "#000000": "mean over the shared configurations",
        RED: "beyond noise, all at once",
        BLUE: "only when looked at alone",
        GREY: "within noise",
    }
    legend_above(
        figure,
        [
            mpl.lines.Line2D(
                [], [], color=colour, marker="D" if colour == "#000000" else "o", lw=1.5
            )
            for colour in kinds
            if colour in used
        ],
        [text for colour, text in kinds.items() if colour in used],
    )
    left = len(table) - sum("configurations" not in row for _, _, row in rows)
    return Picture(
        "score-differences",
        f"Differences of {label}",
        f"How much better than {found.baseline.label} each configuration is (left of zero: worse), "
        "in the order of the baseline's ranks, with 95 % intervals, each by itself; variances are "
        "corrected for overlapping training sets (Nadeau and Bengio 2003). Beyond noise, all at "
        f"once: p below 0.05 after Holm's correction for {words.count(len(table), 'comparison')}."
        + (f" The other {left} are in the table." if left else ""),
        figure,
        pd.DataFrame([{"row": text} | row for text, _, row in rows]),
    )


def _hashable(table: Any) -> Any:
    """Return values as they can be counted: lists as text."""
    change = lambda value: words.value(value) if isinstance(value, list | dict) else value  # noqa: E731
    return table.map(change)


def _distinct(values: pd.Series[Any]) -> set[Any]:
    return set(_hashable(values))


def slug(name: str) -> str:
    """Return a name as files may have it."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())[:40]
