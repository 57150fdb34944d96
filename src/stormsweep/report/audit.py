"""The audit drawn: each protocol's score on its validation beside that on the test part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stormsweep import files
from stormsweep.errors import DataError
from stormsweep.report import style, words
from stormsweep.report.material import Material
from stormsweep.report.style import BLUE, GREY, RED, WIDE, Picture, legend_above, new_figure
from stormsweep.report.tables import latex
from stormsweep.results.audit import FOLDER, Findings, read

NAME = "audit"
HEADER = ["Protocol", "Score", "Validation", "Test part", "Flattered by", "95 % interval"]


def rows(material: Findings) -> list[list[str]]:
    """Return the rows of the table as they are read, in the order of `HEADER`."""
    cells = []
    shown = material.table[material.table["score"].isin(material.scores)]
    for row in shown.to_dict("records"):
        low, high = row["flattery_low"], row["flattery_high"]
        interval = f"{signed(low)} to {signed(high)}" if np.isfinite(low) else words.NOTHING
        cells.append(
            [
                words.capital(str(row["protocol"])),
                words.score_label(row["score"]),
                words.score(row["validation"]),
                words.score(row["test"]),
                signed(row["flattery"]) if np.isfinite(row["flattery"]) else words.NOTHING,
                interval,
            ]
        )
    return cells


def signed(value: float) -> str:
    """Return a difference with its sign.

    Examples
    --------
    >>> signed(0.1234)
    '+0.1234'
    """
    text = words.score(value)
    return f"+{text}" if value > 0 else text


def audit_picture(material: Material) -> Picture | None:
    """Return the figure of a study's audit; none where it has none."""
    return None if material.audit is None else picture(material.audit)


def picture(material: Findings) -> Picture:
    """Draw validation beside test, one row a protocol, one panel a score."""
    names = list(dict.fromkeys(material.table["protocol"]))
    scores = material.scores
    figure = new_figure(WIDE, 0.9 + 0.42 * len(names), material.note)
    axes = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    handles: list[Any] = []
    for axis, score in zip(axes, scores, strict=True):
        part = material.folds[material.folds["score"] == score]
        for place, name in enumerate(names):
            own = part[part["protocol"] == name]
            sides = [("validation", RED, "o"), ("test", BLUE, "s")]
            if own["validation"].isna().any():
                sides = sides[1:]
                said = axis.annotate(
                    "no validation:\na fold holds one class",
                    (0.98, place - 0.35),
                    xycoords=axis.get_yaxis_transform(),
                    ha="right",
                    va="center",
                    fontsize="small",
                    color=GREY,
                )
                # Else the panel is made as wide as the words.
                said.set_in_layout(False)
            means = [float(own[side].mean()) for side, *_ in sides]
            axis.plot(means, [place] * len(means), color=GREY, linewidth=1)
            marks = []
            for side, colour, marker in sides:
                axis.plot(own[side], [place] * len(own), "|", color=colour, markersize=8)
                marks += axis.plot(own[side].mean(), place, marker, color=colour, markersize=6)
            handles = max(handles, marks, key=len)
        axis.set_xlabel(words.capital(words.score_label(score)))
        axis.grid(axis="x")
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(names)), [words.capital(name) for name in names])
    axes[0].invert_yaxis()
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    legend_above(figure, handles, ["validation", "test part"])
    chosen = words.point(material.about["configuration"])
    return Picture(
        NAME,
        "What the protocol flatters",
        f"One configuration ({chosen}) under each protocol: the same models scored on their "
        "validation folds and on the test part, which none of them trained on. Large marks are "
        "means over folds, strokes single folds. The farther validation lies on the good side of "
        "the test part, the more the protocol flatters.",
        figure,
        material.folds[material.folds["score"].isin(scores)],
    )


@files.within_group()
def write_audit(directory: Path) -> Path:
    """Write the figure (PNG, PDF) and the table (CSV, LaTeX) of an audit beside its journals.

    Parameters
    ----------
    directory : Path
        The study's directory.

    Returns
    -------
    Path
        ``audit/audit.png``.

    Raises
    ------
    DataError
        If there is no audit, or it is damaged.
    """
    material = read(directory)
    if material is None:
        raise DataError(f"{directory}: has no audit; run `stormsweep audit` first")
    folder = directory / FOLDER
    with style.look():
        style.save(picture(material), folder)
    with files.replacing(folder / f"{NAME}.csv") as beside:
        material.table.to_csv(beside, index=False)
    note = f" ({material.note.capitalize()}.)" if material.note else ""
    caption = f"Study {material.about['study']}: what each protocol flatters.{note}"
    text = latex(HEADER, rows(material), caption, "llrrrr", NAME)
    files.write_text(folder / f"{NAME}.tex", text)
    return folder / f"{NAME}.png"
