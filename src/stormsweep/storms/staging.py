"""Read storm files into pieces, a run a piece, by several processes.

HDF5 reads one file at a time in a process, whatever the number of threads, and unpacking is most of
the work: so processes, not threads.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stormsweep import files
from stormsweep.data.layout import PartName, Target
from stormsweep.data.piece_store import whole_piece
from stormsweep.data.pieces import PieceWriter
from stormsweep.data.provenance import of_file
from stormsweep.errors import DataError
from stormsweep.storms import twin
from stormsweep.storms.inputs import Inputs
from stormsweep.storms.regions import region
from stormsweep.storms.runs import RunFiles, RunReader

GROUPS = ("run_date", "track", "hour", "region")
#: A process takes some 150 MiB; together they stay below 1.5 GiB.
_MOST = 6
#: Fewer patches are read before a further process is ready.
_WORTH = 10_000


@dataclass(frozen=True, slots=True)
class Job:
    """What is needed to read one run into a piece.

    Attributes
    ----------
    run : RunFiles
        The pair of files.
    data : Path
        The folder that they lie in.
    piece : Path
        The folder of the piece.
    inputs : Inputs
        Fields or columns.
    target : Target
        What is predicted; ``label_from`` says from the mask or the patch.
    part : {"train", "test"}
        Where the run belongs.
    drop_missing : bool
        Leave storms with missing values out instead of refusing the run.
    twin : mapping of str to str, optional
        Checksums that files of a twin must have, by name.
    """

    run: RunFiles
    data: Path
    piece: Path
    inputs: Inputs
    target: Target
    part: PartName
    drop_missing: bool = False
    twin: Mapping[str, str] | None = None


def process_count(cores: int, runs: int, patches: int) -> int:
    """Decide how many processes read: 1 is this one alone, more are further ones.

    Examples
    --------
    >>> process_count(2, 100, 121_137), process_count(64, 100, 121_137)
    (2, 6)
    >>> process_count(64, 18, 6_000), process_count(64, 1, 50_000)
    (1, 1)
    """
    return max(1, min(cores, runs, patches // _WORTH, _MOST))


def stage_runs(jobs: Sequence[Job], processes: int, tell: Callable[[int], None]) -> None:
    """Read runs into pieces; those that are there already, whole and unchanged, are kept.

    Parameters
    ----------
    jobs : sequence of Job
        The runs.
    processes : int
        1: this process reads; more: so many others do.
    tell : callable
        Told how many more patches are read, after each run.

    Raises
    ------
    DataError
        Whatever is wrong with a file, the first that is found; if the disk is full, or a reading
        process ends.
    """
    if processes <= 1:
        for job in jobs:
            tell(stage_run(job))
        return
    spawn = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, spawn, initializer=_end_with_parent)
    try:
        with _deaf_to_ctrl_c():
            running = [executor.submit(stage_run, job) for job in jobs]
        for one in as_completed(running):
            tell(one.result())
    except BrokenProcessPool:
        raise DataError(
            "a process that reads storm files ended unexpectedly (killed, or out of memory; in a "
            'script, work must stand under `if __name__ == "__main__":`)'
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def stage_run(job: Job) -> int:
    """Read one run into its piece; return how many patches it has.

    Raises
    ------
    DataError
        In one line, if a file is damaged, changed or unfit, or the disk does not take the piece.
    """
    piece = whole_piece(job.piece, job.data)
    if piece is not None:
        _check_twin(job, piece.facts["sources"])
        return int(piece.facts["patches"])
    paths = (job.run.table, job.run.patches)
    sources = [of_file(job.data, path) for path in paths]
    _check_twin(job, sources)
    shutil.rmtree(job.piece, ignore_errors=True)
    try:
        with files.replacing_folder(job.piece) as beside:
            count = _write(job, beside, sources)
            for path, facts in zip(paths, sources, strict=True):
                if path.stat().st_mtime_ns != facts["mtime_ns"]:
                    raise DataError(f"{path}: changed while it was read; prepare again")
    except OSError as error:
        raise DataError(f"{job.piece}: cannot be written ({error.strerror})") from None
    return count


def _write(job: Job, folder: Path, sources: list[dict[str, Any]]) -> int:
    fields = job.inputs.names if job.inputs.kind == "fields" else ()
    columns = job.inputs.names if job.inputs.kind == "columns" else ()
    writer = PieceWriter(folder, job.inputs.variables, job.target, GROUPS)
    try:
        with RunReader(
            job.run, fields, job.target.name, columns=columns, allow_missing=job.drop_missing
        ) as reader:
            for rows, inputs, values, complete in _cases(job, reader):
                keep = slice(None) if complete.all() else complete
                groups = _groups(job, reader, rows)
                n = int(complete.sum())
                writer.append(
                    inputs[keep],
                    values[keep],
                    {name: labels[keep] for name, labels in groups.items()},
                    np.full(n, job.part == "test"),
                    where=str(job.run.patches),
                )
                writer.leave_out(job.part, len(complete) - n)
            writer.finish(sources=sources, patches=reader.count)
            return reader.count
    finally:
        writer.close()


def _cases(
    job: Job, reader: RunReader
) -> Iterator[tuple[slice, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.bool_]]]:
    """Yield rows, inputs, target values, and where all of them are there."""
    from_mask = job.target.label_from != "patch"
    # Where the table has all that is wanted, the target's field is read all the same: nothing else
    # tells that a row of the right track and step is that of another storm.
    for block in reader.blocks():
        inputs = block.inputs if job.inputs.kind == "fields" else reader.columns[block.rows]
        values = block.mask_max if from_mask else block.patch_max
        yield block.rows, inputs, values, block.complete


def _groups(job: Job, reader: RunReader, rows: slice) -> dict[str, npt.NDArray[np.str_]]:
    file, date = reader.patches, job.run.date
    track, hour = file.track[rows], (file.start.hour + file.hour[rows]) % 24
    return {
        "run_date": np.full(len(track), f"{date:%Y-%m-%d}"),
        "track": np.array([f"{date:%Y%m%d}-0000_{number:03d}" for number in track], dtype=np.str_),
        "hour": np.char.zfill(hour.astype(np.str_), 2),
        "region": region(file.lon[rows], file.lat[rows]),
    }


def _check_twin(job: Job, sources: list[dict[str, Any]]) -> None:
    for facts in sources if job.twin is not None else ():
        if facts["sha256"] != (job.twin or {}).get(facts["name"]):
            raise DataError(
                f"{job.data / facts['name']}: changed since the twin was synthesized; do it again, "
                f"or remove {twin.MARK} if these are real files"
            )


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let processes started meanwhile not hear Ctrl-C: this one does, and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
