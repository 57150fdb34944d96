"""The command line: it only calls what the Python interface offers too."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from stormsweep import __version__
from stormsweep.errors import SchedulerError, StormsweepError

app = typer.Typer(
    name="stormsweep",
    help="Tune a model's hyperparameters in parallel, and measure the search while it runs.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"stormsweep {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Tune a model's hyperparameters in parallel, and measure the search while it runs."""


def main() -> None:
    """Run the command line and leave with the exit code that the README states."""
    # They add their commands.
    from stormsweep.cli import (  # noqa: F401
        audit,
        begin,
        compare,
        data,
        follow,
        foretell,
        neighbours,
        report,
        run,
        scale,
        show,
        submit,
        verify,
    )

    # A line that finds no room on the disk is lost; a traceback for each in its place helps nobody.
    logging.raiseExceptions = False
    # As `python` itself does: the user's own modules are found from where the command is given.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        code = app(standalone_mode=False)
        if code == 130:  # Typer's word for Ctrl-C
            _say("interrupted")
    except StormsweepError as error:
        _say(error.short if isinstance(error, SchedulerError) else str(error))
        code = error.exit_code
    except typer.TyperException as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(text)
        else:
            _say(f"{text.replace('Value error, ', '')} (see --help)")
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        code = 130
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        _say(f"{error.filename or 'a file'}: {error.strerror or error}")
        code = 2
    sys.exit(code)


def _say(message: str) -> None:
    print(f"stormsweep: {' '.join(message.split())}", file=sys.stderr)
