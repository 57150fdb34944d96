"""`submit` and `cancel`: a study on a cluster; `drive`, what its jobs run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stormsweep.cli import app
from stormsweep.cli.complete import sites as site_names
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument, WalltimeOption, doubt, told
from stormsweep.cli.watch import Plain

#: As the Python interface has it, which is not imported for `--help`.
MAX_JOBS = 100
#: Lines on how far a study is come this often to a job's log, in seconds.
_EVERY = 60.0
_LINE = "%(asctime)s %(levelname)s %(message)s"


@app.command()
def submit(
    study: StudyArgument,
    site: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A site of sites.toml, instead of site.use.",
            autocompletion=site_names,
        ),
    ] = None,
    max_jobs: Annotated[
        int, typer.Option("--max-jobs", min=1, help="Jobs at most, one after another.")
    ] = MAX_JOBS,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Nodes of each job, instead of the site's.")
    ] = None,
    walltime: WalltimeOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try runs again that failed earlier.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the job script, and submit nothing.")
    ] = False,
    runs: RunsOption = RUNS,
) -> None:
    """Run a study as a Slurm job, and in further jobs until it is done."""
    from stormsweep.errors import typed
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    made = chosen.submit(
        site,
        max_jobs=max_jobs,
        retry_failed=retry_failed,
        nodes=nodes,
        walltime=walltime,
        dry_run=dry_run,
    )
    if dry_run:
        typer.echo(made.script, nl=False)
        doubt(made.doubt)
        return
    expected = f"; Slurm expects it {made.expected}" if made.expected else ""
    typer.echo(f"Job {made.job} on {made.site}{expected}")
    typer.echo(f"Log: {made.output}, and {made.error.name} for what goes wrong")
    for word in ("watch", "status", "cancel"):
        typer.echo(f"  {typed(word, chosen.directory)}")


@app.command()
def cancel(study: StudyArgument, runs: RunsOption = RUNS) -> None:
    """End a study's jobs and its driver, from any node; everything finished is kept."""
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs)
    ended = chosen.cancel()
    for line in ended:
        typer.echo(line)
    if not ended:
        typer.echo(f"{chosen.directory}: no job and no driver of this study is at work or waits.")


@app.command(hidden=True)
def drive(
    directory: Path,
    site: Annotated[str, typer.Option()],
    sites: Annotated[Path, typer.Option()],
    job: Annotated[int, typer.Option(min=1)] = 1,
    max_jobs: Annotated[int, typer.Option("--max-jobs", min=1)] = MAX_JOBS,
    nodes: Annotated[int | None, typer.Option(min=1)] = None,
    walltime: Annotated[str | None, typer.Option()] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed")] = False,
    after: Annotated[str | None, typer.Option()] = None,
    done: Annotated[int | None, typer.Option()] = None,
    idle: Annotated[int, typer.Option()] = 0,
    environment: Annotated[bool, typer.Option("--environment")] = False,
) -> None:
    """Carry a study on inside a job: what `submit` has Slurm start."""
    _log_to_files()
    from stormsweep.cluster.jobscript import environment_told
    from stormsweep.study import drive as job_of_chain
    from stormsweep.study.chain import Link

    link = Link(
        directory, site, sites, job, max_jobs, nodes, walltime, retry_failed, after, done, idle
    )
    told = environment_told(sys.stdin.buffer.read()) if environment else {}
    code = job_of_chain.drive(link, _Logged(_EVERY), _done, told or None)
    if code:
        raise typer.Exit(code)


def _done(study: Any, outcome: Any) -> None:
    log = logging.getLogger("stormsweep.study.drive")
    if not outcome.trained:
        log.info("nothing was left to train")
    for line in told(study, report=True):
        log.info("%s", line)
    for failure in outcome.failed:
        log.warning("run %s failed (%s): %s", failure.run, failure.failure, failure.reason)


class _Logged(Plain):
    """Lines for a job's log."""

    def note(self, text: str) -> None:
        logging.getLogger("stormsweep.study.drive").warning("%s", text)

    def _print(self, text: str) -> None:
        logging.getLogger("stormsweep.study.drive").info("%s", text)


def _log_to_files() -> None:
    """Give what the driver says a time and a level; trouble goes to the job's errors.

    What it says task by task stands in ``driver.log``.
    """
    ours = logging.getLogger("stormsweep")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    of_chain = ("stormsweep.study.drive", "stormsweep.study.successor")
    for stream, kept in (
        (sys.stdout, lambda one: one.levelno < logging.WARNING and one.name in of_chain),
        (sys.stderr, lambda one: one.levelno >= logging.WARNING),
    ):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter(_LINE))
        handler.addFilter(kept)
        ours.addHandler(handler)
