"""Models that were trained, written down; any backend of Keras can load what another wrote."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)
WHOLE, WEIGHTS = "model.keras", "model.weights.h5"


def save_model(
    model: keras.Model,
    folder: Path,
    predict: Callable[[keras.Model], NDArray[np.float32]],
) -> tuple[str, str]:
    """Write a model to a folder, whole where Keras can, else its weights.

    Some models of users (custom layers that cannot be written down) are saved without complaint
    and fail when they are loaded, so the file is loaded at once and compared.

    Parameters
    ----------
    model : keras.Model
        Trained.
    folder : Path
        Where to.
    predict : callable
        Has a model predict some cases; the loaded one must predict the same.

    Returns
    -------
    tuple of str and str
        The file's name and its form: ``keras`` or ``weights``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(folder / WHOLE)
            again = keras.saving.load_model(folder / WHOLE, compile=False, safe_mode=True)
        if np.array_equal(predict(model), predict(again)):
            return WHOLE, "keras"
        reason = "the loaded model predicts otherwise"
    except Exception as error:  # a user's layer may raise anything when it is written or read
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    log.warning("the model cannot be saved whole (%s); its weights are", reason)
    (folder / WHOLE).unlink(missing_ok=True)
    model.save_weights(folder / WEIGHTS)
    return WEIGHTS, "weights"
