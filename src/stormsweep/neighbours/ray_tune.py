"""Points read from a result folder of Ray Tune; its pickles are left alone."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stormsweep.errors import DataError, UserError
from stormsweep.neighbours.points import Point, finite
from stormsweep.neighbours.wanted import (
    Imported,
    Wanted,
    apart,
    check_names,
    is_score,
    named,
    scored_at,
)

#: Results that Ray itself adds.
_RAYS_OWN = frozenset(
    (
        *("timestamp", "training_iteration", "time_this_iter_s", "time_total_s", "pid"),
        *("time_since_restore", "iterations_since_restore", "timesteps_total", "episodes_total"),
    )
)


@dataclass(frozen=True, slots=True)
class _Trial:
    """What there is of a trial; `epochs` is what it was meant to be trained for."""

    path: Path
    rest: dict[str, Any]
    epochs: int | None
    last: dict[str, Any] | None

    @property
    def results(self) -> int:
        """How many results it had, by the last of them; 0: it does not say."""
        done = (self.last or {}).get("training_iteration")
        return done if type(done) is int else 0

    @property
    def stopped(self) -> bool:
        """Whether Ray ended it: a scheduler, or a criterion; else it was done, or interrupted."""
        return str((self.last or {}).get("done")) == "True"


def ray_points(folder: Path, wanted: Wanted) -> Imported:
    """Read the folder of an experiment, of a trial, or one that holds experiments.

    Raises
    ------
    DataError, UserError
        In one line, if it is none, or nobody says which result is which score.
    """
    folders = sorted({path.parent for path in folder.rglob("params.json")})
    if not folders:
        raise DataError(
            f"{folder}: is neither a study's directory nor a result folder of Ray Tune: "
            "no params.json in it"
        )
    points: list[Point] = []
    passed = odd = unsure = 0
    numbers: dict[str, None] = {}
    given = [dict(_flat(_read_json(path / "params.json"))) for path in folders]
    check_names(folder, given, wanted)
    trials = [
        _Trial(path, *apart(named(point, wanted)), _last_result(path))
        for path, point in zip(folders, given, strict=True)
    ]
    mates: dict[Path, list[_Trial]] = defaultdict(list)
    for trial in trials:
        mates[trial.path.parent].append(trial)
    for trial in trials:
        rest, last = trial.rest, trial.last
        if not rest or last is None or _failed(trial.path):
            passed += 1
            continue
        if not finite(rest):
            odd += 1
            continue
        whole = _whole(trial, mates[trial.path.parent])
        if whole is None:
            unsure += 1
            continue
        numbers.update({name: None for name, v in last.items() if _is_number(v)})
        scores = {
            ours: float(last[called])
            for ours, called in (wanted.scores or {n: n for n in last if is_score(n)}).items()
            if _is_number(last.get(called))
        }
        epochs = scored_at(trial.epochs, trial.results, whole)
        name = last.get("trial_id", trial.path.name)
        origin = f"ray-tune: {trial.path.parent.name}, trial {name}"
        points.append(Point(rest, epochs, 1, scores, origin))
    if points and not any(point.scores for point in points):
        own = (name for name in numbers if not name.startswith("config/"))
        known = [name for name in own if name not in _RAYS_OWN]
        raise UserError(
            f"{folder}: nobody says which result is which score; say so with --metric "
            f"roc_auc=NAME; there are: {', '.join(known) or 'none'}"
        )
    return Imported(points, f"Ray Tune, {len(trials)} trials", passed, odd, unsure)


def _whole(trial: _Trial, mates: Sequence[_Trial]) -> bool | None:
    """Tell whether a trial has its score after all the epochs that it was meant to have.

    Parameters
    ----------
    trial : _Trial
        The trial.
    mates : sequence of _Trial
        All of its experiment.

    Returns
    -------
    bool or None
        False: after as many as it has results; None: nobody knows.
    """
    if trial.epochs is None or trial.results < 1 or all(mate.results <= 1 for mate in mates):
        return True
    if any(mate.results == mate.epochs for mate in mates if mate.results > 1):
        return False
    # They report every tenth epoch, say; or none was trained to its end. Of one that Ray stopped,
    # or that has fewer results than its like, nobody knows how many epochs a result is.
    most = max(mate.results for mate in mates if mate.epochs == trial.epochs)
    ended = trial.results == most and not trial.stopped and trial.epochs % trial.results == 0
    return True if ended else None


def _failed(trial: Path) -> bool:
    """Tell whether a trial ended with an error, as Ray itself tells it."""
    return any((trial / name).exists() for name in ("error.txt", "error.pkl"))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and values, those of a table within as ``table/name``, as Ray's own tables do."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}/")
        else:
            yield f"{before}{name}", value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if not isinstance(said, dict):
        raise DataError(f"{path}: must be a JSON object")
    return said


def _last_result(trial: Path) -> dict[str, Any] | None:
    """Return the last result of a trial; None where it has none.

    A line that is torn, because the trial was killed while it wrote it, ends them.
    """
    last: dict[str, Any] | None = None
    try:
        with open(trial / "result.json", encoding="utf-8") as stream:
            for line in stream:
                said = json.loads(line)
                last = dict(_flat(said)) if isinstance(said, dict) else last
    except (OSError, ValueError):
        pass
    return last if last is not None else _last_row(trial / "progress.csv")


def _last_row(path: Path) -> dict[str, Any] | None:
    import csv

    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, csv.Error, UnicodeDecodeError):
        return None
    return {name: _number(cell) for name, cell in rows[-1].items() if name} if rows else None


def _number(cell: str | None) -> Any:
    for kind in (int, float):
        try:
            return kind(cell or "")
        except ValueError:
            continue
    return cell
