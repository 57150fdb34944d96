"""From storm files to prepared arrays: the part of the data flow that knows storms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stormsweep import files
from stormsweep.config.study import DataTable
from stormsweep.data.prepared import PreparedData, PreparedWriter, Target, Variable
from stormsweep.data.provenance import of_files
from stormsweep.data.source import request
from stormsweep.errors import DataError
from stormsweep.storms import patches, schema, twin
from stormsweep.storms.runs import RunFiles, RunReader, find_runs, read_table

Progress = Callable[[int, int], None]


def prepare_storms(
    config: DataTable,
    seed: int,
    destination: Path,
    progress: Progress | None = None,
    group_by: str = "run_date",
) -> PreparedData:
    """Turn storm files, real or of the twin, into prepared arrays.

    Groups are ``run_date`` (``2010-10-24``) and ``track`` (``20101024-0000_007``). The split is by
    run date: runs of ``test_from`` and later are the test part.

    Parameters
    ----------
    config : DataTable
        The table ``[data]``; source ``twin`` or ``ncar-storms``.
    seed : int
        The study's seed; the twin follows from it.
    destination : Path
        Folder of the prepared arrays; replaced as a whole or not at all.
    progress : callable, optional
        Called with patches done and patches in all.
    group_by : str, optional
        ``validation.group_by``, for the manifest's request only.

    Raises
    ------
    DataError
        If files are missing, damaged, changed since they were synthesized or do not fit together;
        a variable is unknown; or the training or test range is empty.
    """
    _check_settings(config)
    folder = storm_folder(config, seed, progress)
    inputs, target = list(config.inputs or ()), str(config.target)
    runs = find_runs(folder)
    _check_ranges(config, folder, runs)
    paths = [path for run in runs for path in (run.table, run.patches)]
    provenance = of_files(folder, paths)
    mark = _verified_mark(folder, provenance)
    total = sum(len(read_table(run, ())) for run in runs)
    done = 0
    with PreparedWriter(
        destination,
        source=config.source,
        synthetic=mark is not None,
        inputs=[
            Variable(name, schema.PHYSICAL_UNITS[name], schema.VECTORS.get(name, ""))
            for name in inputs
        ],
        target=Target(
            target,
            schema.PHYSICAL_UNITS[target],
            config.threshold,
            config.event,
            config.label_from,
        ),
        groups=["run_date", "track"],
        split={"test_from": str(config.test_from), "group": "run_date"},
        provenance=provenance | ({"twin": mark} if mark else {}),
        request=request(config, seed, group_by),
    ) as writer:
        for run in runs:
            is_test = config.test_from is not None and run.date >= config.test_from
            with RunReader(run, inputs, target) as reader:
                for block in reader.blocks():
                    n = len(block.track)
                    value = block.mask_max if config.label_from == "mask" else block.patch_max
                    writer.append(
                        block.inputs,
                        value,
                        {
                            "run_date": np.full(n, f"{run.date:%Y-%m-%d}"),
                            "track": [f"{run.date:%Y%m%d}-0000_{k:03d}" for k in block.track],
                        },
                        np.full(n, is_test),
                        where=str(run.patches),
                    )
                    done += n
                    if progress:
                        progress(done, total)
    return PreparedData.open(destination)


def storm_folder(config: DataTable, seed: int, progress: Progress | None = None) -> Path:
    """Return the folder of the storm files; synthesize the twin there when it is not yet.

    Without ``path`` the twin lies in ``<cache>/twin-<patches>-<seed>``.

    Raises
    ------
    DataError
        If no folder is given for real data, or the folder holds other storms than asked for.
    """
    if config.source == "ncar-storms":
        if config.path is None:
            raise DataError(
                'data.path: not given; source = "ncar-storms" needs the folder of the storm files'
            )
        return config.path
    folder = config.path or config.cache / f"twin-{config.patches}-{seed}"
    made_from = {"seed": seed, "patches": config.patches, "twin": twin.VERSION}
    if folder.exists():
        mark = twin.read_mark(folder)
        if mark is None and config.path is not None:
            raise DataError(
                f"{folder}: no twin here ({twin.MARK} is missing); for real files use "
                'source = "ncar-storms"'
            )
        if mark is not None and all(mark.get(key) == value for key, value in made_from.items()):
            return folder
        if config.path is not None and mark is not None:
            given = ", ".join(f"{key} {mark.get(key)}" for key in made_from)
            asked = ", ".join(f"{key} {value}" for key, value in made_from.items())
            raise DataError(f"{folder}: a twin of {given}; the study asks for {asked}")
    twin.synthesize(folder, config.patches, seed, progress)
    return folder


def _check_settings(config: DataTable) -> None:
    patches.check_fields(config.inputs or (), "data.inputs")
    patches.check_fields([str(config.target)], "data.target")
    doubled = [name for name in config.inputs or () if (config.inputs or []).count(name) > 1]
    if doubled:
        raise DataError(f"data.inputs: {doubled[0]!r} stands there twice")
    if config.target in (config.inputs or ()):
        raise DataError(f"data.inputs: {config.target!r} is the target; remove it from the inputs")
    if config.groups:
        raise DataError(
            "data.groups: given for storms, which bring their own: run_date and track; remove it"
        )
    if config.test_fraction:
        raise DataError("data.test_fraction: storms are split by date; use data.test_from")
    if config.threshold is None:
        raise DataError("data.threshold: not given; storms need one, such as 0.005 (1/s)")


def _check_ranges(config: DataTable, folder: Path, runs: list[RunFiles]) -> None:
    first, last = runs[0].date, runs[-1].date
    if config.test_from is None:
        return
    if first >= config.test_from or last < config.test_from:
        which = "training" if first >= config.test_from else "test"
        raise DataError(
            f"data.test_from: {config.test_from} leaves no run for the {which} part; {folder} has "
            f"{len(runs)} from {first} to {last}"
        )


def _verified_mark(folder: Path, provenance: dict[str, Any]) -> dict[str, Any] | None:
    """Return where a twin comes from, its files checked; None for real ones."""
    mark = twin.read_mark(folder)
    if mark is None:
        return None
    now = {entry["name"]: entry["sha256"] for entry in provenance["files"]}
    for name in sorted(now.keys() | mark["files"].keys()):
        if name not in now:
            raise DataError(f"{folder / name}: missing since the twin was synthesized")
        if now[name] != mark["files"].get(name):
            raise DataError(
                f"{folder / name}: changed since the twin was synthesized; do it again, or remove "
                f"{twin.MARK} if these are real files"
            )
    facts = {key: value for key, value in mark.items() if key != "files"}
    return facts | {"sha256": files.sha256(folder / twin.MARK)}
