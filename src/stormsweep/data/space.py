"""Room on the disk, looked at before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from stormsweep.errors import DataError


def check_space(destination: Path, needed: int) -> None:
    """Refuse to begin what will not fit.

    Parameters
    ----------
    destination : Path
        What will be written; neither it nor its folders need exist.
    needed : int
        Bytes that will be written.

    Raises
    ------
    DataError
        If the disk has less free.
    """
    parent = destination.absolute().parent
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise DataError(
            f"{destination}: needs {needed / 2**20:,.1f} MiB, and {parent} has "
            f"{free / 2**20:,.1f} MiB free"
        )
