"""What a folder of prepared data is made of: its format, its variables, its target and labels."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import DataError

FORMAT = 2
PartName = Literal["train", "test"]
PARTS: tuple[PartName, ...] = ("train", "test")
#: What the fingerprint is made of: the data themselves, not when, where and from what they came.
CONTENT = (
    "format",
    "source",
    "synthetic",
    "inputs",
    "input_shape",
    "dtype",
    "target",
    "groups",
    "split",
    "parts",
)


@dataclass(frozen=True, slots=True)
class Variable:
    """An input variable: a channel of an image, or a column of a table.

    Attributes
    ----------
    name, units : str
        The variable and its units.
    vector : str
        ``NAME:x`` or ``NAME:y``: the channel is the component along columns or rows of a vector of
        that name, which turns with the image. Empty: a scalar.
    """

    name: str
    units: str = ""
    vector: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What is predicted, and when it counts as an event.

    Attributes
    ----------
    name, units : str
        The variable and its units.
    threshold : float or None
        The event is a target above this; None: the target is 0 or 1 already.
    event : {">", ">="}
        Whether a target equal to the threshold is an event.
    label_from : str
        How the target was taken from its source, where there is a choice.
    """

    name: str
    units: str = ""
    threshold: float | None = None
    event: Literal[">", ">="] = ">"
    label_from: str = ""


def labels_of(targets: NDArray[Any], target: Target, at: str) -> NDArray[np.uint8]:
    """Return 1 where the event happened, else 0.

    Parameters
    ----------
    targets : ndarray of numbers, shape (n,)
        The target in its own units. float32 is compared with the threshold in float32, all else in
        float64.
    target : Target
        The threshold and the rule.
    at : str
        What an error message begins with.

    Raises
    ------
    DataError
        If the shape or the type is wrong, a value is not finite, or there is no threshold and a
        value is neither 0 nor 1.
    """
    if targets.ndim != 1 or targets.dtype.kind not in "biuf":
        raise DataError(
            f"{at}target {target.name!r} has shape {targets.shape} and type {targets.dtype}; "
            "allowed: one number a case"
        )
    if targets.dtype != np.float32:
        targets = targets.astype(np.float64)
    with np.errstate(over="ignore"):
        bad = int((~np.isfinite(targets.astype(np.float32))).sum())
    if bad:
        raise DataError(
            f"{at}target {target.name!r}: {bad} of {len(targets)} values are missing or not "
            "finite in float32"
        )
    if target.threshold is None:
        odd = targets[(targets != 0) & (targets != 1)]
        if odd.size:
            raise DataError(
                f"{at}target {target.name!r}: {odd.size} of {len(targets)} values are neither 0 "
                f"nor 1, such as {odd[0]:g}; set data.threshold to make an event of them"
            )
        return targets.astype(np.uint8)
    threshold = targets.dtype.type(target.threshold)
    event: NDArray[np.bool_] = targets > threshold
    if target.event == ">=":
        event = targets >= threshold
    return event.astype(np.uint8)


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, the same for every order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
