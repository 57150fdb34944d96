"""What workers that train on TensorFlow have imported when they are forked.

Only the process that workers are forked from imports this module (see `cluster.forked`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys

from stormsweep.training.keras_tf import set_environment

# Ctrl-C reaches the whole foreground group; only the driver decides what it means.
signal.signal(signal.SIGINT, signal.SIG_IGN)
# Each worker says how many threads it has. Until then one: a process that is forked must have none
# beside its own.
set_environment(1)

# TensorFlow greets on standard error, which here is the user's terminal.
_terminal = os.dup(2)
with open(os.devnull, "wb") as _nowhere:
    os.dup2(_nowhere.fileno(), 2)
# Keras and TensorFlow do without these: they are for what no worker does, which is to draw figures,
# to convert to TFLite, or to train on data frames. Here they would take a third of the time and a
# quarter of the memory.
_SPARED = [
    _name for _name in ("cv2", "IPython", "jax", "matplotlib", "pandas") if _name not in sys.modules
]
sys.modules.update(dict.fromkeys(_SPARED))  # type: ignore[arg-type]
# A worker imports again what cannot be imported here, and says what is wrong with it.
for _name in ("keras", "tensorflow"):
    with contextlib.suppress(Exception):
        importlib.import_module(_name)
# A model's own code may well want them.
for _name in _SPARED:
    sys.modules.pop(_name, None)
# Keras takes what it could not import to be nowhere. It asks for pandas when a builder has a model
# fit or predict, and then has it.
with contextlib.suppress(ImportError):
    from keras.src.trainers.data_adapters import array_slicing
    from keras.src.utils.module_utils import LazyModule

    if array_slicing.pandas is None:
        array_slicing.pandas = LazyModule("pandas")
os.dup2(_terminal, 2)
os.close(_terminal)
