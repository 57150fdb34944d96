"""Numbers that others published, as data with their source: what one's own are laid over."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pandas as pd

from stormsweep.errors import UserError

#: What a published study is named by, where a study's directory could stand.
PREFIX = "published:"


@dataclass(frozen=True)
class Published:
    """A published study.

    Attributes
    ----------
    about : dict
        What its TOML file says: name, title, source, metric, folds, kinds of nodes, flaws, remarks.
    scores : DataFrame
        One row a configuration: hyperparameters, ``<score>_mean``, ``<score>_sd``, as published.
    times : DataFrame
        One row a timing: ``kind`` of node, the hyperparameters it is of, ``seconds`` of a node.
    """

    about: dict[str, Any]
    scores: pd.DataFrame
    times: pd.DataFrame


def names() -> list[str]:
    """Return the names of the published studies that ship.

    Examples
    --------
    >>> names()
    ['umbc-2019']
    """
    found = [place.name for place in files(__name__).iterdir()]
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def load(name: str) -> Published:
    """Return a published study.

    Raises
    ------
    UserError
        If none of that name ships.

    Examples
    --------
    >>> load("umbc-2019").scores["accuracy_mean"].max()
    0.9626
    """
    if name not in names():
        raise UserError(
            f"{PREFIX}{name}: no such numbers ship; there are "
            + ", ".join(PREFIX + known for known in names())
        )
    folder = files(__name__)
    about = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
    scores, times = (
        _table(folder / f"{name}-{what}.csv") for what in (str(about["metric"]), "times")
    )
    return Published(about, scores, times)


def _table(place: Any) -> pd.DataFrame:
    with place.open(encoding="utf-8") as stream:
        return pd.read_csv(stream, comment="#")
