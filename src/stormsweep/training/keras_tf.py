"""The TensorFlow engine: Keras models on the CPU, an epoch as one compiled program."""

from __future__ import annotations

import math
import os
import sys
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import DivergedError, RunError
from stormsweep.training.engine import AdvanceResult, FoldData, GoOn, State
from stormsweep.training.kept import Kept
from stormsweep.training.policy import precision_of_layers
from stormsweep.training.seeds import draw_turns, initial_seed, rows_of_epoch, seed32

if TYPE_CHECKING:
    from pathlib import Path

    from stormsweep.training.program import Program

#: TensorFlow reads and writes arrays in steps of this many bytes.
_ALIGNMENT = 64


def configure(threads: int) -> None:
    """Set up TensorFlow in this process, before anything is computed with it.

    Parameters
    ----------
    threads : int
        Compute threads.

    Raises
    ------
    RuntimeError
        If TensorFlow already runs with another number of threads, or Keras on another backend.
    """
    _require_tensorflow(threads)
    import tensorflow as tf

    _set_devices(threads)
    tf.config.experimental.enable_op_determinism()
    _set_keras()


@contextmanager
def lent(threads: int) -> Iterator[None]:
    """Have TensorFlow and Keras as in training, in a process of a user's, and give them back.

    What cannot be given back is left alone: the process may draw random numbers without a seed
    afterwards, and threads and GPUs are those of the user where TensorFlow runs already. Where it
    does not, it will not see GPUs in this process: predictions are made on processors.

    Parameters
    ----------
    threads : int
        Compute threads, where nothing was computed yet.

    Raises
    ------
    RuntimeError
        If Keras is loaded on another backend.
    """
    _require_tensorflow(threads)
    import keras
    from keras.src.backend.common import global_state

    with suppress(RuntimeError):
        _set_devices(threads)
    before = keras.config.floatx(), keras.config.image_data_format()
    # Keras makes one of floatx when it is first asked for it, and keeps it.
    policy = global_state.get_global_attribute("dtype_policy")
    try:
        _set_keras()
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_image_data_format(before[1])
        global_state.set_global_attribute("dtype_policy", policy)


def _require_tensorflow(threads: int) -> None:
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() != "tensorflow":
        raise RuntimeError("Keras is already loaded with another backend than TensorFlow")
    set_environment(threads)


