"""A compiled TensorFlow program: whole epochs of training, and prediction, in one call each.

A Python loop over batches costs a call, a copy and a wait per batch. Here the loop runs inside the
graph: rows are gathered by number from the array of all cases, and only the mean loss comes back.
"""

from __future__ import annotations

import inspect
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.auto_control_deps_utils import (
    get_read_only_resource_input_indices_graph,
)

from stormsweep.errors import RunError
from stormsweep.training.calling import asked
from stormsweep.training.engine import State, Turning
from stormsweep.training.kernels import draws_with_a_state, forget_made_since, made_with_a_state
from stormsweep.training.outlived import refuse_changed
from stormsweep.training.randomness import seeded, seeds_given
from stormsweep.training.turning import turn

#: Rows predicted at once. Fixed, because a matrix product may round differently in another shape;
#: of the last, smaller chunk it may. So the same cases predicted elsewhere (`inference` fills up
#: chunks) may differ in the last digit. Filled up here, scores would not be those on record.
CHUNK = 512


class Program:
    """A model, its optimizer, and what was compiled of them.

    Scalars that Keras keeps in variables (the learning rate) are inputs of the program, and so is
    the batch size: other runs of the same structure take it over by assigning all variables.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    input_shape : sequence of int
        Shape of one case.
    flat_output : bool
        Whether the model's output is (n,) rather than (n, 1).
    weighted : bool
        Whether the classes have weights in the loss.
    turning : Turning or None
        How patches are turned before a step.
    since : int, optional
        What `outlived.variables_made` said before the model was built.
    """

    def __init__(
        self,
        model: keras.Model,
        input_shape: Sequence[int],
        flat_output: bool,
        weighted: bool,
        turning: Turning | None = None,
        since: int = 0,
    ) -> None:
        self.model = model
        self._since = since
        self.flat_output = flat_output
        self.weighted = weighted
        self.turning = turning
        self._training = asked(model, training=True)
        self._predicting = asked(model, training=False)
        # Keras, too, gives a loss of the model's own no argument that it does not name.
        told = "training" in inspect.signature(model.compute_loss).parameters
        self._of_loss = {"training": True} if told else {}
        self._inputs = tf.TensorSpec([None, *input_shape], tf.float32)
        self._rows = tf.TensorSpec([None], tf.int64)
        self._train: Any = None
        self._predict: Any = None
        self._finish: Any = None
        #: Variables that finishing and predicting may change, known once they are traced.
        self._touched: list[Any] = []
        #: Variables that the program uses beyond model and optimizer, known once it is traced.
        self._extra: list[Any] = []
        self._pending_extra: State = {}
        #: Whether other runs can take the program over: it is traced and all its state is known.
        self.reusable = False
        #: Why no run of this structure can be trained, once that is known.
        self.refused = ""
        #: The trajectory whose state the variables hold.
        self.owner: weakref.ref[Any] | None = None
        _train_alone(model.optimizer)

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)

    def compile(self, seed: int) -> float:
        """Trace what is to be computed, let TensorFlow optimize the epoch; return the seconds.

        Parameters
        ----------
        seed : int
            Tracing may make a global seed generator of Keras; it starts from this.

        Raises
        ------
        RunError
            If the model or its loss cannot be computed on the data, or the model draws random
            numbers that no checkpoint could go on from, or changes variables that were there before
            it.
        """
        if self._train is not None:
            return 0.0
        began, made = time.perf_counter(), made_with_a_state()
        labels = tf.TensorSpec([None], tf.float32)
        weights = tf.TensorSpec([2], tf.float32)
        turns = tf.TensorSpec([None, 2], tf.float32)
        size = tf.TensorSpec([], tf.int32)
        try:
            with seeded(seed) as drawn:
                given = seeds_given()
                train = tf.function(
                    self._epoch,
                    input_signature=[self._inputs, labels, self._rows, weights, turns, size],
                    autograph=False,
                ).get_concrete_function()
                predict = tf.function(
                    self._outputs, input_signature=[self._inputs, self._rows], autograph=False
                ).get_concrete_function()
                finish = tf.function(
                    self._end_as_fit_does, input_signature=[], autograph=False
                ).get_concrete_function()
                constants = drawn() or seeds_given() != given
        except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
            text = " ".join(str(error).split())
            raise RunError(f"the model cannot be trained: {text[:400]}") from error
        for traced in (train, predict):
            if (operation := draws_with_a_state(traced.graph)) is not None:
                forget_made_since(made)
                self.refused = (
                    f"the model draws random numbers by tf.random ({operation}), "
                    "whose state no checkpoint holds; draw them by keras.random, "
                    "with a keras.random.SeedGenerator made in the layer's __init__"
                )
                raise RunError(self.refused)
        self._find_extra(train.graph, predict.graph)
        # What the loss, say, drew from NumPy or by an initializer is a constant of this run's.
        self.reusable = self.reusable and not constants
        self._touched = [*_written(predict.graph), *_written(finish.graph)]
        try:
            refuse_changed(self._extra, [*_written(train.graph), *self._touched], self._since)
        except RunError as error:
            self.refused = str(error)
            raise
        # An epoch of no rows changes nothing, but the graph is optimized before its first call.
        train(
            tf.zeros([1, *self._inputs.shape[1:]]),
            tf.zeros([1]),
            tf.zeros([0], tf.int64),
            tf.ones([2]),
            tf.ones([0, 2]),
            tf.constant(1),
        )
        self._train, self._predict, self._finish = train, predict, finish
        self._assign_extra(self._pending_extra)
        return time.perf_counter() - began

    def train(
        self, inputs: Any, labels: Any, rows: Any, weights: Any, turns: Any, batch_size: Any
    ) -> float:
        """Train one epoch and return its mean loss; `compile` must have been called.

        Parameters
        ----------
        inputs : tensor of float32, shape (n, ...)
            All cases.
        labels : tensor of float32, shape (n,)
            0 or 1.
        rows : tensor of int64, shape (m,)
            Rows to train on, in this order; the last batch may be smaller.
        weights : tensor of float32, shape (2,)
            Weights of the classes 0 and 1, where the program is weighted.
        turns : tensor of float32, shape (m, 2)
            How the patch of each row is turned, where the program turns patches.
        batch_size : tensor of int32, shape ()
            Cases of a batch.
        """
        return float(self._train(inputs, labels, rows, weights, turns, batch_size))

    def predict(self, inputs: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the model's output for rows, shape (m,), in chunks of fixed size but the last.

        `compile` must have been called. Training goes on as if nobody had asked.
        """
        out = np.empty(len(rows), np.float32)
        with self.finished():
            for start in range(0, len(rows), CHUNK):
                chunk = tf.constant(rows[start : start + CHUNK], tf.int64)
                out[start : start + CHUNK] = self._predict(inputs, chunk).numpy()
        return out

    @contextmanager
    def finished(self) -> Iterator[None]:
        """Have the weights that Keras's `fit` would end with; put back afterwards what was changed.

        `compile` must have been called. An optimizer with ``use_ema`` keeps moving averages of the
        weights, which take their place at the end of a fit. Some models draw random numbers when
        they predict. For all others there is nothing to do.
        """
        held = [(variable, variable.read_value()) for variable in self._touched]
        try:
            self._finish()
            yield
        finally:
            for variable, value in held:
                variable.assign(value)

    def state(self) -> State:
        """Return copies of all variables, by place, in dtypes that numpy knows."""
        state = {name: _plain(variable.numpy()) for name, variable in self._variables()}
        return state | self._pending_extra

    def load(self, state: State) -> None:
        """Assign all variables.

        Raises
        ------
        RunError
            If the state has other variables or shapes than this program.
        """
        own = dict(self._variables())
        given = {name: value for name, value in state.items() if not name.startswith("extra/")}
        known = {name: v for name, v in own.items() if not name.startswith("extra/")}
        shapes = {name: tuple(v.shape) for name, v in known.items()}
        if shapes != {name: value.shape for name, value in given.items()}:
            raise RunError("the stored state is of another model; remove the run's checkpoints")
        for name, variable in known.items():
            variable.assign(tf.cast(given[name], variable.dtype))
        self._assign_extra({n: v for n, v in state.items() if n.startswith("extra/")})

    def _assign_extra(self, state: State) -> None:
        if self._train is None:
            self._pending_extra = state
            return
        self._pending_extra = {}
        for place, variable in enumerate(self._extra):
            value = state.get(f"extra/{place:03d}")
            if value is not None and value.shape == tuple(variable.shape):
                variable.assign(tf.cast(value, variable.dtype))

    def _variables(self) -> Iterator[tuple[str, Any]]:
        yield from named_variables(self.model)
        for place, variable in enumerate(self._extra):
            yield f"extra/{place:03d}", variable

    def _find_extra(self, *graphs: Any) -> None:
        """Find what the program captured beyond model and optimizer: seed generators and such."""
        known = {id(v.handle) for _, v in named_variables(self.model)}
        captured = [outer for graph in graphs for outer, _ in graph.captures]
        unknown = {id(outer) for outer in captured if outer.dtype == tf.resource} - known
        found = {id(v.handle): v for graph in graphs for v in graph.variables}
        self._extra = [variable for handle, variable in found.items() if handle in unknown]
        self.reusable = not unknown

    def _epoch(
        self, inputs: Any, labels: Any, rows: Any, weights: Any, turns: Any, batch_size: Any
    ) -> Any:
        count = tf.shape(rows)[0]

        def batch(start: Any, total: Any) -> tuple[Any, Any]:
            stop = tf.minimum(start + batch_size, count)
            chosen = rows[start:stop]
            x, y = tf.gather(inputs, chosen), tf.gather(labels, chosen)
            if self.turning is not None:
                x = turn(x, turns[start:stop], self.turning)
            loss = self._step(x, y, weights)
            # The last batch is smaller: weigh each by its size, as Keras does.
            size = tf.cast(tf.shape(chosen)[0], tf.float64)
            return start + batch_size, total + tf.cast(loss, tf.float64) * size

        _, total = tf.while_loop(
            lambda start, _total: start < count,
            batch,
            (tf.constant(0), tf.constant(0.0, tf.float64)),
            parallel_iterations=1,
        )
        return total / tf.cast(tf.maximum(count, 1), tf.float64)

    def _step(self, x: Any, y: Any, weights: Any) -> Any:
        """One optimizer step, as Keras's own `train_step` without its metrics."""
        model = self.model
        sample_weight = None
        if self.weighted:
            sample_weight = tf.where(y > 0.5, weights[1], weights[0])
        if not self.flat_output:
            y = y[:, tf.newaxis]
        with tf.GradientTape() as tape:
            predicted = model(x, **self._training)
            loss = model.compute_loss(
                x=x, y=y, y_pred=predicted, sample_weight=sample_weight, **self._of_loss
            )
            scaled = model.optimizer.scale_loss(loss)
        variables = model.trainable_variables
        gradients = tape.gradient(scaled, variables)
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    def _outputs(self, inputs: Any, rows: Any) -> Any:
        predicted = self.model(tf.gather(inputs, rows), **self._predicting)
        return tf.reshape(tf.cast(predicted, tf.float32), [-1])

    def _end_as_fit_does(self) -> None:
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)


