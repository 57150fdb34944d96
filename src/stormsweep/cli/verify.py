"""`verify` and `predict`: what the study was for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from stormsweep.cli import app
from stormsweep.cli.complete import sites, studies
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument
from stormsweep.wording import percent, point

#: What `verify` prints, in this order; the journal has the rest.
_SHOWN = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "brier_score": "Brier score",
    "brier_skill_score": "Brier skill score",
    "log_loss": "cross-entropy",
    "csi": "critical success index",
    "pod": "probability of detection",
    "far": "false alarm ratio",
    "pofd": "probability of false detection",
    "hss": "Heidke skill score",
    "peirce": "Peirce skill score",
    "bias": "frequency bias",
}


@app.command()
def verify(
    study: StudyArgument,
    again: Annotated[
        bool, typer.Option("--again", help="Score the test part another time; it is counted.")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Verify the best configuration so far.")
    ] = False,
    site: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Where to run, instead of site.use.", autocompletion=sites
        ),
    ] = None,
    report: Annotated[bool, typer.Option(help="Write the report at the end.")] = True,
    runs: RunsOption = RUNS,
) -> None:
    """Train the best configuration on all training cases; score it on the test part, once."""
    from stormsweep.cli.stop import stoppable
    from stormsweep.cli.watch import display
    from stormsweep.errors import typed
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study, runs).with_site(use=site)
    before = chosen.last_look()
    options = ["--again"] * again + ["--unfinished"] * unfinished
    options += [] if site is None else ["--site", site]
    with (
        stoppable(
            lambda: typed("verify", chosen.directory, *options),
            "what was trained so far is kept",
        ),
        display() as watcher,
    ):
        look = chosen.verify(watcher, again, unfinished)
    _tell(chosen, look, recorded=before is not None and look.look == before.look)
    if report:
        from stormsweep.report import write_report

        typer.echo(f"Report: {write_report(chosen.directory)}")


def _tell(study: Any, look: Any, recorded: bool) -> None:
    from stormsweep.results.audit import looked
    from stormsweep.results.facts import study as study_facts
    from stormsweep.study.choice import threshold_source
    from stormsweep.study.held_out import leak
    from stormsweep.study.protocol import why_no_skill

    if recorded:
        typer.echo("Verified before; nothing was scored again (--again would, and be counted).")
    typer.echo(f"Test part: {look.cases:,} cases, {look.events:,} events")
    typer.echo(f"Model: {point(look.hyperparameters)}")
    if not look.finished:
        typer.echo("The study was not finished: this was the best configuration so far.")
    for name, label in _SHOWN.items():
        value, low, high = look.scores[name]
        interval = f"{low:8.4f} to {high:.4f}" if math.isfinite(low) else ""
        typer.echo(f"  {label:<32}{value:8.4f}  {interval}".rstrip())
    what = look.block.replace("_", " ")
    if math.isfinite(look.scores["brier_score"][1]):
        typer.echo(
            f"  {percent(look.level)} intervals from {look.resamples:,} resamples of "
            f"{look.blocks:,} {what}s"
            + ("; cases are taken for independent" if look.block == "case" else "")
        )
    else:
        typer.echo(f"  {look.blocks} {what}s: too few for intervals")
    typer.echo(f"  yes-or-no scores at probability {look.threshold:.4f}, {threshold_source(look)}")
    if math.isfinite(bias := look.scores["bias"][0]):
        typer.echo(f"  there the event is forecast {bias:.2g} times as often as it happens")
    about, skill = study_facts(study.entries()).data, look.scores["brier_skill_score"][0]
    counts = int(about["train"]), int(about["train_positives"])
    if why := why_no_skill(study.file, *counts, skill, on_test=True):
        typer.echo(why)
    if look.look > 1:
        typer.echo(
            f"The test set has been looked at {look.look} times: its score is no longer that of "
            "unseen data."
        )
    if looked(study.directory):
        typer.echo("An audit of this study has scored the test part too.")
    groups = about.get("groups")  # in the first journals, a number
    names = groups if isinstance(groups, dict) else {}
    if why := leak(study.file.data, names, study.file.validation.group_by):
        typer.echo(f"The test part is not of unseen cases: {why}.")
    if study.summary().synthetic:
        typer.echo("The data are synthetic (the twin): no score is one of real storms.")
    typer.echo(f"Model and predictions: {study.directory / 'model'}")


@app.command()
def predict(
    study: Annotated[
        Path,
        typer.Argument(
            metavar="RUNDIR", help="The directory of a verified study.", autocompletion=studies
        ),
    ],
    sources: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="New patch files, or tables.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The NetCDF file to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it is there.")
    ] = False,
) -> None:
    """Write the probabilities of new cases to a CF-conforming NetCDF file."""
    from stormsweep.cli.watch import display
    from stormsweep.study.predict import predict

    with display() as watcher:
        done = predict(study, sources, output, overwrite, watcher.stage)
    typer.echo(
        f"{done.path}: {done.cases:,} cases, the event forecast in {done.forecast:,} "
        f"(probability of {done.threshold:.4f} or more)"
    )
    if done.synthetic:
        typer.echo("The model was trained on synthetic data: no probability is of real storms.")
