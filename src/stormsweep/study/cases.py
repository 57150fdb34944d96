"""The cases of a task, as a worker has them: opened once, mapped into memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stormsweep.cluster import machine, station
from stormsweep.data.layout import PartName
from stormsweep.data.prepared import Part, PreparedData
from stormsweep.data.turned import open_turned, vectors_of
from stormsweep.errors import DataAwayError, DataError
from stormsweep.study.protocol import FoldRows, fold_rows, whole_part
from stormsweep.training.engine import FoldData, Turning
from stormsweep.work import Augmentation, Protocol, TaskOrder


def open_all(path: str, fingerprint: str, turned: str, test: bool) -> None:
    """Open what tasks will need, once: a worker that cannot is to be given none.

    Parameters
    ----------
    path, fingerprint : str, str
        The prepared data, and what they must be.
    turned : str
        Folder of the patches turned ahead of training; empty: none are.
    test : bool
        Whether the test part is needed too.

    Raises
    ------
    DataAwayError
        If they cannot be opened here, or are others.
    """
    _part(path, fingerprint)
    if test:
        _part(path, fingerprint, "test")
    if turned:
        _turned(turned, fingerprint)


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Name the node in what is said of data that cannot be opened: the driver could open them."""
    try:
        yield
    except (DataError, OSError) as error:
        # That they should be prepared again is no advice: they lie where they did.
        reason = str(error).partition("; run `")[0]
        where = "" if str(path) in reason else f"{path}: "
        node = station.here().node or machine.host()
        raise DataAwayError(f"{node} cannot open the data: {where}{reason}") from None


def part_of(order: TaskOrder, name: PartName = "train") -> Part:
    """Return a part of a task's data, opened once."""
    return _part(order.data, order.fingerprint, name)


@functools.cache
def _part(path: str, fingerprint: str, name: PartName = "train") -> Part:
    here = Path(station.near(path))
    with _opening(here):
        data = PreparedData.open(here)
        if data.fingerprint != fingerprint:
            raise DataError(f"{here}: the data changed since this session of the study began")
        return data.part(name)


@functools.lru_cache(maxsize=4)
def _rows(path: str, fingerprint: str, protocol: Protocol) -> list[FoldRows]:
    """Return the folds of all rounds, and after the last of them the whole training part."""
    part = _part(path, fingerprint)
    return [*fold_rows(part, protocol), whole_part(part, protocol)]


def fold_of(order: TaskOrder) -> FoldData:
    """Return the cases of a task's fold."""
    part = _part(order.data, order.fingerprint)
    run = order.task.run
    rows = _rows(order.data, order.fingerprint, order.protocol)[-1 if run.whole else run.fold]
    inputs, labels, versions = part.inputs, part.labels, range(1)
    augmentation = order.protocol.augmentation
    if augmentation is not None and augmentation.copies:
        inputs = _turned(order.turned, order.fingerprint)
        labels = np.tile(labels, 1 + augmentation.copies)
        # In 2019 all patches were turned and none was left as it was.
        versions = range(augmentation.method != "physical", 1 + augmentation.copies)
    return FoldData(
        inputs=inputs,
        labels=labels,
        train=rows.train,
        validation=rows.validation,
        class_weight=rows.class_weight,
        climatology=rows.climatology,
        versions=versions,
        turning=_turning(order.data, augmentation),
    )


@functools.cache
def _turned(path: str, fingerprint: str) -> NDArray[np.float32]:
    here = Path(station.near(path))
    with _opening(here):
        return open_turned(here, fingerprint)


@functools.cache
def _turning(path: str, augmentation: Augmentation | None) -> Turning | None:
    if augmentation is None or augmentation.copies:
        return None
    here = Path(station.near(path))
    with _opening(here):
        manifest = PreparedData.open(here).manifest
    physical = augmentation.method == "physical"
    mean, std = (tuple(v[key] for v in manifest["inputs"]) for key in ("mean", "std"))
    return Turning(
        rotate_degrees=augmentation.rotate_degrees,
        flip=augmentation.flip,
        turns_vectors=physical,
        vectors=tuple(vectors_of(manifest)) if physical else (),
        mean=mean,
        std=std,
    )
