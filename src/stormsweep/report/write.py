"""Writing the report: journal in, folder of page, figures and tables out, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stormsweep import files
from stormsweep.report import (
    audit,
    cases,
    groups,
    page,
    scaling,
    scores,
    style,
    timings,
    verification,
)
from stormsweep.report.material import Material
from stormsweep.report.style import Picture
from stormsweep.report.tables import write_tables
from stormsweep.results import journal

#: The figures of each section of the page, in order; a maker returns none where it has no data.
SECTIONS: dict[str, list[Callable[[Material], list[Picture] | Picture | None]]] = {
    "answer": [scores.best_picture],
    "verification": [
        verification.curve_pictures,
        groups.group_picture,
        cases.case_picture,
    ],
    "audit": [audit.audit_picture],
    "scores": [scores.score_pictures],
    "training": [timings.train_time_picture],
    "learning": [scores.learning_picture],
    "time": [timings.timeline_picture, timings.breakdown_picture],
    "scaling": [scaling.scaling_pictures],
}


@files.within_group()
def write_report(directory: Path) -> Path:
    """Write ``report/`` into a study's directory, from its journal and its verified model.

    Parameters
    ----------
    directory : Path
        Holds ``journal.jsonl``, and ``study.toml`` and ``environment.json``, which may be missing.
        The study need not be finished, and may be running.

    Returns
    -------
    Path
        The page, ``report/index.html``. Beside it lie ``figures/`` (PNG, PDF, captions) and
        ``tables/`` (CSV, LaTeX). An earlier report is replaced when the new one is whole.

    Raises
    ------
    JournalError
        If there is no journal, it is damaged, or no study is recorded in it.
    """
    material = Material(journal.read(directory / "journal.jsonl"), directory)
    _ = material.study
    with files.replacing_folder(directory / "report") as folder:
        figures = _figures(material, folder / "figures")
        write_tables(material, folder / "tables")
        for found in material.scaling:
            scaling.write_tables(found, folder / "tables")
        text = page.render(
            material,
            figures,
            page.read_text(directory / "study.toml"),
            _environment(directory / "environment.json"),
            str(directory),
        )
        (folder / "index.html").write_text(text, encoding="utf-8")
    return directory / "report" / "index.html"


def _figures(material: Material, folder: Path) -> dict[str, list[page.Shown]]:
    shown: dict[str, list[page.Shown]] = {}
    captions = []
    folder.mkdir()
    with style.look():
        for section, makers in SECTIONS.items():
            shown[section] = []
            for make in makers:
                made = make(material)
                for picture in made if isinstance(made, list) else [made] if made else []:
                    shown[section].append(page.Shown(picture, style.save(picture, folder)))
                    note = f" ({material.synthetic_note})" if material.synthetic_note else ""
                    captions.append(f"{picture.name}\n{picture.title}{note}. {picture.caption}\n")
    (folder / "captions.txt").write_text("\n".join(captions), encoding="utf-8")
    return shown


def _environment(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(page.read_text(path) or "{}")
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
