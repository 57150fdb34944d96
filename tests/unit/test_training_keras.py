"""The TensorFlow engine: exact sharing, exact resumption, and the weights of Keras's own `fit`."""

import gc
import math
import random
import weakref
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest

from stormsweep.errors import DivergedError, RunError
from stormsweep.models import storm_cnn, storm_dnn
from stormsweep.training import checkpoint, structure
from stormsweep.training.engine import FoldData
from stormsweep.training.kept import PROGRAMS_KEPT, Kept
from stormsweep.training.keras_tf import KerasEngine, alias, configure
from stormsweep.training.seeds import batch_order, initial_seed
from tests.marks import slow
from tests.schedules import warming

SEED = 11
#: 150 rows in batches of 32: the last batch is a partial one.
PLAIN = {"batch_size": 32, "learning_rate": 0.005, "filters": [4, 8]}
DROPOUT = {**PLAIN, "dropout": 0.3, "l2": 1e-3}


@pytest.fixture(scope="module")
def keras():
    configure(1)
    import keras

    return keras


@pytest.fixture
def engine(keras):
    return KerasEngine()


def aligned(array):
    """Copy an array to memory that begins where TensorFlow can use it, as .npy maps do."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def fold_data(class_weight=None, shape=(12, 12, 3)):
    generator = np.random.default_rng(5)
    inputs = generator.standard_normal((200, *shape), dtype=np.float32)
    labels = (inputs.reshape(200, -1)[:, :4].sum(1) > 0.3).astype(np.uint8)
    return FoldData(aligned(inputs), labels, np.arange(150), np.arange(150, 200), class_weight, 0.4)


DATA = fold_data()
ROWS = fold_data(shape=(4,))


def trained(engine, milestones, run=PLAIN, builder=storm_cnn, data=DATA, fold=1):
    """Train a run and return its trajectory and its predictions at the milestones."""
    trajectory = engine.start(builder, {"batch_size": 32, **run}, SEED, fold, data)
    predictions = []
    for epoch in milestones:
        trajectory.advance(epoch)
        predictions.append(trajectory.predict(data.validation))
    return trajectory, predictions


def equal_states(one, other):
    """Demand that two trajectories are at the same state, to the bit."""
    expected, found = one.state(), other.state()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name


def trains_as_alone(engine, run, builder=storm_cnn, data=DATA, fold=1):
    """Demand that a run trains with what an engine has compiled as it does with a new one."""
    reused, (predicted,) = trained(engine, [2], run, builder, data, fold)
    alone, (expected,) = trained(KerasEngine(), [2], run, builder, data, fold)
    assert np.array_equal(predicted, expected)
    equal_states(alone, reused)


def everything(learning_rate=0.01):
    """A model with all kinds of state, batch norm and a global random generator among them."""
    import keras

    class Noise(keras.layers.Layer):
        def call(self, x, training=False):
            return x + 0.3 * keras.random.normal((4,)) if training else x

    model = keras.Sequential(
        [
            keras.layers.Flatten(),
            Noise(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(learning_rate), "binary_crossentropy")
    return model


CASES = [
    pytest.param(storm_cnn, DROPOUT, DATA, id="cnn-dropout"),
    slow(everything, {"batch_size": 32}, ROWS, id="everything"),
]


@pytest.mark.parametrize(
    ("builder", "run", "data", "milestones"),
    [
        pytest.param(storm_cnn, DROPOUT, DATA, [1, 3], id="cnn-dropout"),
        slow(everything, {"batch_size": 32}, ROWS, [1, 3], id="everything"),
    ],
)
def test_a_shared_run_scores_like_separate_fits_to_the_bit(keras, builder, run, data, milestones):
    _, shared = trained(KerasEngine(), milestones, run, builder, data)
    for epoch, prediction in zip(milestones, shared, strict=True):
        _, (alone,) = trained(KerasEngine(), [epoch], run, builder, data)
        assert np.array_equal(alone, prediction), epoch


@pytest.mark.parametrize(
    ("builder", "run", "data"),
    [
        slow(storm_cnn, DROPOUT, DATA, id="cnn-dropout"),
        pytest.param(everything, {"batch_size": 32}, ROWS, id="everything"),
    ],
)
def test_a_run_goes_on_from_its_checkpoint_to_the_bit(keras, tmp_path, builder, run, data):
    whole, predictions = trained(KerasEngine(), [2, 5], run, builder, data)
    first, _ = trained(KerasEngine(), [2], run, builder, data)
    checkpoint.save(tmp_path, "run", 2, first.state(), {})
    state, _ = checkpoint.load(tmp_path, "run", 2)

    resumed = KerasEngine().start(builder, run, SEED, 1, data)
    resumed.restore(state, 2)
    assert resumed.epoch == 2
    assert np.array_equal(resumed.predict(data.validation), predictions[0])
    resumed.advance(5)
    assert np.array_equal(resumed.predict(data.validation), predictions[1])
    assert any(name.startswith("extra/") for name in state) == (builder is everything)
    equal_states(whole, resumed)


@pytest.mark.parametrize(("builder", "run", "data"), CASES)
def test_a_run_left_at_an_epoch_goes_on_to_the_bit(keras, builder, run, data):
    run = {"batch_size": 32, **run}
    whole = KerasEngine().start(builder, run, SEED, 1, data)
    expected = whole.advance(5)
    asked = []

    def until(epoch):
        def go_on(seconds):
            asked.append(seconds)
            return first.epoch < epoch

        return go_on

    first = KerasEngine().start(builder, run, SEED, 1, data)
    left = first.advance(5, until(0))
    assert (first.epoch, left.losses, left.patches, left.updates) == (0, [], 0, 0)
    left = first.advance(5, until(3))
    assert first.epoch == 3
    assert (left.patches, left.updates) == (3 * len(data.train), 3 * 5)
    assert asked[:2] == [None, None], "before the first epoch there is no time to tell"
    assert all(0 < seconds < 60 for seconds in asked[2:])
    assert len(asked) == 1 + 1 + 3

    resumed = KerasEngine().start(builder, run, SEED, 1, data)
    resumed.restore(first.state(), 3)
    rest = resumed.advance(5, lambda seconds: True)
    assert left.losses + rest.losses == expected.losses
    equal_states(whole, resumed)


def test_a_run_is_the_same_whatever_the_worker_trained_before(engine):
    # One compiled program serves all learning rates and folds; nothing of a run may stay in it.
    fresh = {
        (rate, fold): trained(KerasEngine(), [2], {**DROPOUT, "learning_rate": rate}, fold=fold)[
            0
        ].state()
        for rate, fold in ((0.002, 0), (0.02, 1))
    }
    for (rate, fold), state in [*fresh.items(), *fresh.items()]:
        reused, _ = trained(engine, [2], {**DROPOUT, "learning_rate": rate}, fold=fold)
        for name, value in reused.state().items():
            assert np.array_equal(state[name], value), (rate, fold, name)
    assert len(engine._programs) == 1


def test_only_the_first_run_of_a_structure_is_compiled(engine):
    seconds = [
        engine.start(storm_dnn, {"batch_size": 32, "learning_rate": rate}, SEED, fold, ROWS)
        .advance(1)
        .compile_seconds
        for rate in (0.01, 0.1)
        for fold in (0, 1)
    ]
    assert seconds[0] > 0
    assert seconds[1:] == [0, 0, 0]


def test_runs_may_take_turns_on_one_program(engine):
    alone = [
        trained(KerasEngine(), [3], {**PLAIN, "learning_rate": rate})[1] for rate in (0.001, 0.01)
    ]
    trained(engine, [1])
    turns = [
        engine.start(storm_cnn, {**PLAIN, "learning_rate": rate}, SEED, 1, DATA)
        for rate in (0.001, 0.01)
    ]
    for epoch in (1, 2, 3):
        for trajectory in turns:
            trajectory.advance(epoch)
    assert len(engine._programs) == 1
    for trajectory, (prediction,) in zip(turns, alone, strict=True):
        assert np.array_equal(trajectory.predict(DATA.validation), prediction)


def test_runs_of_any_batch_size_share_a_program(engine):
    # Else a worker compiles anew for every batch size of a grid.
    trained(engine, [1], PLAIN)
    for size in (8, 64):
        trains_as_alone(engine, {**PLAIN, "batch_size": size})
    assert len(engine._programs) == 1


def sized(batch_size, learning_rate):
    return storm_dnn((4,), width=batch_size, learning_rate=learning_rate)


def test_a_model_that_follows_its_batch_size_is_another_program(engine):
    for size in (4, 8):
        trained(engine, [1], {"batch_size": size, "learning_rate": 0.01}, sized, ROWS)
    assert len(engine._programs) == 2


def test_other_settings_are_another_program(engine):
    # Momentum is a constant of the graph: sharing it would train with the wrong one.
    trained(engine, [1], {"momentum": 0.0}, storm_dnn, ROWS)
    trains_as_alone(engine, {"momentum": 0.9}, storm_dnn, ROWS)
    assert len(engine._programs) == 2


def with_closure(slope):
    """Keras writes a lambda down as its name, without what it closes over."""
    import keras

    return keras.Sequential(
        [
            keras.layers.Dense(4, activation=lambda x: keras.ops.leaky_relu(x, slope)),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def test_models_that_differ_in_a_closure_only_do_not_share_a_program(engine):
    trained(engine, [1], {"slope": 0.0}, with_closure, ROWS)
    trains_as_alone(engine, {"slope": 0.5}, with_closure, ROWS)


def with_schedule(learning_rate):
    import keras

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(warming(learning_rate)), "binary_crossentropy")
    return model


def with_silent_schedule(learning_rate):
    import keras

    class Silent(type(warming(learning_rate))):
        def get_config(self):
            return {}

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(Silent(learning_rate)), "binary_crossentropy")
    return model


def with_named_rate(learning_rate):
    import keras

    def rate():
        return learning_rate

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy")
    return model


def with_constraint_of_the_builder(learning_rate):
    """A class whose methods close over the rate, which its configuration does not tell."""
    import keras

    class Shrunk(keras.constraints.Constraint):
        def __call__(self, weights):
            return weights * learning_rate

    last = keras.layers.Dense(1, activation="sigmoid", kernel_constraint=Shrunk())
    model = keras.Sequential([keras.layers.Dense(4), last])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    return model


def with_own_relu(learning_rate):
    """Keras writes it down as if it were its own activation of that name."""
    import keras

    def relu(x):
        return keras.ops.relu(x) * learning_rate

    layers = [keras.layers.Dense(4, activation=relu), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    return model


def with_one_of_two_losses(learning_rate):
    import keras

    if learning_rate < 0.1:

        def loss(truth, predicted):
            return (truth - predicted) ** 2
    else:

        def loss(truth, predicted):
            return abs(truth - predicted)

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def with_rate_as_default(learning_rate):
    import keras

    def loss(truth, predicted, factor=learning_rate):
        return factor * (truth - predicted) ** 2

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def with_own_loss(learning_rate):
    import keras

    def loss(truth, predicted):
        return keras.ops.mean((truth - predicted) ** 2) * learning_rate

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def with_compiled_loss(learning_rate):
    import keras
    import tensorflow as tf

    @tf.function
    def loss(truth, predicted):
        return tf.reduce_mean((truth - predicted) ** 2) * learning_rate

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


class Scale:
    """Holds a number, and has a method that can be an activation."""

    def __init__(self, factor):
        self.factor = factor

    def apply(self, x):
        return x * self.factor


def with_method(learning_rate):
    """Keras writes a method down by its name."""
    import keras

    layers = [keras.layers.Dense(4, activation=Scale(learning_rate).apply), keras.layers.Dense(1)]
    model = keras.Sequential([*layers, keras.layers.Activation("sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    return model


def with_loss_object(learning_rate):
    import keras

    class Scaled(keras.losses.Loss):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, truth, predicted):
            return keras.ops.mean((truth - predicted) ** 2) * self.factor

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(0.1), Scaled(learning_rate))
    return model


@pytest.mark.parametrize(
    "builder",
    [
        with_schedule,
        slow(with_silent_schedule),
        slow(with_named_rate),
        slow(with_constraint_of_the_builder),
        slow(with_own_relu),
        slow(with_one_of_two_losses),
        with_rate_as_default,
        with_own_loss,
        slow(with_compiled_loss),
        slow(with_method),
        with_loss_object,
    ],
)
def test_a_learning_rate_that_is_no_variable_is_not_that_of_an_earlier_run(engine, builder):
    # Else the search over learning rates is over one, and which one is chance.
    trained(engine, [1], {"learning_rate": 0.001}, builder, ROWS)
    trains_as_alone(engine, {"learning_rate": 1.0}, builder, ROWS)


def squared(truth, predicted):
    import keras

    return keras.ops.mean((truth - predicted) ** 2)


def with_plain_functions(learning_rate):
    import keras

    model = storm_dnn((4,), learning_rate=learning_rate)
    model.compile(keras.optimizers.SGD(learning_rate), squared)
    return model


def focal(truth, predicted, gamma=2.0, name=None):
    return abs(truth - predicted) ** gamma


def with_plain_defaults(learning_rate):
    import keras

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(learning_rate), focal)
    return model


def halved(x):
    return x / 2


def with_functions_of_keras(learning_rate):
    """And one that is registered with it."""
    import keras

    model = keras.Sequential(
        [
            keras.layers.Dense(8, activation=keras.ops.sin),
            keras.layers.Lambda(keras.ops.abs),
            keras.layers.Dense(8, keras.saving.register_keras_serializable("storms")(halved)),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.SGD(learning_rate), keras.losses.mean_absolute_error)
    return model


@pytest.mark.parametrize(
    "builder", [with_plain_functions, with_plain_defaults, with_functions_of_keras]
)
def test_learning_rates_share_a_program_with_functions_that_cannot_hold_one(engine, builder):
    # Else a search over learning rates compiles anew for each.
    trained(engine, [1], {"learning_rate": 0.01}, builder, ROWS)
    trains_as_alone(engine, {"learning_rate": 0.1}, builder, ROWS)
    assert len(engine._programs) == 1


GLOBAL = ["numpy", "keras", "tensorflow"]
LOCAL = ["generator", "initializer"]


def with_drawn_layer(how, late):
    """A layer with random numbers for constants, drawn when it is made or when it is built."""
    import keras
    import tensorflow as tf

    ways = {
        "numpy": lambda: np.random.normal(size=(4, 8)),  # noqa: NPY002
        "keras": lambda: keras.random.normal((4, 8)),
        "tensorflow": lambda: tf.random.normal((4, 8)),
        "generator": lambda: keras.random.normal((4, 8), seed=keras.random.SeedGenerator()),
        "initializer": lambda: keras.initializers.GlorotUniform()((4, 8)),
    }

    def draw():
        # A global generator tells that it was drawn from, wherever a layer hides what it got.
        hidden = how in GLOBAL
        return {1: ways[how]()}.values() if hidden else {"drawn": [ways[how]()]}

    class Features(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.held = None if late else draw()

        def build(self, shape):
            self.held = draw() if late else self.held

        def call(self, x):
            drawn = next(iter(self.held)) if how in GLOBAL else self.held["drawn"][0]
            return x @ keras.ops.cast(drawn, "float32")

    return keras.Sequential([Features(), keras.layers.Dense(1, activation="sigmoid")])


class Slotted:
    __slots__ = ("numbers",)

    def __init__(self, numbers):
        self.numbers = numbers

    def shifted(self, x):
        return x + self.numbers


class Bank:
    def __init__(self, numbers):
        self.numbers = numbers

    def shifted(self, x):
        return x + self.numbers


def with_constant(way):
    """A constant drawn by an initializer, which nothing global tells of, where users keep such."""
    import keras

    drawn = keras.initializers.RandomNormal()((4,))

    def shifted(x, numbers=drawn):
        return x + numbers

    class OfAFunction(keras.layers.Layer):
        def call(self, x):
            return x + drawn

    class Holding(keras.layers.Layer):
        def __init__(self, held):
            super().__init__()
            self._held = held

        def call(self, x):
            if callable(self._held):
                return self._held(x)
            return keras.ops.take(x, self._held, axis=-1)

        def get_config(self):
            return {}

    class Adding(keras.layers.Layer):
        def call(self, x):
            return x + self.numbers

    unknown = Adding()
    unknown.numbers = drawn
    made = keras.initializers.RandomNormal()

    def through(x):
        return unknown(x)

    def moved(x):
        return x + made((4,))

    layer = {
        "layer in a closure": lambda: keras.layers.Activation(through),
        "initializer in a closure": lambda: keras.layers.Activation(moved),
        "slots": lambda: Holding(Slotted(drawn).shifted),
        "default": lambda: keras.layers.Activation(shifted),
        "method": lambda: keras.layers.Activation(Bank(drawn).shifted),
        "closure of a class": OfAFunction,
        "object": lambda: Holding(Bank(drawn).shifted),
        "partial": lambda: Holding(partial(shifted, numbers=drawn)),
        "namespace": lambda: Holding(SimpleNamespace(f=Bank(drawn)).f.shifted),
        "whole numbers": lambda: Holding([int(n) for n in np.argsort(drawn)]),
    }[way]()
    return keras.Sequential([keras.layers.Input((4,)), layer, keras.layers.Dense(1, "sigmoid")])


def with_drawing_loss(way):
    import keras

    def loss(truth, predicted):
        if way == "NumPy":
            factor = np.random.uniform(0.1, 10)  # noqa: NPY002
        else:
            factor = keras.initializers.RandomUniform(0.1, 10)((1,))
        return (truth - predicted) ** 2 * factor

    model = storm_dnn((4,))
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


CONSTANTS = [
    *("default", "method", "closure of a class", "object", "partial", "namespace"),
    *("whole numbers", "slots", "layer in a closure", "initializer in a closure"),
]
#: One of each kind is tried every time, the others among the slow tests.
AT_LEAST = [("keras", False), ("generator", True), "default", "object"]


@pytest.mark.parametrize(
    ("builder", "run"),
    [
        *(
            pytest.param(
                with_drawn_layer,
                {"how": how, "late": late},
                id=f"{how}-{late}",
                marks=() if (how, late) in AT_LEAST else pytest.mark.slow,
            )
            for how in [*GLOBAL, *LOCAL]
            for late in (False, True)
        ),
        *(
            pytest.param(
                with_constant,
                {"way": way},
                id=way,
                marks=() if way in AT_LEAST else pytest.mark.slow,
            )
            for way in CONSTANTS
        ),
        *(pytest.param(with_drawing_loss, {"way": way}, id=way) for way in ("NumPy", "Keras")),
    ],
)
def test_numbers_that_a_model_draws_follow_seed_and_fold_of_the_run(engine, builder, run):
    # Else they are those of whichever fold its worker trained first.
    trained(engine, [1], run, builder, ROWS, fold=0)
    trains_as_alone(engine, run, builder, ROWS, fold=1)


#: What a module of a user's has measured or drawn meanwhile.
MEASURED = {"scale": 1.0}


def with_measured_scale():
    import keras

    class Scaled(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.scale = MEASURED["scale"]

        def call(self, x):
            return x * self.scale

    return keras.Sequential([Scaled(), keras.layers.Dense(1, activation="sigmoid")])


def test_a_run_does_not_train_with_the_constants_of_another(engine, monkeypatch):
    # Else its model is not the one that its builder returned.
    monkeypatch.setitem(MEASURED, "scale", 0.1)
    trained(engine, [1], {}, with_measured_scale, ROWS)
    monkeypatch.setitem(MEASURED, "scale", 10.0)
    trains_as_alone(engine, {}, with_measured_scale, ROWS)


@cache
def seed_by_name():
    """Return what ``from random import seed`` gives a module that is imported as builders are."""
    from stormsweep.training.randomness import seeded

    with seeded(5):
        return random.seed


def with_seed(seed, way="keras"):
    """A model whose builder sets the seed, in the ways that users do."""
    import keras
    import tensorflow as tf

    if way == "imported by name":
        seed_by_name()(seed)
    elif way == "one by one":
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        tf.random.set_seed(seed)
    else:
        keras.utils.set_random_seed(seed)
    if way == "before the session is cleared":
        keras.utils.clear_session()
    first = keras.layers.Dense(4)
    if way == "keras":
        keras.utils.set_random_seed(seed)
    return keras.Sequential([first, keras.layers.Dense(4), keras.layers.Dense(1, "sigmoid")])


@pytest.mark.parametrize(
    "way", ["keras", "one by one", slow("before the session is cleared"), "imported by name"]
)
def test_a_seed_that_a_builder_sets_gives_the_weights_that_keras_gives(keras, engine, way):
    # Else a search over seeds is over one, and each has the same score.
    first = {}
    for seed in (1, 2):
        model = with_seed(seed, way)
        model.build((None, 4))
        expected = model.get_weights()
        for fold in (0, 1):
            run = {"batch_size": 32, "seed": seed, "way": way}
            state = engine.start(with_seed, run, SEED, fold, ROWS).state()
            for place, value in enumerate(expected):
                assert np.array_equal(state[f"model/{place:03d}"], value)
        first[seed] = expected[0]
    assert not np.array_equal(first[1], first[2])


def test_a_builder_may_take_tensorflows_seed_away(engine):
    def build():
        import tensorflow as tf

        tf.random.set_seed(None)
        return storm_dnn((4,))

    _, told = trained(engine, [1], {}, build, ROWS)
    assert np.isfinite(told[0]).all()


def test_dask_that_measures_lists_meanwhile_costs_no_program(engine):
    # Its other threads do, from Python's generator; else a run by chance compiles anew, and on a
    # GPU falls out of its bundle.
    from dask.sizeof import sizeof

    def build():
        sizeof(list(range(100)))
        return storm_dnn((4,))

    for fold in (0, 1):
        trained(engine, [1], {}, build, ROWS, fold=fold)
    assert len(engine._programs) == 1


def count_clearings(monkeypatch):
    """Count how often TensorFlow's kernels are thrown away, as if no state had been seen yet."""
    from tensorflow.python.eager import context

    from stormsweep.training import kernels

    clearings = []
    clear = context.pywrap_tfe.TFE_ContextClearCaches

    def cleared(handle):
        clearings.append(1)
        clear(handle)

    monkeypatch.setattr(kernels, "_stateful", 0)
    monkeypatch.setattr(context.pywrap_tfe, "TFE_ContextClearCaches", cleared)
    return clearings


