"""`run` and `plan`: the study itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from stormsweep.cli import app
from stormsweep.cli.words import duration, hyperparameters

StudyArgument = Annotated[
    Path, typer.Argument(metavar="STUDY", help="A study file, or the directory of a study.")
]
RunsOption = Annotated[
    Path, typer.Option("--runs", metavar="DIR", help="Folder of the studies' directories.")
]
RUNS = Path("runs")


@app.command()
def run(
    study: StudyArgument,
    site: Annotated[str | None, typer.Option(help="Where to run, instead of site.use.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes, instead of site.workers.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each, instead of site.threads_per_worker.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try runs again that failed earlier.")
    ] = False,
    report: Annotated[
        bool, typer.Option(help="Write the report at the end; it takes some seconds.")
    ] = True,
    runs: RunsOption = RUNS,
) -> None:
    """Train what is not on record yet, then write the report; goes on where it stopped."""
    from stormsweep.cli.stop import stoppable
    from stormsweep.cli.watch import display
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs).with_site(
        use=site, workers=workers, threads_per_worker=threads
    )

    def again() -> str:
        begun = (chosen.directory / "study.toml").exists()
        return f"stormsweep run {chosen.directory if begun else study}"

    with stoppable(again, "everything finished so far is kept"), display() as watcher:
        outcome = chosen.run(watcher, retry_failed)
    if not outcome.trained and not outcome.unfinished:
        typer.echo("Nothing was left to train.")
    for line in told(chosen, report):
        typer.echo(line)
    for failure in outcome.failed:
        typer.echo(f"Failed: run {failure.run} ({failure.failure}): {failure.reason}")
    if outcome.failed:
        typer.echo("Try them again with --retry-failed.")
        raise typer.Exit(1)


def told(study: Any, report: bool) -> Iterator[str]:
    """Yield what a study came to, line by line; write the report too, if it is asked for."""
    summary = study.summary()
    best = summary.best
    if best is not None:
        yield f"Best: {hyperparameters(best.hyperparameters)}"
        yield (
            f"  {summary.metric} {best.mean:.4f}, 95 % interval over {best.folds} folds "
            f"{best.low:.4f} to {best.high:.4f}"
        )
    yield (
        f"Cost: {duration(summary.wall_seconds)} of wall time, "
        f"{summary.core_hours_held:.3f} core-hours; {summary.epochs_trained} epochs trained "
        f"instead of {summary.epochs_separate}"
    )
    if summary.synthetic:
        yield "The data are synthetic (the twin): no score is one of real storms."
    if report:
        from stormsweep.report import write_report

        yield f"Report: {write_report(study.directory)}"


@app.command()
def plan(study: StudyArgument, runs: RunsOption = RUNS) -> None:
    """Print what would run and what sharing saves, before anything does."""
    from stormsweep.study.protocol import flaws
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    made = chosen.plan()
    file = chosen.file
    space = {
        name: values if isinstance(values, list) else values.model_dump()
        for name, values in file.search.space.items()
    }
    typer.echo(
        f"Study {file.study.name}: {file.search.strategy} search, best by {file.search.metric}"
    )
    for name, values in space.items():
        typer.echo(f"  {name}: {_values(values)}")
    rows = [
        ("configurations", len(made.configurations), ""),
        (
            "folds",
            made.folds,
            f"{file.validation.split} by {file.validation.group_by}"
            if file.validation.grouped
            else str(file.validation.split),
        ),
        ("fits", made.fits, "configurations x folds"),
        ("runs", len(made.runs), "fits that differ only in epochs share one"),
        ("tasks", made.tasks, "from milestone to milestone, longest first"),
        ("epochs of training", made.epochs, _saving(made.epochs, made.epochs_unshared)),
    ]
    for name, value, remark in rows:
        typer.echo(f"{name:<20}{value:>8,}   {remark}".rstrip())
    for flaw in flaws(file):
        typer.echo(f"The validation is not honest: {flaw}.")
    for line in _layout_and_time(chosen):
        typer.echo(line)


def _layout_and_time(study: Any) -> Iterator[str]:
    from stormsweep.cluster import machine
    from stormsweep.study.layout import crowded

    layout, use = study.layout(), study.file.site.use
    if layout is None:
        layout = study.without_trial().layout()
        yield f"on {use}: the layout is found by a short trial; without one {layout}"
    else:
        yield f"on {use}: {layout}" + (f" ({layout.why})" if layout.why else "")
    if use == "local" and (note := crowded(layout, machine.cores())):
        yield f"Note: {note}."
    forecast = study.forecast()
    if forecast.seconds is None:
        yield f"time: cannot be foretold: {forecast.basis}"
    elif not forecast.seconds[1]:
        yield f"time: {forecast.basis}"
    else:
        low, high = map(duration, forecast.seconds)
        span = low if low == high else f"{low} to {high}"
        yield f"time: {span}, {forecast.basis}"


def _saving(epochs: int, unshared: int) -> str:
    if epochs == unshared:
        return "nothing to share"
    return f"instead of {unshared:,}: sharing saves {1 - epochs / unshared:.0%}"


def _values(values: Any) -> str:
    if isinstance(values, list):
        return ", ".join(map(str, values))
    kind = "whole numbers " if values["integer"] else ""
    return f"{kind}{values['low']} to {values['high']}{', log' if values['log'] else ''}"
