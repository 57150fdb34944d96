"""The cases that tell most, drawn as storm patches: best hits, worst misses, false alarms."""

from __future__ import annotations

import datetime as dt
from typing import Any

import matplotlib as mpl
import matplotlib.lines
import numpy as np

from stormsweep.report import words
from stormsweep.report.material import Material
from stormsweep.report.style import WIDE, Picture, legend_above, new_figure
from stormsweep.report.tested import Tested

#: Side of a cell in kilometres, and cells between two arrows.
_CELL_KM, _STEP = 3.0, 3
_KINDS = {"hit": "Surest hits", "miss": "Worst misses", "false alarm": "Worst false alarms"}
_LOW_DBZ, _HIGH_DBZ = 5.0, 75.0
_TARGET = "#0B3C8C"
_THOUSANDTH = "10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT THREE}"


def case_picture(material: Material) -> Picture | None:
    """Draw the telling cases of the test part; none where the data are no storms."""
    found = material.tested
    if found is None or not found.cases or found.predictions is None:
        return None
    channels = _channels(found)
    if channels is None:
        return None
    cases = found.cases
    kinds = [kind for kind in _KINDS if (cases["kinds"] == kind).any()]
    if not kinds:
        return None
    columns = max(int(np.sum(cases["kinds"] == kind)) for kind in kinds)
    figure = new_figure(WIDE, 1.86 * len(kinds) + 0.15, material.synthetic_note)
    grid = figure.subplots(len(kinds), columns, squeeze=False, sharex=True, sharey=True)
    shaded = arrows = None
    for line, kind in zip(grid, kinds, strict=True):
        own = np.flatnonzero(cases["kinds"] == kind)
        for axis in line[len(own) :]:
            axis.set_visible(False)
        for axis, number in zip(line, own, strict=False):
            shaded, arrows = _draw(axis, found, int(number), channels)
        line[0].set_ylabel(_KINDS[kind] + "\nkm", labelpad=1)
    for axis in grid[-1]:
        axis.set_xlabel("km", labelpad=1)
    bar = figure.colorbar(shaded, ax=grid, shrink=0.6, aspect=30, pad=0.015, extend="both")
    bar.set_label("Composite reflectivity (dBZ)")
    bar.outline.set_linewidth(0.5)
    _key(figure, arrows, found)
    shown = found.predictions.iloc[cases["rows"]].reset_index(drop=True)
    shown.insert(0, "kind", cases["kinds"])
    return Picture(
        "verification-cases", "Telling cases of the test set", _caption(found), figure, shown
    )


def _channels(found: Tested) -> tuple[int, int, int] | None:
    """Return the channels of reflectivity and of the wind's components."""
    names = [str(variable.get("name", "")) for variable in found.facts.get("inputs", ())]
    vectors = [str(variable.get("vector", "")) for variable in found.facts.get("inputs", ())]
    reflectivity = [place for place, name in enumerate(names) if name.startswith("REFL")]
    if not reflectivity or "wind:x" not in vectors or "wind:y" not in vectors:
        return None
    return reflectivity[0], vectors.index("wind:x"), vectors.index("wind:y")


def _draw(axis: Any, found: Tested, number: int, channels: tuple[int, int, int]) -> tuple[Any, Any]:
    fields = found.cases["inputs"][number]
    side = fields.shape[0]
    km = (np.arange(side) - side // 2) * _CELL_KM
    shaded = axis.pcolormesh(
        km,
        km,
        np.ma.masked_less(fields[..., channels[0]], _LOW_DBZ),
        cmap="YlOrBr",
        vmin=_LOW_DBZ,
        vmax=_HIGH_DBZ,
        shading="nearest",
        rasterized=True,
    )
    if _looked_up(found, number):
        axis.contour(km, km, found.cases["mask"][number], [0.5], colors="black", linewidths=0.9)
        threshold = found.facts["event"].get("threshold")
        target = found.cases["target"][number]
        if threshold is not None and target.max() > threshold > target.min():
            axis.contour(km, km, target, [threshold], colors=_TARGET, linewidths=1.2)
    some = slice(_STEP // 2, None, _STEP)
    arrows = axis.quiver(
        km[some],
        km[some],
        fields[some, some, channels[1]],
        fields[some, some, channels[2]],
        scale=150,
        width=0.006,
        headwidth=3.6,
        headlength=4.2,
        headaxislength=3.8,
        color="#222222",
    )
    axis.set_aspect("equal")
    axis.grid(visible=False)
    axis.set_xticks([-40, 0, 40])
    axis.set_yticks([-40, 0, 40])
    axis.set(xlim=(km[0] - 1.5, km[-1] + 1.5), ylim=(km[0] - 1.5, km[-1] + 1.5))
    axis.set_title(_title(found, number), fontsize=7, loc="left", pad=2.5, linespacing=1.15)
    return shaded, arrows


def _looked_up(found: Tested, number: int) -> bool:
    return bool("found" in found.cases and found.cases["found"][number])


def _title(found: Tested, number: int) -> str:
    assert found.predictions is not None
    row = found.predictions.iloc[int(found.cases["rows"][number])]
    p = float(row["probability"])
    likely = "p < 0.001" if p < 0.001 else f"p = {words.number(p, 3)}"
    first = f"{likely}, max {_magnitude(found, row['target'])}"
    if "run_date" not in row:
        return first
    when = str(row["run_date"])
    if _looked_up(found, number):
        start = dt.datetime.fromisoformat(when)
        valid = start + dt.timedelta(hours=int(found.cases["hour"][number]))
        when = f"{valid:%Y-%m-%d %H} UTC"
    return f"{when}\n{first}"


def _magnitude(found: Tested, value: float) -> str:
    if "s-1" in str(found.facts["event"].get("units", "")):
        return f"{words.number(1000 * value, 1)}"
    return words.value(float(value))


def _key(figure: Any, arrows: Any, found: Tested) -> None:
    if "found" in found.cases and found.cases["found"].any():
        line = mpl.lines.Line2D
        handles = [line([], [], color="black", lw=0.9), line([], [], color=_TARGET, lw=1.2)]
        texts = ["storm's own cells", f"{_target(found)} at the event's threshold"]
        legend_above(figure, handles, texts)
    arrows.axes.quiverkey(
        arrows, 0.9, 0.985, 15, "15 m/s", labelpos="E", labelsep=0.05, coordinates="figure"
    )


def _target(found: Tested) -> str:
    name = str(found.facts["event"].get("name", "target"))
    known = {"RVORT1_MAX_future": "vorticity", "HAIL_MAXK1_future": "hail size"}
    return known.get(name, words.label(name))


def _caption(found: Tested) -> str:
    event = found.facts["event"]
    units, threshold = words.units(str(event.get("units") or "")), event.get("threshold")
    limit = f" The event: beyond {words.value(threshold)} {units}." if threshold is not None else ""
    scale = (
        ""
        if "s-1" not in str(event.get("units"))
        else f" (max in 10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT THREE} {units})"
    )
    outlines = (
        " Outlines: the storm's own cells, and where the target goes beyond the threshold within "
        "the next hour."
        if "found" in found.cases and found.cases["found"].any()
        else ""
    )
    return (
        "Of the events forecast, those with the highest probability p; of the events missed, those "
        "with the lowest; of the false alarms, those with the highest; at most one case of a storm "
        f"track each. The decision is at p = {words.number(found.record.threshold, 3)}. Shading: "
        "composite reflectivity; arrows: 10 m wind. Above each case its valid time, p, and the "
        f"largest target value that counts for it{scale}.{limit}{outlines}"
    )
