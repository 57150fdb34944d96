"""Pieces: cases checked and coded but not yet scaled, in raw files with their facts.

Scaling needs the mean of all training cases, so nothing can be scaled before everything is read.
What is read waits in pieces on disk; they may be written by several processes, and survive an
interruption.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep import files
from stormsweep.data.layout import PARTS, PartName, Target, Variable, labels_of
from stormsweep.data.moments import Moments
from stormsweep.errors import DataError

_FACTS = "piece.json"
_BLOCK = 1 << 19  # values taken into memory at a time; part of what the moments' last bits are
_CHUNK = 1 << 22
_DTYPES: dict[str, type[np.generic]] = {
    "inputs": np.float32,
    "labels": np.uint8,
    "targets": np.float32,
}


class Piece:
    """A folder of raw cases that is whole.

    Attributes
    ----------
    folder : Path
        Where it lies.
    facts : dict
        ``shape`` of a case's inputs (None without any case), ``codes`` (labels of each group in the
        order of their codes), ``parts`` (per part ``count``, ``positives``, ``left_out``, ``low``
        and ``high`` of the target, ``moments`` of the training inputs), ``files`` and whatever its
        writer was told to note.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / _FACTS).read_text(encoding="utf-8"))

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of one case's inputs."""
        return None if self.facts["shape"] is None else tuple(self.facts["shape"])

    def count(self, part: PartName) -> int:
        """Return how many cases a part has."""
        return int(self.facts["parts"][part]["count"])

    def moments(self) -> Moments:
        """Return the moments of the training inputs."""
        return Moments.from_json(self.facts["parts"]["train"]["moments"])

    def read(self, part: PartName, name: str) -> Iterator[NDArray[Any]]:
        """Yield an array, ``inputs``, ``labels``, ``targets`` or ``groups_NAME``, in blocks."""
        if self.count(part):
            shape = self.shape if name == "inputs" else ()
            yield from _read(self.folder / part / f"{name}.raw", name, shape or ())

    def sound(self) -> bool:
        """Whether every raw file is as long as when it was written, and has the same CRC-32."""
        for name, facts in self.facts["files"].items():
            try:
                path = self.folder / name
                if path.stat().st_size != facts["bytes"] or _crc32(path) != facts["crc32"]:
                    return False
            except OSError:
                return False
        return True


