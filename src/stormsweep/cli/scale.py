"""`scale`: the same study in several layouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from stormsweep.cli import app
from stormsweep.cli.complete import sites
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument, WalltimeOption
from stormsweep.cli.words import failures


def numbers(text: str, option: str) -> list[int]:
    """Read a list of whole numbers.

    Examples
    --------
    >>> numbers("1,2,4", "--workers")
    [1, 2, 4]
    """
    from stormsweep.errors import UserError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise UserError(f"{option}: given {text!r}; must be numbers from 1, such as 1,2,4")
    return [int(part) for part in parts]


@app.command()
def scale(
    study: StudyArgument,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help="Numbers of workers; default: 1, 2, 4 and so on, as fill a node and have a run.",
        ),
    ] = None,
    threads: Annotated[
        str, typer.Option(metavar="N,N", help="Numbers of threads of each worker.")
    ] = "1",
    repeats: Annotated[int, typer.Option(min=1, help="How often each layout is measured.")] = 3,
    weak: Annotated[
        bool, typer.Option("--weak", help="Measure work in proportion to workers, too.")
    ] = False,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="If all takes longer, train only some of the runs.")
    ] = 60.0,
    site: Annotated[
        str | None,
        typer.Option(help="Where to run, instead of site.use.", autocompletion=sites),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="On a site: whole nodes, in place of --workers."),
    ] = None,
    walltime: WalltimeOption = None,
    pin: Annotated[
        str,
        typer.Option(
            metavar="PLACE,PLACE",
            help="Where a worker's threads lie: within, across (sockets), none (not pinned). "
            "Default: within; on several sockets all three.",
        ),
    ] = "",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Measure again where runs failed.")
    ] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Measure the study in several layouts, and say which is best; goes on where it stopped."""
    from stormsweep.cli.stop import stoppable
    from stormsweep.cli.watch import display
    from stormsweep.report.layouts import write_scaling
    from stormsweep.study.scale import scale
    from stormsweep.study.study import Study

    counts = {
        "workers": numbers(workers, "--workers") if workers is not None else [],
        "threads": numbers(threads, "--threads"),
        "nodes": numbers(nodes, "--nodes") if nodes is not None else [],
        "pins": [part.strip() for part in pin.split(",") if part.strip()],
    }
    chosen = Study.from_toml(study, runs).with_site(use=site)
    if walltime is not None:
        chosen = chosen.with_walltime(walltime)
    # What was asked for is asked for again: another layout would be another measurement.
    with stoppable(_again, "what was measured so far is kept"), display() as watcher:
        found = scale(
            chosen,
            repeats=repeats,
            weak=weak,
            minutes=minutes,
            retry_failed=retry_failed,
            watcher=watcher,
            **counts,  # type: ignore[arg-type]
        )
    if not found.measured:
        typer.echo("Nothing was left to measure.")
    for line in told(found.findings):
        typer.echo(line)
    typer.echo(f"Report: {write_scaling(found.findings)}")
    for line in failures(found.failed):
        typer.echo(line)
    if found.failed:
        typer.echo("Measure these layouts again with --retry-failed.")
    if found.failed or found.findings.different_scores:
        raise typer.Exit(1)


def _again() -> str:
    import shlex
    import sys

    return shlex.join(["stormsweep", *sys.argv[1:]])


def told(findings: Any) -> Iterator[str]:
    """Yield what was found, line by line."""
    from stormsweep.report.scaling_words import HEADER, answer, rows

    cells = [HEADER, *rows(findings.strong)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield from answer(findings)
    yield from findings.remarks
