"""A comparison written: one page, its figures and tables, whole or not at all."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

import stormsweep
from stormsweep import files
from stormsweep.errors import UserError
from stormsweep.report import compare_figures, compare_words, style, words
from stormsweep.report.page import Shown
from stormsweep.report.style import Picture
from stormsweep.report.tables import latex
from stormsweep.scaling.comparison import Comparison

#: What a folder holds that a comparison was written to, and so may be replaced.
MARK = "comparison.json"
TABLES = ("times", "speedups", "costs", "scores", "differences", "overall", "places")


def default_folder(found: Comparison, runs: Path | str = "runs") -> Path:
    """Return where a comparison goes unless told otherwise: beside the studies."""
    names = "-".join(side.label for side in found.sides)
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in names)
    return Path(runs) / f"compare-{kept[:80].strip('.')}"


@files.within_group()
def write_comparison(found: Comparison, folder: Path | str) -> Path:
    """Write a comparison to a folder.

    Parameters
    ----------
    found : Comparison
        From `stormsweep.compare`.
    folder : path
        The folder; an earlier comparison there is replaced when the new one is whole.

    Returns
    -------
    Path
        The page, ``index.html``. Beside it lie ``figures/`` (PNG, PDF, captions), ``tables/`` (CSV,
        LaTeX) and ``comparison.json``, which says what was compared.

    Raises
    ------
    UserError
        If there is something else at `folder`.
    """
    folder = Path(folder)
    _refuse_others_work(folder)
    with files.replacing_folder(folder) as beside:
        shown = _figures(found, beside / "figures")
        _write_tables(found, beside / "tables")
        files.write_json(beside / MARK, _about(found))
        text = _render(found, shown, folder)
        (beside / "index.html").write_text(text, encoding="utf-8")
    return folder / "index.html"


def as_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values: what was compared, and every table."""
    tables = {name: json.loads(_frame(found, name).to_json(orient="records")) for name in TABLES}
    return _about(found) | tables


def _refuse_others_work(folder: Path) -> None:
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / MARK).is_file()):
        return
    if folder.exists():
        raise UserError(
            f"--output: {folder} is there and holds no comparison; name a folder that is not there"
        )


def _about(found: Comparison) -> dict[str, Any]:
    return {
        "stormsweep": stormsweep.__version__,
        "studies": {side.label: side.source for side in found.sides},
        "baseline": found.baseline.label,
        "score": found.score,
        "against": found.x,
        "synthetic": [side.label for side in found.sides if side.synthetic],
    }


def _frame(found: Comparison, name: str) -> pd.DataFrame:
    table: pd.DataFrame = getattr(found, name)
    return table.drop(columns=["point"], errors="ignore")


def _sections(found: Comparison) -> dict[str, list[Picture]]:
    drawn: dict[str, Any] = {
        "time": [compare_figures.time_picture(found), compare_figures.cost_picture(found)],
        "scores": compare_figures.score_pictures(found),
        "differences": [compare_figures.difference_picture(found)],
    }
    return {name: [one for one in made if one is not None] for name, made in drawn.items()}


def _figures(found: Comparison, folder: Path) -> dict[str, list[Shown]]:
    folder.mkdir()
    note = compare_figures.note(found)
    with style.look():
        drawn = _sections(found)
        shown = {
            name: [Shown(one, style.save(one, folder)) for one in made]
            for name, made in drawn.items()
        }
    captions = [
        f"{one.name}\n{one.title}{f' ({note})' if note else ''}. {one.caption}\n"
        for made in drawn.values()
        for one in made
    ]
    (folder / "captions.txt").write_text("\n".join(captions), encoding="utf-8")
    return shown


def _write_tables(found: Comparison, folder: Path) -> None:
    folder.mkdir()
    for name in TABLES:
        _frame(found, name).to_csv(folder / f"{name}.csv", index=False)
    note = compare_figures.note(found)
    note = f" ({note.capitalize()}.)" if note else ""
    label = words.score_label(found.score)
    titles = (
        {
            "speedups": f"Speed-ups against {found.lines[0].name}, the same fits on both sides.",
            "costs": "What a fit cost.",
            "scores": f"{words.capital(label)}: mean (standard deviation) over folds.",
            "differences": f"Differences of {label} to {found.baseline.label}.",
            "places": "What the studies ran on.",
        }
        if found.lines
        else {}
    )
    for name, title in titles.items():
        header, rows, align = getattr(compare_words, f"{name.removesuffix('s')}_rows")(found)
        if rows:
            text = latex(header, rows, title + note, align, f"compare-{name}")
            (folder / f"{name}.tex").write_text(text, encoding="utf-8")


def command(found: Comparison, folder: Path) -> str:
    """Return the command that writes the comparison again."""
    sources = [shlex.quote(side.source) for side in found.sides]
    metric = [] if {side.metric for side in found.sides} == {found.score} else [found.score]
    parts = ["stormsweep compare", *sources, *(f"--metric {name}" for name in metric)]
    return " ".join([*parts, "--output", shlex.quote(str(folder))])


def _render(found: Comparison, shown: dict[str, list[Shown]], folder: Path) -> str:
    template = Environment(
        loader=PackageLoader("stormsweep.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("compare.html")
    most = compare_words.MOST_DIFFERENCES
    return template.render(
        title=_title([side.label for side in found.sides]),
        sides=found.sides,
        version=stormsweep.__version__,
        score=words.score_label(found.score),
        baseline=found.baseline.label,
        answer=compare_words.answer(found),
        figures=shown,
        speedups=compare_words.speedup_rows(found),
        costs=compare_words.cost_rows(found),
        scores=compare_words.score_rows(found),
        differences=compare_words.difference_rows(found, most),
        in_all=len(found.differences),
        places=compare_words.place_rows(found),
        remarks=compare_words.remarks(found),
        made=[side.label for side in found.sides if side.synthetic],
        command=command(found, folder),
    )


def _title(labels: list[str]) -> str:
    return " and ".join(part for part in (", ".join(labels[:-1]), labels[-1]) if part)
