"""The terms that the time of training is a sum of, and how they are fitted.

What a worker does in a task is timed phase by phase, and each phase has terms of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

Reals = NDArray[np.float64]
#: How often the weights of a fit follow its seconds.
_REWEIGHTED = 4
#: Relative errors are of no less than this: the clock's own doubt, in seconds.
CLOCK = 0.01
#: Sizes that differ by less than this factor do not tell what is per size from what is not.
_APART = 1.5
#: Rounds in which terms and what models and batch sizes are off by follow each other.
_ROUNDS = 3
#: Phases whose seconds models of other parameters, and other batch sizes, are off in.
_OFF = {"parameters": ("train", "score"), "batch_size": ("train",)}

#: Phase and term, and what it is measured in.
UNITS = {
    "train/patch": "seconds a patch",
    "train/patch_parameter": "seconds a patch and parameter",
    "train/patch_serial": "seconds a patch that further threads do not share",
    "train/update": "seconds a step",
    "train/update_parameter": "seconds a step and parameter",
    "train/update_thread": "seconds a step and further thread",
    "train/epoch": "seconds an epoch",
    "train/begun": "seconds more for the first epoch of a model built or restored",
    "train/compiled": "seconds more for the first epoch of a program",
    "compile/program": "seconds a program",
    "compile/first": "seconds more for the first program of a process",
    "open/worker": "seconds a worker process",
    "build/model": "seconds a model built or restored",
    "score/time": "seconds a score",
    "score/program": "seconds more for the first score of a program",
    "score/patch": "seconds a patch scored",
    "score/patch_parameter": "seconds a patch scored and parameter",
    "checkpoint/time": "seconds a checkpoint",
    "checkpoint/parameter": "seconds a checkpoint and parameter",
    "rest/task": "seconds a task beside all that",
}


#: What must differ between stretches for a term to be known.
_TELLING = {
    "train/patch_parameter": ("parameters",),
    "train/patch_serial": ("threads",),
    "train/update": ("steps",),
    "train/update_parameter": ("steps", "parameters"),
    "train/update_thread": ("steps", "threads"),
    "train/epoch": ("epochs",),
    "score/time": ("scores",),
    "score/patch_parameter": ("parameters",),
    "checkpoint/parameter": ("parameters",),
}


def told_of(table: pd.DataFrame, serial: float) -> dict[str, Reals]:
    """Return what stretches did, from the rows of `observed.observations`.

    Parameters
    ----------
    table : DataFrame
        The rows.
    serial : float
        See `columns_of`.
    """
    names = ["patches", "updates", "batch_size", "parameters", "threads", "compiles", "opens"]
    names += ["builds", "epochs", "scores", "validation", "bundle"]
    told = {name: table[name].to_numpy(float) for name in names}
    return told | {"serial": np.full(len(table), serial)}


def columns_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each term is multiplied with; a bundle shares what is done once for it.

    ``serial`` is the share of what is per patch that is taken not to be divided by threads.
    """
    of = told
    divided = of["serial"] + (1 - of["serial"]) / of["threads"]
    patches, share = of["patches"], 1 / of["bundle"]
    updates, further = of["updates"] * share, of["threads"] - 1
    validation = of["scores"] * of["validation"]
    return {
        "train/patch": patches * divided,
        "train/patch_parameter": patches * of["parameters"] * divided,
        "train/patch_serial": patches * further / of["threads"],
        "train/update": updates,
        "train/update_parameter": updates * of["parameters"],
        "train/update_thread": updates * further,
        "train/epoch": of["epochs"] * share,
        "train/begun": of["builds"] * (1 - of["compiles"]),
        "train/compiled": of["compiles"] * share,
        "compile/program": of["compiles"] * share,
        "compile/first": of["opens"] * share,
        "open/worker": of["opens"] * share,
        "build/model": of["builds"],
        "score/time": of["scores"],
        "score/program": of["scores"] * of["compiles"],
        "score/patch": validation * divided,
        "score/patch_parameter": validation * of["parameters"] * divided,
        "checkpoint/time": of["scores"],
        "checkpoint/parameter": of["scores"] * of["parameters"],
        "rest/task": share + 0 * patches,
    }


def seconds_of(table: pd.DataFrame) -> dict[str, Reals]:
    """Return the seconds of each phase; ``rest`` is what none of them holds."""
    phases = ("open", "build", "compile", "train", "score", "checkpoint")
    found = {phase: table[f"{phase}_seconds"].to_numpy(float) for phase in phases}
    rest = table["seconds"].to_numpy(float) - sum(found.values())
    return found | {"rest": np.maximum(0.0, rest)}


def identified(told: Mapping[str, Reals]) -> list[str]:
    """Return the terms that the observations can tell apart.

    Where all models have as many parameters, or all workers as many threads, what grows with them
    cannot be told from what does not; nor what is per step, per epoch or per score from what is per
    patch, where all steps, all epochs or all validation folds have about as many.
    """
    epochs, updates = np.maximum(told["epochs"], 1), np.maximum(told["updates"], 1)
    scored = told["validation"][told["validation"] > 0]
    apart = {
        "parameters": len(np.unique(told["parameters"])) > 1,
        "threads": len(np.unique(told["threads"])) > 1,
        "steps": _spread(told["patches"] / updates),
        "epochs": _spread(told["patches"] / epochs),
        "scores": _spread(scored) or not len(scored),
    }
    return [name for name in UNITS if all(apart[each] for each in _TELLING.get(name, ()))]


