"""From storm files to prepared arrays: the part of the data flow that knows storms."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stormsweep import files
from stormsweep.config.study import DataTable
from stormsweep.data.layout import PARTS, PartName, Target
from stormsweep.data.piece_store import PieceStore
from stormsweep.data.pieces import Piece
from stormsweep.data.prepared import PreparedData
from stormsweep.data.source import request
from stormsweep.data.writer import About, write_prepared
from stormsweep.errors import DataError
from stormsweep.storms import patches, schema, twin
from stormsweep.storms.inputs import Inputs, choose_inputs
from stormsweep.storms.runs import RunFiles, find_runs
from stormsweep.storms.staging import GROUPS, Job, process_count, stage_runs

Progress = Callable[[int, int], None]


def prepare_storms(
    config: DataTable,
    seed: int,
    destination: Path,
    progress: Progress | None = None,
    group_by: str = "run_date",
    cores: int = 1,
    making: Progress | None = None,
) -> PreparedData:
    """Turn storm files, real or of the twin, into prepared arrays.

    Groups are ``run_date`` (``2010-10-24``), ``track`` (``20101024-0000_007``), ``hour`` (valid
    hour in UTC, ``00`` to ``23``) and ``region`` (see `stormsweep.storms.regions`). The split is by
    run date: runs of ``test_from`` and later are the test part.

    Memory does not grow with the number of patches. What is read waits in a folder beside the
    destination; after an interruption, on a full disk or when a file is unfit it stays there, and
    the next call goes on from it. The arrays are the same bits for any number of cores and
    interruptions.

    Parameters
    ----------
    config : DataTable
        The table ``[data]``; source ``twin`` or ``ncar-storms``.
    seed : int
        The study's seed; the twin follows from it.
    destination : Path
        Folder of the prepared arrays; replaced as a whole or not at all.
    progress : callable, optional
        Called with how many of how many steps are done; a patch is read, and later written.
    group_by : str, optional
        ``validation.group_by``, for the manifest's request only.
    cores : int, optional
        How many cores may be used; large data are read by several processes.
    making : callable, optional
        Called with how many of how many patches are synthesized, where the twin is not there yet.

    Raises
    ------
    DataError
        If files are missing, damaged, changed since they were synthesized or do not fit together;
        a variable is unknown; the training or test range is empty or of one class; another process
        prepares the same data; or the disk has no room.
    """
    inputs = choose_inputs(config.inputs or (), str(config.target))
    _check_settings(config)
    folder = storm_folder(config, seed, making)
    found = find_runs(folder)
    mark = _mark(folder, found)
    runs = _chosen(config, folder, found)
    counts = [patches.count_patches(run.patches) for run in runs]
    target = _target(config)
    asked = request(config, seed, group_by)
    tell = _adding(progress, 2 * sum(counts))
    with PieceStore(destination, asked) as store:
        jobs = [
            Job(
                run=run,
                data=folder,
                piece=store.piece(f"{run.date:%Y%m%d}"),
                inputs=inputs,
                target=target,
                part=_part(config, run.date),
                drop_missing=config.missing == "drop",
                twin=mark and mark["files"],
            )
            for run in runs
        ]
        with _keeping(store, destination, len(jobs)):
            files.check_space(destination, 2 * sum(counts) * _row_bytes(inputs) - store.held())
            stage_runs(jobs, process_count(cores, len(jobs), sum(counts)), tell)
            pieces = [Piece(job.piece) for job in jobs]
            if refusal := _one_class(pieces, target):
                # Other settings are other pieces in another folder: these would lie there for good.
                store.discard()
                raise DataError(refusal)
            about = About(
                source=config.source,
                synthetic=mark is not None,
                inputs=inputs.variables,
                target=target,
                groups=GROUPS,
                split=_split(config),
                provenance=_provenance(folder, pieces, mark),
                request=asked,
            )
            write_prepared(destination, pieces, about, tell)
    return PreparedData.open(destination)


def _target(config: DataTable) -> Target:
    name = str(config.target)
    units = schema.PHYSICAL_UNITS[name]
    return Target(name, units, config.threshold, config.event, config.label_from)


def _adding(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Return what takes how many more steps are done and tells how many of all are."""
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        if progress:
            progress(min(done, total), total)

    return tell


