"""`init` and `doctor`: before the first study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from stormsweep.cli import app
from stormsweep.cli.complete import sites, studies


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the study.")],
) -> None:
    """Write a study of one's own, every key commented."""
    from stormsweep.config.template import template
    from stormsweep.errors import UserError, typed
    from stormsweep.files import write_text

    file = folder / "study.toml"
    if file.exists():
        raise UserError(f"{file}: exists already; name another folder")
    name = folder.resolve().name
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")
    write_text(file, template(safe or "study"))
    typer.echo(f"Wrote {file}; run it with: {typed('run', file)}")


@app.command()
def doctor(
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY]",
            help="With --site: the study beside whose file sites.toml lies.",
            autocompletion=studies,
        ),
    ] = None,
    tensorflow: Annotated[
        bool, typer.Option(help="Import TensorFlow and JAX in a process of their own.")
    ] = True,
    site: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Try a site of sites.toml instead, with a small job.",
            autocompletion=sites,
        ),
    ] = None,
) -> None:
    """Say what this machine has, or whether a site is ready, and what that means for a study."""
    from stormsweep.errors import UserError
    from stormsweep.study.doctor import examine
    from stormsweep.study.doctor_site import examine_site

    if study is not None and site is None:
        raise UserError(f"doctor: given {str(study)!r}; a study is for --site NAME only")
    if study is not None and not study.exists():
        raise UserError(f"{study}: there is no such file")
    ok = True
    found = examine(tensorflow) if site is None else examine_site(site, Path.cwd(), study=study)
    for finding in found:
        ok = ok and finding.ok
        mark = "ok " if finding.ok else "NO "
        typer.echo(f"{mark}{finding.name:<18}{finding.value}")
        if finding.meaning:
            typer.echo(f"{'':<21}{finding.meaning}")
    if not ok:
        raise typer.Exit(1)
