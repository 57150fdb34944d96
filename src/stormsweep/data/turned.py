"""Patches turned ahead of training: rotated versions of the training part, on disk.

The winds turn with the image, as in the compiled epoch (`stormsweep.training.turning`); here
scipy does it, patch by patch, once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep import files
from stormsweep.data.layout import digest
from stormsweep.data.prepared import PreparedData
from stormsweep.data.scaling import scale, unscale
from stormsweep.data.writer import write_npy
from stormsweep.errors import DataError
from stormsweep.work import Augmentation

FORMAT = 1
#: Called with how many of how many patches are turned.
Progress = Callable[[int, int], None]
_TAG = 0x7042
_BLOCK = 512
_AGAIN = "run `stormsweep data prepare --again` with the study file"


def vectors_of(manifest: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the pairs of channels that are the x and y components of a vector.

    Raises
    ------
    DataError
        If one component is an input and the other is not.
    """
    found: dict[str, dict[str, int]] = {}
    for place, variable in enumerate(manifest["inputs"]):
        name, _, component = str(variable.get("vector", "")).partition(":")
        if name:
            found.setdefault(name, {})[component] = place
    for name, components in found.items():
        if components.keys() != {"x", "y"}:
            alone = manifest["inputs"][next(iter(components.values()))]["name"]
            raise DataError(
                f"augment: {alone!r} is one component of the {name}; a patch is turned with both, "
                "so add the other to data.inputs, or remove this one"
            )
    return [(components["x"], components["y"]) for components in found.values()]


def check_images(manifest: dict[str, Any]) -> None:
    """Refuse to turn what is no image.

    Raises
    ------
    DataError
        If cases are rows of a table.
    """
    shape = manifest["input_shape"]
    if len(shape) != 3:
        raise DataError(
            f"augment: the inputs have shape {tuple(shape)}; only images (height, width, channels) "
            "can be turned"
        )


def turn(
    patches: NDArray[np.float32],
    angles: NDArray[Any],
    mirrored: NDArray[np.bool_],
    vectors: Sequence[tuple[int, int]] = (),
    mode: str = "reflect",
) -> NDArray[np.float32]:
    """Rotate and mirror patches, and their vectors with them.

    Columns run along x and rows along y: a positive angle turns from x to y.

    Parameters
    ----------
    patches : ndarray of float32, shape (n, height, width, channels)
        In their units where there are vectors.
    angles : ndarray, shape (n,)
        Radians.
    mirrored : ndarray of bool, shape (n,)
        Which patches are mirrored along x first.
    vectors : sequence of (int, int)
        Channels that are the x and y components of a vector.
    mode : str
        What lies beyond the edges, as `scipy.ndimage.affine_transform` has it.

    Returns
    -------
    ndarray of float32, shape (n, height, width, channels)
        Interpolated linearly.
    """
    # Here, because every worker imports this module and few turn patches ahead.
    from scipy import ndimage

    middle = (np.array(patches.shape[1:3]) - 1) / 2
    out = np.empty_like(patches)
    for index, (patch, angle, mirror) in enumerate(zip(patches, angles, mirrored, strict=True)):
        cos, sin, sign = np.cos(angle), np.sin(angle), -1.0 if mirror else 1.0
        matrix = np.array([[cos, -sin], [sign * sin, sign * cos]])
        offset = middle - matrix @ middle
        for channel in range(patches.shape[-1]):
            out[index, ..., channel] = ndimage.affine_transform(
                patch[..., channel], matrix, offset, order=1, mode=mode
            )
        for x, y in vectors:
            u, v = sign * out[index, ..., x], out[index, ..., y].copy()
            out[index, ..., x] = cos * u - sin * v
            out[index, ..., y] = sin * u + cos * v
    return out


def folder_of(data: PreparedData, augmentation: Augmentation, seed: int) -> Path:
    """Return where the turned patches of prepared data lie."""
    name = digest([data.fingerprint, dataclasses.asdict(augmentation), seed])[:8]
    return data.path.with_name(f"{data.path.name}-turned-{name}")


