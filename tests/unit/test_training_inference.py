"""Losing this: the model on disk predicts something else than the one that was verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest

from stormsweep.errors import ModelError
from stormsweep.files import sha256
from stormsweep.models.storm import storm_cnn, storm_dnn
from stormsweep.study.predict import predict
from stormsweep.study.setup import builder_and_checksum
from stormsweep.training.keras_tf import configure

configure(1)

import keras  # noqa: E402

from stormsweep.training.inference import Predictor, load_model  # noqa: E402
from stormsweep.training.policy import precision_of_layers  # noqa: E402
from stormsweep.training.saving import save_model  # noqa: E402

SHAPE = (8, 8, 2)
CASES = np.random.default_rng(0).normal(size=(700, *SHAPE)).astype(np.float32)


class Opaque(keras.layers.Layer):
    """A user's layer that nobody can write down."""

    def __init__(self, factor: object) -> None:
        super().__init__()
        self.factor = factor
        self.dense = keras.layers.Dense(1, activation="sigmoid")

    def call(self, x: Any) -> Any:
        return self.dense(x) * self.factor.value  # type: ignore[attr-defined]


class Half:
    value = 0.5


def opaque(input_shape: tuple[int, ...]) -> Any:
    layers = [keras.layers.Input(input_shape), keras.layers.Flatten(), Opaque(Half())]
    return keras.Sequential(layers)


def cnn(input_shape: tuple[int, ...]) -> Any:
    return storm_cnn(input_shape, filters=(4, 4), dropout=0.3)


def dnn(input_shape: tuple[int, ...]) -> Any:
    return storm_dnn(input_shape)


@pytest.mark.parametrize(("builder", "form"), [(cnn, "keras"), (dnn, "keras"), (opaque, "weights")])
def test_a_saved_model_predicts_what_the_trained_one_did(tmp_path: Path, builder, form) -> None:
    model = builder(SHAPE)
    model.build((None, *SHAPE))
    expected = Predictor(model)(CASES)
    file, given = save_model(model, tmp_path, lambda one: Predictor(one)(CASES[:32]))
    assert given == form
    assert [path.name for path in tmp_path.iterdir()] == [file]
    loaded = load_model(tmp_path / file, form, lambda: builder, {}, SHAPE)
    assert np.array_equal(Predictor(loaded)(CASES), expected)


def test_weights_are_loaded_into_a_model_of_the_precision_they_were_trained_in(tmp_path) -> None:
    with precision_of_layers("bfloat16"):
        model = opaque(SHAPE)
        model.build((None, *SHAPE))
    expected = Predictor(model)(CASES)
    file, form = save_model(model, tmp_path, lambda one: Predictor(one)(CASES[:32]))
    assert form == "weights"
    loaded = load_model(tmp_path / file, form, lambda: opaque, {}, SHAPE, "bfloat16")
    assert np.array_equal(Predictor(loaded)(CASES), expected)
    other = load_model(tmp_path / file, form, lambda: opaque, {}, SHAPE, "float32")
    assert not np.array_equal(Predictor(other)(CASES), expected), "precision makes no difference"
    assert keras.config.dtype_policy().name == "float32"


NET = """
import keras

class Opaque(keras.layers.Layer):
    def __init__(self, half):
        super().__init__()
        self.half, self.dense = half, keras.layers.Dense(1, activation="sigmoid")

    def call(self, x):
        return self.dense(x) * self.half()

def build(input_shape):
    layers = [keras.layers.Input(input_shape), keras.layers.Flatten(), Opaque(lambda: 0.5)]
    return keras.Sequential(layers)
"""


def test_a_builder_edited_since_is_not_loaded_for_the_model_it_made(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("stormsweep.cluster.machine.cores", lambda: 1)
    net, folder = tmp_path / "net.py", tmp_path / "study" / "model"
    folder.mkdir(parents=True)
    net.write_text(NET, encoding="utf-8")
    builder, checksum = builder_and_checksum(f"{net}:build", 0)
    model = builder(SHAPE)
    file, form = save_model(model, folder, lambda one: Predictor(one)(CASES[:32]))
    assert form == "weights"
    facts = {
        "format": 1,
        "study": "s",
        "configuration": "c",
        "hyperparameters": {},
        "model": file,
        "form": form,
        "model_sha256": sha256(folder / file),
        "build": f"{net}:build",
        "build_sha256": checksum,
        "precision": "float32",
        "event": {"name": "y"},
        "decision_threshold": 0.5,
        "source": "npz",
        "array": "inputs",
        "inputs": [{"name": f"{n}", "mean": 0.0, "std": 1.0} for n in range(2)],
        "input_shape": SHAPE,
        "trained_on": {"cases": 1, "fingerprint": "f"},
        "synthetic": False,
    }
    (folder / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    np.savez(tmp_path / "new.npz", inputs=CASES)
    done = predict(tmp_path / "study", [tmp_path / "new.npz"], tmp_path / "out.nc")
    with netCDF4.Dataset(done.path) as out:
        assert np.array_equal(out["probability"][:], Predictor(model)(CASES))

    net.write_text(NET.replace("0.5", "0.25"), encoding="utf-8")
    with pytest.raises(ModelError, match="was edited since the study was verified") as no:
        predict(tmp_path / "study", [tmp_path / "new.npz"], tmp_path / "other.nc")
    assert "\n" not in str(no.value)
    assert not (tmp_path / "other.nc").exists()


def test_a_probability_does_not_depend_on_its_company() -> None:
    ask = Predictor(cnn(SHAPE))
    together = ask(CASES)
    assert np.array_equal(ask(CASES[600:700]), together[600:700])
    assert np.array_equal(ask(CASES[513:514]), together[513:514])
    assert len(ask(CASES[:0])) == 0


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, form in (("model.keras", "keras"), ("model.weights.h5", "weights")):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ModelError, match="the model cannot be loaded") as refused:
            load_model(tmp_path / name, form, lambda: dnn, {}, SHAPE)
        assert "\n" not in str(refused.value)
