"""HTML for notebooks: small tables and lines, everything in them escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any


def text(value: Any) -> str:
    """Word a value, safe to stand in a page.

    Examples
    --------
    >>> text("<b>"), text(0.123456), text(1234567), text(True), text(None)
    ('&lt;b&gt;', '0.1235', '1,234,567', 'yes', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return html.escape(f"{value:,}" if isinstance(value, int) else str(value))


def facts(title: str, rows: Iterable[tuple[str, Any]], notes: Iterable[str] = ()) -> str:
    """Return a title and a table of names and values, lines beneath it.

    Examples
    --------
    >>> facts("a study", [("runs", 6)])
    '<div><strong>a study</strong><table><tr><th>runs</th><td>6</td></tr></table></div>'
    """
    cells = "".join(f"<tr>{_cell('th', name)}{_cell('td', value)}</tr>" for name, value in rows)
    beneath = "".join(f"<p>{text(note)}</p>" for note in notes)
    return f"<div><strong>{text(title)}</strong><table>{cells}</table>{beneath}</div>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table with a line of headings.

    Examples
    --------
    >>> table(["a"], [[1]])
    '<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>'
    """
    head = "".join(_cell("th", name) for name in columns)
    body = "".join(f"<tr>{''.join(_cell('td', value) for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, value: Any) -> str:
    return f"<{tag}>{text(value)}</{tag}>"
