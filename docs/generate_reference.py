"""Write the pages of docs/reference/ from the code: study file, commands, names of the package."""

from __future__ import annotations

import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import typer
from typer.main import get_command

import stormsweep
from stormsweep import cli, records
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


#: What is told elsewhere of what a command prints.
_FURTHER_ON = {
    "stormsweep results": (
        "What each column is: [frames, column by column](python-further.md#frames-column-by-column)"
        "; of `--what account`: [the account](../explanation/timings.md#the-account)."
    ),
}


def commands_page() -> str:
    """Return the page of all commands, as the command line itself describes them."""
    parts = [
        "# The commands",
        "",
        "Every command and option, written from the command line itself",
        "(`python docs/generate_reference.py`); `stormsweep COMMAND --help` says the same.",
        "",
        "Exit codes:",
        "",
        "- 0: done.",
        "- 1: not everything went well. Some runs failed (they are named); the model of `verify`",
        "  cannot be trained; the scores of `scale` differ between layouts; `doctor` finds a",
        "  problem; or the cluster's scheduler refuses a command or does not answer.",
        "- 2: a mistake in the command, the study file or the data, said in one line.",
        "- 130: interrupted; the command to go on is printed.",
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
        if name in _FURTHER_ON:
            parts += [*textwrap.wrap(_FURTHER_ON[name], 100, **_WHOLE), ""]
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


@dataclass(frozen=True)
class Group:
    """Names that belong together.

    Attributes
    ----------
    title, words : str
        What stands above them.
    names : tuple of str
        In full, in the order of the page.
    calls : bool
        Whether users call them, so that how they are called is shown.
    columns : bool
        Whether its functions return frames, whose columns are shown.
    """

    title: str
    words: str
    names: tuple[str, ...]
    calls: bool = True
    columns: bool = False


def _of(module: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in names)


#: Every public name, by what it is for.
PUBLIC = (
    Group(
        "Studies",
        "",
        _of(
            "stormsweep",
            *("Study", "Plan", "Outcome", "PreparedData", "Submission", "Exported"),
            *("predict", "write_report", "NotebookProgress"),
        ),
    ),
    Group(
        "What a study will take, and what to ask for",
        "What `Study.simulate` and `Study.advise` take and return.",
        _of("stormsweep", "Foretold", "Advice", "Budget", "Circumstances", "Wait"),
    ),
    Group(
        "Layouts measured, studies compared",
        "",
        _of("stormsweep", "scale", "Scaling", "compare", "Comparison", "write_comparison"),
    ),
    Group(
        "In scikit-learn's place",
        "What `SweepSearchCV` has besides `fit` (`predict`, `score`, `cv_results_` and so on) is "
        "as in scikit-learn's `GridSearchCV`.",
        _of("stormsweep", "SweepSearchCV", "Interval", "KerasClassifier", "KerasRegressor"),
    ),
    Group(
        "Points that others know",
        "",
        _of("stormsweep", "import_points", "Imported", "known_points"),
    ),
    Group(
        "Errors",
        "All are a `StormsweepError`; a `UserError` is one clear line, which names what to mend.",
        _of(
            "stormsweep",
            *("StormsweepError", "UserError", "StudyFileError", "DataError", "JournalError"),
            *("ModelError", "StudyBusyError", "SlurmError", "RunError", "StudyInterrupted"),
        ),
    ),
)

#: What lies in modules: what a strategy or a watcher of one's own needs, and what is handed out.
FURTHER = (
    Group(
        "A strategy of your own",
        "How to write one and have it found is told in "
        "[Choose a strategy](../how-to/strategies.md#a-strategy-of-your-own).",
        (
            *_of("stormsweep.search.proposals", "Strategy", "Proposal", "Outcome", "Known"),
            "stormsweep.search.space.Space",
            "stormsweep.search.strategies.make",
            *_of("stormsweep.scaling.replay", "replay", "Answers", "Replay", "Rung"),
        ),
    ),
    Group(
        "A watcher of your own",
        "What `Study.run`, `Study.verify` and `stormsweep.scale` tell what goes on.",
        (
            *_of("stormsweep.study.watching", "Watcher", "Silent", "State", "AtWork"),
            "stormsweep.results.standing.Leader",
        ),
    ),
    Group(
        "Storms",
        "The models that a study file can name as `build`, and the download of the real archive.",
        (
            *_of("stormsweep.models", "storm_cnn", "storm_dnn"),
            *_of("stormsweep.storms.archive", "fetch", "Fetched"),
        ),
    ),
    Group(
        "Frames, column by column",
        "Functions of a journal, which `Study.entries` reads; `Study` has them as methods.",
        (
            *_of("stormsweep.results.frames", "configurations", "fits", "sessions"),
            *_of("stormsweep.scaling.timings", "tasks", "workers"),
            *_of("stormsweep.scaling.speedups", "speedups", "cell"),
            *_of("stormsweep.results.importance", "importance_frame", "Importance"),
            "stormsweep.results.contenders.contenders",
        ),
        columns=True,
    ),
    Group(
        "What methods return",
        "",
        (
            *_of("stormsweep.results.summary", "Summary", "Best"),
            "stormsweep.scaling.accounts.Account",
            "stormsweep.scaling.hindsight.Hindsight",
            "stormsweep.study.remaining.Remaining",
            "stormsweep.study.outline.Outline",
            "stormsweep.study.forecast.Forecast",
            "stormsweep.study.layout.Layout",
            "stormsweep.study.predict.Predicted",
            "stormsweep.cluster.scheduler.Job",
            "stormsweep.data.prepared.Part",
            *_of("stormsweep.work", "Run", "Task"),
            "stormsweep.scaling.machine.Machine",
            "stormsweep.scaling.foretold.Range",
            "stormsweep.scaling.simulated.Parts",
            "stormsweep.scaling.measured.Findings",
            "stormsweep.scaling.laws.Law",
            "stormsweep.scaling.sides.Side",
            "stormsweep.scaling.lines.Line",
            "stormsweep.neighbours.points.Point",
        ),
        calls=False,
    ),
    Group(
        "The records of a journal",
        "What `Study.entries` returns: a line of `journal.jsonl` is an `Entry` with one of them.",
        _of("stormsweep.records", "Entry", *(one.__name__ for one in get_args(records.Record))),
        calls=False,
    ),
)


def python_page(site: bool = False) -> str:
    """Return the page of the package's public names.

    Parameters
    ----------
    site : bool
        For the documentation as a site, which adds all that the docstrings say.
    """
    return _names_page(
        "In Python",
        "What most users need can be imported from the package itself: "
        "`from stormsweep import Study`. Nothing heavy is imported before it is used. What a "
        "strategy or a watcher of your own works with, the columns of frames and the records of a "
        "journal are in [In Python: plug-ins, frames, records](python-further.md).",
        PUBLIC,
        site,
    )


def further_page(site: bool = False) -> str:
    """Return the page of what lies in modules; see `python_page`."""
    return _names_page(
        "In Python: plug-ins, frames, records",
        "What plug-ins work with and what methods return. These names are imported from their "
        "modules: `from stormsweep.search.proposals import Proposal`. The names that most users "
        "need are in [In Python](python.md).",
        FURTHER,
        site,
    )


def _names_page(title: str, words: str, groups: Iterable[Group], site: bool) -> str:
    more = (
        "`help(Study)` and `help(Study.simulate)` say the same."
        if site
        else "Parameters, attributes and errors of each name are on this page of the site that "
        "`make docs` builds (`docs/_build/html`). `help(Study)` or `help(Study.simulate)` says the "
        "same: both are the docstrings. In the tables of methods, three dots stand for a default. "
        "This page is written from the code (`python docs/generate_reference.py`)."
    )
    parts = [f"# {title}", "", *textwrap.wrap(words, 100, **_WHOLE), ""]
    parts += [*textwrap.wrap(more, 100, **_WHOLE), ""]
    for group in groups:
        parts += [f"## {group.title}", "", *([group.words, ""] if group.words else [])]
        parts += ["| name | what it is |", "| --- | --- |"]
        parts += [_name_row(name, site) for name in group.names]
        parts += ["", *(_described(group.names) if site else _outlined(group))]
    return "\n".join(parts)


def _outlined(group: Group) -> Iterator[str]:
    """Yield what the page in the repository tells of some names: methods, and columns of frames."""
    rows = [row for name in group.names for row in _member_rows(name)]
    if rows:
        yield from ("| method or property | what it does or is |", "| --- | --- |", *rows, "")
    for name in group.names if group.columns else ():
        if not isinstance(named(name), type):
            yield from (f"### `{name.rpartition('.')[2]}`", "", *_returned(name), "")


def _member_rows(name: str) -> Iterator[str]:
    """Yield a row for each public method and property of a class that Stormsweep's code defines."""
    owner = named(name)
    if not isinstance(owner, type) or issubclass(owner, BaseException):
        return
    for member in dir(owner):
        if member.startswith("_"):
            continue
        home = next(cls for cls in owner.__mro__ if member in vars(cls))
        own = vars(home)[member]
        if not home.__module__.startswith("stormsweep"):
            continue
        shown = f"{owner.__name__}.{member}"
        if inspect.isfunction(own) or isinstance(own, classmethod | staticmethod):
            bound = getattr(owner, member)
            shown += _call(inspect.signature(bound), inspect.isfunction(own))
            first = inspect.getdoc(bound)
        elif isinstance(own, property | cached_property):
            first = inspect.getdoc(own)
        else:
            continue
        first = (first or "").partition("\n")[0].replace("``", "`")
        yield f"| `{_cell(shown)}` | {_cell(first)} |"


def _call(signature: inspect.Signature, of_object: bool) -> str:
    """Return how a method is called: its parameters without types, three dots for a default."""
    kept = [
        one.replace(annotation=one.empty, default=one.empty if one.default is one.empty else ...)
        for one in list(signature.parameters.values())[of_object:]
    ]
    return str(inspect.Signature(kept)).replace("=Ellipsis", "=...")


def _returned(name: str) -> list[str]:
    """Return what a function's docstring says of what it returns, line by line, as Markdown."""
    doc = f"{inspect.getdoc(named(name))}\n"
    found = re.search(r"^Returns\n-+\n.*\n((?:(?: .*)?\n)+)", doc, re.MULTILINE)
    assert found is not None, f"{name}: its docstring does not say what it returns"
    return textwrap.dedent(found[1]).strip().replace("``", "`").splitlines()


#: Addresses of links stay on one line.
_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


def _name_row(name: str, site: bool) -> str:
    first = (inspect.getdoc(named(name)) or "").partition("\n")[0].replace("``", "`")
    # On the site the whole name stands beneath; a table of whole names is wider than a phone.
    shown = name.rpartition(".")[2] if site or name.count(".") == 1 else name
    cell = f"{{py:obj}}`{shown} <{name}>`" if site else f"`{shown}`"
    return f"| {cell} | {_cell(first)} |"


def _described(names: Iterable[str]) -> Iterator[str]:
    """Yield what has Sphinx put the docstrings of some names on a page."""
    yield "```{eval-rst}"
    for name in names:
        thing = named(name)
        kind = "class" if isinstance(thing, type) else "function"
        if kind == "class" and issubclass(thing, BaseException):
            kind = "exception"
        yield f".. auto{kind}:: {name}"
        if kind == "exception":
            yield "   :show-inheritance:"
    yield from ("```", "")


def named(name: str) -> Any:
    """Return what a full name stands for."""
    module, _, last = name.rpartition(".")
    return getattr(import_module(module), last)


def public_names() -> list[str]:
    """Return what the package offers by name."""
    return [name for name in stormsweep.__all__ if not name.startswith("_")]


#: Every generated page, and what writes it.
PAGES = {
    PAGE: page,
    REFERENCE / "commands.md": commands_page,
    REFERENCE / "python.md": python_page,
    REFERENCE / "python-further.md": further_page,
}

if __name__ == "__main__":
    for path, write in PAGES.items():
        path.write_text(write(), encoding="utf-8")
