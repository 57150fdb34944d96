"""What proposes configurations.

A strategy is made by its name in the study file. Plug-ins announce themselves as entry points of
the group ``stormsweep.strategies``: a callable with the arguments of `make`.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from stormsweep.config.strategies import BUILT_IN, KNOWN_AHEAD, plugins
from stormsweep.config.study import SearchTable
from stormsweep.search.proposals import Setting, Strategy
from stormsweep.search.space import DEFAULT_EPOCHS, Interval, Space
from stormsweep.search.strategies.fixed import propose
from stormsweep.work import Hyperparameters

__all__ = ["begin", "known_ahead", "make", "propose", "setting"]


def make(search: SearchTable, fixed: Hyperparameters, folds: int, seed: int) -> Strategy:
    """Return the strategy of a study, at its beginning.

    Parameters
    ----------
    search : SearchTable
        ``[search]`` of the study file.
    fixed : dict
        ``[model.parameters]``.
    folds : int
        Folds of the cross-validation.
    seed : int
        The study's seed.

    Returns
    -------
    Strategy
        One that has taken in nothing yet.

    Raises
    ------
    StudyFileError
        If the strategy cannot be had here, or its constraints cannot be kept.
    """
    name = search.strategy
    if name not in BUILT_IN:
        return cast(Strategy, plugins()[name].load()(search, fixed, folds, seed))
    return begin(search, Space.of(search, fixed), setting(search, fixed, folds, seed))


def begin(search: SearchTable, space: Space, start: Setting) -> Strategy:
    """Return a strategy of Stormsweep's own, in another space or setting than the study file's.

    Parameters
    ----------
    search : SearchTable
        Names the strategy.
    space : Space
        What is searched; where it has no ``epochs``, the first of the setting's are taken.
    start : Setting
        The rest.
    """
    # Only the module that is needed: Optuna takes a second to import.
    module = import_module(f"stormsweep.search.strategies.{BUILT_IN[search.strategy]}")
    return cast(Strategy, module.make(search, space, start))


def known_ahead(search: SearchTable) -> bool:
    """Tell whether all proposals are known before any outcome is."""
    return search.strategy in KNOWN_AHEAD


def setting(search: SearchTable, fixed: Hyperparameters, folds: int, seed: int) -> Setting:
    """Return what a strategy starts from: the study file in numbers.

    Where ``epochs`` is searched in a range, the epochs are its ends.
    """
    given = Space.of(search, fixed).values.get("epochs", [fixed.get("epochs", DEFAULT_EPOCHS)])
    epochs = [int(given.low), int(given.high)] if isinstance(given, Interval) else given
    objectives = max(1, len(search.objectives))
    return Setting(tuple(sorted(epochs)), folds, search.trials, seed, objectives)
