"""A line of the figures of time: one study on one kind of nodes, and what its fits took."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

#: Point, epochs, fold.
Fit = tuple[str, int, int]


@dataclass(frozen=True)
class Line:
    """A study on one kind of nodes: a line of the figures of time.

    Attributes
    ----------
    name, study, kind : str
        What it is called, and of what it is.
    timed : DataFrame
        `Side.timed` of that kind; ``point`` holds the hyperparameters that all sides have, ``x``
        the value that times are drawn against.
    """

    name: str
    study: str
    kind: str
    timed: pd.DataFrame

    @cached_property
    def fits(self) -> set[Fit]:
        """Its fits: point, epochs, fold."""
        columns = (self.timed[name] for name in ("point", "epochs", "fold"))
        return set(zip(*columns, strict=True))

    def within(self, fits: set[Fit]) -> set[Fit]:
        """Return those of some fits whose time is known: of a whole block all or none.

        Parameters
        ----------
        fits : set of tuple
            Point, epochs and fold of each.
        """
        own = self.timed
        inside = _inside(own, fits)
        torn = set(own.loc[own["whole"].to_numpy(bool) & ~inside, "block"])
        kept = own[inside & ~own["block"].isin(torn).to_numpy()]
        return set(zip(kept["point"], kept["epochs"], kept["fold"], strict=True))

    def spent(self, fits: set[Fit]) -> dict[str, float]:
        """Return what some fits took, all shared training counted once, and what they asked for.

        Parameters
        ----------
        fits : set of tuple
            Point, epochs and fold of each.

        Returns
        -------
        dict of str to float
            ``fits``, ``asked`` (patches), ``seconds``, ``node_seconds``, ``core_seconds``.
        """
        own = self.timed[_inside(self.timed, fits)]
        sums = ("seconds", "node_seconds", "core_seconds")
        blocks = own.groupby("block")[list(sums)].max()
        return {
            "fits": float(len(own)),
            "asked": float(own["asked"].sum(skipna=False)),
            **{name: float(blocks[name].sum()) for name in sums},
        }


def _inside(table: pd.DataFrame, fits: set[Fit]) -> Any:
    keys = zip(table["point"], table["epochs"], table["fold"], strict=True)
    return np.array([key in fits for key in keys], dtype=bool)


def by_x(line: Line, fits: set[Fit]) -> dict[Any, set[Fit]]:
    """Return the fits by their value of x."""
    value_of = dict(zip(line.timed["point"], line.timed["x"], strict=True))
    found: dict[Any, set[Fit]] = {}
    for fit in fits:
        found.setdefault(value_of[fit[0]], set()).add(fit)
    return found
