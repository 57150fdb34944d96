"""The page: one HTML file that stands on its own, put together from sections."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

import stormsweep
from stormsweep.report.parts import Part, Section
from stormsweep.report.style import Picture


@dataclass(frozen=True)
class Banner:
    """What a reader must know before all else.

    Attributes
    ----------
    title, text : str
        A few words, and what they mean.
    items : list of str
        Single points beneath.
    """

    title: str
    text: str
    items: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Head:
    """What stands above the sections of a page.

    Attributes
    ----------
    title, kind : str
        What the page is called, and what it is.
    state : str
        How far what it tells of is.
    open : bool
        Whether that goes on.
    banners : list of Banner
        Warnings.
    """

    title: str
    kind: str
    state: str = ""
    open: bool = False
    banners: list[Banner] = field(default_factory=list)


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it: its words and the drawing as a data URI."""

    picture: Picture
    uri: str


@dataclass(frozen=True)
class Drawn:
    """A section with its figures drawn."""

    section: Section
    part: Part
    shown: list[Shown]


def render(head: Head, sections: list[Drawn]) -> str:
    """Return the page."""
    template = _templates().get_template("page.html")
    return template.render(
        head=head,
        sections=[(drawn.section, _section(drawn)) for drawn in sections],
        version=stormsweep.__version__,
    )


def _section(drawn: Drawn) -> str:
    template = _templates().get_template(drawn.section.template)
    return template.render(part=drawn.part, figures=drawn.shown, **drawn.part.more)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("stormsweep.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
