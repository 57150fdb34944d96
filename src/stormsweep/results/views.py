"""Views of a journal made once: what reads a whole journal is asked for it by many."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pandas as pd

from stormsweep.records import Entry

T = TypeVar("T")


class Kept(list[Entry]):
    """The entries of a journal that does not grow any more, with the views that were made of them.

    It is read like any list. Functions marked with `view` compute once what they make of it.
    """

    __slots__ = ("views",)

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__(entries)
        self.views: dict[str, Any] = {}


def view(make: Callable[[Sequence[Entry]], T]) -> Callable[[Sequence[Entry]], T]:
    """Mark a function of a journal's entries alone: of `Kept` entries it computes once.

    What it returns is shared then, and not to be changed; of a frame everybody gets a copy that
    takes no room until it is changed.
    """
    name = f"{make.__module__}.{make.__qualname__}"

    @functools.wraps(make)
    def viewed(entries: Sequence[Entry]) -> T:
        if not isinstance(entries, Kept):
            return make(entries)
        if name not in entries.views:
            entries.views[name] = make(entries)
        made: T = entries.views[name]
        return made.copy(deep=False) if isinstance(made, pd.DataFrame) else made

    return viewed
