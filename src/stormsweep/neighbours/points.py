"""Known points: a small format for what is known from elsewhere, read as a warm start.

`known_points` says what it is.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stormsweep.config.study import METRICS
from stormsweep.errors import DataError, UserError, nearest
from stormsweep.files import write_text
from stormsweep.neighbours.told import better_high, check_score, told
from stormsweep.search.proposals import Known
from stormsweep.work import Hyperparameters

_KEYS = ("hyperparameters", "epochs", "folds", "scores", "from")
_COLUMNS = ("epochs", "folds", "from")
_SCORE = "score:"


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a space, and what is known of it.

    Attributes
    ----------
    hyperparameters : dict
        Without ``epochs``.
    epochs : int or None
        After which it was scored; None: nobody says.
    folds : int
        How many folds the scores are means of.
    scores : dict of str to float
        Finite numbers.
    origin : str
        Where from, for people.
    """

    hyperparameters: Hyperparameters
    epochs: int | None = None
    folds: int = 1
    scores: dict[str, float] = field(default_factory=dict)
    origin: str = ""


def known_points(
    path: Path | str, objectives: Sequence[str] = ("roc_auc",), epochs: int = 0
) -> list[Known]:
    """Read a file of known points, or an earlier study's directory, as a strategy takes them in.

    Parameters
    ----------
    path : path
        JSON lines or CSV (see below), or ``runs/<name>``.
    objectives : sequence of str
        The scores that the study is ranked by. A point that lacks one of them has no merits.
    epochs : int
        Stands where a point does not say after how many it was scored.

    Returns
    -------
    list of Known
        In the order of the file.

    Raises
    ------
    UserError
        In one line that names the file, the line and what is wrong.

    Notes
    -----
    A file of known points has one JSON object a line::

        {"hyperparameters": {"batch_size": 256, "learning_rate": 0.003}, "epochs": 10, "folds": 3,
         "scores": {"roc_auc": 0.912}, "from": "optuna: storms, trial 17"}

    ``hyperparameters`` is needed, ``epochs`` not among them; the rest is optional. ``folds``: how
    many the scores are means of. ``scores`` are Stormsweep's, by name; a point without those that
    the study is ranked by is still worth trying first.

    The same as CSV: a column for each hyperparameter, columns ``epochs``, ``folds`` and ``from``,
    and ``score:<name>`` for each score. An empty cell is nothing; one that is JSON is what it says,
    any other is a text.
    """
    found: list[Known] = []
    for point in read_points(path):
        whole = all(name in point.scores for name in objectives)
        merits = tuple(
            point.scores[name] if better_high(name) else -point.scores[name]
            for name in (objectives if whole else ())
        )
        count = epochs if point.epochs is None else point.epochs
        found.append(Known(point.hyperparameters, count, point.folds, merits))
    return found


