"""`audit`: how much a leaky protocol flatters the score."""

from __future__ import annotations

from typing import Annotated

import typer

from stormsweep.cli import app
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument
from stormsweep.cli.words import failures
from stormsweep.wording import point


@app.command()
def audit(
    study: StudyArgument,
    configuration: Annotated[
        str | None,
        typer.Option(help="Id of the configuration to train; default: the best on record."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes, instead of site.workers.")
    ] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Train one configuration under this protocol and leaky ones; compare with the test part."""
    from stormsweep.cli.stop import stoppable
    from stormsweep.cli.watch import display
    from stormsweep.errors import typed
    from stormsweep.report.audit import HEADER, rows, write_audit
    from stormsweep.results.audit import read
    from stormsweep.study.audit import audit
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs).with_site(workers=workers)
    with (
        stoppable(lambda: typed("audit", study), "everything finished so far is kept"),
        display() as watcher,
    ):
        found = audit(chosen, configuration, watcher)
    typer.echo(f"Configuration: {point(found.configuration)}")
    material = read(chosen.directory)
    assert material is not None
    cells = [HEADER, *rows(material)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    for row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    if material.about["synthetic"]:
        typer.echo("The data are synthetic (the twin): no score is one of real storms.")
    typer.echo(f"Figure: {write_audit(chosen.directory)}")
    for line in failures(found.failed):
        typer.echo(line)
    if found.failed:
        raise typer.Exit(1)
