"""Layers, optimizers and variables that outlive a build, with what a run before has trained."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from stormsweep.errors import RunError

#: On a variable that a model which was built in this process uses, and on nothing else: None where
#: training changes it, else a checksum of its value. It goes with the variable.
_MARK = "_stormsweep_began"


def refuse_used(model: keras.Model, label: str) -> None:
    """Refuse a model that shares with an earlier one what training changes.

    Its run would go on from what that one had learned, perhaps from the cases that it is scored by.
    Layers that are frozen in both, and still are what they were, may be shared.

    Parameters
    ----------
    model : keras.Model
        Compiled or not; as its builder returned it.
    label : str
        What the builder is called.

    Raises
    ------
    RunError
        If it does.
    """
    changing = {id(variable) for variable in _changing(model)}
    for variable in _all(model):
        if not hasattr(variable, _MARK):
            continue
        began = getattr(variable, _MARK)
        if began is None or id(variable) in changing or began != _checksum(variable):
            raise RunError(
                f"{label} returned a model that shares {variable.path} with one that it returned "
                "before; make layers and optimizer in each call, not once at module level or cached"
            )


def remember(model: keras.Model) -> None:
    """Mark the variables of a model for `refuse_used`.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    """
    for variable in _changing(model):
        setattr(variable, _MARK, None)
    for variable in _all(model):
        if not hasattr(variable, _MARK):
            setattr(variable, _MARK, _checksum(variable))


def refuse_changed(used: Sequence[Any], changing: Sequence[Any]) -> None:
    """Refuse variables of neither model nor optimizer that an earlier run has changed; mark all.

    A run would begin with what that one has left, which depends on the order of work.

    Parameters
    ----------
    used : sequence of tf.Variable
        That a traced program uses.
    changing : sequence of tf.Variable
        That it changes, these or others.

    Raises
    ------
    RunError
        If there is one.
    """
    changed = {id(variable) for variable in changing}
    for variable in used:
        mark = None if id(variable) in changed else _checksum(variable)
        if hasattr(variable, _MARK) and (mark is None or getattr(variable, _MARK) != mark):
            raise RunError(
                f"the model shares the variable {variable.name!r}, which training changes, with "
                "one built before; make it in a layer, by self.add_weight, not at module level"
            )
        setattr(variable, _MARK, mark)


def _changing(model: keras.Model) -> list[Any]:
    return [*model.trainable_variables, *_of_optimizer(model)]


def _all(model: keras.Model) -> list[Any]:
    return [*model.variables, *_of_optimizer(model)]


def _of_optimizer(model: keras.Model) -> list[Any]:
    return list(model.optimizer.variables) if model.compiled else []


def _checksum(variable: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
