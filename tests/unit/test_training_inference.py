"""Losing this: the model on disk predicts something else than the one that was verified."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
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
from stormsweep.training.engine import FoldData
from stormsweep.training.keras_tf import KerasEngine, configure

configure(1)

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.python.framework import config as tf_config  # noqa: E402

from stormsweep.training.inference import Predictor, load_model  # noqa: E402
from stormsweep.training.policy import precision_of_layers  # noqa: E402
from stormsweep.training.saving import (  # noqa: E402
    CHECK,
    check_model,
    load_whole,
    rebuilt,
    save_model,
)

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


def delivered(net: Path, monkeypatch: pytest.MonkeyPatch, **more: object) -> keras.Model:
    """Deliver the untrained model of a file into ``study/model`` beside it; return the model.

    Its facts are those of the first models that were verified; `more` is said beside them.
    """
    monkeypatch.setattr("stormsweep.cluster.machine.cores", lambda: 1)
    folder = net.parent / "study" / "model"
    folder.mkdir(parents=True)
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
    (folder / "model.json").write_text(json.dumps(facts | more), encoding="utf-8")
    np.savez(net.parent / "new.npz", inputs=CASES)
    return model


def predicted(folder: Path) -> Any:
    done = predict(folder / "study", [folder / "new.npz"], folder / "out.nc", overwrite=True)
    with netCDF4.Dataset(done.path) as out:
        return out["probability"][:]


def test_a_builder_edited_since_is_not_loaded_for_the_model_it_made(tmp_path, monkeypatch) -> None:
    net = tmp_path / "net.py"
    net.write_text(NET, encoding="utf-8")
    model = delivered(net, monkeypatch)
    assert np.array_equal(predicted(tmp_path), Predictor(model)(CASES))

    net.write_text(NET.replace("0.5", "0.25"), encoding="utf-8")
    with pytest.raises(ModelError, match="was edited since the study was verified") as no:
        predict(tmp_path / "study", [tmp_path / "new.npz"], tmp_path / "other.nc")
    assert "\n" not in str(no.value)
    assert not (tmp_path / "other.nc").exists()


def test_a_model_of_before_imports_were_covered_is_loaded_still(tmp_path, monkeypatch) -> None:
    """Losing this: users are told to undo an edit that nobody made."""
    net = tmp_path / "net.py"
    (tmp_path / "half_of_net.py").write_text("HALF = 0.5\n", encoding="utf-8")
    text = NET.replace("0.5", "HALF").replace("import keras", "import keras\nimport half_of_net", 1)
    net.write_text(text.replace("HALF", "half_of_net.HALF"), encoding="utf-8")
    model = delivered(net, monkeypatch, build_sha256=sha256(net))
    assert np.array_equal(predicted(tmp_path), Predictor(model)(CASES))
    facts = tmp_path / "study" / "model" / "model.json"
    # One that says its seed has a checksum of both files.
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"seed": 0}), encoding="utf-8")
    with pytest.raises(ModelError, match="was edited since the study was verified"):
        predicted(tmp_path)


def test_predicting_does_not_seed_what_the_user_draws(tmp_path, monkeypatch) -> None:
    """Losing this: a notebook draws the same numbers after each prediction."""

    def drawn() -> list[float]:
        tensors = keras.random.normal([2]), tf.random.normal([2])
        numbers = [float(x) for tensor in tensors for x in tensor]
        return [*numbers, random.random(), np.random.random()]  # noqa: NPY002

    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    delivered(tmp_path / "net.py", monkeypatch)
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        expected = drawn()
        keras.utils.set_random_seed(seed)
        predicted(tmp_path)
        assert drawn() == expected


def test_predicting_leaves_a_session_as_it_was(tmp_path, monkeypatch) -> None:
    """Losing this: after a prediction, a notebook's own models need a seed, or round otherwise."""
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    delivered(tmp_path / "net.py", monkeypatch)
    # Tensors were computed here: the number of threads can no longer be set.
    monkeypatch.setattr("stormsweep.cluster.machine.cores", lambda: 3)
    tf_config.disable_op_determinism()
    keras.config.set_floatx("float64")
    try:
        predicted(tmp_path)
        assert not tf_config.is_op_determinism_enabled()
        assert keras.config.floatx() == "float64"
    finally:
        keras.config.set_floatx("float32")
        tf_config.enable_op_determinism()


RUN = {"batch_size": 64}
SEED, FOLD = 7, 3


