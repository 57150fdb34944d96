"""`compare`: studies side by side."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stormsweep.cli import app
from stormsweep.cli.complete import studies as studies_known
from stormsweep.cli.run import RUNS, RunsOption


class Format(StrEnum):
    """How the comparison is printed."""

    table = "table"
    markdown = "markdown"
    json = "json"


@app.command()
def compare(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY STUDY...",
            help="Directories of studies, study files, or published:umbc-2019.",
            autocompletion=studies_known,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder to write; default: under --runs."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="What the others are measured by; default: the first."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="The score that is compared; default: what all are ranked by."),
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.table,
    runs: RunsOption = RUNS,
) -> None:
    """Compare studies: time, speed-up, cost, and scores beyond noise; page, figures, tables."""
    from stormsweep.report import compare as written
    from stormsweep.report import compare_words
    from stormsweep.scaling.compare import compare

    found = compare(*studies, baseline=baseline, score=metric, runs=runs)
    page = written.write_comparison(found, output or written.default_folder(found, runs))
    if format is Format.json:
        typer.echo(json.dumps(written.as_json(found) | {"page": str(page)}, indent=2))
        return
    for text in compare_words.answer(found):
        typer.echo(text)
    made = [side.label for side in found.sides if side.synthetic]
    if made:
        typer.echo(f"The data of {', '.join(made)} are synthetic: no score is one of real storms.")
    for title, table in (
        (
            f"Against {found.lines[0].name}" if found.lines else "",
            compare_words.speedup_rows(found),
        ),
        ("What a fit cost", compare_words.cost_rows(found)),
    ):
        if table[1]:
            typer.echo(f"\n{title}:\n")
            _print(*table, format)
    typer.echo(f"\nComparison: {page}")


def _print(header: list[str], rows: list[list[str]], text: int, format: Format) -> None:
    if format is Format.markdown:
        lines = [header, ["---" if place < text else "---:" for place in range(len(header))], *rows]
        for line in lines:
            typer.echo("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |")
        return
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        shown = [
            cell.ljust(width) if place < text else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo("  ".join(shown).rstrip())
