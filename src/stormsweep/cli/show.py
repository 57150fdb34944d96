"""`status`, `results` and `report`: what a study has done."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stormsweep.cli import app
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument
from stormsweep.cli.words import duration, hyperparameters


class Format(StrEnum):
    """How results are written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


@app.command()
def status(study: StudyArgument, runs: RunsOption = RUNS) -> None:
    """Say what a running or stopped study has done."""
    from stormsweep.cli.follow import go_on, lines
    from stormsweep.cluster import slurm
    from stormsweep.results import frames
    from stormsweep.study.lock import driver_of, is_alive
    from stormsweep.study.places import was_submitted
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    asked = chosen.jobs()
    jobs = asked or {}
    waiting = lines(jobs)
    if asked is None and slurm.available():
        waiting = ["Slurm does not answer: whether jobs run or wait is not known"]
    driver = driver_of(chosen.directory)
    alive = driver is not None and is_alive(chosen.directory, driver)
    if not chosen.recorded and (chosen.directory / "study.toml").exists():
        if driver is not None and alive:
            doing = f"starting: process {driver['pid']} on {driver['host']}"
        elif lines(jobs) and was_submitted(chosen.directory):
            doing = "submitted; nothing is on record yet"
        else:
            doing = f"stopped before anything was on record; {go_on(chosen)}"
        typer.echo(f"{chosen.file.study.name}: {doing}")
        _queue(waiting)
        return
    entries = chosen.entries()
    summary = chosen.summary()
    if driver is not None and alive:
        doing = f"running: process {driver['pid']} on {driver['host']}, seen {driver['seen']}"
    elif summary.finished:
        doing = "finished" if not summary.runs_failed else "finished, with failed runs"
    elif lines(jobs):
        doing = "waiting in the queue"
    else:
        doing = f"stopped; {go_on(chosen)}"
    typer.echo(f"{summary.name}: {doing}")
    _queue(waiting)
    if driver is not None and alive and (port := driver.get("dashboard")):
        typer.echo(f"  dashboard  ssh -N -L {port}:127.0.0.1:{port} {driver['host']}")
    rows = [
        ("runs", summary.runs_finished, summary.runs_planned),
        ("fits", summary.fits_scored, summary.fits_planned),
        ("epochs", summary.epochs_trained, summary.epochs_planned),
    ]
    for name, done, planned in rows:
        typer.echo(f"  {name:<8}{done:>8,} of {planned:,}")
    typer.echo(f"  {'time':<8}{duration(summary.wall_seconds):>8} in {summary.sessions} session(s)")
    if summary.best is not None:
        best = summary.best
        typer.echo(
            f"  best    {summary.metric} {best.mean:.4f} over {best.folds} of "
            f"{best.folds_expected} folds: {hyperparameters(best.hyperparameters)}"
        )
    if (look := chosen.last_look()) is not None:
        typer.echo(
            f"  tested  roc_auc {look.scores['roc_auc'][0]:.4f} on {look.cases:,} test cases"
            + (f", look {look.look}" if look.look > 1 else "")
        )
    for failure in frames.failures(entries).to_dict("records"):
        typer.echo(f"  failed  run {failure['run']} ({failure['failure']}): {failure['reason']}")
    if summary.synthetic:
        typer.echo("  data    synthetic (the twin)")


def _queue(jobs: list[str]) -> None:
    for line in jobs:
        typer.echo(f"  {line}")


@app.command()
def results(
    study: StudyArgument,
    format: Annotated[Format, typer.Option(help="How to write them.")] = Format.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: the terminal.")
    ] = None,
    folds: Annotated[
        bool, typer.Option("--folds", help="One row a fit instead of one a configuration.")
    ] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Write the scores, best configuration first."""
    from stormsweep.errors import UserError
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    frame = chosen.results(per_fold=folds)
    if format is Format.parquet and output is None:
        raise UserError("results: --format parquet needs a file: --output FILE")
    if output is not None and not output.parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}")
    if output is not None:
        from stormsweep.files import replacing

        with replacing(output) as beside:
            if format is Format.parquet:
                frame.to_parquet(beside, index=False)
            else:
                beside.write_text(_text(frame, format, chosen.file.search.metric), encoding="utf-8")
        return
    sys.stdout.write(_text(frame, format, chosen.file.search.metric))


def _text(frame: Any, format: Format, metric: str) -> str:
    if format is Format.csv:
        return str(frame.to_csv(index=False))
    if format is Format.json:
        return str(frame.to_json(orient="records", indent=2)) + "\n"
    shown = [
        name
        for name in frame.columns
        if not name.endswith(("_mean", "_sd", "_low", "_high", "_seconds"))
        or name.startswith(f"{metric}_")
    ]
    if len(frame) == 0:
        return "no fit is scored yet\n"
    return str(frame[shown].to_string(index=False, float_format=lambda x: f"{x:.4g}")) + "\n"


@app.command()
def report(study: StudyArgument, runs: RunsOption = RUNS) -> None:
    """Write the report anew: HTML, figures (PNG, PDF), tables (CSV, LaTeX)."""
    from stormsweep.report import write_report
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    chosen.entries()
    typer.echo(f"Report: {write_report(chosen.directory)}")
