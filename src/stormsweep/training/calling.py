"""How a model is called: in training or not, as far as it asks."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def asked(model: keras.Model, training: bool) -> dict[str, Any]:
    """Return what a model is called with beside its inputs.

    Parameters
    ----------
    model : keras.Model
        Any; a subclassed one need not take ``training``.
    training : bool
        Whether it is trained.
    """
    return {"training": training} if "training" in inspect.signature(model.call).parameters else {}


def outputs(model: keras.Model, cases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what a model predicts, uncompiled and at once, on any backend.

    Parameters
    ----------
    model : keras.Model
        With one output for each case.
    cases : ndarray of float32, shape (n, ...)
        Few cases.

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    found = model(keras.ops.convert_to_tensor(cases), **asked(model, training=False))
    return np.asarray(keras.ops.convert_to_numpy(found), np.float32).reshape(-1)
