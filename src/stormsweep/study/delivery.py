"""What a verified study hands over: ``model/`` with the model, its facts and test predictions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stormsweep import __version__
from stormsweep.config.kinds import STORM_SOURCES
from stormsweep.config.study import StudyFile
from stormsweep.data.prepared import Part, PreparedData
from stormsweep.data.scaling import unscale
from stormsweep.errors import DataError, typed
from stormsweep.files import sha256, write_json
from stormsweep.records import Verified
from stormsweep.verification.forecasts import CASE
from stormsweep.work import Delivered

if TYPE_CHECKING:
    from stormsweep.study.choice import Choice

FOLDER, FACTS = "model", "model.json"
PREDICTIONS, CASES = "test_predictions.parquet", "test_cases.npz"
FORMAT = 1
#: Names in the table of predictions that no group may have; `CASE` means that there is no group.
_TAKEN = ("probability", "event", "target", CASE)
#: Of the best hits, the worst misses and the worst false alarms each.
CASES_KEPT = 4


def write_delivery(
    folder: Path,
    study: StudyFile,
    data: PreparedData,
    choice: Choice,
    delivered: Delivered,
    probabilities: NDArray[np.float32],
    builder_sha256: str,
    made_again: bool = False,
) -> dict[str, Any]:
    """Write what belongs beside the model's file.

    Parameters
    ----------
    folder : Path
        Holds the model's file.
    study, data, choice : StudyFile, PreparedData, Choice
        What was verified, on what.
    delivered : Delivered
        What the worker wrote.
    probabilities : ndarray of float32, shape (n,)
        Of the test part.
    builder_sha256 : str
        SHA-256 of the builder's code.
    made_again : bool
        Whether the model takes the place of one that was lost.

    Returns
    -------
    dict
        What ``model.json`` says.
    """
    manifest, part = data.manifest, data.part("test")
    predictions = folder / PREDICTIONS
    _write_predictions(predictions, part, manifest["groups"], probabilities)
    if manifest["source"] in STORM_SOURCES and len(manifest["input_shape"]) == 3:
        _write_cases(folder / CASES, part, manifest, probabilities, choice.threshold)
    train = manifest["parts"]["train"]
    said: dict[str, Any] = {
        "format": FORMAT,
        "study": study.study.name,
        "stormsweep": __version__,
        "look": choice.look,
        "made_again": made_again,
        "configuration": choice.configuration,
        "hyperparameters": choice.hyperparameters,
        "model": delivered.file,
        "form": delivered.form,
        "model_sha256": sha256(folder / delivered.file),
        "build": study.model.build,
        "build_sha256": builder_sha256,
        "seed": study.study.seed,
        "fold": fold_of_whole(study),
        "precision": study.engine.precision,
        "event": manifest["target"],
        "decision_threshold": choice.threshold,
        "source": manifest["source"],
        "array": (study.data.inputs or ["inputs"])[0] if manifest["source"] == "npz" else None,
        "inputs": manifest["inputs"],
        "input_shape": manifest["input_shape"],
        "trained_on": {
            "fingerprint": data.fingerprint,
            "cases": train["count"],
            "events": train["positives"],
        },
        "synthetic": data.synthetic,
        "predictions_sha256": sha256(predictions),
    }
    write_json(folder / FACTS, said)
    return said


def fold_of_whole(study: StudyFile) -> int:
    """Return the number of the fold of the run on the whole training part.

    It is the one after the first round's, and stays the same when the study gets more rounds.
    """
    return study.validation.folds


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what ``model.json`` says, the model's file checked against it.

    Raises
    ------
    DataError
        If there is no verified model, or it was changed.
    """
    path = folder / FACTS
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise DataError(
                f"{path}: format {said['format']!r}, written by another version of Stormsweep"
            )
        file, known = folder / said["model"], said["model_sha256"]
    except FileNotFoundError:
        raise DataError(
            f"{path}: there is no verified model here; make one with "
            f"`{typed('verify', folder.parent)}`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path}: damaged; {_again(folder)}") from None
    if not file.is_file() or sha256(file) != known:
        raise DataError(
            f"{file}: {'changed' if file.is_file() else 'missing'} since the study was verified; "
            f"{_again(folder)}"
        )
    return said


