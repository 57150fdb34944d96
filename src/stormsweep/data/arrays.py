"""Whole arrays in memory to prepared data; the sources npz and function have it in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.config.study import DataTable
from stormsweep.data.layout import labels_of
from stormsweep.data.prepared import PreparedData, PreparedWriter, Target, Variable
from stormsweep.data.source import request
from stormsweep.data.split import choose_test
from stormsweep.errors import DataError, nearest

#: Called with how many of how many steps are done.
Progress = Callable[[int, int], None]
_VALUES = 1 << 24  # input values a block


def prepare_arrays(
    config: DataTable,
    seed: int,
    destination: Path,
    progress: Progress | None,
    group_by: str,
    *,
    where: str,
    names: tuple[str, str],
    inputs: NDArray[Any],
    target: NDArray[Any],
    groups: Mapping[str, NDArray[Any]],
    synthetic: bool = False,
    units: str = "",
    provenance: Mapping[str, Any],
) -> PreparedData:
    """Check arrays that belong together and write them as prepared data.

    Parameters
    ----------
    config, seed, destination, progress, group_by
        As in `stormsweep.data.tables.prepare_csv`.
    where : str
        The file or function that the arrays come from, for error messages.
    names : (str, str)
        What the inputs and the target are called.
    inputs : ndarray of numbers, shape (n, h, w), (n, h, w, channels) or (n, columns)
        A missing axis of channels is added.
    target : ndarray of numbers, shape (n,)
    groups : mapping of str to ndarray, shape (n,) each
    synthetic : bool
    units : str
        Units of the target.
    provenance : mapping
        What was read.

    Raises
    ------
    DataError
        If the arrays do not fit together, or hold what is not a finite number.
    """
    for name, array in ((names[0], inputs), (names[1], target)):
        if array.dtype.kind not in "biuf":
            raise DataError(f"{where}: {name!r} has type {array.dtype}; allowed: numbers")
    if inputs.ndim not in (2, 3, 4) or 0 in inputs.shape:
        raise DataError(
            f"{where}: {names[0]!r} has shape {inputs.shape}; allowed: (n, height, width), "
            "(n, height, width, channels) or (n, columns), none of them 0"
        )
    if inputs.ndim == 3:
        inputs = inputs[..., np.newaxis]
    for name, array in ((names[1], target), *groups.items()):
        if array.shape != inputs.shape[:1]:
            raise DataError(
                f"{where}: {name!r} has shape {array.shape}; {names[0]!r} has {len(inputs)} cases, "
                f"so ({len(inputs)},) is expected"
            )
    aim = Target(names[1], units, config.threshold, config.event)
    labels = labels_of(target, aim, f"{where}: ")
    texts = {name: as_text(values, f"{where}: group {name!r}") for name, values in groups.items()}
    is_test, split = choose_test(config, labels, texts, group_by, seed)
    channels = inputs.shape[-1]
    if config.inputs is not None and len(config.inputs) == channels:
        variables = [Variable(name) for name in config.inputs]
    elif channels == 1:
        variables = [Variable(names[0])]
    else:
        variables = [Variable(f"{names[0]}[{channel}]") for channel in range(channels)]
    variables = _with_vectors(variables, config.vectors, inputs.ndim)
    with PreparedWriter(
        destination,
        source=config.source,
        synthetic=synthetic,
        inputs=variables,
        target=aim,
        groups=list(texts),
        split=split,
        provenance=provenance,
        request=request(config, seed, group_by),
    ) as writer:
        step = max(1, _VALUES // int(np.prod(inputs.shape[1:])))
        for start in range(0, len(inputs), step):
            rows = slice(start, start + step)
            writer.append(
                inputs[rows],
                target[rows],
                {name: values[rows] for name, values in texts.items()},
                is_test[rows],
                where=where,
            )
            if progress:
                progress(min(start + step, len(inputs)), len(inputs))
    return PreparedData.open(destination)


def _with_vectors(
    variables: list[Variable], vectors: Mapping[str, Sequence[str]], dimensions: int
) -> list[Variable]:
    """Mark the channels that are components of a vector.

    Raises
    ------
    DataError
        If a component is no channel of the images, or stands in two vectors.
    """
    names, marks = [variable.name for variable in variables], dict[str, str]()
    for vector, components in vectors.items():
        key = f"data.vectors.{vector}"
        if dimensions != 4:
            raise DataError(f"{key}: given, but the inputs are no images; remove it")
        for component, name in zip("xy", components, strict=True):
            if name not in names:
                raise DataError(
                    f"{key}: {name!r} is no channel{nearest(name, names)}; there are "
                    f"{', '.join(names)}"
                )
            if name in marks:
                raise DataError(f"{key}: {name!r} is a component of {marks[name]!r} already")
            marks[name] = f"{vector}:{component}"
    return [replace(variable, vector=marks.get(variable.name, "")) for variable in variables]


def as_text(values: NDArray[Any], what: str) -> NDArray[Any]:
    """Return labels of a group as text; `what` names the group if it is no array of labels."""
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind not in "biufUMO":
        raise DataError(f"{what} has type {values.dtype}; allowed: whole numbers, text or dates")
    return values.astype(np.str_)


def from_file_name(pattern: str, path: Path, group: str) -> str:
    r"""Return what the first group of ``file:REGEX`` finds in the name of a file.

    Examples
    --------
    >>> from_file_name(r"file:(\d{8})", Path("/data/track_step_20150520.csv"), "run_date")
    '20150520'
    """
    key = f"data.groups.{group}"
    try:
        expression = re.compile(pattern.removeprefix("file:"))
    except re.error as error:
        raise DataError(f"{key}: {pattern!r} is no regular expression ({error})") from None
    if not expression.groups:
        raise DataError(
            f"{key}: {pattern!r} has no group; put what is meant in parentheses, such as "
            "'file:(\\d{8})'"
        )
    found = expression.search(path.name)
    if found is None or found.group(1) is None:
        raise DataError(f"{key}: {pattern!r} finds nothing in the file name {path.name!r}")
    return found.group(1)
