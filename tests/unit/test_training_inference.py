"""Losing this: the model on disk predicts something else than the one that was verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stormsweep.errors import ModelError
from stormsweep.models.storm import storm_cnn, storm_dnn
from stormsweep.training.keras_tf import configure

configure(1)

import keras  # noqa: E402

from stormsweep.training.inference import Predictor, load_model, save_model  # noqa: E402

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
    file, given = save_model(model, tmp_path, CASES[:32])
    assert given == form
    assert [path.name for path in tmp_path.iterdir()] == [file]
    loaded = load_model(tmp_path / file, form, lambda: builder, {}, SHAPE)
    assert np.array_equal(Predictor(loaded)(CASES), expected)


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