def _again(folder: Path) -> str:
    return f"make it again with `{typed('verify', folder.parent)}`"


def is_of(folder: Path, look: Verified) -> bool:
    """Say whether ``model/`` is there, unchanged, and that of a look.

    A model that was made again is another file, although it may predict the same to the bit.
    """
    try:
        said = read_facts(folder)
        predictions = sha256(folder / PREDICTIONS)
    except (DataError, OSError):
        return False
    same = said.get("made_again") or said["model_sha256"] == look.model_sha256
    return bool(
        same and said.get("look") == look.look and said.get("predictions_sha256") == predictions
    )


def _write_predictions(
    path: Path, part: Part, labels: dict[str, list[str]], probabilities: NDArray[np.float32]
) -> None:
    import pandas as pd

    columns = group_columns(part.groups)
    frame = pd.DataFrame(
        {"probability": probabilities, "event": part.labels, "target": part.targets}
        | {
            columns[name]: pd.Categorical.from_codes(codes, pd.Index(labels[name], dtype=str))
            for name, codes in part.groups.items()
        }
    )
    frame.to_parquet(path, index=False)


def group_columns(names: Iterable[str]) -> dict[str, str]:
    """Return what groups are called in the table of predictions.

    They keep their names; ``group_`` is put before one that the table has already.

    Examples
    --------
    >>> group_columns(["run_date", "event"])
    {'run_date': 'run_date', 'event': 'group_event'}
    """
    names = list(names)
    found: dict[str, str] = {}
    for name in names:
        column = name
        while column in _TAKEN or (column != name and column in names):
            column = f"group_{column}"
        found[name] = column
    return found


def telling_cases(
    probabilities: NDArray[Any],
    events: NDArray[Any],
    threshold: float,
    together: NDArray[Any] | None = None,
    most: int = CASES_KEPT,
) -> dict[str, list[int]]:
    """Return the cases that tell most: where the forecast was surest, rightly and wrongly.

    Parameters
    ----------
    probabilities, events : ndarray, shape (n,)
        The forecasts and what happened.
    threshold : float
        Of the yes-or-no forecast.
    together : ndarray, shape (n,), optional
        Cases of one group look alike (steps of one track): at most one of each is taken.
    most : int
        Of each kind.

    Returns
    -------
    dict of str to list of int
        ``hit`` (events with the highest probabilities), ``miss`` (events with the lowest) and
        ``false alarm`` (no events, with the highest); the most telling first.
    """
    event, yes = np.asarray(events) != 0, np.asarray(probabilities) >= threshold
    kinds = {"hit": event & yes, "miss": event & ~yes, "false alarm": ~event & yes}
    found: dict[str, list[int]] = {}
    for kind, chosen in kinds.items():
        rows = np.flatnonzero(chosen)
        sign = 1 if kind == "miss" else -1
        rows = rows[np.argsort(sign * np.asarray(probabilities)[rows], kind="stable")]
        if together is not None:
            _, first = np.unique(np.asarray(together)[rows], return_index=True)
            rows = rows[np.sort(first)]
        found[kind] = [int(row) for row in rows[:most]]
    return found


def _write_cases(
    path: Path,
    part: Part,
    manifest: dict[str, Any],
    probabilities: NDArray[np.float32],
    threshold: float,
) -> None:
    """Keep the telling cases in physical units, so that the report can draw them without data."""
    found = telling_cases(probabilities, part.labels, threshold, part.groups.get("track"))
    rows = np.array([row for kind in found.values() for row in kind], np.int64)
    kinds = [kind for kind, own in found.items() for _ in own]
    inputs = unscale(part.inputs[rows], manifest["inputs"])
    labels = {
        name: [manifest["groups"][name][code] for code in codes[rows]]
        for name, codes in part.groups.items()
    }
    more: dict[str, Any] = {}
    if {"run_date", "track"} <= labels.keys():
        from stormsweep.storms.originals import originals

        looked = originals(manifest, labels["run_date"], labels["track"], inputs)
        more = dataclasses.asdict(looked)
    kept: dict[str, Any] = {"rows": rows, "kinds": np.array(kinds, dtype="U16"), "inputs": inputs}
    np.savez_compressed(path, **kept, **more)
