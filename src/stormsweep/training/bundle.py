"""A compiled JAX program: an epoch of one run, or of several side by side, in one call.

Runs of one structure and batch size differ in numbers only: initial weights, learning rate, which
rows they train on and in which order. `jax.vmap` over all of these makes one program of them, which
keeps a GPU busy that a small network alone leaves idle.

Nothing is filled up with rows that do not count: they would take part in what a layer computes over
a batch. Folds of other lengths take fewer steps in the same loop, and the last, smaller batch of
an epoch is a step of its own size.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import psutil
from numpy.typing import NDArray

from stormsweep.errors import RunError
from stormsweep.training.calling import asked
from stormsweep.training.engine import State
from stormsweep.training.policy import takes_bfloat16
from stormsweep.training.randomness import seeded

#: Rows predicted at once, of each run.
CHUNK = 512
#: Bundles of so many compositions stay compiled, for training and for prediction. Strategies that
#: drop runs early make bundles of any size, and folds of other lengths more.
_KEPT = 16
#: Share of the free memory that a program may plan with.
_ROOM = 0.9
_PARTS = ("trainable", "other", "optimizer")
#: Arrays of a state by part: trainable variables, the model's others, the optimizer's.
Arrays = tuple[list[Any], list[Any], list[Any]]


class NoRoomError(Exception):
    """So many runs at once do not fit into the device's memory."""

    def __init__(self, most: int) -> None:
        super().__init__(f"at most {most} at once")
        self.most = most


@dataclass(frozen=True, slots=True)
class Resident:
    """All cases, on the device once.

    Attributes
    ----------
    inputs : jax.Array, shape (n, ...)
        In float32, or bfloat16 where the model rounds them anyway.
    labels : jax.Array of float32, shape (n,)
        0 or 1.
    """

    inputs: Any
    labels: Any


@dataclass(frozen=True, slots=True)
class Epoch:
    """Which rows an epoch takes, in order, for runs that stand in the order of their tails.

    Attributes
    ----------
    orders : ndarray of int32, shape (steps, folds, batch)
        Rows of the whole batches of each fold; shorter folds are filled with row 0, unused.
    fold : ndarray of int32, shape (members,)
        Which of the folds each run trains on.
    steps : ndarray of int32, shape (members,)
        Whole batches of each run.
    tails : tuple of ndarray of int32, shape (some, size)
        Rows of the last, smaller batch of the first runs, of the next ones, and so on; the last
        runs may have none.
    """

    orders: NDArray[np.int32]
    fold: NDArray[np.int32]
    steps: NDArray[np.int32]
    tails: tuple[NDArray[np.int32], ...]

    @property
    def signature(self) -> Any:
        """What a compiled program is for, and nothing but."""
        shapes = tuple(tail.shape for tail in self.tails)
        return self.orders.shape, self.fold.shape, shapes, self.ragged

    @property
    def ragged(self) -> bool:
        """Whether some runs take fewer whole batches than others."""
        return len(set(self.steps.tolist())) > 1


