"""`export` and `import`: from and to the tools of others."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stormsweep.cli import app
from stormsweep.cli.run import RUNS, RunsOption, StudyArgument


class To(StrEnum):
    """What a study is written for."""

    mlflow = "mlflow"
    tensorboard = "tensorboard"
    optuna = "optuna"
    csv = "csv"
    parquet = "parquet"
    onnx = "onnx"


@app.command()
def export(
    study: StudyArgument,
    to: Annotated[To, typer.Option(help="For whom; onnx: the verified model.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File or folder, for mlflow also the URI of a store; default: in the study's "
            "folder export.",
        ),
    ] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Write a study, finished or not, for MLflow, TensorBoard, Optuna's dashboard, or as tables."""
    from stormsweep.study.study import Study

    done = Study.from_toml(study, runs).export_to(to.value, output)
    typer.echo(f"Written: {done.where}")
    if done.opens:
        typer.echo(f"Open it: {done.opens}")


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An Optuna storage (file or URL), a result folder of Ray Tune, a file of known "
            "points, or an earlier study's directory.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Known points, JSON lines.")
    ] = Path("points.jsonl"),
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which Optuna study, where there are more.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS",
            help="What a score is called there, as roc_auc=val_auc; can be given again.",
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="THEIRS=OURS",
            help="What a hyperparameter is called here, as lr=learning_rate; can be given again.",
        ),
    ] = None,
) -> None:
    """Write what another tool knows as known points, from which a search can start."""
    from stormsweep.neighbours.foreign import import_points

    theirs, ours = _pairs("--metric", metric), _pairs("--rename", rename, alone=False)
    done = import_points(source, output, study=study, scores=theirs, names=ours)
    scores = dict.fromkeys(name for point in done.points for name in point.scores)
    known = f"{done.scored} with a score ({', '.join(scores)})" if scores else "none with a score"
    typer.echo(f"{done.source}: {len(done.points)} points, {known}")
    if done.passed_over:
        typer.echo(f"Passed over: {done.passed_over} that failed or have not ended")
    if done.not_finite:
        typer.echo(f"Passed over: {done.not_finite} with hyperparameters that are infinite or NaN")
    if done.unsure:
        typer.echo(
            f"Passed over: {done.unsure} that were stopped after nobody knows how many epochs"
        )
    typer.echo(f"Written: {output}")


def _pairs(option: str, given: list[str] | None, alone: bool = True) -> dict[str, str]:
    """Read ``a=b``; where it may stand `alone`, ``a`` is called the same on both sides.

    Examples
    --------
    >>> _pairs("--metric", ["roc_auc=val_auc", "loss"])
    {'roc_auc': 'val_auc', 'loss': 'loss'}
    """
    from stormsweep.errors import UserError

    found: dict[str, str] = {}
    for text in given or ():
        left, equals, right = text.partition("=")
        if not left or left in found or not (right or (alone and not equals)):
            raise UserError(f"import: {option}: given {text!r}; must be NAME=NAME, each name once")
        found[left] = right or left
    return found
