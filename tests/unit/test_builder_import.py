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
import os, random, sys
import numpy as np
model, engine = sys.argv[1:3]
if engine == "jax":
    from stormsweep.training.keras_jax import JaxEngine as Engine, configure
else:
    from stormsweep.training.keras_tf import KerasEngine as Engine, configure, set_environment
    set_environment(1)
    import keras, tensorflow

def train(seed, before):
    # Workers have drawn what they liked before.
    random.seed(before)
    np.random.seed(before)
    configure(1)
    from stormsweep.study.setup import builder_of
    from stormsweep.training.engine import FoldData
    inputs = np.random.default_rng(5).standard_normal((64, 4), dtype=np.float32)
    labels = (inputs[:, 0] > 0).astype(np.uint8)
    data = FoldData(inputs, labels, np.arange(48), np.arange(48, 64), None, 0.5)
    function = builder_of(f"{model}:net", seed)[0]
    run = Engine().start(function, {"batch_size": 16}, 1, 0, data)
    # What it predicts untrained follows from all that it was made of.
    print(*run.predict(data.validation).tolist(), flush=True)

for seed, before in zip(*[map(int, sys.argv[3:])] * 2):
    # As workers begin: forked from a process that has imported what trains.
    if not os.fork():
        train(seed, before)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def predicted(model: Path, engine: str, *workers: tuple[int, int]) -> list[list[float]]:
    """Return what is predicted in new processes, by seed and by what was drawn before."""
    numbers = [str(number) for worker in workers for number in worker]
    called = [sys.executable, "-c", WORKER, str(model), engine, *numbers]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [[float(p) for p in line.split()] for line in done.stdout.splitlines()]


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
    one, same, other = predicted(model, engine, (7, 1), (7, 2), (8, 1))
    assert len(one) == 16
    assert same == one
    assert other != one, "studies of another seed differ"
