"""Write the pages of docs/reference/ from the code: study file, commands, names of the package."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

import stormsweep
from stormsweep import cli
from stormsweep.config.sites import Site
from stormsweep.config.study import METRICS, Choices, Range, StudyFile, Table

REFERENCE = Path(__file__).parent / "reference"
PAGE = REFERENCE / "study-file.md"


def page() -> str:
    """Return the page as Markdown."""
    parts = [
        "# The study file",
        "",
        "A study is one TOML file. Every key, its default and its meaning, written from the code",
        "that checks it (`python docs/generate_reference.py`). Unknown keys are refused.",
        "",
    ]
    for name, field in StudyFile.model_fields.items():
        parts += _table(f"`[{name}]`", field.annotation)
        if name == "search":
            parts += [
                "`[search.space]` has one line a hyperparameter: a list of values; a range, which",
                "all strategies but `grid` take:",
                "",
                *_rows(Range),
                "or a list of values with a condition:",
                "",
                *_rows(Choices),
                "`metric` is one of " + ", ".join(f"`{metric}`" for metric in METRICS) + ".",
                "",
            ]
    parts += [
        "## `[site.NAME]` in sites.toml",
        "",
        "Looked for beside the study file, in the current folder, then in the user's configuration",
        "folder. `local` is always there.",
        "",
        *_rows(Site),
    ]
    return "\n".join(parts)


def _table(title: str, model: Any) -> list[str]:
    head = " ".join((model.__doc__ or "").split()).partition(": ")[2]
    return [f"## {title}", "", head[:1].upper() + head[1:], "", *_rows(model)]


def _rows(model: type[Table]) -> list[str]:
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for key, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if field.is_required():
            shown = "must be given"
        else:
            shown = "unset" if default in (None, "") else f"`{_toml(default)}`"
        meaning = " ".join((field.description or "").split()).replace("``", "`")
        rows.append(f"| `{key}` | {shown} | {meaning} |")
    return [*rows, ""]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return f'"{value}"'
    return str(value)


def commands_page() -> str:
    """Return the page of all commands, as the command line itself describes them."""
    parts = [
        "# The commands",
        "",
        "Every command and option, written from the command line itself",
        "(`python docs/generate_reference.py`); `stormsweep COMMAND --help` says the same.",
        "",
        "Exit codes: 0 done; 1 the study ended with failed runs, named, the model to verify cannot",
        "be trained, or the cluster's scheduler does not answer; 2 a mistake in the command, the",
        "study file or the data, said in one line; 130 interrupted, with the line to go on.",
        "",
    ]
    for name, command, context in commands():
        record = [
            parameter.get_help_record(context)
            for parameter in command.get_params(context)
            if "--help" not in parameter.opts
        ]
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts += [
            f"## `{name}`",
            "",
            " ".join((command.help or "").split()),
            "",
            "```text",
            " ".join(usage.split()),
            "```",
            "",
            "| argument or option | meaning |",
            "| --- | --- |",
            *(
                f"| `{_cell(shown)}` | {_cell(meaning)} |"
                for shown, meaning in filter(None, record)
            ),
            "",
        ]
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Yield every command that is not hidden: its words, itself, its context."""
    for module in pkgutil.iter_modules(cli.__path__):
        import_module(f"{cli.__name__}.{module.name}")  # they add their commands
    yield from _commands("stormsweep", get_command(cli.app))


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any, Any]]:
    context = typer.Context(command, info_name=name)
    if not hasattr(command, "commands"):
        yield name, command, context
        return
    for word in sorted(command.list_commands(context)):
        inner = command.get_command(context, word)
        if not inner.hidden:
            yield from _commands(f"{name} {word}", inner)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def python_page() -> str:
    """Return the page of the package's public names; the site adds what their docstrings say."""
    parts = [
        "# In Python",
        "",
        "Everything public is a name of the package: `from stormsweep import Study`. Nothing heavy",
        "is imported before it is used. Written from the code, as the other pages here are",
        "(`python docs/generate_reference.py`).",
        "",
    ]
    groups: dict[str, list[str]] = {"Classes": [], "Functions": [], "Errors": []}
    for name in public_names():
        thing = getattr(stormsweep, name)
        error = isinstance(thing, type) and issubclass(thing, BaseException)
        kind = "Errors" if error else "Classes" if isinstance(thing, type) else "Functions"
        first = (inspect.getdoc(thing) or "").partition("\n")[0].replace("``", "`")
        groups[kind].append(f"| `{name}` | {_cell(first)} |")
    for kind, rows in groups.items():
        parts += [f"## {kind}", "", "| name | what it is |", "| --- | --- |", *rows, ""]
    return "\n".join(parts)


def public_names() -> list[str]:
    """Return what the package offers by name."""
    return [name for name in stormsweep.__all__ if not name.startswith("_")]


#: Every generated page, and what writes it.
PAGES = {
    PAGE: page,
    REFERENCE / "commands.md": commands_page,
    REFERENCE / "python.md": python_page,
}

if __name__ == "__main__":
    for path, write in PAGES.items():
        path.write_text(write(), encoding="utf-8")
