"""`run` and `plan`: the study itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stormsweep import wording
from stormsweep.cli import app
from stormsweep.cli.complete import sites, studies
from stormsweep.cli.words import failures, hours
from stormsweep.wording import duration, point

if TYPE_CHECKING:
    from stormsweep.config.study import ValidationTable
    from stormsweep.search.plan import Plan
    from stormsweep.study.outline import Outline

StudyArgument = Annotated[
    Path,
    typer.Argument(
        metavar="STUDY",
        help="A study file, or the directory of a study.",
        autocompletion=studies,
    ),
]
RunsOption = Annotated[
    Path, typer.Option("--runs", metavar="DIR", help="Folder of the studies' directories.")
]
NodesOption = Annotated[
    str | None,
    typer.Option(
        "--nodes",
        metavar="N or MIN:MAX",
        help="Nodes of the site, instead of what sites.toml says; jobs of one node each.",
    ),
]
WalltimeOption = Annotated[
    str | None,
    typer.Option(
        metavar="HH:MM:SS",
        help="Time of a job of the site, at most what sites.toml says.",
    ),
]
RUNS = Path("runs")


def node_counts(text: str) -> tuple[int, int]:
    """Read ``--nodes``.

    Examples
    --------
    >>> node_counts("4"), node_counts("1:8")
    ((4, 4), (1, 8))
    """
    from stormsweep.errors import UserError

    low, colon, high = text.partition(":")
    parts = [low, high if colon else low]
    if not all(part.isascii() and part.isdigit() for part in parts) or not (
        1 <= int(parts[0]) <= int(parts[1])
    ):
        raise UserError(
            f"--nodes: given {text!r}; must be a number from 1, or the least and the most as 1:8"
        )
    return int(parts[0]), int(parts[1])


@app.command()
def run(
    study: StudyArgument,
    site: Annotated[
        str | None,
        typer.Option(help="Where to run, instead of site.use.", autocompletion=sites),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes, instead of site.workers.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each, instead of site.threads_per_worker.")
    ] = None,
    nodes: NodesOption = None,
    walltime: WalltimeOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="On a cluster: print a node's job script, and stop.")
    ] = False,
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
    from stormsweep.errors import StormsweepError, UserError, typed
    from stormsweep.study.places import run_again
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs).with_site(
        use=site, workers=workers, threads_per_worker=threads
    )
    if chosen.file.site.use != "local" and (workers or threads):
        raise UserError(
            f"--{'workers' if workers else 'threads'}: is for this machine; those of site "
            f"{chosen.file.site.use!r} are set in sites.toml"
        )
    if nodes is not None:
        chosen = chosen.on_nodes(*node_counts(nodes))
    if walltime is not None:
        chosen = chosen.with_walltime(walltime)
    if dry_run:
        typer.echo(chosen.node_script(), nl=False)
        try:
            gone = chosen.check_site()
        except StormsweepError as error:
            doubt(error)
        else:
            if gone:
                typer.echo(f"stormsweep: jobs would wait in the queue: {gone}", err=True)
        return

    def again() -> str:
        count = None if nodes is None else node_counts(nodes)
        return run_again(chosen.again(), chosen.file.site.use, count, walltime)

    with stoppable(again, "everything finished so far is kept"), display() as watcher:
        outcome = chosen.run(watcher, retry_failed)
    if not outcome.trained and not outcome.unfinished:
        typer.echo("Nothing was left to train.")
    for line in told(chosen, report):
        typer.echo(line)
    for line in failures(outcome.failed, chosen.directory):
        typer.echo(line)
    if chosen.awaits_verification():
        typer.echo(f"Next, the score on the test part, once: {typed('verify', chosen.directory)}")
    if outcome.failed:
        typer.echo("Try them again with --retry-failed.")
        raise typer.Exit(1)


def doubt(error: Exception | None) -> None:
    """Say why a job script that was printed may not do; a mistake ends the command as always."""
    from stormsweep.errors import NoSchedulerError, SchedulerError

    if error is None:
        return
    if isinstance(error, SchedulerError) and error.passing:
        typer.echo(f"stormsweep: not checked: {error.short}", err=True)
    elif isinstance(error, NoSchedulerError):
        typer.echo(f"stormsweep: not checked: {error}", err=True)
    else:
        raise error


def told(study: Any, report: bool) -> Iterator[str]:
    """Yield what a study came to, line by line; write the report too, if it is asked for."""
    summary = study.summary()
    best = summary.best
    if best is not None:
        yield f"Best: {point(best.hyperparameters)}"
        folds = wording.folds(best.folds, best.rounds)
        yield (
            f"  {summary.metric} {best.mean:.4f}, 95 % interval over {folds} "
            f"{best.low:.4f} to {best.high:.4f}"
        )
    account = study.account()
    yield (
        f"Cost: {duration(account.wall_seconds)} of wall time, "
        f"{hours(account.core_hours_granted)} core-hours; "
        f"{_trained(summary.epochs_trained, summary.epochs_separate)}"
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
    from stormsweep.study.setup import emulated
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    file, told = chosen.file, chosen.outline()
    made = told.plan
    space = {
        name: values if isinstance(values, list) else values.model_dump()
        for name, values in file.search.space.items()
    }
    typer.echo(
        f"Study {file.study.name}: {file.search.strategy} search, best by {file.search.metric}"
    )
    for name, values in space.items():
        typer.echo(f"  {name}: {_values(values)}")
    split = _split(file.validation)
    for name, value, remark in _expected(made, split) if made.expected else _planned(made, split):
        typer.echo(f"{name:<20}{value:>8,}   {remark}".rstrip())
    if told.trained:
        typer.echo(f"{'epochs on record':<20}{told.trained:>8,}   {_left(told)}")
    if file.search.known is not None:
        known = chosen.known()
        remark = f"{known.inside:,} of them in the space; from others nothing is learned"
        typer.echo(f"{'known points':<20}{known.count:>8,}   {remark}")
        for line in known.why:
            typer.echo(f"  {line}")
    for flaw in flaws(file):
        typer.echo(f"The validation is not honest: {flaw}.")
    for line in _layout_and_time(told, file.site.use):
        typer.echo(line)
    if file.site.use == "local" and (slow := emulated(file.engine.use, file.engine.precision)):
        typer.echo(f"engine.precision: {slow}.")


def _left(told: Outline) -> str:
    """Word how much of a study that was begun is left."""
    if not told.left:
        return "nothing is left to train"
    about = "about " if told.plan.expected else ""
    return f"{about}{told.left:,}, of {wording.counted(told.runs_left, 'run')}, are left to train"


def _split(validation: ValidationTable) -> str:
    """Say how the folds are made."""
    how = str(validation.split)
    if validation.grouped:
        how += f" by {validation.group_by}"
    if validation.rounds == 1:
        return how
    return f"{wording.folds(validation.total, validation.rounds)}, {how}, split anew each round"


def _planned(made: Plan, split: str) -> list[tuple[str, int, str]]:
    """Return what is known of a study before it runs, a row each."""
    return [
        ("configurations", len(made.configurations), ""),
        ("folds", made.folds, split),
        ("fits", made.fits, "configurations x folds"),
        ("runs", len(made.runs), "fits that differ only in epochs share one"),
        ("tasks", made.tasks, "from milestone to milestone, longest first"),
        ("epochs of training", made.epochs, _saving(made.epochs, made.epochs_unshared)),
    ]


def _expected(made: Plan, split: str) -> list[tuple[str, int, str]]:
    """Return what a strategy that learns will about come to, a row each."""
    last = max(run.milestones[-1] for run in made.runs)
    whole = len(made.configurations) * made.folds * last
    halved = f"about; {whole:,} if all were trained to epoch {last} on all folds"
    return [
        ("trials", len(made.configurations), "at most; scores decide which"),
        ("folds", made.folds, split),
        ("runs", len(made.runs), "about"),
        ("tasks", made.tasks, "about; from milestone to milestone"),
        ("epochs of training", made.epochs, halved if made.epochs < whole else "about"),
    ]


def _layout_and_time(told: Outline, use: str) -> Iterator[str]:
    from stormsweep.cluster import machine
    from stormsweep.study.layout import crowded

    layout, forecast = told.untried, told.forecast
    if told.layout is None:
        yield f"on {use}: the layout is found by a short trial; without one {layout}"
    else:
        yield f"on {use}: {layout}" + (f" ({layout.why})" if layout.why else "")
    if use == "local" and (note := crowded(layout, machine.cores())):
        yield f"Note: {note}."
    if forecast.seconds is None:
        yield f"time: cannot be foretold: {forecast.basis}"
    elif not forecast.seconds[1]:
        yield f"time: {forecast.basis}"
    else:
        yield f"time: {wording.span(*forecast.seconds)}, {forecast.basis}"
    if forecast.note:
        yield f"Note: {forecast.note}."


def _trained(epochs: int, separate: int) -> str:
    """Word the epochs that were trained, and those of fits on their own where these are more.

    Examples
    --------
    >>> _trained(45, 90), _trained(3, 3)
    ('45 epochs trained instead of 90', '3 epochs trained')
    """
    saved = f" instead of {separate}" if separate > epochs else ""
    return f"{epochs} epochs trained{saved}"


def _saving(epochs: int, unshared: int) -> str:
    if epochs == unshared:
        return "nothing to share"
    return f"instead of {unshared:,}: sharing saves {wording.percent(1 - epochs / unshared)}"


def _values(values: Any) -> str:
    """Word what a hyperparameter may be.

    Examples
    --------
    >>> _values([8, 16]), _values({"low": 4.0, "high": 32.0, "log": False, "integer": True})
    ('8, 16', 'whole numbers 4 to 32')
    """
    if isinstance(values, list):
        return ", ".join(map(str, values))
    if when := values.get("when"):
        where = " and ".join(f"{name} is {_values(ones)}" for name, ones in when.items())
        rest = {key: value for key, value in values.items() if key != "when"}
        return f"{_values(rest.get('values', rest))}, where {where}"
    low, high = values["low"], values["high"]
    if values["integer"]:
        low, high = f"whole numbers {low:.0f}", f"{high:.0f}"
    return f"{low} to {high}{', log' if values['log'] else ''}"
