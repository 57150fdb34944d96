"""Train on a twin what was trained on the archive, and score it on the years from 2015 on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import GroupKFold, KFold
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.twin import published
from benchmarks.twin.measure import Sample

MEANS = ("REFL_COM_mean", "U10_mean", "V10_mean", "T2_mean")
Floats = npt.NDArray[np.float64]


def scores(event: npt.NDArray[np.bool_], probability: Floats) -> tuple[float, float]:
    """Return ROC AUC and Brier skill score (against the base rate of the scored cases)."""
    rate = event.mean()
    brier = brier_score_loss(event, probability)
    return float(roc_auc_score(event, probability)), float(1 - brier / (rate * (1 - rate)))


def table(sample: Sample, names: tuple[str, ...]) -> Floats:
    """Return columns of the table, z-scored with the training part: (n, columns)."""
    x = np.column_stack([sample.table[name] for name in names]).astype("f8")
    known = x[~sample.later]
    return np.asarray((x - known.mean(axis=0)) / known.std(axis=0))


def dense_net(sample: Sample, epochs: int = 20, seed: int = 0) -> tuple[float, float]:
    """Score the dense net: four means of the table, ten tanh units, batch 128, SGD."""
    import keras

    from stormsweep.models.storm import storm_dnn

    keras.utils.set_random_seed(seed)
    x, later = table(sample, MEANS).astype("f4"), sample.later
    model = storm_dnn((4,), width=10, learning_rate=0.01, momentum=0.9)
    model.fit(
        x[~later], sample.event[~later].astype("f4"), batch_size=128, epochs=epochs, verbose=0
    )
    return scores(sample.event[later], model.predict(x[later], 4096, verbose=0)[:, 0])


def cnn(
    sample: Sample,
    epochs: int = 10,
    filters: tuple[int, ...] = (8, 16, 32),
    dropout: float = 0.0,
    seed: int = 0,
    verbose: int = 0,
) -> tuple[float, float]:
    """Score the CNN: reflectivity and wind, batch 512, Adam with rate 0.001."""
    import keras

    from stormsweep.models.storm import storm_cnn

    keras.utils.set_random_seed(seed)
    assert sample.images is not None
    later, order = sample.later, np.random.default_rng(seed)
    known, answer = np.flatnonzero(~later), sample.event.astype("f4")
    model = storm_cnn((32, 32, 3), filters=filters, dropout=dropout)
    for epoch in range(epochs):
        order.shuffle(known)
        losses = []
        for start in range(0, len(known), 512):
            rows = known[start : start + 512]
            losses.append(model.train_on_batch(sample.images[rows].astype("f4"), answer[rows]))
        if verbose:
            print(f"  epoch {epoch + 1}: loss {losses[-1]:.4f}", flush=True)
    unknown = np.flatnonzero(later)
    found = [
        model.predict_on_batch(sample.images[unknown[start : start + 2048]].astype("f4"))[:, 0]
        for start in range(0, len(unknown), 2048)
    ]
    return scores(sample.event[later], np.concatenate(found))


def neighbours(sample: Sample, grouped: bool, seed: int = 0) -> float:
    """Return the ROC AUC of five-fold cross-validation of twenty nearest neighbours.

    They look at the four means, as the dense net does, all years together.

    Parameters
    ----------
    sample : Sample
        The twin.
    grouped : bool
        Whether folds are of whole run dates, or at random across tracks, which leaks.
    seed : int
        Of the folds.
    """
    x, event = table(sample, MEANS), sample.event
    kind, groups = (GroupKFold, sample.run) if grouped else (KFold, None)
    folds = kind(5, shuffle=True, random_state=seed)
    model = KNeighborsClassifier(20, weights="distance")
    found = []
    for known, unknown in folds.split(x, event, groups):
        probability = model.fit(x[known], event[known]).predict_proba(x[unknown])[:, 1]
        found.append(roc_auc_score(event[unknown], probability))
    return float(np.mean(found))


def forest(sample: Sample, seed: int = 0) -> tuple[float, float]:
    """Score a random forest of 100 trees on the 41 statistics of the table."""
    x, later = table(sample, tuple(published.TABLE)), sample.later
    model = RandomForestClassifier(100, min_samples_leaf=5, random_state=seed)
    model.fit(x[~later], sample.event[~later])
    return scores(sample.event[later], model.predict_proba(x[later])[:, 1])
