"""Where prepared data go: a folder for each request, so that no two requests share one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stormsweep.config.kinds import STORM_KEYS, STORM_SOURCES
from stormsweep.config.study import DataTable
from stormsweep.data.layout import digest
from stormsweep.errors import DataError

#: Settings of ``[data]`` that say where things lie, not what they are.
_PLACES = frozenset({"cache"})


def request(config: DataTable, seed: int, group_by: str) -> dict[str, Any]:
    """Return the settings that decide what is prepared, as plain JSON values.

    Parameters
    ----------
    config : DataTable
        The table ``[data]``.
    seed : int
        The study's seed. It counts for the twin and for a drawn test set only, so that studies
        that differ in it share prepared data otherwise.
    group_by : str
        ``validation.group_by``. It counts for a drawn test set only.
    """
    settings = config.model_dump(mode="json", exclude=set(_PLACES))
    drawn = config.test_from is None and config.test_fraction > 0
    if config.source != "twin":
        del settings["patches"]
    if config.source not in STORM_SOURCES:
        for key in STORM_KEYS:
            del settings[key]
    if config.source == "twin" or drawn:
        settings["seed"] = seed
    if drawn:
        settings["group_by"] = group_by
    return settings


def destination(cache: Path, request: Mapping[str, Any]) -> Path:
    """Return the folder of the prepared data of a request.

    Parameters
    ----------
    cache : Path
        The table's ``cache``.
    request : mapping
        What `request` returns; its ``source`` gives the folder its readable name.

    Returns
    -------
    Path
        ``<cache>/prepared/<source>-<8 hexadecimal digits of the request>``.

    Examples
    --------
    >>> destination(Path("data"), {"source": "csv", "path": "storms.csv"}).as_posix()
    'data/prepared/csv-601de6a3'
    """
    source = re.sub(r"[^A-Za-z0-9._-]+", "-", str(request["source"]).rpartition("/")[2]).strip("-.")
    return cache / "prepared" / f"{source}-{digest(dict(request))[:8]}"


def given_path(config: DataTable) -> Path:
    """Return ``data.path``, where a source cannot do without.

    Raises
    ------
    DataError
        If it is not given.
    """
    if config.path is None:
        raise DataError(f'data.path: missing; source = "{config.source}" needs it')
    return config.path.expanduser()