def _read(path: Path, name: str, shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    dtype = np.dtype(_DTYPES.get(name, np.int32))
    width = int(np.prod(shape))
    rows = max(1, _BLOCK // max(1, width))
    with path.open("rb") as stream:
        while chunk := stream.read(rows * width * dtype.itemsize):
            yield np.frombuffer(chunk, dtype).reshape(-1, *shape)


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


class PieceWriter:
    """Write a piece block by block into an empty folder.

    Parameters
    ----------
    folder : Path
        An empty folder; the caller sees to it that it is kept whole or not at all.
    inputs : sequence of Variable
        One for each channel or column.
    target : Target
        What is predicted.
    groups : sequence of str
        Names of the groups that every block brings.

    Raises
    ------
    OSError
        From every method, if the disk does not take it.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Sequence[Variable],
        target: Target,
        groups: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.inputs = tuple(inputs)
        self.target = target
        self._codes: dict[str, dict[str, int]] = {name: {} for name in groups}
        self._shape: tuple[int, ...] | None = None
        self._parts: dict[PartName, dict[str, Any]] = {
            part: {"count": 0, "positives": 0, "left_out": 0, "low": None, "high": None}
            for part in PARTS
        }
        names = [*_DTYPES, *(f"groups_{name}" for name in groups)]
        self._files = {
            f"{part}/{name}.raw": {"bytes": 0, "crc32": 0} for part in PARTS for name in names
        }
        self._raw: dict[str, IO[bytes]] = {}
        with ExitStack() as stack:
            for part in PARTS:
                (folder / part).mkdir()
            for file in self._files:
                self._raw[file] = stack.enter_context((folder / file).open("wb"))
            self._stack = stack.pop_all()

    def append(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        groups: Mapping[str, ArrayLike] | None = None,
        is_test: ArrayLike | None = None,
        *,
        where: str = "",
    ) -> None:
        """Append a block of cases; see `stormsweep.data.writer.PreparedWriter.append`."""
        at = f"{where}: " if where else ""
        raw_targets = np.asarray(targets)
        n = len(raw_targets)
        block = self._checked_inputs(inputs, n, at)
        labels = labels_of(raw_targets, self.target, at)
        test = np.zeros(n, bool) if is_test is None else np.asarray(is_test, dtype=bool)
        columns: dict[str, NDArray[Any]] = {
            "inputs": block,
            "labels": labels,
            "targets": raw_targets.astype(np.float32),
        }
        given = dict(groups or {})
        if set(given) != set(self._codes):
            raise DataError(f"{at}groups given: {sorted(given)}; expected: {sorted(self._codes)}")
        for name, values in given.items():
            columns[f"groups_{name}"] = self._coded(name, values)
        for name, column in {**columns, "is_test": test}.items():
            if column.shape[:1] != (n,):
                raise DataError(f"{at}{name} has shape {column.shape}; there are {n} targets")
        for part in PARTS:
            mask = test if part == "test" else ~test
            if not mask.any():
                continue
            for name, column in columns.items():
                self._write(f"{part}/{name}.raw", column if mask.all() else column[mask])
            facts, own = self._parts[part], columns["targets"][mask]
            facts["count"] += len(own)
            facts["positives"] += int(labels[mask].sum())
            low, high = float(own.min()), float(own.max())
            facts["low"] = low if facts["low"] is None else min(low, facts["low"])
            facts["high"] = high if facts["high"] is None else max(high, facts["high"])

    def leave_out(self, part: PartName, count: int) -> None:
        """Note that cases of a part are not appended, because of missing values."""
        self._parts[part]["left_out"] += count

    def finish(self, **notes: Any) -> Piece:
        """Close the files and write the facts, with `notes` among them."""
        self._stack.close()
        # Over blocks of fixed size, so the moments do not know how the cases came in.
        moments = Moments(len(self.inputs))
        if self._parts["train"]["count"]:
            for block in _read(self.folder / "train" / "inputs.raw", "inputs", self._shape or ()):
                moments.add(block)
        self._parts["train"]["moments"] = moments.as_json()
        facts = {
            "shape": self._shape,
            "codes": {name: list(codes) for name, codes in self._codes.items()},
            "parts": self._parts,
            "files": self._files,
            **notes,
        }
        files.write_text(self.folder / _FACTS, json.dumps(facts))
        return Piece(self.folder)

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def _write(self, file: str, values: NDArray[Any]) -> None:
        data = np.ascontiguousarray(values).data.cast("B")
        self._raw[file].write(data)
        facts = self._files[file]
        facts["bytes"] += data.nbytes
        facts["crc32"] = zlib.crc32(data, facts["crc32"])

    def _checked_inputs(self, inputs: ArrayLike, n: int, at: str) -> NDArray[np.float32]:
        given = np.asarray(inputs)
        if given.dtype.kind not in "biuf":
            raise DataError(f"{at}inputs have type {given.dtype}; allowed: numbers")
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below as not finite
            block = given.astype(np.float32, order="C", copy=False)
        if block.ndim not in (2, 4) or block.shape[-1] != len(self.inputs):
            raise DataError(
                f"{at}inputs have shape {block.shape}; allowed: (n, {len(self.inputs)}) or "
                f"(n, height, width, {len(self.inputs)})"
            )
        if self._shape is None:
            self._shape = block.shape[1:]
        if block.shape[1:] != self._shape or len(block) != n:
            raise DataError(
                f"{at}inputs have shape {block.shape}; expected {(n, *self._shape)}, as there are "
                f"{n} targets and the first block had cases of shape {self._shape}"
            )
        if not np.isfinite(block).all():
            for variable, channel in zip(self.inputs, np.moveaxis(block, -1, 0), strict=True):
                bad = int(channel.size - np.isfinite(channel).sum())
                if bad:
                    raise DataError(
                        f"{at}input {variable.name!r}: {bad} of {channel.size} values are missing "
                        "or not finite in float32"
                    )
        return block

    def _coded(self, name: str, values: ArrayLike) -> NDArray[np.int32]:
        """Return codes in the order of first appearance; sorted order comes when all is read."""
        codes = self._codes[name]
        labels, inverse = np.unique(np.asarray(values).astype(np.str_), return_inverse=True)
        known = [codes.setdefault(str(label), len(codes)) for label in labels]
        return np.asarray(known, dtype=np.int32)[inverse]