def write_turned(
    data: PreparedData,
    augmentation: Augmentation,
    seed: int,
    progress: Progress | None = None,
) -> Path:
    """Write the training part and its turned versions, one after another, as one array.

    Parameters
    ----------
    data : PreparedData
        Images.
    augmentation : Augmentation
        ``copies`` versions of each patch are made, each by an angle of its own, or all by the
        2 degrees of 2019.
    seed : int
        What the angles are drawn with.
    progress : callable, optional
        Told how many of how many patches are turned.

    Returns
    -------
    Path
        The folder: ``inputs.npy``, float32, shape ((1 + copies) * n, height, width, channels), and
        its manifest.

    Raises
    ------
    DataError
        If the inputs are no images, a vector is not whole, or the disk has no room or takes no
        more.
    """
    check_images(data.manifest)
    folder = folder_of(data, augmentation, seed)
    part = data.part("train").inputs
    shape = ((1 + augmentation.copies) * len(part), *part.shape[1:])
    files.check_space(folder, int(np.prod(shape)) * 4)
    with files.writing(folder), files.replacing_folder(folder) as beside:
        blocks = _versions(data, augmentation, seed, progress or (lambda _done, _total: None))
        facts = write_npy(beside / "inputs.npy", shape, np.float32, blocks)
        files.write_json(
            beside / "manifest.json",
            {
                "format": FORMAT,
                "fingerprint": data.fingerprint,
                "augmentation": dataclasses.asdict(augmentation),
                "seed": seed,
                "inputs": facts,
            },
        )
    return folder


def _versions(
    data: PreparedData, augmentation: Augmentation, seed: int, tell: Progress
) -> Iterator[NDArray[np.float32]]:
    inputs = data.part("train").inputs
    n, total = len(inputs), (1 + augmentation.copies) * len(inputs)
    physical = augmentation.method == "physical"
    vectors = vectors_of(data.manifest) if physical else []
    for version in range(1 + augmentation.copies):
        random = np.random.default_rng(np.random.SeedSequence([seed, _TAG, version]))
        most = np.radians(augmentation.rotate_degrees)
        angles = random.uniform(-most, most, n) if physical else np.full(n, most)
        mirrored = random.random(n) < 0.5 if augmentation.flip else np.zeros(n, bool)
        for start in range(0, n, _BLOCK):
            rows = slice(start, min(start + _BLOCK, n))
            block = np.asarray(inputs[rows])
            if version and physical:
                raw = unscale(block, data.manifest["inputs"])
                turned = turn(raw, angles[rows], mirrored[rows], vectors)
                block = scale(turned, data.manifest["inputs"])
            elif version:
                # Zeros in the corners: of scaled inputs these are the channels' means.
                block = turn(block, angles[rows], mirrored[rows], mode="constant")
            yield block
            tell(version * n + rows.stop, total)


def open_turned(folder: Path, fingerprint: str, check: bool = False) -> NDArray[np.float32]:
    """Map turned patches into memory, copy-on-write as `PreparedData.part` does.

    Parameters
    ----------
    folder : Path
        From `write_turned`.
    fingerprint : str
        Of the prepared data that they were made from.
    check : bool
        Read the whole array and compare its checksum.

    Returns
    -------
    ndarray of float32, shape ((1 + copies) * n, height, width, channels)
        The patches as they are, then each version of all of them.

    Raises
    ------
    DataError
        If the folder is missing, changed, or of other data.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        facts = manifest["inputs"]
        array = np.load(folder / "inputs.npy", mmap_mode="c")
        sound = (
            manifest["format"] == FORMAT
            and manifest["fingerprint"] == fingerprint
            and list(array.shape) == facts["shape"]
            and (not check or files.sha256(folder / "inputs.npy") == facts["sha256"])
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        sound = False
    if not sound:
        raise DataError(f"{folder}: turned patches changed or missing; {_AGAIN}")
    return np.asarray(array)
