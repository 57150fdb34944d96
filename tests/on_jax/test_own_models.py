"""Losing this: a user's own model trains on JAX as another one than on the processor."""

from __future__ import annotations

import numpy as np
import pytest

from stormsweep.errors import RunError
from stormsweep.training.keras_jax import JaxEngine
from tests.on_jax.runs import FOLDS, SEED, normalized, rows_of_numbers, started, together

# After `runs`, which has Keras compute with JAX.
import keras  # isort: skip


class Net(keras.Model):
    """The layers of `normalized`; that it is training only its own call says."""

    def __init__(self):
        super().__init__()
        self.parts = normalized(0.1).layers

    def call(self, x, training=False):
        for part in self.parts:
            x = part(x)
        return x


def subclassed(learning_rate):
    model = Net()
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "binary_crossentropy")
    return model


def test_a_subclassed_model_trains_with_dropout_and_batch_normalization():
    runs = [
        run
        for builder in (normalized, subclassed)
        for run in started(JaxEngine(), builder, {"batch_size": 32}, FOLDS[:1], (0.1,))
    ]
    expected, losses = (run.advance(2).losses for run in runs)
    assert losses == pytest.approx(expected, rel=1e-5)
    plain, own = (run.predict(run.data.validation) for run in runs)
    np.testing.assert_allclose(own, plain, atol=1e-5)


class Warming(keras.Model):
    """A model whose loss is made of what the optimizer says, and of nothing else."""

    def __init__(self):
        super().__init__()
        self.last = keras.layers.Dense(1)

    def call(self, x):
        return self.last(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        steps = keras.ops.cast(self.optimizer.iterations, "float32")
        return 0 * keras.ops.mean(y_pred) + steps + self.optimizer.learning_rate


def warmed(learning_rate):
    model = Warming()
    model.compile(keras.optimizers.SGD(learning_rate))
    return model


def test_a_loss_reads_the_rate_and_the_steps_of_its_own_run():
    rates, engine, data = (0.25, 0.5), JaxEngine(), rows_of_numbers(64)
    results = together(engine, started(engine, warmed, {"batch_size": 32}, [data], rates), 2)
    for rate, result in zip(rates, results, strict=True):
        assert result.losses == pytest.approx([0.5 + rate, 2.5 + rate])


SEEN = keras.Variable(0.0, name="seen")


class Counting(keras.layers.Layer):
    def __init__(self, predicting):
        super().__init__()
        self.predicting = predicting

    def call(self, x, training=False):
        if training != self.predicting:
            SEEN.assign_add(1.0)
        return x + SEEN


def of_layers(*layers):
    return keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])


def dropping():
    draws = keras.random.SeedGenerator(1)
    return of_layers(keras.layers.Lambda(lambda x: keras.random.dropout(x, 0.5, seed=draws)))


@pytest.mark.parametrize(
    ("builder", "name"),
    [
        pytest.param(dropping, "seed_generator_state", id="one mask for ever"),
        pytest.param(lambda: of_layers(Counting(False)), "seen", id="a count of others' training"),
        pytest.param(lambda: of_layers(Counting(True)), "seen", id="a count of others' scores"),
    ],
)
def test_what_a_model_changes_outside_of_itself_is_refused_and_not_frozen(builder, name):
    run = JaxEngine().start(builder, {"batch_size": 32}, SEED, 0, rows_of_numbers())

    def train_and_score():
        run.advance(1)
        run.predict(run.data.validation)

    with pytest.raises(RunError, match=f"changes the variable '{name}', which is not part of it"):
        train_and_score()


def alone_by_its_loss(learning_rate):
    import jax

    def loss(truth, predicted):
        shape = jax.ShapeDtypeStruct((), np.float32)
        nothing = jax.lax.stop_gradient(predicted.sum()) * 0
        return (truth - predicted) ** 2 + jax.pure_callback(np.zeros_like, shape, nothing)

    model = of_layers(keras.layers.Dense(4, activity_regularizer="l2"))
    model.compile(keras.optimizers.SGD(learning_rate), loss)
    return model


def test_a_run_is_the_same_after_an_attempt_to_bundle_it():
    """Losing this: what the attempt has left in the model fails all its runs."""
    kind = {"builder": alone_by_its_loss, "run": {"batch_size": 32}, "rates": (0.1,)}
    data, engine = rows_of_numbers(), JaxEngine()
    after, _ = together(engine, started(engine, folds=[data, data], **kind), 1)
    (straight,) = started(JaxEngine(), folds=[data], **kind)
    assert after.losses == straight.advance(1).losses
