"""Layers, optimizers and variables that outlive a build, with what a run before has trained."""

from __future__ import annotations

import contextlib
import re
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import RunError
from stormsweep.training.calling import asked

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
    for variable in _shared(model):
        began = getattr(variable, _MARK)
        if began is None or id(variable) in changing or began != _checksum(variable):
            raise _refusal(variable, model, label)


def refuse_moved(model: keras.Model, label: str, case: NDArray[np.float32]) -> None:
    """Refuse a model that shares with an earlier one what a look at a case in training changes.

    A frozen layer may count, or draw random numbers. Afterwards the variables of the model that are
    shared are as before.

    Parameters
    ----------
    model : keras.Model
        Passed by `refuse_used`; not to be trained.
    label : str
        What the builder is called.
    case : ndarray of float32, shape (1, ...)
        One case.

    Raises
    ------
    RunError
        If it does.
    """
    shared = _shared(model)
    if not shared:
        return
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in shared]
    # What goes wrong here is said when the model is trained.
    with contextlib.suppress(Exception):
        model(keras.ops.convert_to_tensor(case), **asked(model, training=True))
    moved = [variable for variable in shared if _checksum(variable) != getattr(variable, _MARK)]
    for variable, value in zip(shared, before, strict=True):
        variable.assign(value)
    if moved:
        raise _refusal(moved[0], model, label)


def remember(model: keras.Model, anew: bool = False) -> None:
    """Mark the variables of a model for `refuse_used`.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    anew : bool, optional
        Whether those that training does not change were given other values on purpose.
    """
    for variable in _changing(model):
        setattr(variable, _MARK, None)
    for variable in _all(model):
        if not hasattr(variable, _MARK) or (anew and getattr(variable, _MARK) is not None):
            setattr(variable, _MARK, _checksum(variable))


def forget(model: keras.Model) -> None:
    """Take the marks of `remember` off a model that will not be trained, as far as they matter.

    Parameters
    ----------
    model : keras.Model
        Which was remembered.
    """
    for variable in _changing(model):
        if getattr(variable, _MARK, "") is None:
            delattr(variable, _MARK)


def _refusal(variable: Any, model: keras.Model, label: str) -> RunError:
    path, remedy = variable.path, ""
    for layer in model._flatten_layers():
        if any(variable is generator.state for generator in layer._seed_generators):
            # Which by itself does not say whose it is.
            path = f"{layer.name}/{variable.name}"
            if hasattr(layer, "rate"):
                remedy = (
                    "; in a frozen part, set the rate of Dropout to 0, which training=False does "
                    "not turn off inside of another model"
                )
    # Keras numbers what is made, through the process: each run would say another.
    path = re.sub(r"(_\d+)+(?=/|$)", "", path)
    return RunError(
        f"{label} returned a model that shares {path} with one that it returned before; make "
        f"layers and optimizer in each call, not once at module level or cached{remedy}"
    )


def variables_made() -> int:
    """Return a number that no variable of TensorFlow has yet, and that all later ones exceed."""
    from tensorflow.python.framework import ops

    return int(ops.uid())


def refuse_changed(used: Sequence[Any], changing: Sequence[Any], since: int) -> None:
    """Refuse variables of neither model nor optimizer that outlive a run and are changed by it.

    The next run would begin with what it has left, which depends on the order of work. Marks those
    that are used, to know them again.

    Parameters
    ----------
    used : sequence of tf.Variable
        That a traced program uses.
    changing : sequence of tf.Variable
        That it changes, these or others.
    since : int
        From `variables_made`, before the model was built.

    Raises
    ------
    RunError
        If there is one.
    """
    changed = {id(variable) for variable in changing}
    for variable in used:
        mark = None if id(variable) in changed else _checksum(variable)
        outlives = mark is None and _number(variable) < since
        known = hasattr(variable, _MARK)
        if outlives or (known and (mark is None or getattr(variable, _MARK) != mark)):
            raise RunError(
                f"training changes the variable {variable.name!r}, which other models share; make "
                "it in a layer, by self.add_weight, not at module level"
            )
        setattr(variable, _MARK, mark)


def _number(variable: Any) -> int:
    """Return the number of a variable of TensorFlow; those without one count as new."""
    number = str(getattr(variable, "_unique_id", "")).rpartition("_")[2]
    return int(number) if number.isdecimal() else sys.maxsize


def _changing(model: keras.Model) -> list[Any]:
    return [*model.trainable_variables, *_of_optimizer(model)]


def _all(model: keras.Model) -> list[Any]:
    return [*model.variables, *_of_optimizer(model)]


def _shared(model: keras.Model) -> list[Any]:
    return [variable for variable in _all(model) if hasattr(variable, _MARK)]


def _of_optimizer(model: keras.Model) -> list[Any]:
    return list(model.optimizer.variables) if model.compiled else []


def _checksum(variable: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
