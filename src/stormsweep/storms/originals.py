"""Back from prepared cases to the patch files they came from, for what preparation leaves out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import DataError
from stormsweep.storms import schema
from stormsweep.storms.patches import PatchFile

#: Prepared inputs went through float32 twice; fields that differ by more are other storms.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-2


@dataclass(frozen=True, eq=False, slots=True)
class Originals:
    """What the patch files say of cases, beside the inputs.

    Attributes
    ----------
    found : ndarray of bool, shape (n,)
        Whether a case was found in its file; where not, the rest means nothing.
    mask : ndarray of bool, shape (n, 32, 32)
        The storm's own cells.
    target : ndarray of float32, shape (n, 32, 32)
        The target's field.
    hour : ndarray of int64, shape (n,)
        Forecast hour.
    """

    found: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    target: NDArray[np.float32]
    hour: NDArray[np.int64]


def originals(
    manifest: dict[str, Any],
    run_dates: Sequence[str],
    tracks: Sequence[str],
    inputs: NDArray[np.float32],
) -> Originals:
    """Look cases up in the patch files, if these are still where the data were prepared from.

    A case is the patch of its track whose input fields are those that were prepared: nothing relies
    on rows being in the same order. Missing values of other patches do not matter.

    Parameters
    ----------
    manifest : dict
        Manifest of the prepared data.
    run_dates, tracks : sequences of str, length n
        Labels of the groups ``run_date`` and ``track``.
    inputs : ndarray of float32, shape (n, 32, 32, channels)
        In physical units.
    """
    count, cells = len(inputs), (len(inputs), schema.SIDE, schema.SIDE)
    looked = Originals(
        np.zeros(count, bool),
        np.zeros(cells, bool),
        np.zeros(cells, np.float32),
        np.zeros(count, np.int64),
    )
    provenance = manifest.get("provenance", {})
    folder = Path(provenance.get("folder", "."))
    paths = {Path(file["name"]).name: folder / file["name"] for file in provenance.get("files", ())}
    names = [variable["name"] for variable in manifest["inputs"]]
    for run_date in sorted(set(run_dates)):
        date = dt.date.fromisoformat(run_date)
        path = paths.get(schema.patch_path(Path(), date).name)
        if path is None or not path.is_file():
            continue
        rows = [row for row, own in enumerate(run_dates) if own == run_date]
        try:
            with PatchFile(
                path, names, manifest["target"]["name"], date=date, allow_missing=True
            ) as file:
                _look_up(file, rows, tracks, inputs, looked)
        except DataError:
            continue  # changed since: there is nothing to look up
    return looked


def _look_up(
    file: PatchFile,
    rows: list[int],
    tracks: Sequence[str],
    inputs: NDArray[np.float32],
    looked: Originals,
) -> None:
    assert file.target is not None
    for block in file.blocks():
        for row in rows:
            number = int(tracks[row].rpartition("_")[2])
            for place in np.flatnonzero(block.track == number):
                same = np.allclose(block.inputs[place], inputs[row], _RELATIVE, _ABSOLUTE)
                if looked.found[row] or not same:
                    continue
                looked.found[row] = True
                looked.mask[row] = block.mask[place]
                looked.target[row] = block.fields[file.target][place]
                looked.hour[row] = block.hour[place]
