"""Write docs/reference/study-file.md from the models that check study files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stormsweep.config.sites import Site
from stormsweep.config.study import METRICS, Choices, Range, StudyFile, Table

PAGE = Path(__file__).parent / "reference" / "study-file.md"


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


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
