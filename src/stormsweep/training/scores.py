"""Scores of probability forecasts of a rare event, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import DivergedError, RunError

#: Probabilities are kept this far from 0 and 1 in the cross-entropy, as Keras does.
EPSILON = 1e-7


def scores(
    labels: NDArray[Any], probabilities: NDArray[Any], climatology: float
) -> dict[str, float]:
    """Score probabilities against what happened.

    Parameters
    ----------
    labels : ndarray, shape (n,)
        1 where the event happened, else 0.
    probabilities : ndarray, shape (n,)
        Forecast probability of the event, 0 to 1.
    climatology : float
        Event frequency of the training cases: the constant forecast that the Brier skill score
        compares with.

    Returns
    -------
    dict of str to float
        ``loss`` (binary cross-entropy, nats), ``accuracy`` (event where the probability is above
        0.5), ``f1`` (of events, at the same threshold), ``roc_auc``, ``average_precision``,
        ``brier_score``, ``brier_skill_score``, ``csi`` (the best critical success index over all
        thresholds) and ``csi_threshold`` (where it is reached: forecast the event where the
        probability is at least this). Where all labels are the same, ``roc_auc``,
        ``average_precision``, ``csi`` and ``csi_threshold`` mean nothing and are left out, and
        so is ``f1`` where there is no event.

    Raises
    ------
    DivergedError
        If a probability is not a finite number.
    RunError
        If a probability is outside 0 to 1, or there are no cases.
    """
    from sklearn import metrics

    event = np.asarray(labels).ravel() != 0
    p = np.asarray(probabilities, dtype=np.float64).ravel()
    check_probabilities(p)
    brier = float(metrics.brier_score_loss(event, p, pos_label=True))
    reference = float(np.mean((climatology - event) ** 2))
    result = {
        "loss": float(metrics.log_loss(event, np.clip(p, EPSILON, 1 - EPSILON), labels=[0, 1])),
        "accuracy": float(metrics.accuracy_score(event, p > 0.5)),
        "brier_score": brier,
        "brier_skill_score": 1 - brier / reference,
    }
    if event.any():
        result["f1"] = float(metrics.f1_score(event, p > 0.5, zero_division=0.0))
    if event.all() or not event.any():
        return result
    best_csi, threshold = csi(event, p)
    return result | {
        "roc_auc": float(metrics.roc_auc_score(event, p)),
        "average_precision": float(metrics.average_precision_score(event, p)),
        "csi": best_csi,
        "csi_threshold": threshold,
    }


def check_probabilities(p: NDArray[Any]) -> None:
    """Refuse what a model predicts where it is no probability.

    Raises
    ------
    DivergedError
        If a value is not a finite number.
    RunError
        If a value is outside 0 to 1, or there are none.
    """
    if not np.isfinite(p).all():
        count = int(np.count_nonzero(~np.isfinite(p)))
        raise DivergedError(f"the model predicts no number for {count} of {p.size} cases")
    if p.size == 0:
        raise RunError("there are no validation cases; nothing can be scored")
    if p.min() < 0 or p.max() > 1:
        raise RunError(
            f"the model predicts values from {p.min():.4g} to {p.max():.4g}; must be "
            "probabilities from 0 to 1: end it with a sigmoid"
        )


def csi(event: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> tuple[float, float]:
    """Return the best critical success index over all thresholds, and the threshold.

    The index is hits / (hits + misses + false alarms) (Donaldson and others 1975; Schaefer 1990,
    Weather and Forecasting 5). The event is forecast where the probability is at least the
    threshold; of thresholds that do equally well the highest is returned.

    Parameters
    ----------
    event : ndarray of bool, shape (n,)
        Whether the event happened; at least once.
    probabilities : ndarray of float64, shape (n,)
        Forecast probability.

    Examples
    --------
    >>> csi(np.array([False, True, True, False]), np.array([0.1, 0.8, 0.4, 0.6]))
    (0.6666666666666666, 0.4)
    """
    falling = np.argsort(-probabilities, kind="stable")
    sorted_p = probabilities[falling]
    # Equal probabilities are forecast together: only the last of each value is a threshold.
    last = np.append(np.flatnonzero(np.diff(sorted_p)), sorted_p.size - 1)
    hits = np.cumsum(event[falling])[last]
    false_alarms = last + 1 - hits
    index = hits / (np.count_nonzero(event) + false_alarms)
    best = int(np.argmax(index))
    return float(index[best]), float(sorted_p[last[best]])