def _spread(values: Reals) -> bool:
    return len(values) > 0 and float(values.max()) > _APART * float(values.min())


def summed(
    terms: Mapping[str, float],
    off: Mapping[str, Mapping[int, float]],
    told: Mapping[str, Any],
) -> Any:
    """Return the sum of all terms, each phase as far off as its model and batch size are."""
    return sum(by_phase(terms, off, told).values())


def by_phase(
    terms: Mapping[str, float],
    off: Mapping[str, Mapping[int, float]],
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the terms of each phase sum up to; see `summed`."""
    columns = columns_of(told)
    found: dict[str, Any] = {}
    factors = {name: _between(off.get(name, {}), told[name]) for name in _OFF}
    for name, value in terms.items():
        phase = name.partition("/")[0]
        part = value * columns[name]
        for key, phases in _OFF.items():
            if phase in phases:
                part = part * factors[key]
        found[phase] = found.get(phase, 0.0) + part
    return found


def _between(factors: Mapping[int, float], values: ArrayLike) -> Any:
    """Return the factors of values; between two that are known, in between as logarithms are."""
    if not factors:
        return 1.0
    known = sorted(factors)
    logs = np.log([factors[key] for key in known])
    return np.exp(np.interp(np.log(np.maximum(values, 1)), np.log(np.maximum(known, 1)), logs))


def fitted(
    told: Mapping[str, Reals], seconds: Mapping[str, Reals], slowed: Reals, names: Iterable[str]
) -> tuple[dict[str, float], dict[str, dict[int, float]]]:
    """Return the terms, and by which factors models and batch sizes are off what they sum up to.

    Parameters
    ----------
    told, seconds : mapping
        What stretches did (`told_of`) and took (`seconds_of`).
    slowed : ndarray
        By which factor the neighbours of each slowed it down.
    names : iterable of str
        The terms.
    """
    names = list(names)
    off: dict[str, dict[int, float]] = {name: {} for name in _OFF}
    terms = _terms(told, seconds, slowed, names, off)
    for _ in range(_ROUNDS):
        for key in off:
            off[key] = {}
            own = {name: value for name, value in terms.items() if name.startswith("train/")}
            about = summed(own, off, told) * slowed
            left = np.log(np.maximum(seconds["train"], CLOCK) / np.maximum(about, CLOCK))
            off[key] = _effects(left - left.mean(), told[key])
        terms = _terms(told, seconds, slowed, names, off)
    return terms, off


def usual_of(told: Mapping[str, Reals], seconds: Mapping[str, Reals]) -> dict[str, Reals]:
    """Return about what stretches usually take, phase by phase, whatever a few of them took.

    Parameters
    ----------
    told, seconds : mapping
        What they did (`told_of`) and took (`seconds_of`).
    """
    ones = np.ones(len(told["patches"]))
    off: dict[str, dict[int, float]] = {name: {} for name in _OFF}
    terms = _terms(told, seconds, ones, identified(told), off, rounds=1)
    return {phase: ones * about for phase, about in by_phase(terms, off, told).items()}


def _effects(left: Reals, levels: Reals) -> dict[int, float]:
    """Return a factor for each level, drawn to 1 as far as chance would explain it.

    A one-way analysis of variance: what levels scatter beyond what values of a level scatter.
    """
    known, place = np.unique(levels, return_inverse=True)
    sizes = np.bincount(place).astype(float)
    free = len(left) - len(known)
    if len(known) < 2 or free < 1:
        return {}
    means = np.bincount(place, left) / sizes
    within = float(((left - means[place]) ** 2).sum()) / free
    between = max(0.0, float((sizes * means**2).sum()) / (len(known) - 1) - within)
    between /= float(sizes.mean())
    if not between:
        return {}
    factors = np.exp(means * sizes * between / (sizes * between + within))
    return {int(key): float(value) for key, value in zip(known, factors, strict=True)}


def _terms(
    told: Mapping[str, Reals],
    seconds: Mapping[str, Reals],
    slowed: Reals,
    names: Iterable[str],
    off: Mapping[str, Mapping[int, float]],
    rounds: int = _REWEIGHTED,
) -> dict[str, float]:
    columns = columns_of(told)
    terms: dict[str, float] = {}
    for phase, measured in seconds.items():
        own = [name for name in names if name.startswith(f"{phase}/")]
        design = np.stack([np.broadcast_to(columns[n], measured.shape) for n in own], -1)
        used = design.any(axis=1)
        solution = np.zeros(len(own))
        factor: Any = slowed
        for key, phases in _OFF.items():
            if phase in phases:
                factor = factor * _between(off[key], told[key])
        if used.any():
            solution = relative(design[used] * factor[used, None], measured[used], rounds)
        terms |= dict(zip(own, solution.tolist(), strict=True))
    return terms


def relative(design: Reals, measured: Reals, rounds: int = _REWEIGHTED) -> Reals:
    """Return non-negative coefficients that fit with least relative errors.

    After one round these are relative to the measured seconds: a time that is far too long counts
    next to nothing, and all that is foretold is somewhat too short.
    """
    about = measured
    scale = np.abs(design).max(axis=0)
    scale[scale == 0] = 1.0
    solution = np.zeros(design.shape[1])
    for _ in range(rounds):
        # Relative to the fitted seconds: relative to the measured ones, tasks that were short by
        # chance would count more, and all foretold would be too short.
        rows = 1 / np.maximum(about, CLOCK)
        solution = nnls(design / scale * rows[:, None], measured * rows)[0] / scale
        about = design @ solution
    return solution
