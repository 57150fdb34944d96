"""Writing prepared data: block by block, in bounded memory, whole or not at all.

Data come in blocks of any size. Scaling is the z-score with mean and standard deviation of the
training part alone, so that nothing of the test part is seen by it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stormsweep import files
from stormsweep.data.layout import (
    CONTENT,
    FORMAT,
    PARTS,
    PartName,
    Target,
    Variable,
    digest,
    labels_of,
)
from stormsweep.data.moments import Moments
from stormsweep.errors import DataError

_BLOCK = 1 << 22  # values taken into memory at a time: 32 MiB in float64


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
        What was read; see `stormsweep.data.provenance.of_files`. May be filled in until the end
        through the attribute of the same name.
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
        for name in groups:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
                raise DataError(f"group {name!r}: allowed are letters, digits, '_', '-' and '.'")
        self.path = path
        self.source = source
        self.synthetic = synthetic
        self.inputs = tuple(inputs)
        self.target = target
        self.split = dict(split or {})
        self.provenance = dict(provenance or {})
        self.request = dict(request or {})
        self._codes: dict[str, dict[str, int]] = {name: {} for name in groups}
        self._shape: tuple[int, ...] | None = None
        self._count: dict[PartName, int] = dict.fromkeys(PARTS, 0)
        self._positives: dict[PartName, int] = dict.fromkeys(PARTS, 0)
        self._raw: dict[tuple[PartName, str], IO[bytes]] = {}

    def __enter__(self) -> Self:
        names = ["inputs", "labels", "targets", *(f"groups_{name}" for name in self._codes)]
        try:
            with ExitStack() as stack:
                self._folder = stack.enter_context(files.replacing_folder(self.path))
                for part in PARTS:
                    (self._folder / part).mkdir()
                    for name in names:
                        stream = (self._folder / part / f"{name}.raw").open("wb")
                        self._raw[part, name] = stack.enter_context(stream)
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
                self._finish()
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
        try:
            for part in PARTS:
                mask = test if part == "test" else ~test
                for name, column in columns.items():
                    self._raw[part, name].write(column[mask].tobytes())
                self._count[part] += int(mask.sum())
                self._positives[part] += int(labels[mask].sum())
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror})") from error

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
        """Return codes in the order of first appearance; `_finish` puts them in sorted order."""
        codes = self._codes[name]
        labels, inverse = np.unique(np.asarray(values).astype(np.str_), return_inverse=True)
        known = [codes.setdefault(str(label), len(codes)) for label in labels]
        return np.asarray(known, dtype=np.int32)[inverse]

    def _finish(self) -> None:
        for stream in self._raw.values():
            stream.close()
        if not self._count["train"] or self._shape is None:
            raise DataError(
                f"{self.path}: the training part has no case ({self._count['test']} in the test "
                "part)"
            )
        labels = {name: sorted(codes) for name, codes in self._codes.items()}
        moments = self._moments(self._shape)
        mean, std = moments.scaling()
        parts: dict[str, Any] = {}
        for part in PARTS:
            facts = {
                "inputs.npy": self._convert(part, "inputs", np.float32, self._shape, (mean, std)),
                "labels.npy": self._convert(part, "labels", np.uint8),
                "targets.npy": self._convert(part, "targets", np.float32),
            }
            present = {}
            for name, ordered in labels.items():
                place = {label: index for index, label in enumerate(ordered)}
                table = np.array([place[label] for label in self._codes[name]], dtype=np.int32)
                file = f"groups_{name}"
                facts[f"{file}.npy"] = self._convert(part, file, np.int32, table=table)
                codes = np.load(self._folder / part / f"{file}.npy")
                present[name] = len(np.unique(codes))
            parts[part] = {
                "count": self._count[part],
                "positives": self._positives[part],
                "groups": present,
                "files": facts,
            }
        self._write_manifest(self._shape, mean, std, labels, parts)

    def _write_manifest(
        self,
        shape: tuple[int, ...],
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        labels: dict[str, list[str]],
        parts: dict[str, Any],
    ) -> None:
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "source": self.source,
            "synthetic": self.synthetic,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "stormsweep": version("stormsweep"),
            "inputs": [
                {**asdict(variable), "mean": float(m), "std": float(s)}
                for variable, m, s in zip(self.inputs, mean, std, strict=True)
            ],
            "input_shape": list(shape),
            "dtype": "float32",
            "target": asdict(self.target),
            "groups": labels,
            "split": self.split,
            "parts": parts,
            "provenance": self.provenance,
            "request": self.request,
        }
        manifest = json.loads(json.dumps(manifest, default=str))
        manifest["fingerprint"] = digest({key: manifest[key] for key in CONTENT})
        manifest["checksum"] = digest({**manifest, "checksum": None})
        files.write_json(self._folder / "manifest.json", manifest)

    def _moments(self, shape: tuple[int, ...]) -> Moments:
        """Go over the training inputs in blocks of fixed size, so the result knows no other."""
        moments = Moments(len(self.inputs))
        for block in self._read("train", "inputs", np.float32, shape):
            moments.add(block)
        return moments

    def _read(
        self, part: PartName, name: str, dtype: type[np.generic], shape: tuple[int, ...] = ()
    ) -> Iterator[NDArray[Any]]:
        rows = max(1, _BLOCK // max(1, int(np.prod(shape))))
        with (self._folder / part / f"{name}.raw").open("rb") as stream:
            while chunk := stream.read(rows * int(np.prod(shape)) * np.dtype(dtype).itemsize):
                yield np.frombuffer(chunk, dtype).reshape(-1, *shape)

    def _convert(
        self,
        part: PartName,
        name: str,
        dtype: type[np.generic],
        shape: tuple[int, ...] = (),
        scaling: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
        table: NDArray[np.int32] | None = None,
    ) -> dict[str, Any]:
        """Turn a raw file into ``.npy``, scaled or with its codes exchanged; remove the raw one."""

        def blocks() -> Iterator[NDArray[Any]]:
            for block in self._read(part, name, dtype, shape):
                if scaling is not None:
                    block = ((block - scaling[0]) / scaling[1]).astype(np.float32)
                elif table is not None:
                    block = table[block]
                yield block

        folder = self._folder / part
        facts = write_npy(folder / f"{name}.npy", (self._count[part], *shape), dtype, blocks())
        (folder / f"{name}.raw").unlink()
        return facts


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
