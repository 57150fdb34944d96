"""The JAX engine: a run of a bundle is the run that it would be alone, to float tolerance."""

from __future__ import annotations

import dataclasses
import gc
import json
import subprocess
import sys
import weakref

import numpy as np
import pytest

from stormsweep.errors import DivergedError, RunError
from stormsweep.training.engine import FoldData, OutOfMemoryError, Turning
from stormsweep.training.keras_jax import JaxEngine
from stormsweep.training.seeds import batch_order
from tests.on_jax.runs import (
    FOLDS,
    INPUTS,
    LABELS,
    NEAR,
    RATES,
    RUN,
    SEED,
    WEIGHTED,
    alike,
    normalized,
    rows_of_numbers,
    started,
    together,
)
from tests.schedules import warming

# After `runs`, which has Keras compute with JAX.
from stormsweep.models import storm_cnn, storm_dnn  # isort: skip
from stormsweep.training import bundle, checkpoint  # isort: skip


@pytest.mark.parametrize(
    ("builder", "run", "folds"),
    [
        pytest.param(
            storm_cnn,
            {**RUN, "dropout": 0.3, "l2": 1e-3},
            FOLDS[:2],
            marks=pytest.mark.slow,
            id="cnn",
        ),
        pytest.param(normalized, {"batch_size": 32}, WEIGHTED, id="batch-normalization"),
    ],
)
def test_a_bundle_is_its_runs_trained_alone(builder, run, folds):
    engine = JaxEngine()
    bundled = started(engine, builder, run, folds, RATES[:2])
    results = together(engine, bundled, 2)
    assert {result.together for result in results} == {len(bundled)}
    predicted = engine.predict(bundled, [run.data.validation for run in bundled])
    for own, result, p, alone in zip(
        bundled, results, predicted, started(engine, builder, run, folds, RATES[:2]), strict=True
    ):
        expected = alone.advance(2)
        assert result.losses == pytest.approx(expected.losses, rel=1e-4)
        assert (result.patches, result.updates) == (expected.patches, expected.updates)
        alike(own, alone)
        np.testing.assert_allclose(p, alone.predict(alone.data.validation), **NEAR)
        np.testing.assert_allclose(p, alone.predict(np.arange(50), INPUTS[250:]), **NEAR)


def with_schedule(input_shape, learning_rate):
    """A schedule of one's own is a constant of the program, whatever its configuration says."""
    import keras

    model = storm_dnn(input_shape)
    model.compile(keras.optimizers.SGD(warming(learning_rate)), "binary_crossentropy")
    return model


def test_learning_rates_that_are_constants_are_not_trained_as_one():
    run, data, rates = {"batch_size": 32}, [rows_of_numbers()], (0.001, 1.0)
    engine = JaxEngine()
    results = together(engine, started(engine, with_schedule, run, data, rates), 2)
    for result, rate in zip(results, rates, strict=True):
        (alone,) = started(JaxEngine(), with_schedule, run, data, (rate,))
        assert result.losses == pytest.approx(alone.advance(2).losses, rel=1e-4)