@pytest.mark.parametrize(
    ("builder", "run", "data"), [(storm_cnn, DROPOUT, DATA), (with_seed, {"seed": 1}, ROWS)]
)
def test_a_new_run_leaves_a_compiled_program_ready(engine, monkeypatch, builder, run, data):
    # Else every run optimizes its graph anew, a twentieth of the time of short ones.
    clearings = count_clearings(monkeypatch)
    trained(engine, [1], run, builder, data)
    trained(engine, [1], run, builder, data, fold=2)
    assert not clearings


def drawn_by_tensorflow(learning_rate=0.01):
    """A model that begins with random numbers that TensorFlow keeps a state of."""
    import keras
    import tensorflow as tf

    def drawn(shape, dtype=None):
        return 0.1 * tf.random.normal(shape, dtype=tf.as_dtype(dtype or "float32"))

    last = keras.layers.Dense(1, activation="sigmoid", kernel_initializer=drawn)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4), last])
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="binary_crossentropy")
    return model


def test_initial_weights_that_tensorflow_draws_begin_anew_with_every_run(keras, monkeypatch):
    # Else a run would depend on what its worker trained before.
    clearings = count_clearings(monkeypatch)
    run = {"learning_rate": 0.01}
    engine = KerasEngine()
    _, first = trained(engine, [1], run, drawn_by_tensorflow)
    for _ in range(2):
        _, again = trained(engine, [1], run, drawn_by_tensorflow)
        np.testing.assert_array_equal(again[0], first[0])
    assert clearings
    _, alone = trained(KerasEngine(), [1], run, drawn_by_tensorflow)
    np.testing.assert_array_equal(alone[0], first[0])


