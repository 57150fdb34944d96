"""Checkpoints: the state of a run after an epoch, with what is known of it so far.

One file ``<run id>-e<epoch>.npz`` a milestone: the arrays of the state, and one array of bytes that
is JSON: run, epoch, the result so far and a checksum over everything. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stormsweep.files import replacing
from stormsweep.training.engine import State

FORMAT = 1
_META = "checkpoint.json"
_NAME = re.compile(r"(.+)-e(\d{4,})\.npz")
_log = logging.getLogger(__name__)


def path_of(folder: Path, run_id: str, epoch: int) -> Path:
    """Return the file of a checkpoint."""
    return folder / f"{run_id}-e{epoch:04d}.npz"


def save(folder: Path, run_id: str, epoch: int, state: State, result: dict[str, Any]) -> Path:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    folder : Path
        Where checkpoints lie; created when missing.
    run_id, epoch : str, int
        Which run, after how many epochs.
    state : dict of str to ndarray
        From `Trajectory.state`.
    result : dict
        Whatever belongs to it, as JSON can hold it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        If the folder cannot be written to or the disk is full.
    """
    meta = {"format": FORMAT, "run": run_id, "epoch": epoch, "result": result}
    meta["checksum"] = _checksum(state, meta)
    arrays = {f"state/{name}": value for name, value in state.items()}
    arrays[_META] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    path = path_of(folder, run_id, epoch)
    # A folder may hold those of ten thousand runs: `remove_unfinished` looks through it, once a
    # session.
    with replacing(path, sweeps=False) as beside, beside.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    return path


def load(
    folder: Path,
    run_id: str,
    epoch: int,
    on_damage: Callable[[str], object] = _log.warning,
) -> tuple[State, dict[str, Any]] | None:
    """Read a checkpoint.

    Parameters
    ----------
    folder, run_id, epoch : Path, str, int
        Which one.
    on_damage : callable
        Told in one line about a file that is there but damaged; such a file counts as missing.

    Returns
    -------
    tuple of dict and dict, or None
        The state and the result; None where there is no whole checkpoint.
    """
    path = path_of(folder, run_id, epoch)
    try:
        with np.load(path, allow_pickle=False) as stored:
            meta = json.loads(stored[_META].tobytes())
            state = {
                name.removeprefix("state/"): stored[name] for name in stored.files if name != _META
            }
        checksum = meta.pop("checksum")
        if (meta["format"], meta["run"], meta["epoch"]) != (FORMAT, run_id, epoch):
            raise ValueError("it is of another run, epoch or version")
        if checksum != _checksum(state, meta):
            raise ValueError("the checksum does not fit")
    except FileNotFoundError:
        return None
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        on_damage(f"{path}: the checkpoint is damaged ({reason}) and counts as missing")
        return None
    return state, meta["result"]


def discard(folder: Path, run_id: str, epochs: Iterable[int]) -> None:
    """Remove checkpoints of known epochs, where they are; others are not looked for.

    A folder may hold those of ten thousand runs: it is not to be listed for each of them.
    """
    for epoch in epochs:
        path_of(folder, run_id, epoch).unlink(missing_ok=True)


def remove(folder: Path, run_id: str) -> int:
    """Remove all checkpoints of a run and return how many there were."""
    found = [path for path, run, _ in _checkpoints(folder) if run == run_id]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def remove_passed(folder: Path, reached: Mapping[str, tuple[int, bool]]) -> int:
    """Remove checkpoints that are older than what is on record of their run.

    Where that of the last epoch on record could not be written, the one before it stays.

    Parameters
    ----------
    folder : Path
        Where checkpoints lie.
    reached : mapping of str to tuple of int and bool
        Run to its last epoch on record, and whether it ends there; then none of its checkpoints is
        needed. Those of runs not named stay.

    Returns
    -------
    int
        How many were removed.
    """
    found = [(path, run, epoch) for path, run, epoch in _checkpoints(folder) if run in reached]
    newest: dict[str, int] = {}
    for _, run, epoch in found:
        if epoch <= reached[run][0]:
            newest[run] = max(epoch, newest.get(run, 0))
    passed = [path for path, run, epoch in found if reached[run][1] or epoch < newest.get(run, 0)]
    for path in passed:
        path.unlink(missing_ok=True)
    return len(passed)


def remove_unfinished(folder: Path) -> None:
    """Remove what a worker that was killed had half written; nobody may be writing now."""
    for leftover in folder.glob(".*.partial"):
        leftover.unlink(missing_ok=True)


def _checkpoints(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """Yield every checkpoint of a folder, with its run and epoch."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if hit := _NAME.fullmatch(path.name):
            yield path, hit[1], int(hit[2])


def _checksum(state: State, meta: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(state):
        value = np.ascontiguousarray(state[name])
        digest.update(f"{name} {value.dtype.str} {state[name].shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
