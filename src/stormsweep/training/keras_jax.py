"""The JAX engine: Keras models on a GPU, runs that differ in numbers only trained as a bundle."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import DivergedError, RunError
from stormsweep.training.engine import (
    AdvanceResult,
    FoldData,
    GoOn,
    OutOfMemoryError,
    State,
    says_out_of_memory,
)
from stormsweep.training.kept import Kept
from stormsweep.training.policy import precision_of_layers
from stormsweep.training.seeds import initial_seed, rows_of_epoch

if TYPE_CHECKING:
    from stormsweep.training.bundle import BundleProgram, Epoch, Resident

log = logging.getLogger(__name__)

#: Cases are brought to the device in steps of so many bytes.
_STEP = 1 << 28
_FLAGS = ("--xla_gpu_deterministic_ops=true",)


def configure(threads: int) -> None:
    """Set up JAX in this process, before anything is computed with it.

    Parameters
    ----------
    threads : int
        Compute threads, where no GPU computes.

    Raises
    ------
    RuntimeError
        If Keras is loaded with another backend already.
    """
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["NPROC"] = str(threads)  # which is where JAX looks for its number of threads
    flags = os.environ.get("XLA_FLAGS", "").split()
    names = {flag.partition("=")[0] for flag in flags}
    flags += [flag for flag in _FLAGS if flag.partition("=")[0] not in names]
    os.environ["XLA_FLAGS"] = " ".join(flags)
    # What is free is to be seen; a worker has its GPU to itself.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() != "jax":
        raise RuntimeError("Keras is already loaded with another backend than JAX")

    import keras

    # Not what a keras.json in the home folder may say: results must not depend on it.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")


def device() -> str:
    """Return what computes, in words: ``NVIDIA H100 80GB HBM3 (gpu)``."""
    import jax

    first = jax.devices()[0]
    kind, platform = str(first.device_kind), str(first.platform)
    return platform if kind == platform else f"{kind} ({platform})"


def on_gpu() -> bool:
    """Say whether it is a GPU that computes."""
    import jax

    return bool(jax.devices()[0].platform == "gpu")


@contextlib.contextmanager
def _told_of_memory(members: int) -> Iterator[None]:
    """Turn JAX's word for a full device into ours; half of several runs may still fit."""
    from stormsweep.training.bundle import NoRoomError

    try:
        yield
    except RunError:
        raise
    except Exception as error:
        if not says_out_of_memory(error):
            raise
        if members > 1:
            raise NoRoomError(members // 2) from error
        text = f"the device's memory is full: {' '.join(str(error).split())[:300]}"
        if isinstance(error, MemoryError):
            text = "Python could not get the memory it asked for"
        raise OutOfMemoryError(text) from error


class JaxEngine:
    """Train Keras models on JAX.

    Parameters
    ----------
    precision : str
        ``float32``, or ``bfloat16``: mixed precision, weights stay float32.
    """

    def __init__(self, precision: str = "float32") -> None:
        self._precision = precision
        #: See `shared.refuse_shared`.
        self._passed: set[Hashable] = set()
        self._programs = Kept()
        self._resident: tuple[FoldData, Resident] | None = None
        #: Seconds that the last program took to be compiled; 0: none was yet.
        self._compiling = 0.0

    @_told_of_memory(1)
    def start(
        self,
        builder: Callable[..., Any],
        hyperparameters: Mapping[str, Any],
        seed: int,
        fold: int,
        data: FoldData,
    ) -> JaxTrajectory:
        """Build and initialise the model of a run; see `engine.Engine.start`."""
        from stormsweep.training.building import build_model, output_is_flat
        from stormsweep.training.bundle import BundleProgram
        from stormsweep.training.randomness import seeded
        from stormsweep.training.shared import refuse_shared
        from stormsweep.training.structure import program_key

        if data.turning is not None:
            raise RunError(
                "patches are turned on the fly by the engine tensorflow only; "
                'set augment.when = "ahead" or engine.use = "tensorflow"'
            )
        shape = data.inputs.shape[1:]
        batch_size = int(hyperparameters["batch_size"])
        with precision_of_layers(self._precision), seeded(initial_seed(seed, fold)) as drawn:
            model = build_model(builder, hyperparameters, shape)
            flat = output_is_flat(model, data.inputs[data.validation[:1]])
            model.optimizer.build(model.trainable_variables)
            chance = (seed, fold) if drawn() else None
        weighted = data.class_weight is not None
        program = BundleProgram(model, batch_size, flat, weighted)
        initial = program.initial()
        key = program_key(
            builder, hyperparameters, model, batch_size, shape, flat, weighted, chance
        )
        known = self._programs.find(key)
        if known is None:
            refuse_shared(
                self._passed, model, builder, hyperparameters, seed, fold, data, self._precision
            )
        self._programs.keep(key if known is None else None, program, model)
        return JaxTrajectory(self, known or program, initial, data, seed, fold)

    def train(
        self, runs: Sequence[JaxTrajectory], to_epoch: int, go_on: GoOn | None = None
    ) -> Iterator[list[tuple[JaxTrajectory, AdvanceResult | RunError]]]:
        """Train runs up to and including an epoch; see `engine.BundleEngine.train`."""
        from stormsweep.training.bundle import NoRoomError

        waiting: dict[tuple[int, int], list[JaxTrajectory]] = {}
        for run in runs:
            waiting.setdefault((id(run.program), run.epoch), []).append(run)
        for alike in waiting.values():
            program = alike[0].program
            while alike:
                parts = math.ceil(len(alike) / (program.most or len(alike)))
                bundle = alike[: math.ceil(len(alike) / parts)]
                try:
                    results = self._train(bundle, to_epoch, go_on)
                except NoRoomError as error:
                    program.most = error.most
                    log.warning("%d runs do not fit into memory at once: %s", len(bundle), error)
                    continue
                except RunError as error:
                    results = [error] * len(bundle)
                except Exception as error:  # of the model's own code, or of JAX: not of them all
                    text = " ".join(str(error).split())
                    if len(bundle) > 1:
                        program.most = 1
                        log.warning(
                            "runs of this model are trained one after another: %s", text[:300]
                        )
                        continue
                    failed = RunError(f"the model cannot be trained: {text[:400]}")
                    failed.__cause__ = error
                    results = [failed]
                del alike[: len(bundle)]
                yield list(zip(bundle, results, strict=True))

    def _train(
        self, bundle: list[JaxTrajectory], to_epoch: int, go_on: GoOn | None
    ) -> list[AdvanceResult | RunError]:
        """Train runs side by side; results come in their order."""
        program, first = bundle[0].program, bundle[0].epoch
        order = sorted(range(len(bundle)), key=lambda place: bundle[place].tail, reverse=True)
        members = [bundle[place] for place in order]
        # Dropped models lie on the device, whose memory the garbage collector does not see.
        self._programs.clean()
        data = self.resident(members[0].data, program.cases)
        began, compiling = time.perf_counter(), 0.0
        losses: list[tuple[Any, Any]] = []
        took: float | None = None
        weights = np.array([run.data.class_weight or (1, 1) for run in members], np.float32)
        with _told_of_memory(len(bundle)):
            states = program.stack([run.state() for run in members])
            for epoch in range(first + 1, to_epoch + 1):
                before = time.perf_counter()
                rows = _rows(members, epoch)
                known = epoch > first + 1 or program.knows(data, rows)
                if go_on is not None and not go_on(took, 0.0 if known else self._compiling):
                    break
                if not known:
                    compiling = self._compiling = program.compile(states, data, weights, rows)
                    if go_on is not None and not go_on(took):
                        break
                # The next epoch is put in order while the device still computes this one.
                states, *found = program.train(states, data, weights, rows)
                losses.append((found[0], found[1]))
                if go_on is not None:
                    # Only a computed epoch says how long one takes.
                    program.wait(states)
                    took = time.perf_counter() - before
                    took -= compiling if epoch == first + 1 else 0.0
            by_epoch = [_mean_losses(members, *found) for found in losses]
            trained = program.unstack(states)
        seconds = time.perf_counter() - began - compiling
        results: list[AdvanceResult | RunError] = [RunError("")] * len(bundle)
        for number, (place, run) in enumerate(zip(order, members, strict=True)):
            run.went(trained[number], first + len(losses))
            own = [means[number] for means in by_epoch]
            results[place] = _result(run, first, own, len(bundle), compiling, seconds)
        return results

    def predict(
        self, runs: Sequence[JaxTrajectory], rows: Sequence[NDArray[np.int64]]
    ) -> list[NDArray[np.float32]]:
        """Return the probability of the event for rows of each run; see `engine.BundleEngine`."""
        from stormsweep.training.bundle import NoRoomError

        most = max(map(len, rows))
        filled = np.zeros((len(runs), most), np.int32)
        for place, own in enumerate(rows):
            filled[place, : len(own)] = own
        try:
            outputs = self._predict(runs, filled)
        except NoRoomError as error:
            half = error.most
        else:
            return [output[: len(own)] for output, own in zip(outputs, rows, strict=True)]
        # Not in the handler, where the error holds on the device what did not fit.
        return self.predict(runs[:half], rows[:half]) + self.predict(runs[half:], rows[half:])

    def _predict(
        self, runs: Sequence[JaxTrajectory], rows: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        program = runs[0].program
        data = self.resident(runs[0].data, program.cases)
        with _told_of_memory(len(runs)):
            states = program.stack([run.state() for run in runs])
            return program.predict(states, lambda chunk: data.inputs[chunk], rows)

    def resident(self, data: FoldData, kind: Any) -> Resident:
        """Return the cases on the device in a dtype, brought there once for all folds."""
        from stormsweep.training.bundle import Resident

        if self._resident is not None:
            held, resident = self._resident
            same = held.inputs is data.inputs and resident.inputs.dtype == kind
            if same and np.array_equal(held.labels, data.labels):
                return resident
        self._resident = None
        import jax.numpy as jnp

        with _told_of_memory(1):
            resident = Resident(
                jnp.asarray(_in_kind(data.inputs, np.dtype(kind))),
                jnp.asarray(data.labels, jnp.float32),
            )
        self._resident = data, resident
        return resident


class JaxTrajectory:
    """One run under way; see `engine.Trajectory`. Its state lies in the machine's memory.

    Parameters
    ----------
    engine, program : JaxEngine, BundleProgram
        What trains it.
    state : State
        Where it begins.
    data, seed, fold : FoldData, int, int
        As given to `JaxEngine.start`.
    """

    def __init__(
        self,
        engine: JaxEngine,
        program: BundleProgram,
        state: State,
        data: FoldData,
        seed: int,
        fold: int,
    ) -> None:
        self._engine, self._state, self._epoch = engine, state, 0
        self.program, self.data, self.seed, self.fold = program, data, seed, fold

    @property
    def epoch(self) -> int:
        """Epochs trained so far."""
        return self._epoch

    @property
    def parameters(self) -> int:
        """Trainable parameters of the model."""
        return self.program.parameters

    @property
    def tail(self) -> int:
        """Cases of the last, smaller batch of an epoch."""
        return len(self.data.train) % self.program.batch_size

    def order(self, epoch: int) -> NDArray[np.int32]:
        """Return the rows of an epoch in the order of training, shape (m,)."""
        versions = self.data.versions
        cases = len(self.data.labels) // versions.stop
        rows = rows_of_epoch(self.data.train, cases, versions, self.seed, self.fold, epoch)
        return rows.astype(np.int32)

    def went(self, state: State, epoch: int) -> None:
        """Take note of what training came to."""
        self._state, self._epoch = state, epoch

    def advance(self, to_epoch: int, go_on: GoOn | None = None) -> AdvanceResult:
        """Train up to and including `to_epoch`; see `engine.Trajectory.advance`."""
        (((_, result),),) = self._engine.train([self], to_epoch, go_on)
        if isinstance(result, RunError):
            raise result
        return result

    @_told_of_memory(1)
    def predict(
        self, rows: NDArray[np.int64], inputs: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return the probability of the event for each row."""
        if inputs is None:
            return self._engine.predict([self], [rows])[0]
        states = self.program.stack([self._state])
        alone = rows[np.newaxis].astype(np.int32)
        outputs = self.program.predict(states, lambda chunk: inputs[chunk], alone)
        own: NDArray[np.float32] = outputs[0]
        return own

    @_told_of_memory(1)
    def save(self, folder: Path, cases: NDArray[np.float32]) -> tuple[str, str]:
        """Write the model down for later predictions; see `engine.Trajectory.save`."""
        from stormsweep.training.calling import outputs
        from stormsweep.training.saving import save_model

        self.program.assign(self._state)
        self.program.finish()
        return save_model(self.program.model, folder, lambda model: outputs(model, cases))

    def state(self) -> State:
        """Return weights, optimizer and random state."""
        return self._state

    def restore(self, state: State, epoch: int) -> None:
        """Go on from a state that was taken after `epoch` epochs."""
        self.program.check(state)
        self._state, self._epoch = state, epoch


def _rows(members: Sequence[JaxTrajectory], epoch: int) -> Epoch:
    """Put the rows of an epoch in order; runs come in the order of their tails, longest first."""
    from stormsweep.training.bundle import Epoch

    size = members[0].program.batch_size
    orders: dict[tuple[int, int, int], NDArray[np.int32]] = {}
    keys = [(run.seed, run.fold, id(run.data.train)) for run in members]
    for run, key in zip(members, keys, strict=True):
        if key not in orders:
            orders[key] = run.order(epoch)
    whole = {key: len(rows) // size for key, rows in orders.items()}
    batches = np.zeros((max(whole.values()), len(orders), size), np.int32)
    for place, (key, rows) in enumerate(orders.items()):
        batches[: whole[key], place] = rows[: whole[key] * size].reshape(-1, size)
    places = {key: place for place, key in enumerate(orders)}
    tails: dict[int, list[NDArray[np.int32]]] = {}
    for run, key in zip(members, keys, strict=True):
        if run.tail:
            tails.setdefault(run.tail, []).append(orders[key][-run.tail :])
    return Epoch(
        orders=batches,
        fold=np.array([places[key] for key in keys], np.int32),
        steps=np.array([whole[key] for key in keys], np.int32),
        tails=tuple(np.stack(rows) for rows in tails.values()),
    )


def _mean_losses(members: Sequence[JaxTrajectory], losses: Any, tail_losses: Any) -> list[float]:
    """Return the mean loss of an epoch for each run: each batch weighed by its size."""
    by_step = np.asarray(losses, np.float64)
    last = [float(value) for tail in tail_losses for value in np.asarray(tail)]
    means = []
    for place, run in enumerate(members):
        rows, size = len(run.data.train), run.program.batch_size
        total = size * float(by_step[: rows // size, place].sum())
        means.append((total + (run.tail * last[place] if run.tail else 0.0)) / max(rows, 1))
    return means


def _result(
    run: JaxTrajectory,
    first: int,
    losses: list[float],
    together: int,
    compile_seconds: float,
    train_seconds: float,
) -> AdvanceResult | RunError:
    for number, loss in enumerate(losses, start=first + 1):
        if not math.isfinite(loss):
            return DivergedError(f"the training loss is {loss} in epoch {number}")
    rows = len(run.data.train)
    return AdvanceResult(
        losses=losses,
        patches=len(losses) * rows,
        updates=len(losses) * math.ceil(rows / run.program.batch_size),
        compile_seconds=compile_seconds,
        train_seconds=train_seconds,
        together=together,
    )


def _in_kind(array: NDArray[np.float32], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return an array in a dtype; block by block, because float32 of it may be all there is."""
    if array.dtype == kind:
        return array
    out = np.empty(array.shape, kind)
    block = max(1, _STEP // max(1, array[:1].nbytes))
    for start in range(0, len(array), block):
        out[start : start + block] = array[start : start + block]
    return out
