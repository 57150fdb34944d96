"""Losing these: a model leaves for another program and predicts otherwise there, unnoticed.

The packages of the extra ``onnx`` are not among the locked ones: without them the first test skips.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stormsweep.errors import UserError
from stormsweep.neighbours import owned
from stormsweep.study import interchange

MISSING = [name for name in ("onnx", "tf2onnx", "onnxruntime") if find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"the extra onnx is not installed: {MISSING}")
def test_storm_models_predict_the_same_as_onnx(tmp_path: Path) -> None:
    import onnxruntime

    from stormsweep.models.storm import storm_cnn, storm_dnn
    from stormsweep.training.onnx import TOLERANCE, write_onnx

    cases = np.random.default_rng(1).normal(size=(9, 32, 32, 3)).astype(np.float32)
    for build in (storm_cnn, storm_dnn):
        model = build((32, 32, 3))
        path = tmp_path / "model.onnx"
        assert write_onnx(model, path, (32, 32, 3)) <= TOLERANCE
        session = onnxruntime.InferenceSession(path)
        given = session.run(None, {session.get_inputs()[0].name: cases})[0]
        np.testing.assert_allclose(given, np.asarray(model(cases)), atol=TOLERANCE)


@pytest.mark.skipif(bool(MISSING), reason=f"the extra onnx is not installed: {MISSING}")
def test_a_model_that_predicts_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stormsweep.models.storm import storm_dnn
    from stormsweep.training import onnx

    monkeypatch.setattr(onnx, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="predicts otherwise as ONNX"):
        onnx.write_onnx(storm_dnn((8,)), tmp_path / "model.onnx", (8,))


def test_a_missing_package_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned, "find_spec", lambda name: None)
    monkeypatch.setattr(interchange, "read_facts", lambda folder: json.loads("{}"))

    class Verified:
        directory = tmp_path

    study: Any = Verified()
    with pytest.raises(UserError) as said:
        interchange.export_to(study, "onnx", None)
    assert str(said.value) == (
        "export: --to onnx needs the package onnx; install it in the checkout: "
        'pip install -e ".[onnx]"'
    )
    assert list(tmp_path.iterdir()) == []
