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
from stormsweep.records import Entry
from stormsweep.results import journal
from stormsweep.study import interchange
from tests.journals import simulate

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
        assert write_onnx(model, path, (32, 32, 3), "storms@1.5") <= TOLERANCE
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
        onnx.write_onnx(storm_dnn((8,)), tmp_path / "model.onnx", (8,), "storms@1.5")


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


@pytest.mark.skipif(bool(MISSING), reason=f"the extra onnx is not installed: {MISSING}")
def test_a_model_written_as_onnx_says_whose_it_is(tmp_path: Path) -> None:
    from stormsweep.models.storm import storm_dnn
    from stormsweep.training.onnx import owner_of, write_onnx

    path = tmp_path / "model.onnx"
    write_onnx(storm_dnn((8,)), path, (8,), "storms@1.5")
    assert owner_of(path) == "storms@1.5"
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    assert owner_of(path) is None
    path.write_text("my notes\n")
    assert owner_of(path) is None
    path.touch()
    assert owner_of(path) is None


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        (None, "is there already and is no model that Stormsweep wrote; name another with"),
        ("winds@2.500000", "holds the export of another study, 'winds'; name another file with"),
    ],
)
def test_a_model_of_others_is_not_replaced(
    owner: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stormsweep.training import onnx

    folder = simulate(tmp_path / "storms", {"learning_rate": [0.01], "epochs": [2]})
    asked: list[Path] = []
    monkeypatch.setattr(interchange, "need", lambda *names: None)
    monkeypatch.setattr(interchange, "read_facts", lambda folder: {})
    monkeypatch.setattr(onnx, "owner_of", lambda path: asked.append(path) or owner)

    class Verified:
        directory = folder

        def entries(self) -> list[Entry]:
            return journal.read(folder / "journal.jsonl")

    study: Any = Verified()
    theirs = tmp_path / "theirs.onnx"
    theirs.write_bytes(b"weights")
    with pytest.raises(UserError) as error:
        interchange.export_to(study, "onnx", theirs)
    assert str(error.value) == f"{theirs}: {said} --output"
    assert theirs.read_bytes() == b"weights"
    assert asked == [theirs]
    with pytest.raises(UserError, match="is no model that Stormsweep wrote"):
        interchange.export_to(study, "onnx", tmp_path)


@pytest.mark.skipif(bool(MISSING), reason=f"the extra onnx is not installed: {MISSING}")
def test_a_study_replaces_its_own_model_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import nullcontext

    from stormsweep.models.storm import storm_dnn
    from stormsweep.study import predict

    folder = simulate(tmp_path / "storms", {"learning_rate": [0.01], "epochs": [2]})
    facts = {"input_shape": [8]}
    monkeypatch.setattr(interchange, "read_facts", lambda folder: facts)
    monkeypatch.setattr(predict, "model_loaded", lambda folder, facts: nullcontext(storm_dnn((8,))))

    class Verified:
        directory = folder

        def entries(self) -> list[Entry]:
            return journal.read(folder / "journal.jsonl")

    study: Any = Verified()
    path, link = tmp_path / "model.onnx", tmp_path / "link.onnx"
    link.symlink_to(path)
    interchange.export_to(study, "onnx", link)
    first = path.read_bytes()
    interchange.export_to(study, "onnx", link)  # the same study again
    assert path.read_bytes() != first
    assert link.is_symlink()
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="is no model that Stormsweep wrote"):
        interchange.export_to(study, "onnx", path)
    assert path.read_bytes() == before
