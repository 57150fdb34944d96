"""The search that every peer runs: its data, its grid, its model and one cross-validation of it.

Knows nothing of Stormsweep, and imports Keras only where a model is needed, as a user of the
peers would who forks or spawns worker processes.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

#: What every peer may use; Keras Tuner, which has one process, gives it two threads.
WORKERS = 2


@dataclass(frozen=True)
class Problem:
    """Prepared cases, the rows of each fold, and the values of each hyperparameter."""

    inputs: np.ndarray
    labels: np.ndarray
    folds: list[tuple[np.ndarray, np.ndarray]]
    space: dict[str, list[Any]]


@lru_cache
def load(folder: str | Path) -> Problem:
    """Read what the runner wrote; once in a process."""
    folder = Path(folder)
    rows = np.load(folder / "folds.npz")
    folds = [
        (rows[f"train_{fold}"], rows[f"validation_{fold}"]) for fold in range(len(rows.files) // 2)
    ]
    return Problem(
        np.load(folder / "inputs.npy"),
        np.load(folder / "labels.npy"),
        folds,
        json.loads((folder / "space.json").read_text(encoding="utf-8")),
    )


def configurations(space: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return every point of the grid."""
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]


def build(
    input_shape: tuple[int, ...], learning_rate: float, filters: Sequence[int] = (8, 16, 32)
) -> Any:
    """Return the network of the 2019 study, compiled: 17,169 parameters for 32 x 32 x 3."""
    import keras
    from keras import layers

    model = keras.Sequential([layers.Input(input_shape)])
    for number in filters:
        model.add(layers.Conv2D(number, 5, padding="same", activation="relu"))
        model.add(layers.AveragePooling2D(2))
    model.add(layers.Flatten())
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile(keras.optimizers.Adam(learning_rate), "binary_crossentropy")
    return model


def fit(
    inputs: np.ndarray, labels: np.ndarray, batch_size: int, learning_rate: float, epochs: int
) -> Any:
    """Return a model trained with Keras's own `fit`, after clearing what earlier models left."""
    import keras

    keras.utils.clear_session()
    model = build(inputs.shape[1:], learning_rate)
    model.fit(inputs, labels, batch_size=batch_size, epochs=epochs, verbose=0)
    return model


def predict(model: Any, inputs: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the probability of the event for each case, shape (n,)."""
    return model.predict(inputs, batch_size=batch_size, verbose=0)[:, 0]


def cross_validate(problem: Problem, batch_size: int, learning_rate: float, epochs: int) -> float:
    """Return the mean over the folds of the ROC AUC on the validation rows."""
    from sklearn.metrics import roc_auc_score

    scores = []
    for train, validation in problem.folds:
        model = fit(problem.inputs[train], problem.labels[train], batch_size, learning_rate, epochs)
        probabilities = predict(model, problem.inputs[validation], batch_size)
        scores.append(roc_auc_score(problem.labels[validation], probabilities))
    return float(np.mean(scores))


def climb(
    problem: Problem,
    rungs: Sequence[int],
    batch_size: int,
    learning_rate: float,
    filters: Sequence[int],
) -> Iterator[tuple[int, float]]:
    """Train one configuration on all folds from rung to rung; yield each rung and its mean ROC AUC.

    A pruner that is asked between two rungs can end the trial there; the models stay in memory.
    """
    import keras
    from sklearn.metrics import roc_auc_score

    keras.utils.clear_session()
    shape = problem.inputs.shape[1:]
    models = [build(shape, learning_rate, filters) for _ in problem.folds]
    done = 0
    for rung in rungs:
        scores = []
        for model, (train, validation) in zip(models, problem.folds, strict=True):
            model.fit(
                problem.inputs[train],
                problem.labels[train],
                batch_size=batch_size,
                initial_epoch=done,
                epochs=rung,
                verbose=0,
            )
            probabilities = predict(model, problem.inputs[validation], batch_size)
            scores.append(roc_auc_score(problem.labels[validation], probabilities))
        done = rung
        yield rung, float(np.mean(scores))


def arguments() -> tuple[Path, Path]:
    """Return the data folder and the file to write, from the command line."""
    return Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()


def write(
    file: Path, package: str, scores: Iterable[tuple[dict[str, Any], float]], space: dict[str, Any]
) -> None:
    """Write the mean ROC AUC of every configuration, averaged where one was trained twice."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for values, score in scores:
        found.setdefault(tuple(values[name] for name in space), []).append(float(score))
    rows = [
        {**values, "roc_auc": float(np.mean(found[tuple(values.values())]))}
        for values in configurations(space)
    ]
    said = {"version": f"{package} {version(package)}", "scores": rows}
    file.write_text(json.dumps(said), encoding="utf-8")
