"""Losing this: every worker trains another model of the same file, seed and fold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODEL = """
import keras
import numpy as np

from inits import FIRST

SECOND = keras.initializers.HeNormal()
FIXED = keras.random.normal((4, 4))
NOISE = np.random.normal(size=4).astype("float32")

def net(input_shape, last=keras.initializers.GlorotUniform()):
    inputs = keras.layers.Input(input_shape)
    x = keras.layers.Dense(4, kernel_initializer=FIRST)(inputs)
    x = keras.layers.Lambda(lambda x: keras.ops.matmul(x, FIXED) + NOISE)(x)
    x = keras.layers.Dense(4, kernel_initializer=SECOND)(x)
    outputs = keras.layers.Dense(1, activation="sigmoid", kernel_initializer=last)(x)
    return keras.Model(inputs, outputs)
"""
WORKER = """
import random, sys
import numpy as np
model, engine, seed, before = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
# Workers have drawn what they liked before.
random.seed(before)
np.random.seed(before)
if engine == "jax":
    from stormsweep.training.keras_jax import JaxEngine as Engine, configure
else:
    from stormsweep.training.keras_tf import KerasEngine as Engine, configure
configure(1)
from stormsweep.study.setup import builder_of
from stormsweep.training.engine import FoldData
inputs = np.random.default_rng(5).standard_normal((64, 4), dtype=np.float32)
labels = (inputs[:, 0] > 0).astype(np.uint8)
data = FoldData(inputs, labels, np.arange(48), np.arange(48, 64), None, 0.5)
function = builder_of(f"{model}:net", seed)[0]
run = Engine().start(function, {"batch_size": 16}, 1, 0, data)
print(*run.advance(1).losses)
"""


def first_loss(model: Path, engine: str, seed: int, before: int) -> float:
    """Return the loss of the first epoch in a new process, all else seeded alike."""
    called = [sys.executable, "-c", WORKER, str(model), engine, str(seed), str(before)]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize("engine", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_what_a_model_makes_when_it_is_imported_follows_from_the_seed_alone(
    tmp_path: Path, engine: str
) -> None:
    if engine == "jax":
        pytest.importorskip("jax", reason="JAX is not installed")
    model = tmp_path / "model.py"
    model.write_text(MODEL, encoding="utf-8")
    text = "import keras\nFIRST = keras.initializers.HeNormal()\n"
    (tmp_path / "inits.py").write_text(text, encoding="utf-8")
    one = first_loss(model, engine, 7, before=1)
    assert first_loss(model, engine, 7, before=2) == one
    assert first_loss(model, engine, 8, before=1) != one, "studies of another seed differ"