@contextmanager
def _keeping(store: PieceStore, destination: Path, runs: int) -> Iterator[None]:
    """Say of whatever ends the block early which runs need not be read again."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{error}{_kept(store, runs)}") from None
    except OSError as error:
        raise DataError(
            f"{destination}: cannot be written ({error.strerror}){_kept(store, runs)}"
        ) from None


def check_storms(config: DataTable, seed: int) -> None:
    """Refuse what can be seen of storm files, and of what is asked of them, without reading them.

    Files that are not there yet are not missed: they can be synthesized, or fetched.

    Parameters
    ----------
    config, seed
        As for `prepare_storms`.

    Raises
    ------
    DataError
        As `prepare_storms` does.
    """
    choose_inputs(config.inputs or (), str(config.target))
    _check_settings(config)
    folder = _folder(config, seed)
    real = config.source == "ncar-storms"
    there = folder.exists() if real else _is_twin(config, seed, folder)
    if there:
        _chosen(config, folder, find_runs(folder))


def storm_folder(config: DataTable, seed: int, progress: Progress | None = None) -> Path:
    """Return the folder of the storm files; synthesize the twin there when it is not yet.

    Without ``path`` the twin lies in ``<cache>/twin-<patches>-<seed>``.

    Raises
    ------
    DataError
        If no folder is given for real data, or the folder holds other storms than asked for.
    """
    folder = _folder(config, seed)
    if config.source != "ncar-storms" and not _is_twin(config, seed, folder):
        twin.synthesize(folder, config.patches, seed, progress)
    return folder


def _folder(config: DataTable, seed: int) -> Path:
    """Return where storm files lie, or will."""
    if config.source == "ncar-storms":
        if config.path is None:
            raise DataError(
                'data.path: not given; source = "ncar-storms" needs the folder of the storm files'
            )
        return config.path
    return config.path or config.cache / f"twin-{config.patches}-{seed}"


def _is_twin(config: DataTable, seed: int, folder: Path) -> bool:
    """Tell whether a folder holds the twin asked for; refuse another one that was named."""
    if not folder.exists():
        return False
    made_from = {"seed": seed, "patches": config.patches, "twin": twin.VERSION}
    mark = twin.read_mark(folder)
    if mark is None and config.path is not None:
        raise DataError(
            f"{folder}: no twin here ({twin.MARK} is missing); for real files use "
            'source = "ncar-storms"'
        )
    if mark is not None and all(mark.get(key) == value for key, value in made_from.items()):
        return True
    if config.path is not None and mark is not None:
        given = ", ".join(f"{key} {mark.get(key)}" for key in made_from)
        asked = ", ".join(f"{key} {value}" for key, value in made_from.items())
        raise DataError(f"{folder}: a twin of {given}; the study asks for {asked}")
    return False


def _check_settings(config: DataTable) -> None:
    patches.check_fields([str(config.target)], "data.target")
    if config.vectors:
        raise DataError("data.vectors: given for storms, which bring their wind; remove it")
    if config.groups:
        raise DataError(
            f"data.groups: given for storms, which bring their own: {', '.join(GROUPS)}; remove it"
        )
    if config.test_fraction:
        raise DataError("data.test_fraction: storms are split by date; use data.test_from")
    if config.threshold is None:
        units = schema.PHYSICAL_UNITS[str(config.target)]
        raise DataError(
            f"data.threshold: not given; the target {config.target} needs one, in {units}: only "
            "RVORT1_MAX_future has a default"
        )


def _chosen(config: DataTable, folder: Path, found: Sequence[RunFiles]) -> list[RunFiles]:
    """Return the runs of the dates asked for; there are some for either part."""
    first, last = config.first_date or dt.date.min, config.last_date or dt.date.max
    runs = [run for run in found if first <= run.date <= last]
    has = f"{folder} has {len(found)} from {found[0].date} to {found[-1].date}"
    if not runs:
        asked = " and ".join(
            f"data.{key} {getattr(config, key)}"
            for key in ("first_date", "last_date")
            if getattr(config, key)
        )
        raise DataError(f"{asked}: no run has such a date; {has}")
    for part in PARTS:
        if config.test_from and not any(_part(config, run.date) == part for run in runs):
            which = "training" if part == "train" else "test"
            of = "" if len(runs) == len(found) else f" of {len(runs)} chosen by date"
            raise DataError(
                f"data.test_from: {config.test_from} leaves no run{of} for the {which} part; {has}"
            )
    return runs


def _part(config: DataTable, date: dt.date) -> PartName:
    return "test" if config.test_from is not None and date >= config.test_from else "train"


def _split(config: DataTable) -> dict[str, Any]:
    dates = {key: getattr(config, key) for key in ("first_date", "test_from", "last_date")}
    return {key: str(date) for key, date in dates.items() if date} | {"group": "run_date"}


def _row_bytes(inputs: Inputs) -> int:
    values = len(inputs.variables) * (schema.SIDE**2 if inputs.kind == "fields" else 1)
    return 4 * values + 5 + 4 * len(GROUPS)


def _kept(store: PieceStore, runs: int) -> str:
    """Say what the next call need not read again."""
    kept = store.count()
    if not kept:
        return ""
    return (
        f"; {kept} of {runs} runs are kept, and the same command goes on from there "
        f"({store.folder})"
    )


def _one_class(pieces: Sequence[Piece], target: Target) -> str | None:
    """Say why a part has no storm, or storms of one class only; None: it has both."""
    for part in PARTS:
        facts = [piece.facts["parts"][part] for piece in pieces]
        count, positives, left_out = (
            sum(one[key] for one in facts) for key in ("count", "positives", "left_out")
        )
        which = "training" if part == "train" else "test"
        if left_out and not count:
            return (
                f'data.missing: "drop" leaves no storm in the {which} part; all {left_out} have '
                "missing values"
            )
        if count and positives in (0, count):
            low = min(one["low"] for one in facts if one["count"])
            high = max(one["high"] for one in facts if one["count"])
            return (
                f"data.threshold: {target.threshold} {target.units} leaves "
                f"{'only events' if positives else 'no event'} among {count} storms of the {which} "
                f"part, where {target.name} (of the {target.label_from}) goes from {low:.5g} to "
                f"{high:.5g}"
            )
    return None


def _mark(folder: Path, found: Sequence[RunFiles]) -> dict[str, Any] | None:
    """Return what a twin says of itself, its files all there; None for real ones."""
    mark = twin.read_mark(folder)
    if mark is None:
        return None
    paths = [path for run in found for path in (run.table, run.patches)]
    there = {path.relative_to(folder).as_posix() for path in paths}
    for name in sorted(set(mark["files"]) - there):
        raise DataError(f"{folder / name}: missing since the twin was synthesized")
    return mark


def _provenance(
    folder: Path, pieces: Sequence[Piece], mark: dict[str, Any] | None
) -> dict[str, Any]:
    sources = [facts for piece in pieces for facts in piece.facts["sources"]]
    provenance = {"folder": str(folder.resolve()), "pattern": None, "files": sources}
    if mark is None:
        return provenance
    facts = {key: value for key, value in mark.items() if key != "files"}
    return provenance | {"twin": facts | {"sha256": files.sha256(folder / twin.MARK)}}
