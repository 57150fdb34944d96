"""A study written for a tool of others: one function, and where its files go."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stormsweep.errors import UserError, nearest
from stormsweep.neighbours.told import told
from stormsweep.records import Entry

To = Literal["mlflow", "tensorboard", "optuna", "csv", "parquet", "onnx"]
#: What each writes in the study's folder ``export`` unless told otherwise.
PLACES: dict[str, str] = {
    "mlflow": "mlflow.db",
    "tensorboard": "tensorboard",
    "optuna": "optuna.db",
    "csv": "csv",
    "parquet": "parquet",
    "onnx": "model.onnx",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes
    ----------
    to : str
        For whom.
    where : Path or str
        The file or folder; a text: the URI of an MLflow store.
    opens : str
        The command that opens it, as one would type it, or its address; empty: neither is.
    """

    to: str
    where: Path | str
    opens: str


def place(to: str, output: Path | str | None, directory: Path) -> Path | str:
    """Return where an export goes.

    Parameters
    ----------
    to : str
        For whom.
    output : Path or str, optional
        What was asked for; for MLflow the URI of a store too.
    directory : Path
        Of the study.

    Raises
    ------
    UserError
        If nobody knows `to`, or a URI was given where a file is written.
    """
    if to not in PLACES:
        raise UserError(
            f"export: --to {to}{nearest(to, PLACES)}; must be one of {', '.join(PLACES)}"
        )
    if output is None:
        return directory / "export" / PLACES[to]
    if "://" not in str(output):
        return Path(output)
    if to != "mlflow":
        raise UserError(f"export: --output {output}: only --to mlflow writes to a URI")
    return str(output)


def export(
    entries: Sequence[Entry], to: str, where: Path | str, objectives: Sequence[str] = ()
) -> Exported:
    """Write what a journal says of a study, finished or not, for a tool of others.

    Writing again takes the place of what was written before, at one stroke.

    Parameters
    ----------
    entries : sequence of Entry
        The journal.
    to : str
        ``mlflow``, ``tensorboard``, ``optuna``, ``csv`` or ``parquet``.
    where : Path or str
        The file or folder; see `place`.
    objectives : sequence of str
        The scores that configurations are ranked by; default: the study's metric.

    Raises
    ------
    UserError
        If a package is missing, or there is something else at `where`.
    JournalError
        If no study is recorded yet.
    """
    study = told(entries, objectives)
    if to == "mlflow":
        from stormsweep.neighbours.mlflow_runs import write_mlflow

        write_mlflow(study, where)
        page = str(where).startswith(("http://", "https://"))
        shown = _typed("mlflow", "ui", "--backend-store-uri", _uri(where))
        return Exported(to, where, str(where) if page else shown)
    path = Path(where)
    if to == "optuna":
        from stormsweep.neighbours.optuna_trials import write_optuna

        write_optuna(study, path)
        return Exported(to, path, _typed("optuna-dashboard", _uri(path)))
    if to == "tensorboard":
        from stormsweep.neighbours.tensorboard_events import write_tensorboard

        write_tensorboard(study, path)
        return Exported(to, path, _typed("tensorboard", "--logdir", path))
    from stormsweep.neighbours.tables import write_tables

    write_tables(entries, study, path, to)
    return Exported(to, path, "")


def _uri(where: Path | str) -> str:
    return where if isinstance(where, str) else f"sqlite:///{where}"


def _typed(*words: object) -> str:
    return shlex.join(map(str, words))
