"""Figures of the test part: ROC, performance and attributes diagrams."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import matplotlib.lines
import matplotlib.ticker
import numpy as np
import pandas as pd

from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.style import (
    BLUE,
    GREY,
    NARROW,
    PALE,
    RED,
    Picture,
    legend_above,
    new_figure,
)
from stormsweep.report.tested import Tested
from stormsweep.study.choice import threshold_source
from stormsweep.verification import contingency, curves
from stormsweep.verification.forecasts import Forecasts

#: Lines of equal critical success index and of equal bias in the performance diagram.
_CSI = tuple(round(0.1 * step, 1) for step in range(1, 10))
_BIAS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
#: Thresholds that are marked on curves.
_MARKED = (0.1, 0.3, 0.5, 0.7, 0.9)
_SMALL = 6.5


def curve_pictures(material: Material) -> list[Picture]:
    """Return the diagrams of the test part; none before it was scored."""
    found = material.tested
    if found is None or found.forecasts is None:
        return []
    known = found.forecasts
    return [
        _roc(material, found, known),
        _performance(material, found, known),
        _attributes(material, found, known),
    ]


def _roc(material: Material, found: Tested, known: Forecasts) -> Picture:
    curve = curves.roc(known, found.weights, found.record.level)
    figure = new_figure(NARROW, 3.3, material.synthetic_note)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls=(0, (4, 3)))
    axis.fill_between(curve.band.at, curve.band.low, curve.band.high, color=BLUE, alpha=0.2, lw=0)
    axis.plot(curve.x, curve.y, color=BLUE)
    _decision(axis, found, "pofd", "pod")
    _unit_square(axis, "Probability of false detection", "Probability of detection")
    _box(axis, _with_interval(found, "roc_auc", "AUC"), 0.97, 0.05)
    _legend(figure, found, "no skill")
    return Picture(
        "verification-roc",
        "ROC curve of the test set",
        f"Probability of detection against probability of false detection over all thresholds. "
        f"{_band(found, 'the detection at equal false detection')} {_at(found)}",
        figure,
        _curve_data(curve, "pofd", "pod", "pofd", "pod"),
    )


def _curve_data(curve: curves.Curve, x: str, y: str, at: str, banded: str) -> pd.DataFrame:
    """Return the points of a curve, and of its band beneath them."""
    points = pd.DataFrame({"part": "curve", x: curve.x, y: curve.y, "threshold": curve.threshold})
    band = {"part": "band", at: curve.band.at}
    band |= {f"{banded}_low": curve.band.low, f"{banded}_high": curve.band.high}
    return pd.concat([points, pd.DataFrame(band)], ignore_index=True)


def _with_interval(found: Tested, name: str, label: str) -> str:
    value, low, high = found.record.scores[name]
    text = f"{label} {words.number(value, 3)}"
    if np.isfinite(low):
        text += f"\n({words.number(low, 3)} to {words.number(high, 3)})"
    return text


def _performance(material: Material, found: Tested, known: Forecasts) -> Picture:
    curve = curves.performance(known, found.weights, found.record.level)
    figure = new_figure(NARROW, 3.3, material.synthetic_note)
    axis = figure.subplots()
    _success_lines(axis)
    axis.fill_betweenx(curve.band.at, curve.band.low, curve.band.high, color=BLUE, alpha=0.2, lw=0)
    axis.plot(curve.x, curve.y, color=BLUE)
    marked = contingency.scores(contingency.tables(known, list(_MARKED)).total())
    for threshold, far, pod in zip(_MARKED, marked["far"], marked["pod"], strict=True):
        if np.isfinite(far) and pod > 0.02:
            axis.plot(1 - far, pod, "o", color=BLUE, ms=2.6)
            axis.annotate(
                f"{threshold:g}",
                (1 - far, pod),
                (3, 2),
                textcoords="offset points",
                fontsize=_SMALL,
                color=BLUE,
            )
    _decision(axis, found, "success", "pod")
    _unit_square(
        axis, "Success ratio (1 \N{MINUS SIGN} false alarm ratio)", "Probability of detection"
    )
    _legend(figure, found)
    return Picture(
        "verification-performance",
        "Performance diagram of the test set",
        "Probability of detection against success ratio over all thresholds (Roebber 2009); the "
        "numbers on the curve are thresholds. Curved lines: equal critical success index; dashed "
        "lines: equal frequency bias. The upper right corner is perfect. "
        f"{_band(found, 'the success ratio at equal detection')} {_at(found)}",
        figure,
        _curve_data(curve, "success_ratio", "pod", "pod", "success_ratio"),
    )


def _success_lines(axis: Any) -> None:
    """Draw lines of equal critical success index and of equal bias."""
    for index in _CSI:
        # Along either axis the line ends at the index itself; closer steps where it is steep.
        ratio = index + (1 - index) * np.linspace(0, 1, 200) ** 2
        pod = 1 / (1 / index - 1 / ratio + 1)
        axis.plot(ratio, pod, color=PALE, lw=0.7, zorder=1)
        place = 2 * index / (1 + index)
        if index < 0.85:
            axis.text(
                place,
                place,
                f"{index:g}",
                fontsize=_SMALL,
                color=GREY,
                ha="center",
                va="center",
                zorder=1.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
    for bias in _BIAS:
        axis.plot(
            [0, min(1, 1 / bias)], [0, min(1, bias)], color=PALE, lw=0.7, ls=(0, (3, 3)), zorder=1
        )
        at_top = bias > 1
        axis.annotate(
            f"{bias:g}",
            (1 / bias, 1) if at_top else (1, bias),
            (0, 2) if at_top else (2, 0),
            textcoords="offset points",
            ha="center" if at_top else "left",
            va="bottom" if at_top else "center",
            fontsize=_SMALL,
            color=GREY,
            annotation_clip=False,
        )


def _attributes(material: Material, found: Tested, known: Forecasts) -> Picture:
    curve = curves.reliability_curve(known, found.weights, level=found.record.level)
    base = curve.base_rate
    figure = new_figure(NARROW, 4.2, material.synthetic_note)
    axis, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    line = np.array([0.0, 1.0])
    edge = (line + base) / 2
    # Forecasts between the no-skill line and the vertical at the base rate, on either side of it,
    # add to the Brier skill score.
    axis.fill_between([0, base], 0, [base / 2, base], color="#EFEFEF", lw=0, zorder=0)
    axis.fill_between([base, 1], [base, (1 + base) / 2], 1, color="#EFEFEF", lw=0, zorder=0)
    axis.plot(line, edge, color=GREY, lw=0.8, ls=(0, (1, 2)))
    axis.axhline(base, color=GREY, lw=0.8, ls=(0, (4, 3)))
    axis.axvline(base, color=GREY, lw=0.8, ls=(0, (4, 3)))
    axis.plot(line, line, color="#333333", lw=0.9)
    shown = curve.cases > 0
    x, y = curve.forecast[shown], curve.frequency[shown]
    low, high = curve.low[shown], curve.high[shown]
    sure = np.isfinite(low)
    axis.vlines(x[sure], low[sure], high[sure], color=BLUE, lw=1.1, alpha=0.7)
    axis.plot(x, y, color=BLUE, marker="o", ms=4)
    axis.plot(x[~sure], y[~sure], ls="", marker="o", ms=4, color=BLUE, mfc="white")
    axis.set(xlim=(0, 1), ylim=(0, 1), ylabel="Observed frequency")
    axis.grid(visible=False)
    axis.set_aspect("equal", adjustable="box", anchor="S")
    for height, text in ((base, "no resolution"), ((1 + base) / 2, "no skill")):
        axis.annotate(
            text,
            (1, height),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=_SMALL,
            color=GREY,
            annotation_clip=False,
        )
    at, side = (base + 0.03, "left") if base < 0.5 else (base - 0.03, "right")
    _box(axis, _with_interval(found, "brier_skill_score", "BSS"), at, 0.97, side, "top")
    width = curve.edges[1] - curve.edges[0]
    counts.bar(curve.edges[:-1], curve.cases, width, align="edge", color=BLUE, alpha=0.55, lw=0)
    counts.set(yscale="log", xlabel="Forecast probability", ylabel="Forecasts", xlim=(0, 1))
    counts.set_ylim(0.6, max(10, 3 * curve.cases.max()))
    counts.yaxis.set_major_locator(mpl.ticker.LogLocator(10, numticks=4))
    counts.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: words.number(v)))
    counts.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    figure.align_ylabels([axis, counts])
    hollow = " Hollow markers: too few to tell." if (~sure).any() and sure.any() else ""
    return Picture(
        "verification-attributes",
        "Attributes diagram of the test set",
        "Observed frequency of the event against forecast probability in ten bins of equal width, "
        f"at the mean forecast of each bin{_bars(found)}; beneath, the number of forecasts in each "
        "bin. Solid line: perfect reliability; dashed lines: event frequency of the test set; "
        "dotted line: no skill against it, so that points in the shaded area add to the Brier "
        f"skill score (Hsu and Murphy 1986).{hollow}",
        figure,
        pd.DataFrame(
            {
                "bin_from": curve.edges[:-1],
                "bin_to": curve.edges[1:],
                "forecasts": curve.cases,
                "mean_forecast": curve.forecast,
                "observed_frequency": curve.frequency,
                "low": curve.low,
                "high": curve.high,
            }
        ),
    )


def _decision(axis: Any, found: Tested, x: str, y: str) -> None:
    """Mark the decision threshold on a curve."""
    scores = {name: values[0] for name, values in found.record.scores.items()}
    scores["success"] = 1 - scores["far"]
    if np.isfinite(scores[x]) and np.isfinite(scores[y]):
        axis.plot(scores[x], scores[y], "D", color=RED, ms=4.5, mec="white", mew=0.6, zorder=5)


def _unit_square(axis: Any, xlabel: str, ylabel: str) -> None:
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel=xlabel, ylabel=ylabel)
    axis.set_aspect("equal", adjustable="box")
    axis.grid(visible=False)


def _box(axis: Any, text: str, x: float, y: float, ha: str = "right", va: str = "bottom") -> None:
    axis.text(x, y, text, transform=axis.transAxes, ha=ha, va=va)


def _legend(figure: Any, found: Tested, *others: str) -> None:
    handles = [
        mpl.lines.Line2D([], [], color=BLUE),
        mpl.lines.Line2D([], [], color=RED, marker="D", ms=4.5, ls=""),
    ]
    texts = ["test set", f"threshold {found.record.threshold:.2f}"]
    for text in others:
        handles.append(mpl.lines.Line2D([], [], color=GREY, lw=0.9, ls=(0, (4, 3))))
        texts.append(text)
    legend_above(figure, handles, texts)


def _sure(found: Tested) -> bool:
    return bool(np.isfinite(found.record.scores["brier_score"][1]))


def level(found: Tested) -> str:
    """Return the level of the intervals."""
    return words.percent(found.record.level)


def _blocks(found: Tested) -> str:
    """Return what was resampled, and how many."""
    name = words.label(found.record.block)
    return f"{words.count(found.record.blocks, name)}" if _sure(found) else f"{name}s"


def _band(found: Tested, of: str) -> str:
    if not _sure(found):
        what = words.count(found.record.blocks, words.label(found.record.block))
        return f"No band: {what} are too few to resample."
    return f"Shaded: {level(found)} interval of {of}, from resampled {_blocks(found)}."


def _bars(found: Tested) -> str:
    return (
        f", with {level(found)} intervals from resampled {_blocks(found)}" if _sure(found) else ""
    )


def _at(found: Tested) -> str:
    return (
        f"Diamond: the decision threshold {words.number(found.record.threshold, 3)}, "
        f"{threshold_source(found.record)}."
    )
