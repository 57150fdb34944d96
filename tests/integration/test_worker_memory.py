"""A worker that trains hundreds of runs, of more structures than it keeps programs for."""

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
batch_sizes = [32 + 32 * number for number in range(PROGRAMS_KEPT + 2)]
for number in range(200):
    fold = number % 3
    # In turn, so that nearly every run drops the program of another.
    batch_size = batch_sizes[number % len(batch_sizes)]
    run = {"batch_size": batch_size, "learning_rate": 1e-3 + number * 1e-5}
    held = np.arange(1000 * fold, 1000 * fold + 1000)
    data = FoldData(inputs, labels, folds[fold], held, None, 0.3)
    trajectory = engine.start(storm_cnn, run, 1, fold, data)
    trajectory.advance(1)
    trajectory.predict(held)
    trajectory.state()
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps(peaks))
"""


@pytest.mark.slow
def test_the_memory_of_a_worker_stays_what_it_was_after_ten_runs():
    """Slow, because it takes hundreds of compiled programs to see a leak: some five minutes."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True, check=True
    )
    peaks = json.loads(done.stdout)
    print(f"peak after 10 runs {peaks[9] / 1024:.0f} MiB, after 200 {peaks[-1] / 1024:.0f} MiB")
    assert peaks[-1] <= 1.05 * peaks[9]
