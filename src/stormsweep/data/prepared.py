"""Prepared data: scaled arrays on disk, memory-mapped by whoever trains, with a manifest.

A folder holds ``manifest.json`` and, for each of the parts ``train`` and ``test``, ``inputs.npy``
(float32, scaled), ``labels.npy`` (uint8, 0 or 1), ``targets.npy`` (float32, as it was given) and
one ``groups_<name>.npy`` (int32, index into the manifest's list of labels) per group.

`PreparedData` reads such a folder; `stormsweep.data.writer.PreparedWriter` writes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep import files
from stormsweep.data.layout import CONTENT, FORMAT, PARTS, PartName, Target, Variable, digest
from stormsweep.data.provenance import sources_changed
from stormsweep.data.writer import PreparedWriter
from stormsweep.errors import DataError

__all__ = ["Part", "PreparedData", "PreparedWriter", "Target", "Variable", "sources_changed"]

_AGAIN = "run `stormsweep data prepare --again` with the study file"


@dataclass(frozen=True, slots=True)
class Part:
    """The arrays of the training or the test part, memory-mapped copy-on-write.

    Attributes
    ----------
    inputs : ndarray of float32, shape (n, height, width, channels) or (n, columns)
        Scaled inputs.
    labels : ndarray of uint8, shape (n,)
        1 where the event happened, else 0.
    targets : ndarray of float32, shape (n,)
        The target as it was given, in its own units.
    groups : dict of str to ndarray of int32, shape (n,)
        Codes of the groups.
    group_labels : dict of str to list of str
        What the codes stand for.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.uint8]
    targets: NDArray[np.float32]
    groups: dict[str, NDArray[np.int32]]
    group_labels: dict[str, list[str]] = field(default_factory=dict)


class PreparedData:
    """A folder of prepared arrays.

    Attributes
    ----------
    path : Path
        The folder.
    manifest : dict
        What ``manifest.json`` says.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str) -> PreparedData:
        """Read the manifest of a folder; the arrays are not touched.

        Parameters
        ----------
        path : path or str
            The folder.

        Returns
        -------
        PreparedData
            What lies there.

        Raises
        ------
        DataError
            If there is no manifest, it was changed, or another version of Stormsweep wrote it.
        """
        path = Path(path)
        file = path / "manifest.json"
        try:
            text = file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"{path}: no prepared data here (manifest.json is missing); "
                "run `stormsweep data prepare`"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: cannot be read ({error}); {_AGAIN}") from None
        try:
            manifest = json.loads(text)
            stated = manifest["format"]
            sound = manifest["checksum"] == digest({**manifest, "checksum": None})
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{file}: changed since it was prepared; {_AGAIN}") from None
        if stated != FORMAT:
            raise DataError(
                f"{file}: format {stated!r}, written by another version of Stormsweep; this one "
                f"reads format {FORMAT}; {_AGAIN}"
            )
        if not sound:
            raise DataError(f"{file}: changed since it was prepared; {_AGAIN}")
        return cls(path, manifest)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the data are; equal data have equal fingerprints."""
        return str(self.manifest["fingerprint"])

    def fingerprint_of(self, source: str) -> str:
        """Return the fingerprint that they would have under another name of their source.

        Parameters
        ----------
        source : str
            The name: ``"csv"``, or a function, ``"file.py:function"``.

        Returns
        -------
        str
            As `fingerprint`.
        """
        return digest({key: self.manifest[key] for key in CONTENT} | {"source": source})

    @property
    def synthetic(self) -> bool:
        """Whether the data were made up (the twin) instead of observed or simulated."""
        return bool(self.manifest["synthetic"])

    def verify(self) -> None:
        """Check the manifest and every array against the checksums taken when they were prepared.

        Raises
        ------
        DataError
            Naming the first file that is missing, cut short or changed.
        """
        now = PreparedData.open(self.path).manifest
        if now["checksum"] != self.manifest["checksum"]:
            raise DataError(
                f"{self.path / 'manifest.json'}: changed since it was opened; start again"
            )
        for part in PARTS:
            for name, facts in self.manifest["parts"][part]["files"].items():
                file = self.path / part / name
                if not file.is_file():
                    raise DataError(f"{file}: missing since it was prepared; {_AGAIN}")
                size = file.stat().st_size
                if size < facts["bytes"]:
                    raise DataError(
                        f"{file}: cut short since it was prepared ({size} of {facts['bytes']} "
                        f"bytes); {_AGAIN}"
                    )
                if size != facts["bytes"] or files.sha256(file) != facts["sha256"]:
                    raise DataError(f"{file}: changed since it was prepared; {_AGAIN}")

    def part(self, name: PartName) -> Part:
        """Map the arrays of one part into memory.

        The mapping is copy-on-write: other processes of the node share the pages, a change stays
        with the process that made it, and the arrays count as writable, as TensorFlow needs it to
        take them over without a copy.

        Parameters
        ----------
        name : {"train", "test"}
            Which part.

        Returns
        -------
        Part
            The arrays.

        Raises
        ------
        DataError
            If an array is missing, cut short, or has another shape or type than the manifest says.
        """
        groups = {
            group: self._array(name, f"groups_{group}.npy") for group in self.manifest["groups"]
        }
        return Part(
            self._array(name, "inputs.npy"),
            self._array(name, "labels.npy"),
            self._array(name, "targets.npy"),
            groups,
            self.manifest["groups"],
        )

    def _array(self, part: PartName, name: str) -> NDArray[Any]:
        file = self.path / part / name
        facts = self.manifest["parts"][part]["files"][name]
        try:
            # An empty file part cannot be mapped.
            array = np.load(file, mmap_mode="c" if facts["shape"][0] else None)
        except FileNotFoundError:
            raise DataError(f"{file}: missing since it was prepared; {_AGAIN}") from None
        except (OSError, ValueError, EOFError):
            raise DataError(f"{file}: changed since it was prepared; {_AGAIN}") from None
        if list(array.shape) != facts["shape"] or array.dtype.name != facts["dtype"]:
            raise DataError(f"{file}: changed since it was prepared; {_AGAIN}")
        return np.asarray(array)

    def summary(self) -> dict[str, Any]:
        """Return what the journal's first line says of the data; see `records.StudyBegun`."""
        parts, target = self.manifest["parts"], self.manifest["target"]
        return {
            "source": self.manifest["source"],
            "synthetic": self.synthetic,
            "fingerprint": self.fingerprint,
            "train": parts["train"]["count"],
            "train_positives": parts["train"]["positives"],
            "test": parts["test"]["count"],
            "test_positives": parts["test"]["positives"],
            "groups": dict(parts["train"]["groups"]),
            "inputs": [variable["name"] for variable in self.manifest["inputs"]],
            "input_shape": self.manifest["input_shape"],
            "target": target["name"],
            "threshold": target["threshold"],
            "units": target["units"],
            "event": target["event"],
        }
