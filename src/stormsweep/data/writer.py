"""Writing prepared data: block by block, in bounded memory, whole or not at all.

Data come in blocks of any size, or as pieces that others wrote. Scaling is the z-score with mean
and standard deviation of the training part alone, so that nothing of the test part is seen by it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep import files
from stormsweep.data.layout import CONTENT, FORMAT, PARTS, PartName, Target, Variable, digest
from stormsweep.data.moments import Moments
from stormsweep.data.pieces import Piece, PieceWriter
from stormsweep.data.scaling import standardized
from stormsweep.errors import DataError


@dataclass(frozen=True, slots=True)
class About:
    """What prepared data are, beside their cases.

    Attributes
    ----------
    source : str
        Where the data come from, as in ``[data] source``.
    synthetic : bool
        Whether they were made up.
    inputs : sequence of Variable
        One for each channel or column.
    target : Target
        What is predicted.
    groups : sequence of str
        Names of the groups that every case belongs to one of.
    split : mapping
        How the test part was chosen, ``{"test_from": ...}`` or ``{"test_fraction": ...}``.
    provenance : mapping
        What was read; see `stormsweep.data.provenance.of_files`.
    request : mapping
        The settings that the data were made from.
    """

    source: str
    synthetic: bool
    inputs: Sequence[Variable]
    target: Target
    groups: Sequence[str] = ()
    split: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.groups:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
                raise DataError(f"group {name!r}: allowed are letters, digits, '_', '-' and '.'")


class PreparedWriter:
    """Write a folder of prepared arrays block by block, whole or not at all.

    Memory stays bounded whatever the number of cases: blocks go to raw files as they come, and are
    scaled from there when the ``with`` block ends. The bytes written do not depend on how the cases
    were cut into blocks. When the ``with`` block raises, nothing at `path` changes.

    Parameters
    ----------
    path : Path
        The folder to create or replace.
    source : str
        Where the data come from, as in ``[data] source``.
    synthetic : bool
        Whether they were made up.
    inputs : sequence of Variable
        One for each channel or column.
    target : Target
        What is predicted.
    groups : sequence of str
        Names of the groups that every block brings.
    split : dict
        How the test part was chosen, ``{"test_from": ...}`` or ``{"test_fraction": ...}``.
    provenance : dict
        What was read; see `stormsweep.data.provenance.of_files`.
    request : dict
        The settings that the data were made from.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "prepared"
    >>> with PreparedWriter(
    ...     folder, source="npz", synthetic=True, inputs=[Variable("x")], target=Target("y")
    ... ) as writer:
    ...     writer.append(np.array([[1.0], [3.0], [9.0]]), [0, 1, 1], is_test=[False, False, True])
    >>> np.load(folder / "train" / "inputs.npy").tolist()
    [[-1.0], [1.0]]
    """

    def __init__(
        self,
        path: Path,
        *,
        source: str,
        synthetic: bool,
        inputs: Sequence[Variable],
        target: Target,
        groups: Sequence[str] = (),
        split: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self._about = About(
            source, synthetic, inputs, target, groups, split or {}, provenance or {}, request or {}
        )

    def __enter__(self) -> Self:
        about = self._about
        try:
            with ExitStack() as stack:
                self._folder = stack.enter_context(files.replacing_folder(self.path))
                raw = self._folder / "raw"
                raw.mkdir()
                self._piece = PieceWriter(raw, about.inputs, about.target, about.groups)
                stack.callback(self._piece.close)
                self._stack = stack.pop_all()
        except OSError as failure:
            raise DataError(f"{self.path}: cannot be written ({failure.strerror})") from failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            # A full disk fails once more when the files are closed; the first error is the one.
            with suppress(OSError):
                self._stack.__exit__(kind, error, trace)
            return
        try:
            with self._stack:
                piece = self._piece.finish()
                _Assembly(self.path, [piece], self._about).write(self._folder)
                shutil.rmtree(piece.folder)
        except OSError as failure:
            raise DataError(f"{self.path}: cannot be written ({failure.strerror})") from failure

    def append(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        groups: Mapping[str, ArrayLike] | None = None,
        is_test: ArrayLike | None = None,
        *,
        where: str = "",
    ) -> None:
        """Append a block of cases.

        Parameters
        ----------
        inputs : array_like of numbers, shape (n, height, width, channels) or (n, columns)
            Inputs as they are, not scaled.
        targets : array_like of numbers, shape (n,)
            The target in its own units. float32 is compared with the threshold in float32, all
            else in float64, so that a value written as the threshold is equal to it.
        groups : mapping of str to array_like, shape (n,) each
            Labels of the groups; they are kept as text.
        is_test : array_like of bool, shape (n,), optional
            Which cases belong to the test part; none of them by default.
        where : str, optional
            The file that the block comes from, for error messages.

        Raises
        ------
        DataError
            If shapes do not fit, a value is not finite, or a target is neither 0 nor 1 where
            there is no threshold.
        """
        try:
            self._piece.append(inputs, targets, groups, is_test, where=where)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror})") from error


def write_prepared(
    path: Path, pieces: Sequence[Piece], about: About, tell: Callable[[int], None] | None = None
) -> None:
    """Write a folder of prepared arrays from pieces, in their order, whole or not at all.

    Memory stays bounded whatever the number of cases. The pieces are left as they are.

    Parameters
    ----------
    path : Path
        The folder to create or replace.
    pieces : sequence of Piece
        Of the same inputs, target and groups.
    about : About
        What they are.
    tell : callable, optional
        Told how many more cases are written, each time some are.

    Raises
    ------
    DataError
        If there is no training case.
    OSError
        If the disk does not take it.
    """
    with files.replacing_folder(path) as folder:
        _Assembly(path, pieces, about, tell).write(folder)


class _Assembly:
    """Pieces on their way into the arrays of both parts: what is known once all of them are read.

    Parameters
    ----------
    path : Path
        Where the data go, for error messages.
    pieces, about, tell
        As for `write_prepared`.
    """

    def __init__(
        self,
        path: Path,
        pieces: Sequence[Piece],
        about: About,
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self.pieces = pieces
        self.about = about
        self.tell = tell
        shape = next((piece.shape for piece in pieces if piece.shape is not None), None)
        if not self.count("train") or shape is None:
            raise DataError(
                f"{path}: the training part has no case ({self.count('test')} in the test part)"
            )
        self.shape = shape
        moments = Moments(len(about.inputs))
        for piece in pieces:
            moments.merge(piece.moments())
        self.mean, self.std = moments.scaling()
        #: Labels of each group, sorted, and what each piece's codes are among them.
        self.labels: dict[str, list[str]] = {}
        self._tables: dict[str, list[NDArray[np.int32]]] = {}
        for name in about.groups:
            own = [piece.facts["codes"][name] for piece in pieces]
            self.labels[name] = sorted(set().union(*own))
            place = {label: index for index, label in enumerate(self.labels[name])}
            self._tables[name] = [
                np.array([place[label] for label in labels], dtype=np.int32) for labels in own
            ]

    def count(self, part: PartName) -> int:
        return sum(piece.count(part) for piece in self.pieces)

    def write(self, folder: Path) -> None:
        """Write the arrays of both parts, then the manifest."""
        parts: dict[str, Any] = {part: self._write_part(folder / part, part) for part in PARTS}
        _write_manifest(folder, self.about, self.shape, (self.mean, self.std), self.labels, parts)

    def _write_part(self, folder: Path, part: PartName) -> dict[str, Any]:
        folder.mkdir()
        count, groups = self.count(part), {}
        written = {
            "inputs.npy": write_npy(
                folder / "inputs.npy", (count, *self.shape), np.float32, self._scaled(part)
            ),
            "labels.npy": write_npy(
                folder / "labels.npy", (count,), np.uint8, self._raw(part, "labels")
            ),
            "targets.npy": write_npy(
                folder / "targets.npy", (count,), np.float32, self._raw(part, "targets")
            ),
        }
        for name in self.about.groups:
            seen = np.zeros(len(self.labels[name]), dtype=bool)
            file = f"groups_{name}.npy"
            written[file] = write_npy(
                folder / file, (count,), np.int32, self._coded(part, name, seen)
            )
            groups[name] = int(seen.sum())
        facts = [piece.facts["parts"][part] for piece in self.pieces]
        return {
            "count": count,
            "positives": sum(one["positives"] for one in facts),
            "left_out": sum(one["left_out"] for one in facts),
            "groups": groups,
            "files": written,
        }

    def _raw(self, part: PartName, name: str) -> Iterator[NDArray[Any]]:
        for piece in self.pieces:
            yield from piece.read(part, name)

    def _scaled(self, part: PartName) -> Iterator[NDArray[Any]]:
        raw = self._raw(part, "inputs")
        for block in _ahead(standardized(one, self.mean, self.std) for one in raw):
            yield block
            if self.tell:
                self.tell(len(block))

    def _coded(self, part: PartName, name: str, seen: NDArray[np.bool_]) -> Iterator[NDArray[Any]]:
        """Yield codes among all labels, and mark in `seen` which there are."""
        for piece, table in zip(self.pieces, self._tables[name], strict=True):
            for block in piece.read(part, f"groups_{name}"):
                codes = table[block]
                seen[codes] = True
                yield codes


def _ahead(blocks: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Compute the next block while this one is written; NumPy and hashing let threads run."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, blocks, None)
            yield block


def _write_manifest(
    folder: Path,
    about: About,
    shape: tuple[int, ...],
    scaling: tuple[NDArray[np.float64], NDArray[np.float64]],
    labels: dict[str, list[str]],
    parts: dict[str, Any],
) -> None:
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "source": about.source,
        "synthetic": about.synthetic,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "stormsweep": version("stormsweep"),
        "inputs": [
            {**asdict(variable), "mean": float(mean), "std": float(std)}
            for variable, mean, std in zip(about.inputs, *scaling, strict=True)
        ],
        "input_shape": list(shape),
        "dtype": "float32",
        "target": asdict(about.target),
        "groups": labels,
        "split": dict(about.split),
        "parts": parts,
        "provenance": dict(about.provenance),
        "request": dict(about.request),
    }
    manifest = json.loads(json.dumps(manifest, default=str))
    # The file of a function that reads them may be moved.
    source = about.source.rpartition("/")[2]
    manifest["fingerprint"] = digest({key: manifest[key] for key in CONTENT} | {"source": source})
    manifest["checksum"] = digest({**manifest, "checksum": None})
    files.write_json(folder / "manifest.json", manifest)


def write_npy(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic], blocks: Iterable[NDArray[Any]]
) -> dict[str, Any]:
    """Write an array block by block; return its shape, dtype, bytes and checksum.

    Plain writes instead of a memory map: a full disk is then an `OSError` and not a bus error that
    ends the process. NumPy's header ends at a multiple of 64 bytes, where the data begin.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("w+b") as stream:
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        np.lib.format.write_array_header_1_0(
            stream, {"descr": descr, "fortran_order": False, "shape": shape}
        )
        stream.seek(0)
        header = stream.read()
        digest.update(header)
        size += len(header)
        for block in blocks:
            data = np.ascontiguousarray(block).data.cast("B")
            stream.write(data)
            digest.update(data)
            size += data.nbytes
        stream.flush()
        os.fsync(stream.fileno())
    return {
        "shape": list(shape),
        "dtype": np.dtype(dtype).name,
        "bytes": size,
        "sha256": digest.hexdigest(),
    }
