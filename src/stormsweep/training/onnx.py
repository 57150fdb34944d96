"""ONNX: a trained model for programs without Keras, if it predicts there what it predicts here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stormsweep.errors import ModelError
from stormsweep.files import in_place

#: Largest difference of a probability; the arithmetic of two programs differs in the last digits.
TOLERANCE = 1e-4
#: Names the study in a model's metadata.
_OWNER = "stormsweep.journal"
#: Cases that both are asked for.
_CASES = 64


def write_onnx(model: Any, path: Path, input_shape: Sequence[int], owner: str) -> float:
    """Write a model as ONNX and compare its predictions with those of ONNX Runtime.

    Parameters
    ----------
    model : keras.Model
        Trained, on the TensorFlow backend.
    path : Path
        The file to write.
    input_shape : sequence of int
        Shape of one case.
    owner : str
        Tells the model's study from others; see `owner_of`.

    Returns
    -------
    float
        The largest difference of a probability over some random cases.

    Raises
    ------
    ModelError
        If a layer has no counterpart there, or the predictions differ by more than `TOLERANCE`.
    """
    import onnxruntime

    random = np.random.default_rng(0)
    cases = random.normal(size=(_CASES, *input_shape)).astype(np.float32)
    expected = np.asarray(model(cases, training=False), np.float32).reshape(-1)
    # The converter tells of each of its steps.
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(path, format="onnx", verbose=False)
        _sign(path, owner)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        given = session.run(None, {session.get_inputs()[0].name: cases})[0]
    except Exception as error:  # the converter's many own
        text = " ".join(str(error).split())
        raise ModelError(
            f"{in_place(path)}: the model cannot be written as ONNX ({text[:300]})"
        ) from None
    finally:
        logger.setLevel(level)
    apart = float(np.max(np.abs(np.asarray(given, np.float32).reshape(-1) - expected)))
    if not apart <= TOLERANCE:
        raise ModelError(
            f"{in_place(path)}: the model predicts otherwise as ONNX (probabilities differ by "
            f"{apart:.2g}); it was not written"
        )
    return apart


def _sign(path: Path, owner: str) -> None:
    import onnx

    model = onnx.load(path)
    model.metadata_props.add(key=_OWNER, value=owner)
    onnx.save(model, path)


def owner_of(path: Path) -> str | None:
    """Return the study whose model a file is, as `write_onnx` was told; None: it is none of ours.

    Needs the package ``onnx``.
    """
    import onnx

    try:
        said = {
            one.key: one.value for one in onnx.load(path, load_external_data=False).metadata_props
        }
    except Exception:  # protobuf's own, and that of the disk
        return None
    return said.get(_OWNER)
