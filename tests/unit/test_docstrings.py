"""The reference in Python: if these fail, a reader looks something up and finds nothing."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from importlib import import_module

import pytest

import stormsweep
from tests.docstrings import FURTHER, GIVEN, NAMES, PUBLIC, Callable, callables, described, thing
from tests.pages import PAGES, every

#: How a first line begins that says what is returned.
_SAYS = ("Return", "Yield", "Tell whether", "Say")


def test_every_public_name_is_in_the_reference_once() -> None:
    names = [f"stormsweep.{name}" for name in stormsweep.__all__ if not name.startswith("_")]
    assert sorted(PUBLIC) == sorted(names)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("one", list(callables()), ids=str)
def test_all_that_goes_in_and_comes_out_is_described(one: Callable) -> None:
    missing = set(one.parameters) - described(one.doc, *GIVEN)
    assert not missing, f"{one}: its docstring does not describe {', '.join(sorted(missing))}"
    returns = str(one.signature.return_annotation)
    if one.name not in NAMES or not isinstance(thing(one.name), type):
        says = one.doc.startswith(_SAYS) or described(one.doc, "Returns", "Yields")
        assert says or returns == "None", f"{one}: its docstring does not say what it returns"


def test_every_error_and_property_says_what_it_is() -> None:
    for name in NAMES:
        found = thing(name)
        assert found.__doc__, name
        for one, own in vars(found).items() if isinstance(found, type) else ():
            if isinstance(own, property | cached_property) and not one.startswith("_"):
                assert own.__doc__, f"{name}.{one}"


def test_what_pages_import_and_name_is_in_the_reference() -> None:
    """Losing this: a page that sends its reader to a class of which nothing more is said."""
    named = {
        name
        for page in PAGES
        for name in re.findall(
            r"`(stormsweep(?:\.[a-z_]+)+\.[A-Z]\w*)", page.read_text(encoding="utf-8")
        )
    }
    for block in every("python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stormsweep"):
                named |= {f"{node.module}.{one.name}" for one in node.names}
    assert len(named) > 10
    for name in named:
        module, _, last = name.rpartition(".")
        assert name in NAMES or not callable(getattr(import_module(module), last)), name
    assert set(FURTHER) & named, "no page names what is not public"


def test_what_is_not_described_would_be_found() -> None:
    doc = (
        "Do it.\n\nParameters\n----------\none, two : int\n    Both.\n**more : object\n    More.\n"
        "bare : int\n\nReturns\n-------\nint\n    It.\n"
    )
    assert described(doc, "Parameters") == {"one", "two", "more"}
    assert described(doc, "Returns") == {"int"}
    assert described("Do it.", "Parameters", "Returns") == set()
