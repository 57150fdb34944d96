"""The page: one HTML file that stands on its own, put together from sections."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from dataclasses import dataclass, field
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import stormsweep
from stormsweep.report.drawing import variables
from stormsweep.report.live import Live, as_json, script
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
    """A figure as the page shows it: its words, the drawing as markup, and the live figure."""

    picture: Picture
    markup: str
    live: Live | None = None


@dataclass(frozen=True)
class Drawn:
    """A section with its figures drawn."""

    section: Section
    part: Part
    shown: list[Shown]


def render(head: Head, sections: list[Drawn], reload_seconds: float = 0) -> str:
    """Return the page.

    Parameters
    ----------
    head : Head
        What stands above the sections.
    sections : list of Drawn
        In order.
    reload_seconds : float
        After how long the page loads itself anew; 0: never.
    """
    bodies = [(drawn.section, _section(drawn)) for drawn in sections]
    light, dark = variables("".join(body for _, body in bodies))
    live = {
        shown.picture.name: shown.live
        for drawn in sections
        for shown in drawn.shown
        if shown.live is not None
    }
    scripts = [_source("page.js"), *([script(), _source("live.js")] if live else [])]
    return (
        _templates()
        .get_template("page.html")
        .render(
            head=head,
            sections=bodies,
            version=stormsweep.__version__,
            light=Markup(light),
            dark=Markup(dark),
            live=Markup(as_json(live)) if live else "",
            reload_seconds=reload_seconds,
            scripts=[Markup(text) for text in scripts],
            hashes=" ".join(f"'{_hash(text)}'" for text in scripts),
        )
    )


def _hash(script: str) -> str:
    """Return what the page's security policy knows a script by: no other is carried out."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


@cache
def _source(name: str) -> str:
    folder = importlib.resources.files("stormsweep.report") / "templates"
    return (folder / name).read_text(encoding="utf-8")


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
