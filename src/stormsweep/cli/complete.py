"""What the Tab key offers: studies and sites. Commands and options it knows by itself.

Called in a process of its own at each press, so nothing is imported before it is needed, and
nothing is ever an error: a shell has no place to say one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import typer

#: A folder may hold more than anybody reads.
_MOST = 200


def studies(context: typer.Context, incomplete: str) -> list[str]:
    """Return what may stand for a study: those on record, and study files.

    Parameters
    ----------
    context : typer.Context
        The command so far; its ``--runs`` says where studies are on record.
    incomplete : str
        What is typed of the word.
    """
    runs = Path(context.params.get("runs") or "runs")
    return sorted(set(_on_record(runs, incomplete)) | set(_files(runs, incomplete)))[:_MOST]


def _on_record(runs: Path, incomplete: str) -> Iterator[str]:
    for file in runs.glob("*/study.toml"):
        if str(file.parent).startswith(incomplete):
            yield str(file.parent)


def _files(runs: Path, incomplete: str) -> Iterator[str]:
    # As it was typed: "./x" stays "./x".
    before, slash, begin = incomplete.rpartition("/")
    folder = Path(before or slash or ".")
    for pattern in ("*.toml", "*/*.toml"):
        for file in folder.glob(pattern):
            shown = file.relative_to(folder).as_posix()
            other = shown.startswith(".") or file.name in ("sites.toml", "pyproject.toml")
            if shown.startswith(begin) and not other and file.parent.parent != runs:
                yield f"{before}{slash}{shown}"


def sites(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of sites that are known beside the study, here and in the user's folder."""
    from stormsweep.config.sites import LOCAL, locate_sites
    from stormsweep.errors import StormsweepError

    try:
        known = list(locate_sites(context.params.get("study") or _typed()))
    except (StormsweepError, OSError):
        known = [LOCAL]
    return sorted(name for name in known if name.startswith(incomplete))


def _typed() -> Path | None:
    """Find the study among the words: an option that waits for its value leaves them unread."""
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    for path in map(Path, line.split()):
        if path.suffix == ".toml" and path.is_file():
            return path
        if (path / "study.toml").is_file():
            return path / "study.toml"
    return None
