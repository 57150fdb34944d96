"""`status` and `results`: what a study has done."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stormsweep.cli import app
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument
from stormsweep.cli.words import accounts, alike
from stormsweep.wording import counted, duration, point


class Format(StrEnum):
    """How results are written."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class What(StrEnum):
    """What the rows of results are."""

    configurations = "configurations"
    fits = "fits"
    tasks = "tasks"
    workers = "workers"
    sessions = "sessions"
    account = "account"
    importance = "importance"
    contenders = "contenders"


#: Columns of timings that a terminal has room for.
_SHORT = {
    What.tasks: "run from_epoch to_epoch worker queued_seconds sending_seconds seconds "
    "train_seconds returning_seconds bundle paused",
    What.workers: "session worker node available_seconds busy_seconds lost_seconds travel_seconds "
    "waiting_seconds rest_seconds tasks cores gpus",
    What.sessions: "session host site workers threads seconds outcome tasks busy_seconds",
}


@app.command()
def status(study: StudyArgument, runs: RunsOption = RUNS) -> None:
    """Say what a running or stopped study has done."""
    from stormsweep.cli.follow import go_on, lines
    from stormsweep.cluster import slurm
    from stormsweep.results import facts, frames
    from stormsweep.scaling.accounts import account
    from stormsweep.study.lock import driver_of, is_alive
    from stormsweep.study.places import was_submitted
    from stormsweep.study.study import Study

    if (search := _searched(study)) is not None:
        from stormsweep.cli import searched

        driver = driver_of(study)
        alive = driver is not None and is_alive(study, driver)
        for line in searched.status(search, driver if alive else None):
            typer.echo(line)
        return
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
        typer.echo(f"  dashboard  {_dashboard(driver, port)}")
    rows = [
        ("runs", summary.runs_finished, summary.runs_planned),
        ("fits", summary.fits_scored, summary.fits_planned),
        ("epochs", summary.epochs_trained, summary.epochs_planned),
    ]
    for name, done, planned in rows:
        typer.echo(f"  {name:<8}{done:>8,} of {planned:,}")
    sessions = counted(summary.sessions, "session")
    typer.echo(f"  {'time':<8}{duration(summary.wall_seconds):>8} in {sessions}")
    for name, line in accounts(account(entries)):
        typer.echo(f"  {name:<8}{line}")
    if summary.best is not None:
        best = summary.best
        typer.echo(
            f"  best    {summary.metric} {best.mean:.4f} over {best.folds} of "
            f"{best.folds_expected} folds: {point(best.hyperparameters)}"
        )
    if (look := chosen.last_look()) is not None:
        typer.echo(
            f"  tested  roc_auc {look.scores['roc_auc'][0]:.4f} on {look.cases:,} test cases"
            + (f", look {look.look}" if look.look > 1 else "")
        )
    failed = frames.failures(entries).query("not recovered").drop_duplicates("run", keep="last")
    for line in alike(failed[["run", "failure", "reason"]].itertuples(index=False, name=None)):
        typer.echo(f"  {'' if line.startswith(' ') else 'failed':<8}{line}")
    for why in facts.refused_last(entries):
        typer.echo(f"  no work {why}")
    if summary.synthetic:
        typer.echo("  data    synthetic (the twin)")


def _searched(directory: Path) -> Any:
    """Return what a SweepSearchCV did whose directory this is; None where it is not one."""
    from stormsweep.results.searched import read

    return read(directory) if directory.is_dir() else None


def _dashboard(driver: dict[str, Any], port: int) -> str:
    """Say how a driver's dashboard, which only its own machine sees, comes to a browser."""
    from stormsweep.study.lock import is_here

    page, tunnel = f"http://127.0.0.1:{port}", f"ssh -N -L {port}:127.0.0.1:{port} {driver['host']}"
    if not is_here(driver):
        return f"{tunnel} (then {page})"
    # Who logged in to this machine from another one has the browser there.
    return f"{page} (from elsewhere: {tunnel})" if "SSH_CONNECTION" in os.environ else page


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
    what: Annotated[
        What,
        typer.Option(
            "--what",
            help="What a row is; account: what the whole study took, in one row; importance: what "
            "mattered; contenders: what cannot be told from the best.",
        ),
    ] = What.configurations,
    folds: Annotated[bool, typer.Option("--folds", help="The same as --what fits.")] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Write the scores, best configuration first; or where the time went, and what it cost."""
    from stormsweep.errors import UserError
    from stormsweep.study.study import Study

    if folds and what not in (What.configurations, What.fits):
        raise UserError(f"results: --folds does not go with --what {what.value}")
    what = What.fits if folds else what
    if (search := _searched(study)) is not None:
        if what is not What.configurations:
            raise UserError(
                f"results: --what {what.value} is of studies; {study} is the directory of a "
                "SweepSearchCV, which has its candidates only"
            )
        frame, scores = search.candidates, [""]
    else:
        chosen = Study.from_toml(study, runs)
        asked = chosen.file.search
        frame, scores = _frame(chosen, what), [asked.metric, *asked.objectives]

    def text() -> str:
        if search is not None and format is Format.table:
            return _table(frame) if len(frame) else "no candidate is proposed yet\n"
        return _text(frame, format, what, scores)

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
                beside.write_text(text(), encoding="utf-8")
        return
    sys.stdout.write(text())


def _frame(study: Any, what: What) -> Any:
    if what in (What.configurations, What.fits):
        return study.results(per_fold=what is What.fits)
    if what is What.importance:
        return study.importance()
    if what is What.contenders:
        return study.contenders()
    if what is not What.account:
        return study.timings(what.value)
    import dataclasses

    import pandas as pd

    return pd.DataFrame([dataclasses.asdict(study.account())])


def _text(frame: Any, format: Format, what: What, scores: list[str]) -> str:
    from stormsweep.cli.mattered import contenders, importance

    if format is Format.csv:
        return str(frame.to_csv(index=False))
    if format is Format.json:
        return str(frame.to_json(orient="records", indent=2)) + "\n"
    if what is What.account:
        row = frame.iloc[0].to_dict()
        return "".join(f"{name:<24}{_cell(value)}\n" for name, value in row.items())
    if what is What.importance:
        return importance(frame)
    if what is What.contenders:
        return contenders(frame, scores[0])
    if what in _SHORT:
        return str(_table(frame[_SHORT[what].split()]))
    shown = [
        name
        for name in frame.columns
        if not name.endswith(("_mean", "_sd", "_low", "_high", "_seconds"))
        or name.startswith(f"{scores[0]}_")
        or name.removesuffix("_mean") in scores
    ]
    if len(frame) == 0:
        return "no fit is scored yet\n"
    return _table(frame[shown])


def _table(frame: Any) -> str:
    if len(frame) == 0:
        return "nothing is on record yet\n"
    return str(frame.to_string(index=False, float_format=lambda x: f"{x:.4g}")) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "unknown" if value != value else f"{value:.6g}"
    return "none" if value is None else str(value)