class Features(keras.layers.Layer):
    """Random features: a user's layer with a constant that no file of weights has."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        super().__init__()
        self.mixing = draw(size=(128, 8)).astype("float32")

    def call(self, x: Any) -> Any:
        return keras.ops.tanh(keras.ops.matmul(x, self.mixing) / 8)


def featured(input_shape: tuple[int, ...], *more: Any, draw: Any = np.random.normal) -> Any:
    layers = [keras.layers.Input(input_shape), keras.layers.Flatten(), Features(draw), *more]
    return keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])


def unseeded(input_shape: tuple[int, ...]) -> Any:
    return featured(input_shape, draw=np.random.default_rng().normal)


class Restless(keras.layers.Dropout):
    def call(self, x: Any) -> Any:
        return super().call(x, training=True)


def restless(input_shape: tuple[int, ...]) -> Any:
    return featured(input_shape, Restless(0.5))


def weights_of(builder: Any, folder: Path) -> tuple[Path, Any, str]:
    """Train and deliver a model as a worker does: its file, probabilities, and what is wrong."""
    labels = (CASES.mean(axis=(1, 2, 3)) > 0).astype(np.uint8)
    data = FoldData(CASES, labels, np.arange(500), np.arange(500, 700), None, 0.5)
    run = KerasEngine().start(builder, RUN, SEED, FOLD, data)
    run.advance(2)
    file, form = run.save(folder, CASES[:32])
    assert form == "weights"
    expected = run.predict(np.arange(len(CASES)), CASES)

    def rebuild() -> Any:
        return rebuilt(folder / file, builder, RUN, SHAPE, "float32", SEED, FOLD)

    return folder / file, expected, check_model(folder / file, rebuild, CASES, expected)


@pytest.mark.parametrize("before", [1, 2])
def test_constants_that_a_builder_draws_are_those_of_the_trained_model(tmp_path, before) -> None:
    """Losing this: probabilities of another model each time, without a word."""
    path, expected, problem = weights_of(featured, tmp_path)
    assert problem == ""
    np.random.seed(before)  # noqa: NPY002 - whatever the process has drawn
    loaded = load_model(path, "weights", lambda: featured, RUN, SHAPE, seed=SEED, fold=FOLD)
    np.testing.assert_allclose(Predictor(loaded)(CASES), expected, atol=1e-6)


def test_a_model_that_is_built_again_and_predicts_otherwise_is_refused(tmp_path) -> None:
    path, _, problem = weights_of(unseeded, tmp_path)
    assert problem.startswith("probabilities differ by up to 0.")
    with pytest.raises(ModelError, match=r"predicts otherwise .*\(probabilities differ") as refused:
        load_model(path, "weights", lambda: unseeded, RUN, SHAPE, seed=SEED, fold=FOLD)
    assert "\n" not in str(refused.value)


@keras.saving.register_keras_serializable("tests")
class Anomaly(keras.layers.Layer):
    """Has what stands in a file beside its module, and not in the model's."""

    normal = 0.0

    def call(self, x: Any) -> Any:
        return x - type(self).normal


def test_a_whole_model_that_predicts_otherwise_is_refused(tmp_path, monkeypatch) -> None:
    model = keras.Sequential(
        [keras.layers.Input(SHAPE), Anomaly(), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    expected = Predictor(model)(CASES)
    file, form = save_model(model, tmp_path, lambda one: Predictor(one)(CASES[:32]))
    path = tmp_path / file
    assert (form, check_model(path, lambda: load_whole(path), CASES, expected)) == ("keras", "")
    loaded = load_model(path, form, lambda: cnn, {}, SHAPE)
    np.testing.assert_allclose(Predictor(loaded)(CASES), expected, atol=1e-6)
    monkeypatch.setattr(Anomaly, "normal", 2.0)
    with pytest.raises(ModelError, match="a layer reads or draws something when its module"):
        load_model(path, form, lambda: cnn, {}, SHAPE)


def test_numbers_drawn_by_another_backend_are_told_from_a_mistake(tmp_path) -> None:
    path, _, _ = weights_of(unseeded, tmp_path)
    with np.load(tmp_path / CHECK) as kept:
        np.savez(tmp_path / CHECK, **{**kept, "backend": np.array("jax")})
    with pytest.raises(
        ModelError, match=r"it was trained on jax, and numbers .* draw them by NumPy"
    ):
        load_model(path, "weights", lambda: unseeded, RUN, SHAPE, seed=SEED, fold=FOLD)


def test_studies_that_share_a_frozen_layer_are_loaded_by_turns(tmp_path) -> None:
    """Losing this: the third prediction in a notebook is refused, for no reason of the user's."""
    shared = keras.layers.Dense(4, trainable=False)

    def build(input_shape: tuple[int, ...]) -> Any:
        flat = [keras.layers.Input(input_shape), keras.layers.Flatten()]
        return keras.Sequential([*flat, shared, Opaque(Half())])

    for number in (1, 2):
        model = build(SHAPE)
        shared.set_weights([np.full((128, 4), number / 10), np.zeros(4)])
        model.save_weights(tmp_path / f"{number}.weights.h5")
    for number in (1, 2, 1):
        path = tmp_path / f"{number}.weights.h5"
        load_model(path, "weights", lambda: build, {}, SHAPE, seed=SEED, fold=FOLD)
        assert shared.get_weights()[0][0, 0] == np.float32(number / 10)


def test_a_model_that_could_not_be_built_when_it_was_verified_is_compared_when_it_can(
    tmp_path,
) -> None:
    path, expected, _ = weights_of(unseeded, tmp_path)
    (tmp_path / CHECK).unlink()

    def fail() -> Any:
        raise OSError("a file of the builder is not there")

    assert check_model(path, fail, CASES, expected) == (
        "OSError: a file of the builder is not there"
    )
    with pytest.raises(ModelError, match="predicts otherwise"):
        load_model(path, "weights", lambda: unseeded, RUN, SHAPE, seed=SEED, fold=FOLD)


def test_what_an_earlier_version_did_not_write_down_is_not_guessed(tmp_path) -> None:
    path, _, _ = weights_of(featured, tmp_path)
    with pytest.raises(ModelError, match="draws random numbers, and an earlier version") as refused:
        load_model(path, "weights", lambda: featured, RUN, SHAPE, seed=SEED)
    assert "\n" not in str(refused.value)


def test_a_model_that_is_random_when_it_predicts_is_loaded(tmp_path) -> None:
    path, _, problem = weights_of(restless, tmp_path)
    assert problem == ""
    assert not (tmp_path / CHECK).exists()
    load_model(path, "weights", lambda: restless, RUN, SHAPE, seed=SEED, fold=FOLD)


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