def _set_devices(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    if tf.config.list_physical_devices("GPU"):
        tf.config.set_visible_devices([], "GPU")


def _set_keras() -> None:
    import keras

    # Not what a keras.json in the home folder may say: results must not depend on it.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def set_environment(threads: int) -> None:
    """Set what TensorFlow and Keras look for in the environment when they are imported."""
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow itself turns oneDNN on for some processors only; without it convolutions
    # take three times as long on AVX2.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


class KerasEngine:
    """Train Keras models on TensorFlow.

    Parameters
    ----------
    precision : str
        ``float32``, or ``bfloat16``: mixed precision, weights stay float32.
    packing : bool
        Whether convolutions with few channels compute some cells at a time: see `packing`. Without,
        training in float32 gives the weights of Keras's own ``fit``, to the bit.
    """

    def __init__(self, precision: str = "float32", packing: bool = True) -> None:
        self._precision = precision
        self._packing = packing
        #: See `shared.refuse_shared`.
        self._passed: set[Hashable] = set()
        self._programs = Kept(_clear_kernels)

    def start(
        self,
        builder: Callable[..., Any],
        hyperparameters: Mapping[str, Any],
        seed: int,
        fold: int,
        data: FoldData,
    ) -> KerasTrajectory:
        """Build and initialise the model of a run; see `engine.Engine.start`."""
        from stormsweep.training.building import build_model, output_is_flat
        from stormsweep.training.outlived import variables_made
        from stormsweep.training.packing import pack_layers
        from stormsweep.training.program import Program, snapshot
        from stormsweep.training.randomness import seeded
        from stormsweep.training.shared import refuse_shared
        from stormsweep.training.structure import program_key

        shape = data.inputs.shape[1:]
        batch_size, since = int(hyperparameters["batch_size"]), variables_made()
        with precision_of_layers(self._precision), seeded(initial_seed(seed, fold)) as drawn:
            model = build_model(builder, hyperparameters, shape)
            flat_output = output_is_flat(model, data.inputs[data.validation[:1]])
            model.optimizer.build(model.trainable_variables)
            chance = (seed, fold) if drawn() else None
        if self._packing:
            pack_layers(model)
        weighted = data.class_weight is not None
        key = program_key(
            builder,
            hyperparameters,
            model,
            shape,
            flat_output,
            weighted,
            data.turning,
            self._precision,
            self._packing,
            chance,
        )
        known = self._programs.find(key)
        if known is not None and known.refused:
            raise RunError(known.refused)
        if known is not None and known.reusable:
            return KerasTrajectory(known, batch_size, data, seed, fold, snapshot(model))
        refuse_shared(
            self._passed, model, builder, hyperparameters, seed, fold, data, self._precision
        )
        program = Program(model, shape, flat_output, weighted, data.turning, since)
        if known is not None:
            # No other run can take over what is of this key.
            key = None
        self._programs.keep(key, program, model)
        return KerasTrajectory(program, batch_size, data, seed, fold, None)


class KerasTrajectory:
    """One run under way; see `engine.Trajectory`.

    Several trajectories may share a program: the one in use has its state in the program's
    variables, the state of the others is parked in numpy arrays.
    """

    def __init__(
        self,
        program: Program,
        batch_size: int,
        data: FoldData,
        seed: int,
        fold: int,
        initial: State | None,
    ) -> None:
        import tensorflow as tf

        self._program = program
        self._batch_size = tf.constant(batch_size, tf.int32)
        self._parked = initial
        self._seed, self._fold = seed, fold
        self._train_rows = data.train
        self._versions, self._turning = data.versions, data.turning
        self._cases = len(data.labels) // data.versions.stop
        self._inputs = alias(data.inputs)
        self._labels = tf.constant(data.labels, tf.float32)
        self._weights = tf.constant(data.class_weight or (1.0, 1.0), tf.float32)
        self._epoch = 0
        if initial is None:
            program.owner = weakref.ref(self)

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""
        return self._epoch

    @property
    def parameters(self) -> int:
        """Trainable parameters of the model."""
        return self._program.parameters

    def advance(self, to_epoch: int, go_on: GoOn | None = None) -> AdvanceResult:
        """Train up to and including `to_epoch`; see `engine.Trajectory.advance`."""
        compile_seconds = self._compile()
        began = time.perf_counter()
        losses: list[float] = []
        took: float | None = None
        for epoch in range(self._epoch + 1, to_epoch + 1):
            if go_on is not None and not go_on(took):
                break
            before = time.perf_counter()
            rows, turns = self._order(epoch)
            loss = self._program.train(
                self._inputs, self._labels, rows, self._weights, turns, self._batch_size
            )
            self._epoch = epoch
            if not math.isfinite(loss):
                raise DivergedError(f"the training loss is {loss} in epoch {epoch}")
            losses.append(loss)
            took = time.perf_counter() - before
        batches = math.ceil(len(self._train_rows) / int(self._batch_size))
        return AdvanceResult(
            losses=losses,
            patches=len(losses) * len(self._train_rows),
            updates=len(losses) * batches,
            compile_seconds=compile_seconds,
            train_seconds=time.perf_counter() - began,
        )

    def _compile(self) -> float:
        """Take the program, and have it compiled; return the seconds that took."""
        self._take_program()
        return self._program.compile(seed32(self._seed, self._fold, "tracing"))

    def _order(self, epoch: int) -> tuple[Any, Any]:
        """Return the rows of an epoch in order, and how their patches are turned."""
        import tensorflow as tf

        chance = (self._seed, self._fold, epoch)
        rows = rows_of_epoch(self._train_rows, self._cases, self._versions, *chance)
        turns = np.ones((0, 2), np.float32)
        if (how := self._turning) is not None:
            turns = draw_turns(len(rows), how.rotate_degrees, how.flip, *chance)
        return tf.constant(rows), tf.constant(turns)

    def predict(
        self, rows: NDArray[np.int64], inputs: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return the probability of the event for each row."""
        self._compile()
        return self._program.predict(self._inputs if inputs is None else alias(inputs), rows)

    def save(self, folder: Path, cases: NDArray[np.float32]) -> tuple[str, str]:
        """Write the model down for later predictions; see `engine.Trajectory.save`."""
        from stormsweep.training.inference import Predictor
        from stormsweep.training.saving import save_model

        self._compile()
        with self._program.finished():
            return save_model(self._program.model, folder, lambda model: Predictor(model)(cases))

    def state(self) -> State:
        """Return a copy of weights, optimizer and random state."""
        self._take_program()
        return self._program.state()

    def restore(self, state: State, epoch: int) -> None:
        """Go on from a state that was taken after `epoch` epochs."""
        self._take_program()
        self._program.load(state)
        self._epoch = epoch

    def _take_program(self) -> None:
        """Have this run's state in the program's variables, and park whose was there."""
        owner = self._program.owner() if self._program.owner is not None else None
        if owner is self:
            return
        if owner is not None:
            owner._parked = self._program.state()
        if self._parked is not None:
            self._program.load(self._parked)
        self._parked = None
        self._program.owner = weakref.ref(self)


def _clear_kernels() -> None:
    from stormsweep.training.kernels import clear_next

    clear_next()


def alias(array: NDArray[np.float32]) -> Any:
    """Return a tensor on an array's own memory; a copy where TensorFlow cannot use it.

    Parameters
    ----------
    array : ndarray of float32
        Best memory-mapped with mode ``"c"``: pages are read when needed and shared by all
        processes of the machine.

    Returns
    -------
    tensor
        It keeps the array alive. Nobody may write to the array.
    """
    import tensorflow as tf

    flags = array.flags
    usable = array.dtype == np.float32 and flags.c_contiguous and flags.writeable
    # TensorFlow takes an unaligned array without a word, and aborts when it computes with it.
    if usable and array.size and array.ctypes.data % _ALIGNMENT == 0:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array.astype(np.float32, copy=False))
