"""How scores and losses went as training went on: of the best few drawn, of many to point at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd

from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.scored import sound
from stormsweep.report.style import (
    COLOURS,
    MARKERS,
    NARROW,
    PALE,
    Picture,
    legend_above,
    new_figure,
)
from stormsweep.results import facts
from stormsweep.work import identity

MOST_CURVES, MOST_LIVE = 5, 100


@dataclass(frozen=True)
class _Curve:
    """What is known of one set of hyperparameters without the number of epochs."""

    row: dict[str, Any]
    #: Columns ``fold``, ``epochs`` and the metric.
    scores: pd.DataFrame
    #: Of each epoch, mean over the folds, as far as all of them came.
    loss: list[float]

    def means(self, metric: str) -> tuple[list[float], list[float]]:
        """Return epochs and the mean score over the folds there, NaN between other folds.

        A halving scores its first milestones on some folds; their mean and that of all do not
        compare, so that no line may join them.
        """
        epochs: list[float] = []
        scores: list[float] = []
        before: set[int] | None = None
        for _, own in self.scores.dropna(subset=[metric]).groupby("epochs"):
            folds = set(own["fold"])
            if before is not None and folds != before:
                epochs.append(math.nan)
                scores.append(math.nan)
            epochs.append(int(own["epochs"].iloc[0]))
            scores.append(float(own[metric].mean()))
            before = folds
        return epochs, scores

    def over_some_folds(self, metric: str, folds: int) -> pd.Series[Any]:
        """Return the means that are over fewer than all folds, by epoch."""
        groups = self.scores.dropna(subset=[metric]).groupby("epochs")
        mean: pd.Series[Any] = groups[metric].mean()
        return mean[groups["fold"].nunique() < folds]


def learning_picture(material: Material) -> Picture | None:
    """Show the score at the milestones and the training loss of each epoch, for the best runs."""
    curves = _curves(material)
    if not curves:
        return None
    best = curves[:MOST_CURVES]
    complete = all(
        curve.over_some_folds(material.metric, material.study.folds).empty for curve in best
    )
    return Picture(
        "learning",
        "Learning of the best runs",
        f"Above, {material.metric_label} on the validation folds at the milestones: mean (markers) "
        "and single folds (thin lines or bars). Below, the mean training loss of each epoch, on "
        "the training folds as balanced, mean over folds. One colour for each of the best "
        f"{words.count(len(best), 'set')} of hyperparameters."
        + ("" if complete else " Hollow markers: not all folds are scored.")
        + (" Means over other folds are not joined." if _parted(material, best) else ""),
        _drawn(material, best),
        _data(material, best),
        lambda: _live(material, curves),
    )


def _parted(material: Material, curves: list[_Curve]) -> bool:
    """Tell whether any mean is over other folds than the one before."""
    return any(math.isnan(each) for curve in curves for each in curve.means(material.metric)[0])


def _curves(material: Material) -> list[_Curve]:
    """Return the best sets of hyperparameters, each once, the best first."""
    runs_of: dict[str, list[str]] = {}
    for run, plan in facts.planned_runs(material.entries).items():
        runs_of.setdefault(identity(plan.hyperparameters), []).append(run)
    losses = _losses(material)
    rows: dict[str, dict[str, Any]] = {}
    for known in sound(material).to_dict("records"):
        point = dict(material.points[known["configuration"]])
        point.pop("epochs")
        rows.setdefault(identity(point), {str(column): value for column, value in known.items()})
        if len(rows) == MOST_LIVE:
            break
    wanted = [run for name in rows for run in runs_of[name]]
    fits = material.fits[material.fits["run"].isin(wanted)]
    by_run = {str(run): own for run, own in fits.groupby("run", sort=False)}
    curves = []
    for name, row in rows.items():
        runs = runs_of[name]
        scores = pd.concat([by_run[run] for run in runs if run in by_run])
        own = [losses[run] for run in runs if losses.get(run)]
        length = min(map(len, own), default=0)
        mean = np.mean([loss[:length] for loss in own], axis=0).tolist() if length else []
        curves.append(_Curve(row, scores[["fold", "epochs", material.metric]], mean))
    return curves


def _losses(material: Material) -> dict[str, list[float]]:
    """Return the training loss of every epoch of each run, as far as it is known from the first."""
    losses: dict[str, list[float]] = {}
    for task in sorted(material.done, key=lambda done: done.from_epoch):
        if len(losses.setdefault(task.run, [])) == task.from_epoch:
            losses[task.run] += task.epoch_loss
    return losses


def _varied(material: Material) -> list[str]:
    return [name for name in material.columns if name in material.varied and name != "epochs"]


def _in_words(material: Material, curve: _Curve) -> str:
    values = (words.brief(curve.row[material.columns[name]]) for name in _varied(material))
    return words.short(" · ".join(values), 42)


def _legend_title(material: Material) -> str:
    title = " · ".join(words.label(name) for name in _varied(material))
    return words.capital(words.short(title, 52))


def _data(material: Material, curves: list[_Curve]) -> pd.DataFrame:
    columns = [column for name, column in material.columns.items() if name != "epochs"]
    parts = []
    for curve in curves:
        epochs = np.arange(1, len(curve.loss) + 1)
        for part in (curve.scores, pd.DataFrame({"epochs": epochs, "training_loss": curve.loss})):
            parts.append(part.assign(**{column: curve.row[column] for column in columns}))
    order = [*columns, "fold", "epochs", material.metric, "training_loss"]
    return pd.concat(parts, ignore_index=True).reindex(columns=order)


def _drawn(material: Material, curves: list[_Curve]) -> Any:
    figure = new_figure(NARROW, 3.3, material.synthetic_note)
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=(1.3, 1))
    handles, texts = [], []
    last = 0
    for index, curve in enumerate(curves):
        style: dict[str, Any] = {"color": COLOURS[index], "marker": MARKERS[index]}
        for _, fold in curve.scores.groupby("fold"):
            thin = {"marker": "_", "ls": ""} if len(fold) == 1 else {"lw": 0.6}
            top.plot(fold["epochs"], fold[material.metric], color=COLOURS[index], alpha=0.5, **thin)
        top.plot(*curve.means(material.metric), **style)
        some = curve.over_some_folds(material.metric, material.study.folds)
        top.plot(some.index, some, **style, mfc="white", ls="")
        # No line can be seen of one epoch.
        dot = {"marker": MARKERS[index]} if len(curve.loss) == 1 else {}
        low.plot(np.arange(1, len(curve.loss) + 1), curve.loss, color=COLOURS[index], **dot)
        last = max(last, len(curve.loss), int(curve.scores["epochs"].max()))
        handles.append(mpl.lines.Line2D([], [], **style))
        texts.append(_in_words(material, curve))
    top.set_ylabel(words.capital(material.metric_label))
    low.set(ylabel="Training loss", xlabel="Epoch")
    low.set_xlim(0, last + 0.03 * last)
    low.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
    figure.align_ylabels([top, low])
    if _varied(material):
        legend_above(figure, handles, texts, _legend_title(material))
    return figure


def _live(material: Material, curves: list[_Curve]) -> Any:
    """Return scores and losses of many sets, the best few in colour."""
    from bokeh.models import Range1d
    from bokeh.transform import linear_cmap

    from stormsweep.report import live

    means = [curve.means(material.metric) for curve in curves]
    last = max(int(np.nanmax(epochs)) for epochs, _ in means)
    told, said = live.facts(
        pd.DataFrame([curve.row for curve in curves]),
        {name: material.columns[name] for name in _varied(material)},
    )
    told["rank"] = [int(curve.row["rank"]) for curve in curves]
    # The best are drawn last, above the others.
    told["code"] = [min(place, MOST_CURVES) for place in range(len(curves))]
    palette = [colour.lower() for colour in (*COLOURS[:MOST_CURVES], PALE)]
    colours = linear_cmap("code", palette, -0.5, MOST_CURVES + 0.5)
    shared = Range1d(0, 1.03 * last)
    panels: list[Any] = []
    shown: list[tuple[str, list[list[float]], list[list[float]]]] = [
        (
            words.capital(material.metric_label),
            [epochs for epochs, _ in means],
            [[round(score, 5) for score in scores] for _, scores in means],
        ),
        (
            "Training loss",
            [[*range(1, len(curve.loss) + 1)] for curve in curves],
            [[round(loss, 5) for loss in curve.loss] for curve in curves],
        ),
    ]
    for title, xs, ys in shown:
        plot = live.canvas(320, "Epoch", title, material.synthetic_note, x_range=shared)
        columns: dict[str, Any] = {"xs": xs, "ys": ys, **told}
        source = live.source(**{name: values[::-1] for name, values in columns.items()})
        lines = plot.multi_line(
            "xs", "ys", source=source, line_color=colours, line_width=2, hover_line_width=4
        )
        tips = [*said, ("best of it ranks", "@{rank}")]
        # Of losses only those of a single epoch: the others have lines.
        places = [n for n, own in enumerate(xs) if not panels or len(own) == 1]
        dots = {
            "x": [x for n in places for x in xs[n] if not math.isnan(x)],
            "y": [
                y for n in places for x, y in zip(xs[n], ys[n], strict=True) if not math.isnan(x)
            ],
            "code": [told["code"][n] for n in places for x in xs[n] if not math.isnan(x)],
        }
        plot.scatter("x", "y", source=live.source(**dots), color=colours, size=5)
        live.tools(plot, "both", [live.hover(tips, [lines], line_policy="nearest")])
        panels.append(plot)
    keys = [
        live.Key(COLOURS[place].lower(), _in_words(material, curve))
        for place, curve in enumerate(curves[:MOST_CURVES])
    ]
    heights = [y for _, scores in means for y in scores if not math.isnan(y)]
    margin = 0.06 * (max(heights) - min(heights)) or 0.02
    panels[0].y_range = Range1d(min(heights) - margin, max(heights) + margin)
    many = "all" if len(curves) < MOST_LIVE else f"the best {MOST_LIVE}"
    return live.Live(
        panels,
        f"{words.capital(material.metric_label)} at the milestones, mean over the validation "
        "folds, and the mean training loss of each epoch, on the training folds as balanced, of "
        f"{many} sets of hyperparameters; the best {min(MOST_CURVES, len(curves))} in colour."
        + (" Means over other folds are not joined." if _parted(material, curves) else ""),
        wide=False,
        keys=keys if _varied(material) else [],
        what=_legend_title(material),
    )
