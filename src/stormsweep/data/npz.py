"""Source ``npz``: any arrays to prepared data."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.config.study import DataTable
from stormsweep.data.arrays import Progress, as_text, from_file_name, prepare_arrays
from stormsweep.data.layout import Target, labels_of
from stormsweep.data.prepared import PreparedData
from stormsweep.data.provenance import of_files
from stormsweep.data.source import given_path
from stormsweep.data.unread import QUICK, Cases
from stormsweep.errors import DataError, nearest
from stormsweep.files import namesake


def prepare_npz(
    config: DataTable,
    seed: int,
    destination: Path,
    progress: Progress | None = None,
    *,
    group_by: str = "none",
) -> PreparedData:
    """Prepare the arrays of one ``.npz`` file.

    Parameters
    ----------
    config : DataTable
        ``path`` is the file; ``inputs`` one name of an array of shape (n, h, w), (n, h, w, c) or
        (n, k), by default ``inputs``; ``target`` an array of shape (n,), by default ``labels``;
        ``groups`` arrays of shape (n,).
    seed, destination, progress, group_by
        As for `stormsweep.data.tables.prepare_csv`; progress is told in cases.

    Raises
    ------
    DataError
        In one line, if the file or an array is missing, holds Python objects, or does not fit.
    """
    path, inputs_name, target = _asked(config)
    with path.open("rb") as stream:
        archive = _archive(path, stream)
        inputs = _array(path, archive, inputs_name, "data.inputs")
        targets = _array(path, archive, target, "data.target")
        groups = _groups(config, path, archive, len(inputs))
    return prepare_arrays(
        config,
        seed,
        destination,
        progress,
        group_by,
        where=str(path),
        names=(inputs_name, target),
        inputs=inputs,
        target=targets,
        groups=groups,
        provenance=of_files(path.parent, [path]),
    )


def npz_cases(config: DataTable) -> Cases | None:
    """Read what the cases of a ``.npz`` file are split by.

    Parameters
    ----------
    config : DataTable
        As for `prepare_npz`.

    Returns
    -------
    Cases or None
        None: these arrays alone are large, or do not fit together, which preparing says better.

    Raises
    ------
    DataError
        As for `prepare_npz`, as far as the inputs do not matter.
    """
    path, inputs_name, target = _asked(config)
    with path.open("rb") as stream:
        archive = _archive(path, stream)
        _check_name(path, archive, inputs_name, "data.inputs")
        used = {target: "data.target"}
        used |= {
            name: f"data.groups.{group}"
            for group, name in config.groups.items()
            if not name.startswith("file:")
        }
        for name, key in used.items():
            _check_name(path, archive, name, key)
        sizes = {one.filename.removesuffix(".npy"): one.file_size for one in archive.zip.infolist()}
        if sum(sizes[name] for name in used) > QUICK:
            return None
        targets = _array(path, archive, target, "data.target")
        groups = _groups(config, path, archive, len(targets))
    if targets.dtype.kind not in "biuf" or any(
        one.shape != (len(targets),) for one in (targets, *groups.values())
    ):
        return None
    labels = labels_of(targets, Target(target, "", config.threshold, config.event), f"{path}: ")
    texts = {name: as_text(one, f"{path}: group {name!r}") for name, one in groups.items()}
    return Cases(labels, texts)


def _asked(config: DataTable) -> tuple[Path, str, str]:
    """Return the file, and the names of the inputs and of the target."""
    path = given_path(config)
    names = config.inputs or ["inputs"]
    if len(names) != 1:
        raise DataError(f"data.inputs: given {len(names)} names; npz takes the name of one array")
    if not path.is_file():
        raise DataError(f"data.path: there is no file {path}{namesake(path)}")
    return path, names[0], config.target or "labels"


def _groups(config: DataTable, path: Path, archive: Any, count: int) -> dict[str, NDArray[Any]]:
    return {
        group: np.full(count, from_file_name(name, path, group))
        if name.startswith("file:")
        else _array(path, archive, name, f"data.groups.{group}")
        for group, name in config.groups.items()
    }


def input_array(path: Path, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """Read the input array of a new ``.npz`` file.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        Of the array.
    shape : sequence of int
        Shape of one case; a single channel may be left out.

    Raises
    ------
    DataError
        In one line, if the file or the array is missing, or does not fit.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    with path.open("rb") as stream:
        values = _array(path, _archive(path, stream), name, "predict")
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: array {name!r} has type {values.dtype}; must be numbers")
    given = values.shape[1:]
    if tuple(given) not in (tuple(shape), tuple(shape[:-1]) if shape[-1] == 1 else tuple(shape)):
        raise DataError(
            f"{path}: cases of array {name!r} have shape {tuple(given)}; the model takes "
            f"{tuple(shape)}"
        )
    numbers = values.astype(np.float32).reshape(-1, *shape)
    if not np.isfinite(numbers).all():
        raise DataError(f"{path}: array {name!r} has missing or infinite values; none are allowed")
    return numbers


def _archive(path: Path, stream: Any) -> Any:
    try:
        archive: Any = np.load(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise DataError(f"{path}: is not an .npz file") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: is not an .npz file")
    return archive


def _check_name(path: Path, archive: Any, name: str, key: str) -> None:
    if name not in archive.files:
        raise DataError(
            f"{key}: {name!r} is no array of {path}{nearest(name, archive.files)}; it has "
            f"{', '.join(archive.files) or 'none'}"
        )


def _array(path: Path, archive: Any, name: str, key: str) -> NDArray[Any]:
    _check_name(path, archive, name, key)
    try:
        array: NDArray[Any] = archive[name]
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: array {name!r} is damaged ({error})") from None
    except ValueError as error:
        what = "holds Python objects" if "allow_pickle" in str(error) else "is damaged"
        raise DataError(f"{path}: array {name!r} {what}; allowed: numbers or text") from None
    if array.ndim == 0:
        raise DataError(f"{path}: array {name!r} is a single value; one entry a case is expected")
    return array