def read_points(path: Path | str) -> list[Point]:
    """Read a file of known points, or an earlier study's directory; see `known_points`."""
    path = Path(path)
    if path.is_dir():
        return study_points(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file of known points") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from None
    lines = _from_csv(path, text) if path.suffix.lower() == ".csv" else _from_json(path, text)
    return [_point(f"{path}: line {number}", said) for number, said in lines]


def write_points(path: Path, points: Iterable[Point]) -> None:
    """Write known points as JSON lines, whole or not at all."""
    lines = [
        json.dumps(
            {"hyperparameters": point.hyperparameters}
            | ({} if point.epochs is None else {"epochs": point.epochs})
            | {"folds": point.folds, "scores": point.scores, "from": point.origin},
            ensure_ascii=False,
            allow_nan=False,
        )
        for point in points
    ]
    write_text(path, "".join(line + "\n" for line in lines))


def refuse_other(output: Path, source: Path | str) -> None:
    """Refuse to write points where there is anything but a file of points that was written so.

    Parameters
    ----------
    output : Path
        What is to be written; it need not exist.
    source : Path or str
        What the points are read from; a URL as well.

    Raises
    ------
    UserError
        If `output` is a folder, or `source`; or another file that `write_points` did not write, or
        that a study began with.
    """
    if not output.exists():
        return
    if output.is_dir():
        raise UserError(f"{output}: is a folder; name a file with --output")
    if "://" not in str(source) and Path(source).exists() and output.samefile(source):
        raise UserError(f"{output}: is what is read; name another file with --output")
    if not (output.is_file() and _is_written(output)):
        raise UserError(
            f"{output}: is there already and is no file of known points that import wrote; "
            "name another with --output"
        )
    place = output.resolve()
    if place.name == "known.jsonl" and (place.parent / "journal.jsonl").is_file():
        raise UserError(
            f"{output}: belongs to the study in that folder; name another with --output"
        )


def _is_written(path: Path) -> bool:
    """Tell whether a file is one of `write_points`: every line has the keys of its, if any is."""
    try:
        with open(path, encoding="utf-8") as stream:
            return all(_has_keys(json.loads(line)) for line in stream)
    except (OSError, ValueError, RecursionError):
        return False


def _has_keys(said: Any) -> bool:
    return isinstance(said, dict) and said.keys() | {"epochs"} == set(_KEYS)


def finite(value: Any) -> bool:
    """Tell whether no number in a value of a hyperparameter is infinite or NaN.

    Examples
    --------
    >>> finite([1, "inf"]), finite({"a": [math.inf]})
    (True, False)
    """
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def study_points(directory: Path) -> list[Point]:
    """Return what an earlier study knows: a point for each configuration with a fold scored.

    Raises
    ------
    DataError
        If the folder is no study's.
    JournalError
        If its journal is damaged, or says nothing yet.
    """
    from stormsweep.results.journal import read

    journal = directory / "journal.jsonl"
    if not journal.is_file():
        raise DataError(f"{directory}: is no study's directory; it has no journal.jsonl")
    study = told(read(journal))
    found: list[Point] = []
    for one in study.configurations:
        scored = [fit.scores[one.epochs] for fit in one.fits if one.epochs in fit.scores]
        names = set.intersection(*map(set, scored)) if scored else set()
        means = {
            name: math.fsum(own[name] for own in scored) / len(scored)
            for name in study.scores
            if name in names and name in METRICS
        }
        if not scored:
            continue
        point = {name: value for name, value in one.hyperparameters.items() if name != "epochs"}
        origin = f"stormsweep: {study.about.name}, configuration {one.id}"
        sound = {name: value for name, value in means.items() if math.isfinite(value)}
        found.append(Point(point, one.epochs, len(scored), sound, origin))
    return found


def _from_json(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    # Not splitlines(): JSON texts may hold what else ends a line in Unicode.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: is no JSON ({error})") from None
        if not isinstance(said, dict):
            raise DataError(f"{path}: line {number}: must be a JSON object with hyperparameters")
        yield number, said


def _from_csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    names = list(rows.fieldnames or ())
    if not names or len(set(names)) < len(names) or "" in names:
        raise DataError(f"{path}: line 1: must name every column, each by another name")
    for row in rows:
        if None in row or None in row.values():
            raise DataError(
                f"{path}: line {rows.line_num}: must have as many cells as there are columns, "
                f"{len(names)}"
            )
        cells = {name: _cell(cell) for name, cell in row.items() if cell != ""}
        said: dict[str, Any] = {name: cells[name] for name in _COLUMNS if name in cells}
        said["scores"] = {
            name.removeprefix(_SCORE): value
            for name, value in cells.items()
            if name.startswith(_SCORE)
        }
        said["hyperparameters"] = {
            name: value
            for name, value in cells.items()
            if name not in _COLUMNS and not name.startswith(_SCORE)
        }
        yield rows.line_num, said


def _cell(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _point(where: str, said: dict[str, Any]) -> Point:
    for key in said:
        if key not in _KEYS:
            raise DataError(
                f"{where}: given the key {key!r}{nearest(key, _KEYS)}; allowed: {', '.join(_KEYS)}"
            )
    point = said.get("hyperparameters")
    if not isinstance(point, dict) or not point:
        raise DataError(f"{where}: hyperparameters: must be names and values, one at least")
    if "epochs" in point:
        raise DataError(f"{where}: hyperparameters: epochs stand beside them, not among them")
    for name, value in point.items():
        if not finite(value):
            raise DataError(
                f"{where}: hyperparameters.{name}: given {value!r}; numbers must be finite"
            )
    epochs, folds = said.get("epochs"), said.get("folds", 1)
    for key, value in (("epochs", epochs), ("folds", folds)):
        if value is not None and (type(value) is not int or value < 1):
            raise DataError(f"{where}: {key}: given {value!r}; must be a whole number from 1")
    scores = said.get("scores", {})
    if not isinstance(scores, dict):
        raise DataError(f"{where}: scores: given {scores!r}; must be names and numbers")
    sound: dict[str, float] = {}
    for name, value in scores.items():
        try:
            check_score(f"{where}: scores", name)
        except UserError as error:
            raise DataError(str(error)) from None
        if value is None:
            continue
        if type(value) not in (int, float) or not math.isfinite(value):
            raise DataError(f"{where}: scores.{name}: given {value!r}; must be a finite number")
        sound[name] = float(value)
    return Point(point, epochs, 1 if folds is None else folds, sound, str(said.get("from", "")))