def noisy(kind):
    """A model that draws random numbers in training, or whenever it is asked."""
    import keras
    import tensorflow as tf

    class Noise(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator()

        def call(self, x, training=False):
            if training and kind == "tf.random":
                return x + tf.random.normal((4,))
            if training and kind == "tf.raw_ops":
                return x + tf.raw_ops.RandomUniform(shape=[4], dtype=tf.float32, seed=1, seed2=2)
            if not training and kind == "tf.random, asked":
                return tf.nn.dropout(x, 0.3)
            if kind == "seeded":
                return keras.random.dropout(x, 0.3, seed=self.generator)
            if kind == "unseeded":
                return keras.random.dropout(x, 0.3)
            if not training and kind == "unseeded, asked":
                return keras.random.dropout(x, 0.3)
            return x

    last = keras.layers.Dense(1, activation="sigmoid")
    return keras.Sequential([keras.layers.Flatten(), Noise(), keras.layers.Dense(4), last])


@pytest.mark.parametrize("kind", ["tf.random", "tf.raw_ops", "tf.random, asked"])
def test_numbers_whose_state_no_checkpoint_holds_are_refused_in_one_line(engine, kind):
    # Else scores would depend on what the worker trained before, and on interruptions.
    for fold in (0, 1):
        with pytest.raises(RunError, match=r"by tf\.random \(.*noise.*SeedGenerator") as caught:
            trained(engine, [1], {"kind": kind}, noisy, ROWS, fold=fold)
        assert "\n" not in str(caught.value)


def test_a_refused_model_costs_the_runs_after_it_nothing(engine, monkeypatch):
    # Else each run of it is traced to be refused again, and all others optimize their graphs anew.
    clearings = count_clearings(monkeypatch)
    run = {"batch_size": 32, "kind": "tf.random"}
    with pytest.raises(RunError, match=r"by tf\.random"):
        engine.start(noisy, run, SEED, 0, ROWS).advance(1)
    with pytest.raises(RunError, match=r"by tf\.random"):
        engine.start(noisy, run, SEED, 1, ROWS)
    trained(engine, [1], DROPOUT)
    assert not clearings


@pytest.mark.parametrize("kind", [slow("seeded"), slow("unseeded"), "unseeded, asked"])
def test_a_model_that_is_random_when_asked_trains_on_as_if_nobody_had_asked(keras, tmp_path, kind):
    # Else a run scored at [1, 2] would not be the fit of 2 epochs.
    run = {"kind": kind}
    straight, (expected,) = trained(KerasEngine(), [2], run, noisy, ROWS)
    asked, (first, last) = trained(KerasEngine(), [1, 2], run, noisy, ROWS)
    assert np.array_equal(last, expected)
    assert np.array_equal(asked.predict(ROWS.validation), last)
    asked.save(tmp_path, ROWS.inputs[:9])
    for trajectory in (straight, asked):
        trajectory.advance(3)
    equal_states(straight, asked)

    before, _ = trained(KerasEngine(), [1], run, noisy, ROWS)
    resumed = KerasEngine().start(noisy, {"batch_size": 32, **run}, SEED, 1, ROWS)
    resumed.restore(before.state(), 1)
    assert np.array_equal(resumed.predict(ROWS.validation), first)
    resumed.advance(2)
    assert np.array_equal(resumed.predict(ROWS.validation), last)


@pytest.mark.parametrize(("builder", "run", "data"), CASES)
def test_asking_a_usual_model_changes_nothing_that_must_be_put_back(engine, builder, run, data):
    # Else every score would cost a copy of the weights.
    assert trained(engine, [1], run, builder, data)[0]._program._touched == []


def test_few_programs_are_kept(engine):
    # Else a study over hundreds of structures would fill the memory.
    for width in range(1, PROGRAMS_KEPT + 3):
        engine.start(storm_dnn, {"batch_size": 32, "width": width}, SEED, 1, ROWS)
    assert len(engine._programs) == PROGRAMS_KEPT


def test_large_programs_are_given_up_sooner():
    # Eight copies of a large model and its optimizer would fill a worker's memory.
    weights = [SimpleNamespace(shape=(1_000, 100_000))]
    large = SimpleNamespace(variables=weights, optimizer=SimpleNamespace(variables=2 * weights))
    kept = Kept()
    for key in ("first", "second"):
        kept.keep(key, key, large)
    assert kept.find("first") is None
    assert kept.find("second") == "second"


def test_a_program_that_was_used_again_outlives_those_that_were_not(keras):
    model, kept = storm_dnn((4,)), Kept()
    for number in range(PROGRAMS_KEPT):
        kept.keep(number, number, model)
    assert kept.find(0) == 0
    kept.keep("new", "new", model)
    assert kept.find(0) == 0
    assert kept.find(1) is None


def unwritten(learning_rate=0.01):
    """A model that Keras cannot write down: its program is never shared."""
    import keras

    class Unwritten(keras.layers.Layer):
        def call(self, x):
            return x

        def get_config(self):
            raise NotImplementedError

    layers = [keras.layers.Flatten(), Unwritten(), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(learning_rate), "binary_crossentropy")
    return model


def test_a_model_that_cannot_be_looked_into_is_named_once(engine, caplog):
    """Losing this: a search takes many times as long, and nobody knows why."""
    structure._tell_once.cache_clear()
    for fold in (1, 2):
        engine.start(unwritten, {"batch_size": 32}, SEED, fold, ROWS)
    (told,) = caplog.messages
    assert told.endswith("it cannot be looked into: NotImplementedError:")


@pytest.mark.parametrize("builder", [slow(everything), unwritten])
def test_programs_that_cannot_be_shared_are_given_back(engine, builder, monkeypatch):
    """They are full of cycles, and Python does not see how much memory hangs on them."""
    graphs, most = [], 4
    monkeypatch.setattr("stormsweep.training.kept.PROGRAMS_KEPT", most)
    gc.disable()
    try:
        for _ in range(most + 2):
            run = engine.start(builder, {"batch_size": 32}, SEED, 1, ROWS)
            run.advance(1)
            graphs.append(weakref.ref(run._program._train.graph))
        alive = sum(graph() is not None for graph in graphs)
    finally:
        gc.enable()
    assert alive <= most + 1


def test_a_program_that_is_dropped_leaves_no_graph_behind(keras):
    # Keras lets TensorFlow hold every traced graph for ever: megabytes for each structure.
    def graphs():
        gc.collect()
        return sum(type(thing).__name__.endswith("FuncGraph") for thing in gc.get_objects())

    trained(KerasEngine(), [1], {}, storm_dnn, ROWS)
    before = graphs()
    for width in (2, 3):
        trained(KerasEngine(), [1], {"width": width}, storm_dnn, ROWS)
    assert graphs() == before


def fitted(keras, builder, run, data, epochs, class_weight=None):
    """Fit a model as Keras does, on the engine's own batches in its own order.

    To Keras the epochs are one, of all their batches: it reads ahead, past the end of its epochs.
    """
    batches = math.ceil(len(data.train) / 32)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return epochs * batches

        def __getitem__(self, number):
            epoch, number = divmod(number, batches)
            order = batch_order(data.train, SEED, 1, epoch + 1)
            rows = order[number * 32 : number * 32 + 32]
            x, y = data.inputs[rows], data.labels[rows].astype(np.float32)
            weight = np.array(class_weight or (1, 1), np.float32)[data.labels[rows]]
            return (x, y, weight) if class_weight else (x, y)

    keras.utils.set_random_seed(initial_seed(SEED, 1))
    arguments = {name: value for name, value in run.items() if name != "batch_size"}
    model = builder(input_shape=data.inputs.shape[1:], **arguments)
    return model, model.fit(Batches(), shuffle=False, verbose=0).history["loss"][0]


@pytest.mark.parametrize(("run", "class_weight"), [(PLAIN, None), (DROPOUT, (0.7, 1.9))])
def test_training_gives_the_weights_of_keras_fit_to_the_bit(keras, run, class_weight):
    data = fold_data(class_weight)
    trajectory = KerasEngine(packing=False).start(
        storm_cnn, {"batch_size": 32, **run}, SEED, 1, data
    )
    losses = trajectory.advance(2).losses
    model, loss = fitted(keras, storm_cnn, run, data, 2, class_weight)
    ours = [value for name, value in trajectory.state().items() if name.startswith("model/")]
    for variable, value in zip(model.variables, ours, strict=True):
        assert np.array_equal(variable.numpy(), value), variable.path
    assert np.mean(losses) == pytest.approx(loss, rel=1e-6)


def averaging(input_shape, learning_rate=0.05, wrapped=False, every=None):
    """A model whose optimizer keeps moving averages of the weights, for the end of a fit."""
    import keras

    layers = [keras.layers.Input(input_shape), keras.layers.Dense(6, activation="relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])
    optimizer = keras.optimizers.Adam(
        learning_rate, use_ema=True, ema_momentum=0.95, ema_overwrite_frequency=every
    )
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "binary_crossentropy")
    return model


@pytest.mark.parametrize("run", [slow({}), slow({"wrapped": True}), {"every": 3}])
def test_moving_averages_are_scored_and_delivered_as_by_keras_fit(keras, tmp_path, run):
    # Else a search over an optimizer with use_ema would rank models that nobody gets.
    from stormsweep.training.inference import Predictor, load_model

    cases = ROWS.inputs[ROWS.validation]
    trajectory, scored = trained(KerasEngine(), [1, 3], run, averaging, ROWS)
    # The plain one in its midst as well.
    for epochs, ours in list(zip((1, 3), scored, strict=True))[bool(run) :]:
        model, _ = fitted(keras, averaging, run, ROWS, epochs)
        np.testing.assert_allclose(ours, model.predict(cases, verbose=0)[:, 0], rtol=1e-6)
    straight, (alone,) = trained(KerasEngine(), [3], run, averaging, ROWS)
    assert np.array_equal(alone, scored[1])

    file, form = trajectory.save(tmp_path, cases)
    delivered = load_model(tmp_path / file, form, lambda: averaging, run, (4,))
    np.testing.assert_allclose(Predictor(delivered)(cases), scored[1], rtol=1e-6)
    equal_states(straight, trajectory)
    weights = [value for name, value in straight.state().items() if name.startswith("model/")]
    apart = [np.abs(a - b).max() for a, b in zip(weights, delivered.get_weights(), strict=True)]
    assert max(apart) > 0.01 or "every" in run


@pytest.mark.parametrize(
    ("builder", "run", "shape", "parameters"),
    [
        (storm_cnn, {}, (32, 32, 3), 17_169),
        (storm_cnn, {"filters": [16, 32, 64], "dropout": 0.2}, (32, 32, 3), 66_337),
        (storm_dnn, {}, (4,), 61),
    ],
)
def test_the_published_networks_have_their_number_of_parameters(
    engine, builder, run, shape, parameters
):
    data = FoldData(
        np.zeros((2, *shape), np.float32), np.arange(2), np.arange(2), np.arange(2), None, 0.5
    )
    assert engine.start(builder, {"batch_size": 32, **run}, SEED, 0, data).parameters == parameters


def test_a_network_learns(engine):
    trajectory = engine.start(storm_dnn, {"batch_size": 32, "learning_rate": 0.2}, SEED, 0, ROWS)
    result = trajectory.advance(30)
    assert result.losses[-1] < 0.3 * result.losses[0]
    assert (result.patches, result.updates) == (150 * 30, 5 * 30)
    assert result.train_seconds > 0
    p = trajectory.predict(ROWS.validation)
    assert np.mean((p > 0.5) == ROWS.labels[ROWS.validation]) > 0.9


def test_copies_of_a_row_are_trained_on_as_often_as_they_stand_there(engine):
    rows = np.repeat(ROWS.train, np.where(ROWS.labels[ROWS.train], 3, 1))
    data = FoldData(ROWS.inputs, ROWS.labels, rows, ROWS.validation, None, 0.4)
    assert engine.start(storm_dnn, {"batch_size": 32}, SEED, 0, data).advance(2).patches == 2 * len(
        rows
    )


def test_bfloat16_learns_alike_and_leaves_keras_as_it_was(keras):
    before = keras.config.dtype_policy().name
    _, (half,) = trained(KerasEngine("bfloat16"), [3])
    assert keras.config.dtype_policy().name == before
    _, (full,) = trained(KerasEngine(), [3])
    assert half.dtype == np.float32
    assert not np.array_equal(half, full)
    assert np.abs(half - full).max() < 0.1


def test_a_run_that_diverges_names_the_epoch(engine):
    run = {**PLAIN, "learning_rate": 1e30}
    with pytest.raises(DivergedError, match="in epoch 1"):
        engine.start(storm_cnn, {"batch_size": 32, **run}, SEED, 0, DATA).advance(3)
    # The next run of the same program is not spoilt by it.
    _, (after,) = trained(engine, [1])
    _, (alone,) = trained(KerasEngine(), [1])
    assert np.array_equal(after, alone)


def raises():
    raise ValueError("two\nlines")


def no_model():
    return 3


def two_outputs():
    import keras

    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])


