"""A worker that trains hundreds of runs, of more structures than it keeps programs for.

And one that trains runs whose programs nobody else can take over.
"""

import json
import subprocess
import sys

import pytest

WORKER = """
import json, resource, sys
import numpy as np
from stormsweep.models import storm_cnn
from stormsweep.training.engine import FoldData
from stormsweep.training.keras_tf import KerasEngine, configure
from stormsweep.training.kept import PROGRAMS_KEPT

configure(1)
generator = np.random.default_rng(0)
inputs = generator.standard_normal((3000, 32, 32, 3), dtype=np.float32)
labels = (generator.random(3000) < 0.3).astype(np.uint8)
folds = [np.delete(np.arange(3000), slice(1000 * k, 1000 * k + 1000)) for k in range(3)]
engine, peaks = KerasEngine(), []
widths = [4 + 2 * number for number in range(PROGRAMS_KEPT + 2)]
for number in range(200):
    fold = number % 3
    # In turn, so that nearly every run drops the program of another.
    filters = [widths[number % len(widths)], 16, 32]
    run = {"batch_size": 128, "filters": filters, "learning_rate": 1e-3 + number * 1e-5}
    held = np.arange(1000 * fold, 1000 * fold + 1000)
    data = FoldData(inputs, labels, folds[fold], held, None, 0.3)
    trajectory = engine.start(storm_cnn, run, 1, fold, data)
    trajectory.advance(1)
    trajectory.predict(held)
    trajectory.state()
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps(peaks))
"""

UNSHARED = """
import json, resource
import keras
import numpy as np
from stormsweep.training.engine import FoldData
from stormsweep.training.keras_tf import KerasEngine, configure

configure(1)
class Noise(keras.layers.Layer):
    def call(self, x, training=False):
        return x + 0.3 * keras.random.normal((4,)) if training else x

def everything(learning_rate=0.01):
    layers = [keras.layers.Dense(64, activation="relu") for _ in range(12)]
    layers += [keras.layers.Dense(4), Noise(), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(learning_rate), "binary_crossentropy")
    return model

inputs = np.random.default_rng(0).standard_normal((300, 8), dtype=np.float32)
labels = (inputs[:, 0] > 0).astype(np.uint8)
rows = np.arange(300)
data = FoldData(inputs, labels, rows[:200], rows[200:], None, 0.5)
engine, peaks = KerasEngine(), []
for number in range(40):
    trajectory = engine.start(everything, {"batch_size": 32}, 1, 0, data)
    trajectory.advance(1)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    del trajectory
print(json.dumps(peaks))
"""


def peaks_of(script):
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_memory_of_a_worker_stays_what_it_was_after_ten_runs():
    """Slow, because it takes hundreds of compiled programs to see a leak: some five minutes."""
    peaks = peaks_of(WORKER)
    print(f"peak after 10 runs {peaks[9] / 1024:.0f} MiB, after 200 {peaks[-1] / 1024:.0f} MiB")
    assert peaks[-1] <= 1.05 * peaks[9]


@pytest.mark.slow
def test_programs_that_cannot_be_shared_take_no_more_memory_as_runs_go_by():
    """Slow, because each run compiles: a minute."""
    peaks = peaks_of(UNSHARED)
    print(f"peak after 20 runs {peaks[19] / 1024:.0f} MiB, after 40 {peaks[-1] / 1024:.0f} MiB")
    assert peaks[-1] <= 1.05 * peaks[19]