def with_drawn_constants(learning_rate, late):
    import keras

    class Features(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.drawn = None if late else keras.random.normal((3, 8))

        def build(self, shape):
            if late:
                self.drawn = np.random.normal(size=(3, 8)).astype(np.float32)  # noqa: NPY002

        def call(self, x):
            return x @ self.drawn

    model = keras.Sequential([Features(), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(learning_rate), "binary_crossentropy")
    return model


@pytest.mark.parametrize("late", [False, True])
def test_numbers_that_a_model_draws_are_not_those_of_another_fold(late):
    run, data = {"batch_size": 32, "late": late}, [rows_of_numbers()] * 2
    engine = JaxEngine()
    bundled = together(engine, started(engine, with_drawn_constants, run, data, (0.1,)), 2)
    for number, result in enumerate(bundled):
        alone = JaxEngine().start(
            with_drawn_constants, {**run, "learning_rate": 0.1}, SEED, number, data[number]
        )
        assert result.losses == pytest.approx(alone.advance(2).losses, rel=1e-4)


def with_drawing_loss(learning_rate):
    import keras

    def loss(truth, predicted):
        return (truth - predicted) ** 2 * np.random.uniform(0.1, 10)  # noqa: NPY002

    model = keras.Sequential([keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(learning_rate), loss)
    return model


def test_what_a_loss_draws_does_not_depend_on_what_was_drawn_before():
    losses = []
    for before in (1, 2):
        run = JaxEngine().start(
            with_drawing_loss, {"batch_size": 32, "learning_rate": 0.1}, SEED, 0, rows_of_numbers()
        )
        np.random.seed(before)  # noqa: NPY002
        losses.append(run.advance(1).losses)
    assert losses[0] == losses[1]


def test_what_a_loss_draws_is_the_same_in_a_bundle_and_alone():
    """Losing this: the scores of such a model depend on what it happened to be trained with."""
    kind = {"batch_size": 32}, [rows_of_numbers(70), rows_of_numbers(90)], (0.1,)
    one, other = JaxEngine(), JaxEngine()
    bundled = together(one, started(one, with_drawing_loss, *kind), 1)
    alone = [run.advance(1) for run in started(other, with_drawing_loss, *kind)]
    for own, expected in zip(bundled, alone, strict=True):
        assert own.losses == pytest.approx(expected.losses, rel=1e-5)


def test_an_epoch_is_that_of_keras_fit():
    import keras

    data = rows_of_numbers()
    run = JaxEngine().start(storm_dnn, {"batch_size": 32, "learning_rate": 0.1}, SEED, 0, data)
    model = storm_dnn((3,), learning_rate=0.1)
    model.set_weights(run.program.model.get_weights())
    order = batch_order(data.train, SEED, 0, 1)
    x, y = data.inputs[order], data.labels[order]
    losses = model.fit(x, y, batch_size=32, shuffle=False, verbose=0).history["loss"]
    assert run.advance(1).losses == pytest.approx(losses, rel=1e-5)
    run.program.assign(run.state())
    for own, theirs in zip(run.program.model.weights, model.weights, strict=True):
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (own, theirs)), **NEAR)


def averaging(learning_rate):
    """A model whose optimizer keeps moving averages of the weights, for the end of a fit."""
    import keras

    layers = [keras.layers.Input((3,)), keras.layers.Dense(6, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])
    inner = keras.optimizers.Adam(learning_rate, use_ema=True, ema_momentum=0.95)
    model.compile(keras.optimizers.LossScaleOptimizer(inner), "binary_crossentropy")
    return model


def test_moving_averages_are_scored_and_delivered_as_by_keras_fit(tmp_path):
    # Else a search over an optimizer with use_ema would rank models that nobody gets.
    import keras

    data = rows_of_numbers()
    cases = data.inputs[data.validation]
    engine = JaxEngine()
    runs = started(engine, averaging, {"batch_size": 32}, [data], (0.02, 0.05))
    model = averaging(0.02)
    model.set_weights(runs[0].program.model.get_weights())
    order = batch_order(data.train, SEED, 0, 1)
    model.fit(data.inputs[order], data.labels[order], batch_size=32, shuffle=False, verbose=0)

    together(engine, runs, 1)
    scored, _ = engine.predict(runs, [data.validation] * 2)
    np.testing.assert_allclose(scored, model.predict(cases, verbose=0)[:, 0], **NEAR)
    file, _ = runs[0].save(tmp_path, cases)
    delivered = keras.saving.load_model(tmp_path / file, compile=False)
    np.testing.assert_allclose(delivered.predict(cases, verbose=0)[:, 0], scored, **NEAR)
    weights = runs[0].state()["trainable/000"]
    assert np.abs(weights - np.asarray(delivered.weights[0].value)).max() > 0.01
    (straight,) = started(JaxEngine(), averaging, {"batch_size": 32}, [data], (0.02,))
    straight.advance(2)
    together(engine, runs, 2)
    alike(runs[0], straight)


def small(learning_rate):
    import keras

    model = keras.Sequential([keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(learning_rate), "binary_crossentropy")
    return model


def wide(learning_rate):
    import keras

    layers = [keras.layers.Dense(20_000), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "binary_crossentropy")
    return model


def test_a_run_goes_on_from_its_checkpoint_in_any_bundle(tmp_path):
    kind = {"builder": normalized, "run": {"batch_size": 32}, "folds": FOLDS[:2]}
    engine = JaxEngine()
    whole = started(engine, **kind)
    together(engine, whole, 3)
    first = started(engine, **kind)
    together(engine, first, 1)
    for number, own in enumerate(first):
        checkpoint.save(tmp_path, f"run{number}", 1, own.state(), {})

    fresh = JaxEngine()
    resumed = started(fresh, **kind)
    for number, own in enumerate(resumed):
        own.restore(checkpoint.load(tmp_path, f"run{number}", 1)[0], 1)
    together(fresh, resumed[:5], 3)
    resumed[5].advance(3)
    for own, expected in zip(resumed, whole, strict=True):
        assert own.epoch == 3
        alike(own, expected)
    with pytest.raises(RunError, match="another model"):
        started(fresh, run={**RUN, "filters": [2]})[0].restore(resumed[0].state(), 3)


def test_nothing_is_compiled_that_there_is_no_time_for():
    """Losing this: a worker killed by its walltime while it compiles what it has no time to run."""
    engine, asked = JaxEngine(), []

    def never(seconds, ahead=0.0):
        asked.append((seconds, ahead))
        return False

    one, other = (
        started(engine, storm_dnn, {"batch_size": size}, [rows_of_numbers()], [0.1])[0]
        for size in (32, 64)
    )
    left = one.advance(1, never)
    assert (one.epoch, left.compile_seconds, asked) == (0, 0.0, [(None, 0.0)])
    took = one.advance(1).compile_seconds
    assert took > 0
    one.advance(2, never)
    assert asked[1:] == [(None, 0.0)], "what is compiled already takes no time"
    other.advance(1, never)
    assert asked[2:] == [(None, took)], "another program will take about as long"


def test_a_bundle_left_at_an_epoch_goes_on_to_the_bit(tmp_path):
    kind = {"builder": normalized, "run": {"batch_size": 32}, "folds": FOLDS[:2]}
    engine = JaxEngine()
    whole = started(engine, **kind)
    expected = together(engine, whole, 4)
    first, asked = started(engine, **kind), []

    def go_on(seconds, ahead=0.0):
        asked.append(seconds)
        return len(asked) < 3

    left = {id(run): result for part in engine.train(first, 4, go_on) for run, result in part}
    assert asked[0] is None
    assert all(0 < seconds < 60 for seconds in asked[1:])
    assert {run.epoch for run in first} == {2}
    for number, own in enumerate(first):
        checkpoint.save(tmp_path, f"run{number}", 2, own.state(), {})

    fresh = JaxEngine()
    resumed = started(fresh, **kind)
    for number, own in enumerate(resumed):
        own.restore(checkpoint.load(tmp_path, f"run{number}", 2)[0], 2)
    ((one, nothing),) = next(iter(fresh.train(resumed[:1], 4, lambda seconds, ahead=0.0: False)))
    assert (one.epoch, nothing.losses, nothing.patches) == (2, [], 0)
    rest = together(fresh, resumed, 4)
    for own, run, before, after, all_of in zip(resumed, whole, first, rest, expected, strict=True):
        assert left[id(before)].losses + after.losses == all_of.losses
        for name, value in run.state().items():
            assert np.array_equal(own.state()[name], value), name


def test_a_run_that_diverges_leaves_the_others_alone():
    engine = JaxEngine()
    runs = started(engine, normalized, {"batch_size": 32}, FOLDS[:1], (0.01, 1e38, 0.02))
    good, bad, other = together(engine, runs, 2)
    assert isinstance(bad, DivergedError)
    assert "in epoch 1" in str(bad)
    expected = started(engine, normalized, {"batch_size": 32}, FOLDS[:1], (0.01, 0.02))
    for run, result, alone in zip(runs[::2], (good, other), expected, strict=True):
        assert result.losses == pytest.approx(alone.advance(2).losses, rel=1e-4)
        alike(run, alone)


def test_a_bundle_that_does_not_fit_is_trained_in_parts(monkeypatch):
    engine = JaxEngine()
    runs = started(engine, storm_dnn, {"batch_size": 32}, [rows_of_numbers()], np.arange(1, 9) / 99)
    monkeypatch.setattr(bundle, "free_memory", lambda: 1.0)
    together(engine, runs, 1)
    assert runs[0].program.most == 1
    monkeypatch.undo()

    train, calls = bundle.BundleProgram.train, []

    def full(self, states, data, weights, epoch):
        calls.append(len(weights))
        if len(weights) > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return train(self, states, data, weights, epoch)

    monkeypatch.setattr(bundle.BundleProgram, "train", full)
    runs[0].program.most = None
    parts = [len(part) for part in engine.train(runs, 2)]
    assert parts == [2, 2, 2, 2]
    assert calls == [8, 4, 2, 2, 2, 2]
    assert all(run.epoch == 2 for run in runs)

    def always(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(bundle.BundleProgram, "train", always)
    with pytest.raises(OutOfMemoryError, match="memory is full"):
        runs[0].advance(3)


def test_the_models_of_runs_that_share_a_program_do_not_fill_the_device(monkeypatch):
    """Losing this: dropped models take the memory, and bundles get smaller for good."""
    made = []

    def build(learning_rate, late=False):
        model = with_drawn_constants(learning_rate, late) if late else normalized(learning_rate)
        made.append(weakref.ref(model))
        return model

    def alive():
        return sum(model() is not None for model in made)

    seen, free = [], bundle.free_memory
    monkeypatch.setattr(bundle, "free_memory", lambda: seen.append(alive()) or free())
    engine, run, data = JaxEngine(), {"batch_size": 32}, [rows_of_numbers()]
    gc.collect()
    gc.disable()
    try:
        runs = started(engine, build, run, data, np.arange(1, 11) / 99)
        assert alive() < 10
        together(engine, runs[:2], 1)
        assert seen == [1]
        for rate in range(1, 11):  # none of these has a program that another could share
            started(engine, build, {**run, "late": True}, data, (rate / 99,))
        assert alive() < 10
    finally:
        gc.enable()


def test_what_did_not_fit_is_off_the_device_when_half_of_it_is_predicted(monkeypatch):
    """Losing this: runs that would fit fail when they are scored, with all their epochs trained."""
    engine, data = JaxEngine(), rows_of_numbers()
    runs = started(engine, storm_dnn, {"batch_size": 32}, [data], (0.1, 0.2, 0.3, 0.4))
    predict, sizes, held = bundle.BundleProgram.predict, [], []

    def full(self, states, *rest):
        held.append(weakref.ref(states[0][0]))
        sizes.append(states[0][0].shape[0])
        if sizes[-1] > 2 or sum(one() is not None for one in held) > 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return predict(self, states, *rest)

    monkeypatch.setattr(bundle.BundleProgram, "predict", full)
    engine.predict(runs, [data.validation] * 4)
    assert sizes == [4, 2, 2]


def read_first_by(learning_rate, how):
    import keras

    layers = keras.layers
    inputs = keras.Input((3,), dtype="int32" if how == "whole numbers" else None)
    begins = {
        "operation": lambda x: keras.ops.floor(x * 1000) / 1000,
        "layer": layers.Dense(4, dtype="float32"),
        "nested": keras.Sequential([keras.Input((3,)), layers.Dense(4, dtype="float32")]),
        "categories": layers.CategoryEncoding(600, output_mode="multi_hot"),
        "whole numbers": lambda x: layers.Flatten()(
            layers.Embedding(600, 2)(layers.Reshape((3,))(x))
        ),
        "rounded": layers.Dense(4),
        "rounded twice": lambda x: keras.ops.concatenate(
            [layers.Dense(4)(x), layers.Flatten()(x)], -1
        ),
    }
    outputs = layers.Dense(1, activation="sigmoid", dtype="float32")(begins[how](inputs))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(learning_rate), "binary_crossentropy")
    return model


@pytest.mark.parametrize(
    "how",
    ["operation", "layer", "nested", "categories", "whole numbers", "rounded", "rounded twice"],
)
def test_a_model_that_reads_its_cases_in_float32_is_trained_on_them_as_they_are(how):
    """Losing this: validation scores of a model in bfloat16 are not those of `predict`."""
    engine, data = JaxEngine("bfloat16"), rows_of_numbers()
    if how in ("categories", "whole numbers"):
        inputs = np.random.default_rng(0).integers(0, 600, data.inputs.shape).astype(np.float32)
        data = dataclasses.replace(data, inputs=inputs)
    (run,) = started(engine, read_first_by, {"batch_size": 32, "how": how}, [data], (0.1,))
    kept = engine.resident(data, run.program.cases).inputs.dtype.name
    assert kept == ("bfloat16" if how.startswith("rounded") else "float32")
    alone = run.predict(np.arange(50), data.inputs[data.validation])
    assert run.predict(data.validation).tolist() == alone.tolist()


def test_the_room_that_a_bundle_needs_is_not_that_of_its_states_again(monkeypatch):
    """Losing this: bundles of models with a large state are trained in more parts than they must"""
    engine, beside = JaxEngine(), []
    needed = bundle._needed

    def asked(compiled, there):
        beside.append(needed(compiled, there) - compiled.memory_analysis().temp_size_in_bytes)
        return needed(compiled, there)

    monkeypatch.setattr(bundle, "_needed", asked)
    runs = started(engine, wide, {"batch_size": 32}, [rows_of_numbers(64)], (0.1, 0.2))
    together(engine, runs, 1)
    state = sum(value.nbytes for value in runs[0].state().values())
    assert 0 <= beside[0] < 0.1 * state


def test_bundles_of_many_sizes_do_not_pile_up_compiled(monkeypatch):
    """Losing this: under a strategy that drops runs, a worker's memory grows with each bundle."""
    import jax

    monkeypatch.setattr(bundle, "_KEPT", 4)
    client = jax.devices()[0].client
    engine, data = JaxEngine(), rows_of_numbers(64)
    runs = started(engine, small, {"batch_size": 32}, [data], np.arange(1, 9) / 99)
    compiled = []
    for size in range(1, 8):
        together(engine, runs[:size], size)
        engine.predict(runs[:size], [data.validation[:1]] * size)
        gc.collect()
        names = [one.hlo_modules()[0].name for one in client.live_executables()]
        compiled.append(sum("epoch" in name or "outputs" in name for name in names))
    assert compiled[-1] == compiled[-2]


@pytest.mark.parametrize("step", ["build", "predict", "save"])
def test_a_full_device_is_called_so_whatever_is_done_then(step, monkeypatch, tmp_path):
    """Losing this: the report blames the user's builder, or an error nobody has seen before."""

    def full(*_, **__):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes")

    run = JaxEngine().start(
        storm_dnn, {"batch_size": 32, "learning_rate": 0.1}, SEED, 0, rows_of_numbers()
    )
    monkeypatch.setattr(bundle.BundleProgram, "stack", full)
    monkeypatch.setattr(bundle.BundleProgram, "assign", full)
    cases = INPUTS[:2, 0, 0]
    steps = {
        "build": lambda: JaxEngine().start(full, {"batch_size": 32}, SEED, 0, rows_of_numbers()),
        "predict": lambda: run.predict(np.arange(2), cases),
        "save": lambda: run.save(tmp_path, cases),
    }
    with pytest.raises(OutOfMemoryError, match="the device's memory is full: RESOURCE_EXHAUSTED"):
        steps[step]()


def outside(learning_rate):
    """A layer that leaves JAX, and cannot do so for several runs at once."""
    import jax
    import keras

    class Outside(keras.layers.Layer):
        def call(self, x):
            def seen(values):
                return np.zeros_like(values)

            shape = jax.ShapeDtypeStruct((), np.float32)
            return x + jax.pure_callback(seen, shape, jax.lax.stop_gradient(x.sum()) * 0)

        def compute_output_shape(self, shape):
            return shape

    model = keras.Sequential([Outside(), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(learning_rate), "binary_crossentropy")
    return model


def test_a_model_that_cannot_be_bundled_is_trained_one_run_after_another(caplog):
    engine = JaxEngine()
    data = rows_of_numbers()
    runs = started(engine, outside, {"batch_size": 32}, [data, data], (0.01,))
    results = together(engine, runs, 2)
    assert [result.together for result in results] == [1, 1]
    said = [record for record in caplog.records if "one after another" in record.message]
    assert len(said) == 1


def test_an_error_that_one_run_brings_on_fails_no_other(monkeypatch):
    engine = JaxEngine()
    runs = started(engine, storm_dnn, {"batch_size": 32}, [rows_of_numbers()], (0.1, 0.25, 0.3))
    train = bundle.BundleProgram.train

    def raising(self, states, *rest):
        if any(np.any(np.asarray(value) == 0.25) for value in states[2] if value.ndim == 1):
            raise RuntimeError("INTERNAL: CpuCallback error: a layer saw NaN")
        return train(self, states, *rest)

    monkeypatch.setattr(bundle.BundleProgram, "train", raising)
    one, bad, other = together(engine, runs, 1)
    assert one.together == other.together == 1
    assert str(bad) == "the model cannot be trained: INTERNAL: CpuCallback error: a layer saw NaN"


def test_what_cannot_be_trained_fails_in_one_line():
    turning = Turning(5.0, False, True, (), (0.0,) * 3, (1.0,) * 3)
    turned = FoldData(INPUTS, LABELS, np.arange(9), np.arange(9), None, 0.4, turning=turning)
    with pytest.raises(RunError, match="on the fly by the engine tensorflow only"):
        JaxEngine().start(storm_cnn, {**RUN, "learning_rate": 0.1}, SEED, 0, turned)

    def unseeded():
        import keras

        class Noise(keras.layers.Layer):
            def call(self, x):
                return x + keras.random.normal((4,))

        return keras.Sequential([keras.layers.Flatten(), Noise(), keras.layers.Dense(1)])

    with pytest.raises(RunError, match="only use seeded random ops"):
        JaxEngine().start(unseeded, {"batch_size": 32}, SEED, 0, rows_of_numbers()).advance(1)


def featured():
    """A model with a constant that no file of weights has."""
    import keras

    class Features(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.mixing = np.random.normal(size=(432, 8)).astype("float32")  # noqa: NPY002

        def call(self, x):
            return keras.ops.tanh(keras.ops.matmul(x, self.mixing) / 16)

    last = keras.layers.Dense(1, activation="sigmoid")
    return keras.Sequential([keras.layers.Flatten(), Features(), last])


def test_a_model_of_weights_is_built_again_as_its_run_did(tmp_path):
    from stormsweep.training.saving import CHECK, check_model, rebuilt

    run = JaxEngine().start(featured, {"batch_size": 32}, SEED, 2, FOLDS[0])
    run.advance(1)
    file, form = run.save(tmp_path, INPUTS[:20])
    assert form == "weights"
    predicted = run.predict(np.arange(300), INPUTS)
    for number, problem in ((2, ""), (0, "probabilities differ by")):

        def rebuild(number=number):
            return rebuilt(tmp_path / file, featured, {}, INPUTS.shape[1:], "float32", SEED, number)

        found = check_model(tmp_path / file, rebuild, INPUTS, predicted)
        assert found.startswith(problem)
        assert bool(found) == bool(problem)
    assert (tmp_path / CHECK).is_file()


def test_what_outlives_a_build_is_refused_before_anything_is_trained():
    import keras

    def sharing(*made):
        for layer in made[:-1]:  # only the last is trained
            layer.trainable = False
        return lambda: keras.Sequential([*made, keras.layers.Dense(1, activation="sigmoid")])

    def start(builder):
        return JaxEngine().start(builder, {"batch_size": 32}, SEED, 0, rows_of_numbers())

    frozen, drops = keras.layers.Dense(4), keras.layers.Dropout(0.3, name="drops")
    for _ in range(2):
        with pytest.raises(RunError, match="dense/kernel with one that it returned before"):
            start(sharing(keras.layers.Dense(4)))
        with pytest.raises(RunError, match="shares drops/seed_generator_state with"):
            start(sharing(frozen, drops))
    first, second = (start(sharing(frozen, keras.layers.ReLU())).state() for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)


_ASK_TENSORFLOW = """
import sys, json
from pathlib import Path
from stormsweep.training.keras_tf import configure
configure(1)
import numpy as np
from stormsweep.training.inference import Predictor, load_model
cases = np.load(sys.argv[1])
for file in map(Path, sys.argv[2:]):
    model = load_model(file, "keras", lambda: None, {}, cases.shape[1:])
    print(json.dumps(Predictor(model)(cases).tolist()))
"""


@pytest.mark.slow
def test_tensorflow_loads_the_models_of_both_precisions_and_predicts_the_same(tmp_path):
    np.save(tmp_path / "cases.npy", INPUTS[250:])
    expected, files = [], []
    for precision in ("float32", "bfloat16"):
        engine = JaxEngine(precision)
        rate = {"learning_rate": 0.005}
        run = engine.start(storm_cnn, {**RUN, "dropout": 0.2, **rate}, SEED, 0, FOLDS[0])
        run.advance(1)
        assert engine.resident(FOLDS[0], run.program.cases).inputs.dtype.name == precision
        folder = tmp_path / precision
        folder.mkdir()
        file, form = run.save(folder, INPUTS[:20])
        assert form == "keras"
        expected.append(run.predict(FOLDS[0].validation))
        files.append(str(folder / file))
    assert 0 < np.abs(expected[0] - expected[1]).max() < 0.1
    asked = subprocess.run(
        [sys.executable, "-c", _ASK_TENSORFLOW, str(tmp_path / "cases.npy"), *files],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line, own, near in zip(asked.stdout.splitlines()[-2:], expected, (1e-5, 0.02), strict=True):
        np.testing.assert_allclose(json.loads(line), own, atol=near)
