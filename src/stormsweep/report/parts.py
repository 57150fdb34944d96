"""What a page is made of: sections, each with words, figures and tables; of any material."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import pandas as pd

from stormsweep.report.style import Picture


class Cell(str):
    """The text of a cell of a table, with the number by which its column is sorted.

    Parameters
    ----------
    text : str
        As it is read.
    key : float
        What it stands for; NaN goes to the end whichever way the column is sorted.

    Examples
    --------
    >>> Cell("2 min 5 s", 125), Cell("2 min 5 s", 125).key
    ('2 min 5 s', 125.0)
    """

    __slots__ = ("key",)
    key: float

    def __new__(cls, text: str, key: float) -> Self:
        """Return the text with its key."""
        cell = super().__new__(cls, text)
        cell.key = float(key)
        return cell


@dataclass(frozen=True)
class Table:
    """A table of a page, which readers can sort.

    Attributes
    ----------
    name : str
        Of its files, ``tables/<name>.csv`` and ``tables/<name>.tex``.
    title : str
        Its heading; empty: none.
    header, rows : list of str, list of list of str
        Cells as they are read; `Cell` says what one is sorted by where its text does not.
    note : str
        How to read it, in a sentence above it.
    numeric_from : int
        Columns from this one on are set flush right.
    frame : DataFrame, optional
        What the CSV holds; without it the cells as they are read.
    style : str
        Classes of the table for the page's style sheet.
    files : bool
        Whether CSV and LaTeX are written and named beneath.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    numeric_from: int = 1
    frame: pd.DataFrame | None = None
    style: str = ""
    files: bool = True


@dataclass(frozen=True)
class Part:
    """What stands in a section.

    Attributes
    ----------
    words : list of str
        Paragraphs, before all else.
    pictures : list of Picture
        Figures, in order.
    tables : list of Table
        Tables, after the figures.
    more : dict
        What a template of the section's own takes besides.
    """

    words: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes
    ----------
    name : str
        Its address on the page, ``#name``.
    title : str
        Its heading.
    make : callable
        Returns what stands in it, given the page's material; None: the section is left out.
    template : str
        How it is set: a file in ``templates/``, given `Part.more` as its variables.
    """

    name: str
    title: str
    make: Callable[[Any], Part | None]
    template: str = "section.html"


def gather(
    material: Any, *makers: Callable[[Any], list[Picture] | Picture | None]
) -> list[Picture]:
    """Return the figures that these makers draw; one that has no data returns none."""
    pictures: list[Picture] = []
    for make in makers:
        made = make(material)
        pictures += made if isinstance(made, list) else [made] if made else []
    return pictures
