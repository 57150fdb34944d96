"""The names of the reference in Python, and what their docstrings describe."""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stormsweep import records
from stormsweep.study.watching import Watcher
from tests.pages import ROOT

_WRITTEN = runpy.run_path(str(ROOT / "docs" / "generate_reference.py"))
PUBLIC: list[str] = [name for group in _WRITTEN["PUBLIC"] for name in group.names]
FURTHER: list[str] = [name for group in _WRITTEN["FURTHER"] for name in group.names]
NAMES = PUBLIC + FURTHER
#: Sections that say what goes in; of a class, what it holds is what it is made of.
GIVEN = ("Parameters", "Attributes")
#: What the last ones' docstrings say to be as of the first.
_LIKE: dict[Any, Any] = dict.fromkeys(("stage", "state", "note"), Watcher)


@dataclass(frozen=True)
class Callable:
    """A function, a class, or a method of a class, that the reference describes.

    Attributes
    ----------
    name : str
        In full.
    signature : Signature
        Without ``self``.
    doc : str
        Its docstring, and those that it points to.
    """

    name: str
    signature: inspect.Signature
    doc: str

    def __str__(self) -> str:
        return self.name

    @property
    def parameters(self) -> list[str]:
        """What it takes."""
        return list(self.signature.parameters)


def thing(name: str) -> Any:
    """Return what a full name stands for."""
    return _WRITTEN["named"](name)


def callables() -> Iterator[Callable]:
    """Yield all that can be called, but errors, which only Stormsweep makes, and protocols."""
    for name in NAMES:
        found = thing(name)
        doc = inspect.cleandoc(found.__doc__ or "")
        if not isinstance(found, type):
            yield Callable(name, inspect.signature(found), doc)
            continue
        if not issubclass(found, BaseException) and not getattr(found, "_is_protocol", False):
            if found is records.TaskPaused:
                doc += "\n\n" + inspect.cleandoc(records.TaskDone.__doc__ or "")
            yield Callable(name, inspect.signature(found), doc)
        yield from methods(name, found)


def methods(name: str, owner: type) -> Iterator[Callable]:
    """Yield the public methods of a class that are ours."""
    for method in dir(owner):
        if method.startswith("_"):
            continue
        home = next(cls for cls in owner.__mro__ if method in vars(cls))
        own = vars(home)[method]
        own = getattr(own, "__func__", own)
        if not home.__module__.startswith("stormsweep") or not inspect.isfunction(own):
            continue
        signature = inspect.signature(own)
        kept = list(signature.parameters.values())[
            not isinstance(vars(home)[method], staticmethod) :
        ]
        doc = inspect.cleandoc(own.__doc__ or "")
        if method in _LIKE:
            doc += "\n\n" + inspect.cleandoc(getattr(_LIKE[method], method).__doc__)
        yield Callable(f"{name}.{method}", signature.replace(parameters=kept), doc)


def described(doc: str, *titles: str) -> set[str]:
    """Return the names that sections of a docstring describe, each in a line or more beneath it."""
    found: set[str] = set()
    title, lines = "", doc.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line and set(below) == {"-"} and len(below) == len(line):
            title = line
        elif title in titles and line and not line.startswith((" ", "-")) and below[:1] == " ":
            found |= {name.strip(" *") for name in line.partition(" : ")[0].split(",")}
    return found
