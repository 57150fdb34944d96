"""Points read from the tools of others: an Optuna study, a Ray Tune result folder.

Nothing is unpickled: what such files hold in pickles is left alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stormsweep.errors import DataError, UserError, nearest
from stormsweep.neighbours.owned import is_sqlite, read_only
from stormsweep.neighbours.points import Point, finite, read_points, refuse_other, write_points
from stormsweep.neighbours.ray_tune import ray_points
from stormsweep.neighbours.told import better_high
from stormsweep.neighbours.wanted import (
    Imported,
    Wanted,
    apart,
    check_names,
    is_score,
    named,
    scored_at,
)

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

#: Databases that Optuna opens by URL. (What it keeps in Redis it pickles.)
_DATABASES = ("sqlite", "mysql", "postgresql")


def import_points(
    source: Path | str,
    output: Path | str,
    *,
    study: str | None = None,
    scores: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> Imported:
    """Write the points that a tool of others knows to a file of known points.

    Parameters
    ----------
    source : Path or str
        An Optuna storage (an SQLite file, a journal file, or a URL of a database), a folder of
        results of Ray Tune, a file of known points, or an earlier study's directory.
    output : Path or str
        The file to write, JSON lines; see `stormsweep.known_points`. One that an earlier import
        wrote is replaced.
    study : str, optional
        Name of the Optuna study; not needed where there is one.
    scores : dict of str to str, optional
        What our scores are called there, by our names.
    names : dict of str to str, optional
        What their hyperparameters are called here, by theirs.

    Returns
    -------
    Imported
        The points, and what was passed over.

    Raises
    ------
    UserError
        In one line, if `source` is none of these, or holds nothing to import; or if `output` is
        `source`, or anything else but a file that an import wrote.
    """
    output = Path(output)
    refuse_other(output, source)
    found = foreign_points(source, Wanted(study, scores or {}, names or {}))
    if not found.points:
        odd = f"; those of {found.not_finite} are infinite or NaN" if found.not_finite else ""
        if found.unsure:
            odd += f"; {found.unsure} were stopped after nobody knows how many epochs"
        raise DataError(
            f"{source}: {found.source}: no trial in it has hyperparameters to import{odd}"
        )
    write_points(output.resolve(), found.points)  # a link stays one
    return found


def foreign_points(source: Path | str, wanted: Wanted) -> Imported:
    """Read the points of a source; see `import_points`."""
    if "://" in str(source):
        return _optuna(str(source), _database(str(source)), wanted)
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if path.is_dir() and not (path / "journal.jsonl").is_file():
        return ray_points(path, wanted)
    if path.is_file() and is_sqlite(path):
        return _optuna(str(path), _sqlite(path), wanted)
    if path.is_file() and _is_optuna_journal(path):
        return _optuna(str(path), _journal(path), wanted)
    read = read_points(path)
    check_names(path, (point.hyperparameters for point in read), wanted)
    if wanted.study is not None or wanted.scores:
        raise UserError(
            f"{path}: --study and --metric are for what other tools wrote; the scores of known "
            "points and of an earlier study have the names that they have here"
        )
    points = [replace(p, hyperparameters=named(p.hyperparameters, wanted)) for p in read]
    return Imported(points, "known points" if path.is_file() else "an earlier study", 0)


# Optuna


def _database(url: str) -> BaseStorage:
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage

    scheme = url.partition("://")[0].partition("+")[0]
    if scheme not in _DATABASES:
        raise UserError(
            f"import: {scheme}://: given; must be the URL of a database, "
            f"one of {', '.join(_DATABASES)}"
        )
    if scheme == "sqlite" and "?" not in url:
        return _sqlite(Path(url.partition(":///")[2]))
    try:
        # Nothing is made in somebody's database.
        return RDBStorage(url, skip_table_creation=True)
    except (ImportError, StorageInternalError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"import: the database cannot be opened: {text[:300]}") from None
    except Exception as error:  # SQLAlchemy's and its drivers' own; URLs hold passwords
        raise UserError(f"import: the database cannot be opened ({type(error).__name__})") from None


def _sqlite(path: Path) -> BaseStorage:
    import sqlite3
    from contextlib import closing

    from optuna.storages import RDBStorage

    if not path.is_file() or not is_sqlite(path):
        raise DataError(f"{path}: is no SQLite database")
    tables: set[str] = set()
    try:
        with closing(read_only(path)) as database:
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            tables = {str(row[0]) for row in database.execute(query)}
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if not {"studies", "trials", "version_info"} <= tables:
        raise DataError(f"{path}: is a database, but none of Optuna's")
    reading = {"creator": lambda: read_only(path)}
    try:
        return RDBStorage("sqlite:///read-only", engine_kwargs=reading, skip_table_creation=True)
    except RuntimeError as error:
        raise DataError(f"{path}: {' '.join(str(error).split())[:300]}") from None


def _is_optuna_journal(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8") as stream:
            first = json.loads(stream.readline())
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and {"op_code", "worker_id"} <= first.keys()


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except (ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged: {' '.join(str(error).split())[:300]}") from None


def _optuna(source: str, storage: BaseStorage, wanted: Wanted) -> Imported:
    import optuna

    from stormsweep.neighbours.optuna_trials import quiet

    where = source if "://" not in source else "import"
    with quiet():
        names = optuna.get_all_study_names(storage)
        name = wanted.study or (names[0] if len(names) == 1 else None)
        if name is None or name not in names:
            given = f"given {name!r}{nearest(name, names)}; " if name else ""
            raise UserError(
                f"{where}: --study: {given}must be one of {', '.join(map(repr, names)) or 'none'}"
            )
        study = optuna.load_study(study_name=name, storage=storage)
        trials = study.get_trials(deepcopy=False)
        check_names(where, (trial.params for trial in trials), wanted)
        columns = _objectives(where, study, wanted)
        points: list[Point] = []
        passed = odd = 0
        # `for epoch in range(n)`: step 0 is the first epoch, then.
        from_zero = any(0 in trial.intermediate_values for trial in trials)
        for trial in trials:
            point = named(trial.params, wanted)
            rest, epochs = apart(point)
            if not rest or not _ended(trial):
                passed += 1
                continue
            if not finite(rest):
                odd += 1
                continue
            if trial.intermediate_values:
                last = max(trial.intermediate_values) + from_zero
                pruned = trial.state.name == "PRUNED"
                epochs = scored_at(epochs, last, whole=not pruned)
            origin = f"optuna: {name}, trial {trial.number}"
            points.append(Point(rest, epochs, 1, _values(trial, columns), origin))
    return Imported(points, f"Optuna study {name!r}", passed, odd)


def _ended(trial: FrozenTrial) -> bool:
    """Tell whether a trial came to something; a pruned one did where it reported a value."""
    state = trial.state.name
    return state == "COMPLETE" or (state == "PRUNED" and bool(trial.intermediate_values))


def _objectives(where: str, study: Study, wanted: Wanted) -> dict[str, int]:
    """Return the place of each of our scores among a trial's values."""
    count = len(study.directions)
    given = study.metric_names
    theirs = (
        list(given) if given else [f"value_{n}" for n in range(count)] if count > 1 else ["value"]
    )
    columns: dict[str, int] = {}
    for ours, called in (wanted.scores or {name: name for name in theirs}).items():
        if not wanted.scores and not is_score(ours):
            continue
        if called not in theirs:
            if ours == called and count == 1:
                columns[ours] = 0
                continue
            raise UserError(
                f"{where}: --metric {ours}={called}{nearest(called, theirs)}: the study has "
                f"{', '.join(theirs)}"
            )
        columns[ours] = theirs.index(called)
    if not columns:
        raise UserError(
            f"{where}: nobody says which score {', '.join(theirs)} is; say so with "
            f"--metric roc_auc={theirs[0]}"
        )
    for ours, place in columns.items():
        up = study.directions[place].name == "MAXIMIZE"
        if up != better_high(ours):
            raise UserError(
                f"{where}: --metric {ours}: the study {'maximizes' if up else 'minimizes'} "
                f"{theirs[place]}, and less of {ours} is {'better' if up else 'worse'}"
            )
    return columns


def _values(trial: FrozenTrial, columns: Mapping[str, int]) -> dict[str, float]:
    values = list(trial.values or ())
    if not values and len(columns) == 1 and trial.intermediate_values:
        # A pruned trial's score is that of its last step.
        values = [trial.intermediate_values[max(trial.intermediate_values)]]
        columns = dict.fromkeys(columns, 0)
    return {
        ours: float(values[place])
        for ours, place in columns.items()
        if place < len(values) and math.isfinite(values[place])
    }