def no_loss():
    import keras

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("adam")
    return model


def wants_images():
    import keras

    return keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Conv2D(1, 3)])


def own_rate():
    return storm_dnn((4,))


@pytest.mark.parametrize(
    ("builder", "run", "words"),
    [
        (raises, {}, r"raises raised ValueError: two lines \(test_training_keras\.py:\d+\)$"),
        (no_model, {}, "returned int; must be a Keras model"),
        (two_outputs, {}, r"output has shape \('n', 2\); must be \(n, 1\) or \(n,\)"),
        (no_loss, {}, "cannot be trained: .*loss"),
        (wants_images, {}, r"does not take inputs of shape \(4,\)"),
        (own_rate, {"learning_rate": 0.1}, "compiles its model without taking learning_rate"),
        (storm_cnn, {}, "storm_cnn takes images"),
        (storm_dnn, {"width": "ten"}, "storm_dnn raised"),
    ],
)
def test_a_bad_model_fails_its_run_in_one_clear_line(engine, builder, run, words):
    with pytest.raises(RunError, match=words) as caught:
        engine.start(builder, {"batch_size": 32, **run}, SEED, 0, ROWS).advance(1)
    assert "\n" not in str(caught.value)


def test_a_state_of_another_model_is_refused(engine):
    state = engine.start(storm_dnn, {"batch_size": 32, "width": 3}, SEED, 0, ROWS).state()
    with pytest.raises(RunError, match="another model"):
        engine.start(storm_dnn, {"batch_size": 32, "width": 4}, SEED, 0, ROWS).restore(state, 1)


