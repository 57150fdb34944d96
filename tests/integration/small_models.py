"""A user's own models: small enough that a test trains them in seconds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Any


def digits_cnn(input_shape: tuple[int, ...], learning_rate: float, filters: int = 4) -> Any:
    """A small CNN with dropout, so that the random state counts as well."""
    import keras

    model = keras.Sequential(
        [
            keras.layers.Input(input_shape),
            keras.layers.Conv2D(filters, 3, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(learning_rate), "binary_crossentropy")
    return model


def dense(input_shape: tuple[int, ...], width: int = 8) -> Any:
    """A small dense net, left uncompiled."""
    import keras

    return keras.Sequential(
        [
            keras.layers.Input(input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(width, activation="tanh"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def troubled(input_shape: tuple[int, ...], trouble: str) -> Any:
    """A model that fails in the way its hyperparameter says."""
    import keras

    if trouble == "raise":
        raise ValueError("this builder always raises")
    model = dense(input_shape)
    rate = float("inf") if trouble == "diverge" else 0.01
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy")
    if trouble in ("memory", "kill") and _first_fold(trouble, model):
        if trouble == "kill":
            os.kill(os.getpid(), 9)
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1 << 20)) * 64)
            time.sleep(0.02)
    return model


def _first_fold(trouble: str, model: Any) -> bool:
    """Tell whether the fold is the one that met a trouble first, in this process or another.

    Folds begin with other weights, and attempts at one fold with the same.
    """
    weights = hashlib.sha256(b"".join(w.numpy().tobytes() for w in model.weights)).hexdigest()
    mark, own = Path(f"{trouble}.first-fold"), Path(f"{trouble}.{os.getpid()}")
    own.write_text(weights)
    with contextlib.suppress(FileExistsError):
        os.link(own, mark)
    return mark.read_text() == weights
