"""Words and numbers as a reader wants them: labels, scores, durations, values."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from stormsweep import wording

#: Names of the scores, as an axis or a table calls them.
SCORES = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "brier_skill_score": "Brier skill score",
    "csi": "best critical success index",
    "csi_threshold": "probability threshold of best CSI",
    "f1": "F1",
    "brier_score": "Brier score",
    "loss": "cross-entropy",
}
#: What a score says, in a few words: its best value and what a forecast without skill gets.
MEANINGS = {
    "roc_auc": "0.5 without skill, 1 perfect",
    "average_precision": "event frequency without skill, 1 perfect",
    "accuracy": "flattered by rare events: never forecasting one scores high",
    "brier_skill_score": "0 is no better than climatology, 1 perfect",
    "csi": "hits of all events and false alarms, at the best threshold; 1 perfect",
    "csi_threshold": "chosen on the validation fold itself",
    "f1": "harmonic mean of precision and recall where the probability is above 0.5; 1 perfect",
    "brier_score": "mean squared error of the probability, 0 perfect",
    "loss": "on the validation fold, lower is better",
}
#: What a worker's time goes to.
PHASES = {
    "start": "starting the worker",
    "open": "opening data",
    "build": "building the model",
    "compile": "compiling",
    "train": "training",
    "score": "scoring",
    "checkpoint": "checkpoints",
    "other": "other work in tasks",
    "lost": "work that was lost",
    "travel": "orders and answers on the way",
    "waiting": "waiting for an order",
    "idle": "idle: no run waited",
    "underway": "not on record",
}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NOTHING, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def score_label(name: str) -> str:
    """Return what a score is called."""
    return SCORES.get(name, label(name))


def label(name: str) -> str:
    """Return what a hyperparameter is called.

    Examples
    --------
    >>> label("batch_size")
    'batch size'
    """
    known = {"l2": "L2 penalty", "l1": "L1 penalty", "memory_gb": "memory (GB)"}
    return known.get(name, name.replace("_", " ").strip() or name)


def capital(text: str) -> str:
    """Return `text` with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def value(given: Any) -> str:
    """Return a hyperparameter's value as text.

    Examples
    --------
    >>> value(0.005), value(4096), value([8, 16]), value(True), value(1e-05)
    ('0.005', '4096', '[8, 16]', 'true', '1e-05')
    """
    if given is None or (isinstance(given, float) and math.isnan(given)):
        return NOTHING
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, float):
        return f"{given:.6g}"
    if isinstance(given, list | tuple | dict):
        return json.dumps(given)
    return str(given)


def brief(given: Any) -> str:
    """Return a value as figures name it: numbers with four digits.

    Examples
    --------
    >>> brief(0.0024184712), brief(4096), brief("adam")
    ('0.002418', '4096', 'adam')
    """
    return f"{given:.4g}" if isinstance(given, float) and math.isfinite(given) else value(given)


def short(text: str, length: int = 48) -> str:
    """Return `text`, cut to `length` characters with an ellipsis."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def score(given: float) -> str:
    """Return a score with four decimals, or a dash.

    Examples
    --------
    >>> score(0.96262)
    '0.9626'
    """
    return number(given, 4)


def number(given: float, decimals: int = 0) -> str:
    """Return a number with thin spaces between thousands and a true minus sign, or a dash."""
    if not math.isfinite(given):
        return NOTHING if math.isnan(given) else ("" if given > 0 else MINUS) + "∞"
    text = f"{given:,.{decimals}f}"
    whole, point, rest = text.partition(".")
    if len(whole.lstrip("-")) <= 5:
        whole = whole.replace(",", "")
    return (whole.replace(",", "\N{NARROW NO-BREAK SPACE}") + point + rest).replace("-", MINUS)


def percent(share: float, decimals: int = 0) -> str:
    """Return a share as a percentage, or a dash."""
    if not math.isfinite(share):
        return NOTHING
    return f"{number(100 * share, decimals)}\N{NARROW NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Return a length of time in the units that fit it.

    Examples
    --------
    >>> duration(0.4), duration(75), duration(7260), duration(200000)
    ('0.4 s', '1 min 15 s', '2 h 1 min', '2 d 8 h')
    """
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return wording.duration(seconds)


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit in which a time up to `seconds` is best drawn, and its length in seconds."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 3 * size:
            return unit, size
    return "s", 1.0


def units(given: str) -> str:
    """Return units with their exponents raised.

    Examples
    --------
    >>> units("m2 s-1") == "m\N{SUPERSCRIPT TWO} s\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT ONE}"
    True
    """
    return re.sub(r"(?<=[A-Za-z])-?[0-9]\b", lambda found: found.group().translate(_RAISED), given)


def count(how_many: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> count(1, "run"), count(3, "run")
    ('1 run', '3 runs')
    """
    return f"{number(how_many)} {noun if how_many == 1 else plural or noun + 's'}"


def point(hyperparameters: dict[str, Any], names: list[str] | None = None) -> str:
    """Return a configuration in words.

    Examples
    --------
    >>> point({"batch_size": 512, "learning_rate": 0.005, "epochs": 15})
    'batch size 512, learning rate 0.005, 15 epochs'
    """
    chosen = {name: hyperparameters[name] for name in names or hyperparameters}
    parts = [f"{label(name)} {value(given)}" for name, given in chosen.items() if name != "epochs"]
    if "epochs" in chosen:
        epochs = chosen["epochs"]
        parts.append(f"{value(epochs)} epoch{'' if epochs == 1 else 's'}")
    return ", ".join(parts)