class BundleProgram:
    """A model, its optimizer, and what was compiled of them.

    Parameters
    ----------
    model : keras.Model
        Built and compiled; its own variables are only read where a run begins, and assigned where
        one is written down.
    batch_size : int
        Cases of a batch.
    flat_output : bool
        Whether the model's output is (n,) rather than (n, 1).
    weighted : bool
        Whether the classes have weights in the loss.
    """

    def __init__(
        self, model: keras.Model, batch_size: int, flat_output: bool, weighted: bool
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.flat_output, self.weighted = flat_output, weighted
        #: How many runs fit at once, as far as that is known.
        self.most: int | None = None
        #: What the cases are kept in on the device.
        self.cases = jnp.bfloat16 if takes_bfloat16(model) else jnp.float32
        self._training = asked(model, training=True)
        self._predicting = asked(model, training=False)
        self._compiled: OrderedDict[Any, Callable[..., Any]] = OrderedDict()
        #: By the number of runs.
        self._predict: OrderedDict[int, Callable[..., Any]] = OrderedDict()

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)

    def knows(self, data: Resident, epoch: Epoch) -> bool:
        """Say whether the epoch of so many runs is compiled."""
        return (epoch.signature, data.inputs.shape) in self._compiled

    def compile(self, states: Arrays, data: Resident, weights: Any, epoch: Epoch) -> float:
        """Compile the epoch of so many runs; return the seconds it took.

        What the model's own code or JAX raises, which may be anything, is passed on.

        Raises
        ------
        NoRoomError
            If the program needs more memory than is free.
        """
        began = time.perf_counter()
        members = len(epoch.fold)
        train = jax.jit(self._epoch, static_argnames="ragged", donate_argnums=0)
        arguments = (states, data.inputs, data.labels, weights, *_arrays(epoch))
        compiled = train.lower(*arguments, ragged=epoch.ragged).compile()
        # The states are there already, and what comes of them takes their place.
        there = sum(value.nbytes for value in jax.tree.leaves((states, data.inputs, data.labels)))
        needed, free = _needed(compiled, there), free_memory()
        if members > 1 and needed > _ROOM * free:
            raise NoRoomError(max(1, min(members - 1, int(members * _ROOM * free / needed))))
        _keep(self._compiled, (epoch.signature, data.inputs.shape), compiled)
        return time.perf_counter() - began

    def train(
        self, states: Arrays, data: Resident, weights: Any, epoch: Epoch
    ) -> tuple[Arrays, Any, Any]:
        """Train one epoch; `compile` must have been called. Returns before it is computed.

        Parameters
        ----------
        states : Arrays
            Each array with an axis of runs in front; given up to the call.
        data : Resident
            All cases.
        weights : array of float32, shape (members, 2)
            Weights of the classes 0 and 1, where the program is weighted.
        epoch : Epoch
            The rows.

        Returns
        -------
        tuple of Arrays, array of shape (steps, members), tuple of arrays
            The states afterwards, and the losses of the whole batches and of the tails.
        """
        self._compiled.move_to_end(key := (epoch.signature, data.inputs.shape))
        call = self._compiled[key]
        result: tuple[Arrays, Any, Any] = call(
            states, data.inputs, data.labels, weights, *_arrays(epoch)
        )
        return result

    def wait(self, states: Arrays) -> None:
        """Return when what these states come from is computed."""
        jax.block_until_ready(states)

    def predict(
        self, states: Arrays, cases: Callable[[NDArray[np.int32]], Any], rows: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Return the outputs for rows of each run, shape (members, n), in chunks of fixed size.

        Parameters
        ----------
        states : Arrays
            Each array with an axis of runs in front.
        cases : callable
            From rows of shape (members, `CHUNK`) to the cases, shape (members, `CHUNK`, ...).
        rows : ndarray of int32, shape (members, n)
            For each run as many.
        """
        members, count = rows.shape
        filled = np.zeros((members, -(-count // CHUNK) * CHUNK), np.int32)
        filled[:, :count] = rows
        call = self._predict.get(members) or jax.jit(partial(self._outputs, members > 1))
        _keep(self._predict, members, call)
        parts = [
            call(*states, cases(chunk))
            for chunk in np.split(filled, filled.shape[1] // CHUNK, axis=1)
        ]
        return np.concatenate([np.asarray(part) for part in parts], axis=1)[:, :count]

    def initial(self) -> State:
        """Return copies of the variables as the builder left them."""
        return {
            name: _plain(np.asarray(variable.value))
            for name, variable in zip(self._names(), self._variables(), strict=True)
        }

    def assign(self, state: State) -> None:
        """Assign a state to the model's own variables."""
        for name, variable in zip(self._names(), self._variables(), strict=True):
            variable.assign(state[name])

    def finish(self) -> None:
        """Give the model's own variables the values that Keras's `fit` would end with."""
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def check(self, state: State) -> None:
        """Refuse a state that is not of this program.

        Raises
        ------
        RunError
            If it has other variables or shapes.
        """
        own = {
            name: tuple(variable.shape)
            for name, variable in zip(self._names(), self._variables(), strict=True)
        }
        if own != {name: value.shape for name, value in state.items()}:
            raise RunError("the stored state is of another model; remove the run's checkpoints")

    def stack(self, states: Sequence[State]) -> Arrays:
        """Put the states of several runs on the device, side by side."""
        parts: dict[str, list[Any]] = {part: [] for part in _PARTS}
        for name, variable in zip(self._names(), self._variables(), strict=True):
            together = np.stack([state[name] for state in states])
            parts[name.partition("/")[0]].append(jnp.asarray(together, dtype=variable.dtype))
        return parts["trainable"], parts["other"], parts["optimizer"]

    def unstack(self, arrays: Arrays) -> list[State]:
        """Bring the states of several runs back as copies, one each."""
        values = [np.asarray(value) for part in arrays for value in part]
        return [
            {
                name: _plain(np.array(value[place]))
                for name, value in zip(self._names(), values, strict=True)
            }
            for place in range(len(values[0]))
        ]

    def _variables(self) -> list[Any]:
        model = self.model
        return [
            *model.trainable_variables,
            *model.non_trainable_variables,
            *model.optimizer.variables,
        ]

    def _names(self) -> list[str]:
        model = self.model
        sizes = (
            len(model.trainable_variables),
            len(model.non_trainable_variables),
            len(model.optimizer.variables),
        )
        return [
            f"{part}/{place:03d}"
            for part, size in zip(_PARTS, sizes, strict=True)
            for place in range(size)
        ]

    def _epoch(
        self,
        states: Arrays,
        inputs: Any,
        labels: Any,
        weights: Any,
        orders: Any,
        fold: Any,
        steps: Any,
        tails: tuple[Any, ...],
        ragged: bool,
    ) -> tuple[Arrays, Any, Any]:
        one = _together(self._step, len(fold) > 1)

        def step(states: Arrays, rows: Any, weights: Any) -> tuple[Arrays, Any]:
            x = inputs.at[rows].get(mode="promise_in_bounds")
            y = labels.at[rows].get(mode="promise_in_bounds")
            trained: tuple[Arrays, Any] = one(states, x, y, weights)
            return trained

        def batch(states: Arrays, now: tuple[Any, Any]) -> tuple[Arrays, Any]:
            number, rows = now
            trained, loss = step(states, rows[fold], weights)
            if ragged:
                goes_on = number < steps
                trained = jax.tree.map(
                    lambda new, old: jnp.where(_as_wide(goes_on, new), new, old), trained, states
                )
            return trained, loss

        states, losses = jax.lax.scan(batch, states, (jnp.arange(len(orders)), orders))
        tail_losses, start = [], 0
        for rows in tails:
            stop = start + len(rows)
            own = jax.tree.map(lambda value, a=start, b=stop: value[a:b], states)
            trained, loss = _together(self._step, len(rows) > 1)(
                own, inputs[rows], labels[rows], weights[start:stop]
            )
            states = jax.tree.map(
                lambda value, new, a=start, b=stop: value.at[a:b].set(new), states, trained
            )
            tail_losses.append(loss)
            start = stop
        return states, losses, tail_losses

    def _step(self, state: Arrays, x: Any, y: Any, weights: Any) -> tuple[Arrays, Any]:
        """One optimizer step of one run, as Keras's own `train_step` without its metrics."""
        model = self.model
        trainable, other, optimizer = state
        sample_weight = jnp.where(y > 0.5, weights[1], weights[0]) if self.weighted else None
        if not self.flat_output:
            y = y[:, jnp.newaxis]

        def loss_of(trainable: list[Any]) -> tuple[Any, tuple[Any, list[Any]]]:
            with _traced(), self._scope(trainable, other, optimizer) as scope:
                predicted = model(x, **self._training)
                loss = model._compute_loss(x, y, predicted, sample_weight, training=True)
                scaled = model.optimizer.scale_loss(loss)
            return scaled, (loss, list(map(scope.get_current_value, model.non_trainable_variables)))

        gradients, (loss, other_after) = jax.grad(loss_of, has_aux=True)(trainable)
        trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
        return (trainable, other_after, optimizer), loss

    def _outputs(self, together: bool, trainable: Any, other: Any, optimizer: Any, x: Any) -> Any:
        def one(trainable: Any, other: Any, optimizer: Any, x: Any) -> Any:
            weights = self._finished(trainable, optimizer)
            with _traced(), self._scope(weights, other, optimizer):
                predicted = self.model(x, **self._predicting)
            return predicted.astype(jnp.float32).reshape(-1)

        return _together(one, together)(trainable, other, optimizer, x)

    def _finished(self, trainable: Any, optimizer: Any) -> list[Any]:
        """Return the weights that Keras's `fit` would end with: averages, where it keeps them."""
        model = self.model
        values = [
            *zip(model.trainable_variables, trainable, strict=True),
            *zip(model.optimizer.variables, optimizer, strict=True),
        ]
        with keras.StatelessScope(state_mapping=values) as scope:
            model.optimizer.finalize_variable_values(model.trainable_variables)
        return [scope.get_current_value(variable) for variable in model.trainable_variables]

    def _scope(self, trainable: Any, other: Any, optimizer: Any) -> _OwnState:
        """Return where model, loss and optimizer see the state of a run.

        One scope for all of them, around the model's own call: a loss may read the optimizer, and
        layers learn from the call around theirs whether it is training.
        """
        values = [*trainable, *other, *optimizer]
        mapping = [*zip(self._variables(), values, strict=True)]
        # Metrics are not computed; what a model of the user's counts in them is dropped.
        mapping += [(variable, variable.value) for variable in self.model.metrics_variables]
        return _OwnState(mapping, collect_losses=True)


class _OwnState(keras.StatelessScope):  # type: ignore[misc]  # Keras has no types
    """The variables of a run; others cannot be changed, where Keras itself would lose the change.

    They would be constants of the program, with what calls of the model before have left in them.
    """

    def add_update(self, update: tuple[Any, Any]) -> None:
        """Take the new value of a variable.

        Raises
        ------
        RunError
            If it is none of the run's.
        """
        variable, _ = update
        if id(variable) not in self.state_mapping:
            raise RunError(
                f"the model changes the variable {variable.name!r}, which is not part of it; make "
                "it in a layer, by self.add_weight (a keras.random.SeedGenerator: in the layer's "
                "__init__), not at module level, in a function or in another object"
            )
        super().add_update(update)


def _keep(compiled: OrderedDict[Any, Any], key: Any, call: Any) -> None:
    """Keep what was compiled, and give up what was not used for longest."""
    compiled[key] = call
    compiled.move_to_end(key)
    if len(compiled) > _KEPT:
        compiled.popitem(last=False)


def _arrays(epoch: Epoch) -> tuple[Any, ...]:
    return epoch.orders, epoch.fold, epoch.steps, epoch.tails


def _traced() -> AbstractContextManager[Any]:
    """Have what a loss, say, draws from NumPy while it is traced be the same for all runs.

    It is a constant of the program, which runs of several folds may share; a run alone, and the
    last, smaller batch of an epoch, have the same one.
    """
    return seeded(0)


def _together(one: Callable[..., Any], several: bool) -> Callable[..., Any]:
    """Return `one` for arguments with an axis of runs in front; a run alone is computed plainly."""
    if several:
        side_by_side: Callable[..., Any] = jax.vmap(one)
        return side_by_side

    def alone(*arguments: Any) -> Any:
        without = jax.tree.map(lambda value: value[0], arguments)
        return jax.tree.map(lambda value: value[jnp.newaxis], one(*without))

    return alone


def _as_wide(mask: Any, value: Any) -> Any:
    return mask.reshape(mask.shape + (1,) * (value.ndim - 1))


def _plain(value: NDArray[Any]) -> NDArray[Any]:
    # bfloat16 is no dtype of numpy's own; float32 holds each of its values.
    return value.astype(np.float32) if value.dtype.kind == "V" else value


def free_memory() -> float:
    """Return the device's free memory in bytes; the machine's where the processor computes."""
    device = jax.devices()[0]
    known = device.memory_stats() or {}
    if "bytes_limit" in known:
        return float(known["bytes_limit"] - known.get("bytes_in_use", 0))
    return float(psutil.virtual_memory().available)


def _needed(compiled: Any, there: int) -> float:
    """Return the bytes that a program takes beside arguments of so many; 0 where nobody knows."""
    try:
        plan = compiled.memory_analysis()
        return float(
            plan.temp_size_in_bytes
            + max(0, plan.output_size_in_bytes - plan.alias_size_in_bytes)
            + max(0, plan.argument_size_in_bytes - there)
        )
    except (AttributeError, NotImplementedError, TypeError, RuntimeError):
        return 0.0