def snapshot(model: keras.Model) -> State:
    """Return copies of all variables of a model and its optimizer, as `Program.state` does."""
    return {name: _plain(variable.numpy()) for name, variable in named_variables(model)}


def named_variables(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """Give each variable of a model and its optimizer, random state included, a name by place."""
    for part, owner in (("model", model), ("optimizer", model.optimizer)):
        for place, variable in enumerate(owner.variables):
            yield f"{part}/{place:03d}", variable.value


def _written(graph: Any) -> list[Any]:
    """Return the variables that a traced function does more than read, as far as can be told."""
    read = {id(graph.inputs[place]) for place in get_read_only_resource_input_indices_graph(graph)}
    handles = {id(outer) for outer, inner in graph.captures if id(inner) not in read}
    return [variable for variable in graph.variables if id(variable.handle) in handles]


def _plain(value: NDArray[Any]) -> NDArray[Any]:
    # bfloat16 is no dtype of numpy's own; float32 holds each of its values.
    return value.astype(np.float32) if value.dtype.kind == "V" else value


def _train_alone(optimizer: Any) -> None:
    """Keep Keras from summing gradients over replicas: there is one.

    The sum would change nothing, but registers a custom gradient with TensorFlow that holds the
    whole graph for ever, some megabytes of every program.
    """
    part: Any
    for part in (optimizer, getattr(optimizer, "inner_optimizer", None)):
        if hasattr(part, "_all_reduce_sum_gradients"):
            part._all_reduce_sum_gradients = _unchanged


def _unchanged(gradients_and_variables: Any) -> Any:
    return gradients_and_variables
