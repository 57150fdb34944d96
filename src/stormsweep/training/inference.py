"""Models that were trained: loaded again and asked for probabilities, on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stormsweep.errors import ModelError, RunError
from stormsweep.training.calling import asked
from stormsweep.training.policy import precision_of_layers
from stormsweep.training.program import CHUNK
from stormsweep.training.saving import load_whole, rebuilt, refuse_unlike


def load_model(
    path: Path,
    form: str,
    find: Callable[[], Callable[..., Any]],
    hyperparameters: Mapping[str, Any],
    input_shape: Sequence[int],
    precision: str = "float32",
    seed: int = 0,
    fold: int | None = None,
) -> keras.Model:
    """Load a model that `saving.save_model` wrote, whichever engine trained it.

    Parameters
    ----------
    path : Path
        The model's file.
    form : str
        ``keras`` or ``weights``.
    find : callable
        Finds the builder; called only where the file alone does not do. May raise ModelError.
    hyperparameters : mapping
        With which the builder is called.
    input_shape : sequence of int
        Shape of one case.
    precision : str
        ``float32`` or ``bfloat16``, under which the model was built.
    seed : int
        The study's, from which follows what the builder draws.
    fold : int, optional
        The run's, likewise; None: nobody wrote it down.

    Raises
    ------
    ModelError
        If the file cannot be loaded, the builder's model does not fit it, or predicts otherwise
        than the one that was saved.
    """
    try:
        if form == "weights":
            with precision_of_layers(precision):
                builder = find()  # layers that its module makes are of that precision, too
            model = rebuilt(path, builder, hyperparameters, input_shape, precision, seed, fold)
        else:
            try:
                model = load_whole(path)
            except (ValueError, TypeError):
                with precision_of_layers(precision):
                    find()  # which registers the layers that its module defines
                model = load_whole(path)
        refuse_unlike(model, path)
        return model
    except (ModelError, MemoryError):
        raise
    except (RunError, Exception) as error:
        text = " ".join(str(error).split())
        raise ModelError(f"{path}: the model cannot be loaded ({text[:300]})") from None


class Predictor:
    """Asks a model for probabilities.

    Cases go through in batches of one size, the last one filled up: the probability of a case does
    not depend on how many others there are.

    Parameters
    ----------
    model : keras.Model
        Built and trained.
    """

    def __init__(self, model: keras.Model) -> None:
        keywords = asked(model, training=False)
        self._call = tf.function(lambda x: model(x, **keywords), reduce_retracing=True)

    def __call__(self, cases: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of the event, shape (n,), for cases scaled as in training."""
        out = np.empty(len(cases), np.float32)
        for start in range(0, len(cases), CHUNK):
            part = cases[start : start + CHUNK]
            count = len(part)
            if count < CHUNK:
                filling = np.zeros((CHUNK - count, *part.shape[1:]), part.dtype)
                part = np.concatenate([part, filling])
            predicted = tf.cast(self._call(tf.constant(part)), tf.float32)
            out[start : start + count] = tf.reshape(predicted, [-1]).numpy()[:count]
        return out
