"""`report`: the report written anew, once or for as long as the study runs."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from stormsweep.cli import app
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument

#: Seconds between two reports of a study that runs, between looks at whether its driver does, and
#: between questions to Slurm where it does not.
_EVERY, _LOOK, _ASK = 30.0, 1.0, 30.0


@app.command()
def report(
    study: StudyArgument,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write it again and again until the study is over."),
    ] = False,
    every: Annotated[
        float,
        typer.Option(
            min=1, metavar="SECONDS", help="With --watch: how often, where something is new."
        ),
    ] = _EVERY,
    runs: RunsOption = RUNS,
) -> None:
    """Write the report anew: HTML, figures (PNG, PDF, CSV), tables (CSV, LaTeX)."""
    from stormsweep.cli.follow import no_longer
    from stormsweep.report import write_report
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    chosen.entries()
    if not watch:
        typer.echo(f"Report: {write_report(chosen.directory)}")
        return
    try:
        said = _until_over(chosen, every)
    except KeyboardInterrupt:
        # The page must not go on loading itself anew: nobody writes it any more.
        said = ""
        typer.echo("Writing the report a last time ...", err=True)
    page = write_report(chosen.directory)
    # Whether a driver on another machine lives takes a while to see: after the page is safe.
    said = said or f"no longer watching; {no_longer(chosen, chosen.summary().finished)}"
    typer.echo(f"{chosen.file.study.name}: {said}. Report: {page}")


def _until_over(study: Any, every: float) -> str:
    """Write the report whenever something is new, until the study is over; say how it stands."""
    from stormsweep.cli.follow import go_on, waits
    from stormsweep.report import write_report
    from stormsweep.study.lock import is_driven

    written, due, ask_at = -1, 0.0, 0.0
    while True:
        size = study.journal_path.stat().st_size
        if not is_driven(study.directory) and time.monotonic() >= ask_at:
            if study.summary().finished:
                return "finished"
            if not waits(study):
                return f"stopped; {go_on(study)}"
            ask_at = time.monotonic() + _ASK
        if size != written and time.monotonic() >= due:
            page = write_report(study.directory, reload_seconds=every)
            if written < 0:
                typer.echo(f"Report: {page}; it loads itself anew while the study runs.")
            # A report that takes long must not take the cores from the study.
            written, due = size, time.monotonic() + every
        time.sleep(_LOOK)