def flat_and_uncompiled():
    import keras

    return keras.Sequential([keras.layers.Dense(1, activation="sigmoid"), keras.layers.Reshape(())])


def test_an_uncompiled_model_with_flat_output_gets_adam_at_the_given_rate(engine):
    trajectory, (p,) = trained(
        engine, [1], {"learning_rate": 0.25, "batch_size": 50}, flat_and_uncompiled, ROWS
    )
    assert p.shape == (50,)
    assert trajectory.state()["optimizer/001"] == np.float32(0.25)
    assert trajectory.state()["optimizer/000"] == 3


def test_a_memory_map_is_used_where_it_lies(keras, tmp_path):
    # Else every worker of a node would hold a copy of the data.
    np.save(tmp_path / "inputs.npy", np.zeros((10, 4), np.float32))
    array = np.load(tmp_path / "inputs.npy", mmap_mode="c")
    tensor = alias(array)
    array[3, 2] = 7
    assert tensor[3, 2] == 7


def test_memory_that_tensorflow_cannot_use_is_copied(keras):
    # TensorFlow would abort the whole process at the first computation.
    room = np.zeros(65, np.float32)
    off = room[1:] if room.ctypes.data % 64 == 0 else room[:64][(-room.ctypes.data % 64) // 4 + 1 :]
    assert off.ctypes.data % 64
    off += 1
    for array in (off, np.ones((4, 4), np.float32).T, np.ones(4, np.float64)):
        array.flags.writeable = False
        assert np.array_equal(alias(array).numpy() * 2, array * 2)


def test_threads_cannot_be_changed_under_a_running_tensorflow(keras, monkeypatch):
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    configure(1)
    with pytest.raises(RuntimeError):
        configure(3)


def takes_some(input_shape, filters=8, *, rate=0.1):
    return input_shape, filters, rate


def takes_all(**hyperparameters):
    return hyperparameters


def test_a_builder_gets_what_it_asks_for_and_never_epochs(keras):
    from stormsweep.training.building import arguments

    run = {"filters": 4, "learning_rate": 0.1, "batch_size": 64, "epochs": 3}
    assert arguments(takes_some, run, (8, 8)) == {"filters": 4, "input_shape": (8, 8)}
    assert arguments(takes_all, {**run, "a": 1}, (4,)) == {
        "filters": 4,
        "learning_rate": 0.1,
        "a": 1,
    }
    assert arguments(partial(takes_some, rate=1), {"filters": 2}, [4]) == {
        "filters": 2,
        "input_shape": (4,),
    }


def drawing(disturb):
    """A model in whose making and tracing somebody else draws random numbers, `disturb` a time."""
    import keras

    def others():
        return [random.random() for _ in range(disturb)]

    class Others(keras.layers.Layer):
        def call(self, x):
            others()
            return x

    layers = []
    for width in (8, 4):
        layers += [Others(), keras.layers.Dense(width, "relu"), keras.layers.Dropout(0.3)]
        others()
    return keras.Sequential([*layers, keras.layers.Dense(1, "sigmoid")])


def test_another_thread_that_draws_random_numbers_changes_nothing(keras):
    """Dask's own threads do: without care, one run in twenty began with other weights.

    They draw from the generator that all threads share; here it is drawn from in the very midst of
    what must not change, which a thread would hit by chance only.
    """
    quiet, disturbed = (
        trained(KerasEngine(), [2], {"disturb": disturb}, drawing, ROWS)[0] for disturb in (0, 3)
    )
    equal_states(quiet, disturbed)
