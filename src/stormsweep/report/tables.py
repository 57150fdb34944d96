"""Tables beside the report: CSV for further work, LaTeX for the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stormsweep.report import tested_words, words
from stormsweep.report.material import Material
from stormsweep.report.parts import Cell

#: Longer LaTeX tables run over several pages.
LONGEST_TABULAR = 40
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # Other signs stand in their places in the encoding that LaTeX has unless told (OT1).
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{INFINITY}": r"$\infty$",
    words.MINUS: "$-$",
    words.NOTHING: "--",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "[": "{[}",
    "]": "{]}",
}


def escape(text: str) -> str:
    r"""Return `text` so that LaTeX prints it as it is.

    Examples
    --------
    >>> escape("50 % of l2_penalty")
    '50 \\% of l2\\_penalty'
    """
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def latex(
    header: Sequence[str], rows: Sequence[Sequence[str]], caption: str, columns: str, name: str
) -> str:
    """Return a table for LaTeX with the package booktabs (and longtable, where it is long).

    Parameters
    ----------
    header, rows : sequences of str
        Cells as they are to be read; they are escaped here.
    caption, columns, name : str
        Caption, alignment of the columns (``lrr``), and label after ``tab:``.
    """
    body = [" & ".join(map(escape, row)) + r" \\" for row in rows]
    head = " & ".join(map(escape, header)) + r" \\"
    title = rf"\caption{{{escape(caption)}}}\label{{tab:{name}}}"
    if len(rows) > LONGEST_TABULAR:
        lines = [rf"\begin{{longtable}}{{{columns}}}", title + r" \\", r"\toprule", head]
        lines += [r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot", *body, r"\end{longtable}"]
        needs = "booktabs and longtable"
    else:
        lines = [r"\begin{table}", r"\centering", title, rf"\begin{{tabular}}{{{columns}}}"]
        lines += [r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
        lines += [r"\end{table}"]
        needs = "booktabs"
    return f"% needs the packages {needs}\n" + "\n".join(lines) + "\n"


def configuration_rows(
    material: Material, most: int | None = None
) -> tuple[list[str], list[list[str]], str]:
    """Return header, rows and alignment of the table of configurations, as they are read.

    Only hyperparameters that vary have a column; scores are means over folds.
    """
    table = material.configurations if most is None else material.configurations.head(most)
    metric = material.metric
    names = [name for name in material.columns if name in material.varied] or ["epochs"]
    others = [
        name
        for name in ("brier_skill_score", "average_precision", "csi", "brier_score", "accuracy")
        if name != metric and f"{name}_mean" in table.columns
    ][:3]
    header = ["Rank", *(words.capital(words.label(name)) for name in names)]
    header += [words.capital(material.metric_label), "95 % interval", "SD over folds"]
    header += [words.capital(words.score_label(name)) for name in others]
    header += ["Folds", "Time of its tasks"]
    align = "r" * (1 + len(names) + 1) + "c" + "r" * (3 + len(others))
    rows = []
    for row in table.to_dict("records"):
        low, high = row[f"{metric}_low"], row[f"{metric}_high"]
        interval = Cell(
            f"{words.score(low)} to {words.score(high)}" if np.isfinite(low) else words.NOTHING,
            low,
        )
        cells: list[str] = [str(row["rank"])]
        cells += [words.short(words.value(row[material.columns[name]]), 32) for name in names]
        cells += [words.score(row[f"{metric}_mean"]), interval, words.score(row[f"{metric}_sd"])]
        cells += [words.score(row[f"{name}_mean"]) for name in others]
        cells.append(Cell(f"{row['folds']} of {row['folds_expected']}", row["folds"]))
        cells.append(Cell(words.duration(row["seconds"]), row["seconds"]))
        rows.append(cells)
    return header, rows, align


def score_rows(material: Material) -> list[list[str]]:
    """Return the scores of the best configuration: name, mean, standard deviation, meaning."""
    best = material.summary.best
    if best is None:
        return []
    return [
        [
            words.capital(words.score_label(name)),
            words.score(mean),
            words.score(sd),
            words.MEANINGS.get(name, ""),
        ]
        for name, (mean, sd) in best.scores.items()
    ]


def time_rows(material: Material) -> list[list[str]]:
    """Return where the workers' time went: part, time, share."""
    table = material.worker_time
    sums = table[[part for part in words.PHASES if part in table.columns]].sum()
    total = float(sums.sum())
    if total <= 0:
        return []
    rows = [
        [
            words.capital(words.PHASES[str(part)]),
            words.duration(float(seconds)),
            words.percent(float(seconds) / total, 1),
        ]
        for part, seconds in sums.items()
        if seconds > 0
    ]
    return [*rows, ["All", words.duration(total), words.percent(1.0)]]


def write_tables(material: Material, folder: Path) -> list[str]:
    """Write all tables to `folder`; return the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    csv: dict[str, pd.DataFrame] = {
        "configurations": material.configurations,
        "fits": material.fits,
        "differences": material.differences,
        "tasks": material.tasks,
        "workers": material.workers,
        "worker-time": material.worker_time,
        "sessions": material.sessions,
        "failures": material.failures,
        "retries": material.retries,
    }
    if material.tested is not None:
        csv |= tested_words.frames(material.tested)
    for name, frame in csv.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    note = f" ({material.synthetic_note.capitalize()}.)" if material.synthetic_note else ""
    header, rows, align = configuration_rows(material)
    caption = f"Study {material.study.name}: configurations, mean scores over folds.{note}"
    texts = {"configurations": latex(header, rows, caption, align, "configurations")}
    scores = score_rows(material)
    if scores:
        caption = f"Study {material.study.name}: scores of the best configuration.{note}"
        cells = [row[:3] for row in scores]
        texts["best-scores"] = latex(["Score", "Mean", "SD"], cells, caption, "lrr", "best-scores")
    if material.tested is not None:
        caption = f"Study {material.study.name}: scores on the test set.{note}"
        rows = [
            row[:3] for part in tested_words.score_rows(material.tested).values() for row in part
        ]
        header = ["Score", "Value", f"{words.percent(material.tested.record.level)} interval"]
        texts["verification-scores"] = latex(header, rows, caption, "lrc", "verification-scores")
    times = time_rows(material)
    if times:
        caption = f"Study {material.study.name}: where the workers' time went."
        texts["worker-time"] = latex(
            ["Part", "Time", "Share"], times, caption, "lrr", "worker-time"
        )
    for name, text in texts.items():
        (folder / f"{name}.tex").write_text(text, encoding="utf-8")
    return sorted([*(f"{name}.csv" for name in csv), *(f"{name}.tex" for name in texts)])
