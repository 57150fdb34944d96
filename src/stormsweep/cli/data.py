"""`data`: the real storm files, the twin, and prepared arrays."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stormsweep.cli import app
from stormsweep.cli.complete import studies
from stormsweep.wording import counted, percent

data_app = typer.Typer(
    help="Storm files and prepared arrays.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app, name="data")


@data_app.command()
def fetch(
    folder: Annotated[
        Path, typer.Argument(help="Data folder; what data.path of a study names.")
    ] = Path("data/ncar-storms"),
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="URL_OR_PATH",
            help="Instead of NCAR's place: a mirror's URL, or a folder with the two archives, or "
            "the archives themselves (give it twice).",
        ),
    ] = None,
    keep_archives: Annotated[
        bool,
        typer.Option(
            "--keep-archives/--remove-archives", help="Whether downloads stay once unpacked."
        ),
    ] = True,
) -> None:
    """Download, check and unpack the NCAR storm files; goes on where it stopped."""
    from stormsweep.cli.watch import display
    from stormsweep.errors import StudyInterrupted
    from stormsweep.storms.archive import fetch

    try:
        with display() as watcher:
            fetched = fetch(
                folder,
                sources or (),
                keep_archives=keep_archives,
                progress=watcher.stage,
                say=watcher.note,
            )
    except (KeyboardInterrupt, StudyInterrupted) as stopped:
        why = str(stopped) or "everything finished so far is kept"
        again = shlex.join(["stormsweep", *sys.argv[1:]])
        raise StudyInterrupted(f"interrupted; {why}; go on with: {again}") from None
    if not fetched.unpacked:
        typer.echo("Nothing was left to fetch: everything is there, and whole.")
    typer.echo(f"Storms: {fetched}")


@data_app.command()
def synthesize(
    folder: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
    patches: Annotated[int, typer.Option(min=100, help="How many storm patches.")] = 6000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bits.")] = 0,
) -> None:
    """Write the twin: synthetic storm files in the format of the real ones."""
    from stormsweep.cli.watch import display
    from stormsweep.errors import UserError
    from stormsweep.storms.twin import synthesize

    if folder.exists():
        raise UserError(f"{folder}: exists already; name a folder that does not")
    with display() as watcher:
        synthesize(
            folder,
            patches,
            seed,
            progress=lambda done, total: watcher.stage("synthesizing", done / max(total, 1)),
        )
    typer.echo(f"Twin: {patches:,} synthetic patches in {folder}")


@data_app.command()
def prepare(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study file.", autocompletion=studies)
    ],
    again: Annotated[
        bool, typer.Option("--again", help="Even if prepared arrays are there.")
    ] = False,
) -> None:
    """Turn a study's data into scaled, memory-mapped arrays; goes on where it was interrupted."""
    from stormsweep.cli.watch import display
    from stormsweep.errors import StudyInterrupted, typed
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study)
    try:
        with display() as watcher:
            data = chosen.prepare(watcher, again)
    except KeyboardInterrupt:
        raise StudyInterrupted(
            f"interrupted; go on with: {typed('data', 'prepare', study)}"
        ) from None
    typer.echo(f"Prepared: {data.path}")


class Format(StrEnum):
    """What `data export` writes."""

    npy = "npy"
    netcdf = "netcdf"
    zarr = "zarr"


@data_app.command()
def export(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study file.", autocompletion=studies)
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to write; must not exist.")],
    format: Annotated[
        Format,
        typer.Option(
            help="NumPy arrays under the 2019 names (balanced copies, _new, where [balance] makes "
            "some), NetCDF or Zarr."
        ),
    ] = Format.npy,
) -> None:
    """Write a study's prepared data as files for other tools."""
    from stormsweep.cli.watch import display
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study)
    with display() as watcher:
        written = chosen.export(folder, format.value, watcher)
    for file in written:
        typer.echo(f"Wrote: {file}")
    if format is Format.npy and not any(file.stem.endswith("_new") for file in written):
        method = chosen.file.balance.method
        typer.echo(
            f"No train_norm_2d_new and train_out_new: balance.method is {method!r}, which makes no "
            "balanced copies."
        )


@data_app.command()
def describe(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study file.", autocompletion=studies)
    ],
) -> None:
    """Say what a study's data are and where they lie; prepares them where they are missing."""
    from stormsweep.cli.watch import display
    from stormsweep.files import readable
    from stormsweep.study.study import Study

    chosen = Study.from_toml(study)
    with display() as watcher:
        data = chosen.prepare(watcher)
    manifest, summary = data.manifest, data.summary()
    kind = "synthetic" if data.synthetic else "real"
    typer.echo(f"{data.path}: {kind} data from {summary['source']}")
    raw = manifest["provenance"]
    if raw.get("files"):
        count, size = len(raw["files"]), readable(sum(file["bytes"] for file in raw["files"]))
        typer.echo(f"made from {counted(count, 'file')} ({size}) in {raw['folder']}")
    unit = f" {summary['units']}" if summary["units"] else ""
    if summary["threshold"] is not None:
        typer.echo(f"event: {summary['target']} {summary['event']} {summary['threshold']}{unit}")
    else:
        typer.echo(f"event: {summary['target']} is 1")
    for part in ("train", "test"):
        count, positives = summary[part], summary[f"{part}_positives"]
        share = f" ({percent(positives / count, 2)})" if count else ""
        left_out = manifest["parts"][part]["left_out"]
        of = f", {left_out:,} of {count + left_out:,} left out: missing values" if left_out else ""
        typer.echo(f"{part:<6}{count:>9,} cases, {positives:,} events{share}{of}")
    split = manifest["split"]
    if summary["test"] and "test_from" in split:
        typer.echo(f"the test part is {split['group']} {split['test_from']} and later")
    for name, count in summary["groups"].items():
        typer.echo(f"groups by {name}: {count:,} in the training part")
    typer.echo(f"{'input':<24}{'units':<10}{'mean':>12}{'sd':>12}")
    for variable in manifest["inputs"]:
        typer.echo(
            f"{variable['name']:<24}{variable['units'] or '-':<10}"
            f"{variable['mean']:>12.5g}{variable['std']:>12.5g}"
        )
    typer.echo(f"fingerprint {data.fingerprint}")
