"""Tables and arrays before they are prepared: how their cases split, without reading the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.config.study import DataTable
from stormsweep.data.prepared import Part
from stormsweep.data.split import choose_test

#: What is larger, in bytes, takes longer to read than somebody who asks for a plan should wait.
QUICK = 1 << 27


@dataclass(frozen=True, slots=True)
class Cases:
    """What the split of cases goes by.

    Attributes
    ----------
    labels : ndarray of uint8, shape (n,)
        The classes.
    groups : mapping of str to ndarray of str, shape (n,)
        Labels of the groups.
    """

    labels: NDArray[np.uint8]
    groups: Mapping[str, NDArray[Any]]


def training_part(config: DataTable, cases: Cases, group_by: str, seed: int) -> Part:
    """Return the training part that cases will have once they are prepared, without its inputs.

    Parameters
    ----------
    config, group_by, seed
        As for `stormsweep.data.split.choose_test`.
    cases : Cases
        All of them.

    Raises
    ------
    DataError
        If the test part cannot be chosen.
    """
    is_test, _ = choose_test(config, cases.labels, cases.groups, group_by, seed)
    labels, codes = dict[str, list[str]](), dict[str, NDArray[np.int32]]()
    for name, values in cases.groups.items():
        known, inverse = np.unique(values, return_inverse=True)
        labels[name] = known.tolist()
        codes[name] = inverse.astype(np.int32)[~is_test]
    count = int((~is_test).sum())
    nothing = np.empty((count, 0), np.float32)
    return Part(nothing, cases.labels[~is_test], np.empty(count, np.float32), codes, labels)
