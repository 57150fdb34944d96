"""What a builder may not do, because its runs would not be what the journal says of them."""

from __future__ import annotations

import functools
import gc
import weakref
from typing import Any

import numpy as np
import pytest

from stormsweep.errors import ModelError, RunError
from stormsweep.models.build import find_builder
from stormsweep.study.setup import builder_of
from stormsweep.training.engine import FoldData
from stormsweep.training.keras_tf import KerasEngine, configure

configure(1)

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

from stormsweep.training.building import build_model  # noqa: E402
from stormsweep.training.inference import load_model  # noqa: E402
from stormsweep.training.saving import save_model  # noqa: E402

INPUTS = np.random.default_rng(5).standard_normal((200, 4), dtype=np.float32)
LABELS = (INPUTS.sum(1) > 0.3).astype(np.uint8)
DATA = FoldData(INPUTS, LABELS, np.arange(150), np.arange(150, 200), None, 0.4)


@pytest.fixture
def engine() -> KerasEngine:
    return KerasEngine()


def losses(engine: KerasEngine, builder: Any, epochs: int = 2, **run: Any) -> list[float]:
    return engine.start(builder, {"batch_size": 32, **run}, 11, 0, DATA).advance(epochs).losses


def plain() -> Any:
    return keras.Sequential(
        [layers.Dense(5, "relu"), layers.Dropout(0.2), layers.Dense(1, "sigmoid")]
    )


def backbone() -> Any:
    return keras.Sequential([layers.Input((4,)), layers.Dense(5), layers.BatchNormalization()])


def on_top_of(part: Any) -> Any:
    return keras.Sequential([layers.Input((4,)), part, layers.Dense(1, "sigmoid")])


def with_layers_of_the_module() -> Any:
    made = backbone()
    return lambda: on_top_of(made)


def with_a_cached_layer() -> Any:
    """A layer that has no weights yet when it is returned for the first time."""
    made = functools.cache(lambda: layers.Dense(1, "sigmoid"))
    return lambda: keras.Sequential([layers.Dense(3), made()])


def with_a_cached_model() -> Any:
    return functools.cache(plain)


def with_one_optimizer() -> Any:
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)

    def build() -> Any:
        model = plain()
        model.compile(optimizer, "binary_crossentropy")
        return model

    return build


def with_one_dropout() -> Any:
    """It goes on with its random numbers where the run before stopped."""
    made = layers.Dropout(0.3)
    return lambda: keras.Sequential([made, layers.Dense(1, "sigmoid")])


@pytest.mark.parametrize(
    ("make", "shared"),
    [
        (with_layers_of_the_module, "kernel"),
        (with_a_cached_layer, "kernel"),
        (with_a_cached_model, "kernel"),
        (with_one_optimizer, "iteration"),
        (with_one_dropout, "seed_generator_state"),
    ],
)
def test_a_run_does_not_begin_with_what_another_has_learned(
    engine: KerasEngine, make: Any, shared: str
) -> None:
    """Else a fold is scored by cases on which another fold's run trained the same weights.

    The first run is refused as well: else it would depend on the workers how many are.
    """
    builder, said = make(), []
    for _ in range(2):
        with pytest.raises(RunError, match=rf"shares \S*{shared} with one that it retu") as refused:
            losses(engine, builder)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_a_builder_that_fails_when_it_is_called_again_fails_every_run(engine: KerasEngine) -> None:
    left = [plain()]

    def builder() -> Any:
        return left.pop()

    with pytest.raises(RunError, match=r"raised IndexError: .*test_training_builders\.py:\d+"):
        losses(engine, builder)


def test_a_model_is_built_twice_only_where_its_program_is_compiled(engine: KerasEngine) -> None:
    """What a builder draws must not follow from it, and short runs would take longer."""
    calls = []

    def builder(width: int) -> Any:
        calls.append(width)
        return keras.Sequential([layers.Dense(width, "relu"), layers.Dense(1, "sigmoid")])

    alone = losses(KerasEngine(), lambda: builder(3))
    for _ in range(2):
        assert losses(engine, builder, width=3) == alone
    losses(engine, builder, width=4)
    assert calls == [3, 3, 3, 3, 3, 4, 4]


def test_a_frozen_backbone_may_be_loaded_once_for_all_runs(engine: KerasEngine) -> None:
    made = backbone()
    made.trainable = False
    first = losses(engine, lambda: on_top_of(made))
    assert losses(engine, lambda: on_top_of(made)) == first

    def unfrozen() -> Any:
        made.trainable = True
        return on_top_of(made)

    with pytest.raises(RunError, match=r"shares \S*kernel with"):
        losses(engine, unfrozen)


def test_a_backbone_that_the_first_call_makes_is_refused(engine: KerasEngine) -> None:
    """Else the first run of each worker begins with another head: what was made drew its seed."""

    @functools.cache
    def made() -> Any:
        model = backbone()
        model.trainable = False
        return model

    for _ in range(2):
        with pytest.raises(RunError, match="returns other initial weights when it is called again"):
            losses(engine, lambda: on_top_of(made()))
        made.cache_clear()


@functools.cache
def basis() -> Any:
    return keras.ops.convert_to_numpy(keras.initializers.Orthogonal()((4, 4)))


def with_basis() -> Any:
    found = basis()
    first = layers.Dense(4, use_bias=False, trainable=False)
    model = keras.Sequential([layers.Input((4,)), first, layers.Dense(1, "sigmoid")])
    first.set_weights([found])
    return model


NUMBERS = np.random.default_rng(7)


def going_on() -> Any:
    def draw(shape: Any, dtype: Any = None) -> Any:
        return NUMBERS.normal(size=shape)

    return keras.Sequential(
        [layers.Input((4,)), layers.Dense(1, "sigmoid", kernel_initializer=draw)]
    )


@pytest.mark.parametrize("builder", [with_basis, going_on])
def test_what_is_drawn_once_or_goes_on_from_call_to_call_is_refused(
    engine: KerasEngine, builder: Any
) -> None:
    """Else the first run of each worker begins with other weights than the same run elsewhere."""
    basis.cache_clear()
    for _ in range(2):
        with pytest.raises(RunError, match="returns other initial weights when it is called again"):
            losses(engine, builder)
        basis.cache_clear()


def test_a_builder_that_draws_is_called_twice_once_and_not_for_every_fold(
    engine: KerasEngine,
) -> None:
    """Else what a builder does besides, such as pretraining, takes double the time."""
    calls = []

    def builder() -> Any:
        calls.append(np.random.normal())  # noqa: NPY002
        return plain()

    for fold in (0, 1, 2):
        engine.start(builder, {"batch_size": 32}, 7, fold, DATA)
    assert len(calls) == 4


def tuned(made: Any, fine: bool) -> Any:
    made.trainable = fine
    return on_top_of(made)


def test_runs_with_a_frozen_backbone_do_not_fail_with_those_that_train_it(
    engine: KerasEngine,
) -> None:
    """Else it depends on the order of work which of them have a score."""
    builder, found = functools.partial(tuned, backbone()), []
    for _ in range(2):
        with pytest.raises(RunError, match=r"shares \S*kernel with"):
            losses(engine, builder, fine=True)
        found.append(losses(engine, builder, fine=False))
    assert found[0] == found[1]


def test_a_frozen_backbone_that_draws_random_numbers_is_refused_until_it_does_not(
    engine: KerasEngine,
) -> None:
    """Keras's applications have dropout inside, and neither being frozen turns it off nor this."""
    drops = layers.Dropout(0.3, name="drops")
    made = keras.Sequential([layers.Input((4,)), layers.Dense(5), drops])
    made.trainable = False

    def builder() -> Any:
        inputs = layers.Input((4,))
        return keras.Model(inputs, layers.Dense(1, "sigmoid")(made(inputs, training=False)))

    for _ in range(2):
        with pytest.raises(RunError, match=r"shares drops/seed_.* set the rate of Dropout to 0"):
            losses(engine, builder)
    drops.rate = 0.0
    first = losses(engine, builder)
    assert losses(engine, builder) == first


SHARING = """
import keras

BACKBONE = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(5)])
BACKBONE.trainable = False

def net():
    return keras.Sequential([BACKBONE, keras.layers.Dense(1, "sigmoid")])
"""


def test_layers_that_a_module_makes_compute_in_the_precision_of_the_study(tmp_path: Any) -> None:
    """Else most of a model computes in float32, and the journal says bfloat16."""
    (tmp_path / "net.py").write_text(SHARING, encoding="utf-8")
    builder, _ = builder_of(f"{tmp_path}/net.py:net", 7, "bfloat16")
    engine = KerasEngine("bfloat16")
    first = losses(engine, builder)
    assert losses(engine, builder) == first
    made = builder.__globals__["BACKBONE"]
    assert {layer.compute_dtype for layer in made._flatten_layers()} == {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"

    model = builder()
    model.build((None, 4))
    model.save_weights(tmp_path / "net.weights.h5")
    (tmp_path / "anew.py").write_text(SHARING, encoding="utf-8")
    found = load_model(
        tmp_path / "net.weights.h5",
        "weights",
        lambda: find_builder(f"{tmp_path}/anew.py:net"),
        {},
        (4,),
        "bfloat16",
    )
    assert {layer.compute_dtype for layer in found._flatten_layers()} == {"bfloat16"}


def test_a_module_that_clears_the_session_does_not_lose_precision_unsaid(tmp_path: Any) -> None:
    text = SHARING.replace("import keras\n", "import keras\nkeras.utils.clear_session()\n", 1)
    (tmp_path / "net.py").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"when .* is imported, .* no longer compute in bfloat16"):
        builder_of(f"{tmp_path}/net.py:net", 7, "bfloat16")


class Counting(layers.Layer):
    """Counts its steps in a variable that is not its own, and Keras knows nothing of."""

    def __init__(self, steps: Any, counts: bool) -> None:
        super().__init__()
        self.counts = counts
        # In a place where TensorFlow's own tracking does not find it either.
        self.read = lambda: steps

    def call(self, x: Any, training: bool = False) -> Any:
        if training and self.counts:
            self.read().assign_add(1.0)
        return x / (1.0 + self.read())


@pytest.mark.parametrize("counts", [True, False])
def test_a_variable_of_the_module_is_not_trained_on_by_run_after_run(
    engine: KerasEngine, counts: bool
) -> None:
    """Else a run begins where another stopped; one that stays what it is may serve all."""
    steps = tf.Variable(0.0)

    def build() -> Any:
        return keras.Sequential([Counting(steps, counts), layers.Dense(1, "sigmoid")])

    if counts:
        for _ in range(2):
            with pytest.raises(RunError, match=r"changes the variable 'Variable:0'.*add_weight"):
                losses(engine, build)
    else:
        assert losses(engine, build) == losses(engine, build)


class Shrunk(keras.constraints.Constraint):
    def __call__(self, weights: Any) -> Any:
        return 0.9 * weights


class Weighed(layers.Layer):
    def build(self, shape: Any) -> None:
        self.weighing = self.add_weight(shape=(shape[-1],), regularizer="l2", constraint=Shrunk())

    def call(self, x: Any) -> Any:
        return x * self.weighing


def of_classes_of_the_module(learning_rate: float) -> Any:
    model = keras.Sequential([Weighed(), layers.Dense(1, "sigmoid", kernel_constraint=Shrunk())])
    model.compile(keras.optimizers.SGD(learning_rate), "binary_crossentropy")
    return model


def test_learning_rates_share_a_program_with_classes_of_the_module(engine: KerasEngine) -> None:
    """Else a search over learning rates compiles anew for each; such classes cannot hold a rate."""
    for rate in (0.01, 0.1):
        alone = losses(KerasEngine(), of_classes_of_the_module, learning_rate=rate)
        assert losses(engine, of_classes_of_the_module, learning_rate=rate) == alone
    assert len(engine._programs) == 1


def test_what_is_known_of_a_model_does_not_keep_it_alive() -> None:
    """Else a worker's memory grows with each run, whose weights nobody can free."""
    engine = KerasEngine()
    trajectory = engine.start(plain, {"batch_size": 32}, 11, 0, DATA)
    kernel = weakref.ref(trajectory._program.model.layers[0].kernel)
    assert kernel() is not None
    del trajectory, engine
    gc.collect()
    assert kernel() is None


def test_loading_two_models_of_one_cached_layer_is_refused(tmp_path: Any) -> None:
    """Else the second takes the weights of the first away."""
    builder = with_a_cached_layer()
    model = build_model(builder, {}, (4,))
    model.build((None, 4))
    model.save_weights(tmp_path / "own.weights.h5")
    load_model(tmp_path / "own.weights.h5", "weights", lambda: builder, {}, (4,))
    with pytest.raises(ModelError, match="returned before"):
        load_model(tmp_path / "own.weights.h5", "weights", lambda: builder, {}, (4,))


def test_a_frozen_backbone_that_weights_were_loaded_into_may_be_loaded_again(tmp_path: Any) -> None:
    """Else a notebook predicts once, and is told that the model is shared when it does so again."""

    def with_its_own_backbone() -> Any:
        made = backbone()
        made.trainable = False
        return lambda: on_top_of(made)

    trained, here = with_its_own_backbone()(), with_its_own_backbone()
    trained.save_weights(tmp_path / "own.weights.h5")
    for _ in range(2):
        loaded = load_model(tmp_path / "own.weights.h5", "weights", lambda: here, {}, (4,))
        for one, other in zip(loaded.get_weights(), trained.get_weights(), strict=True):
            assert np.array_equal(one, other)


def clearing() -> Any:
    keras.backend.clear_session()
    return plain()


def clearing_with_a_policy_of_its_own() -> Any:
    keras.utils.clear_session()
    keras.config.set_dtype_policy("mixed_bfloat16")
    return plain()


def with_a_policy_of_its_own() -> Any:
    keras.config.set_dtype_policy("float32")
    return plain()


def test_a_builder_that_clears_the_session_does_not_lose_precision_unsaid() -> None:
    """Else a study in bfloat16 trains in float32, and its journal says bfloat16."""
    with pytest.raises(RunError, match=r"clear_session\(\).* no longer compute in bfloat16; "):
        losses(KerasEngine("bfloat16"), clearing)
    assert keras.config.dtype_policy().name == "float32"
    expected = losses(KerasEngine("bfloat16"), plain)
    assert losses(KerasEngine("bfloat16"), clearing_with_a_policy_of_its_own) == expected
    in_full = losses(KerasEngine(), plain)
    assert in_full != expected
    assert losses(KerasEngine("bfloat16"), with_a_policy_of_its_own) == in_full


@pytest.mark.slow
def test_a_builder_that_clears_the_session_trains_the_same_in_float32(engine: KerasEngine) -> None:
    """Else its run would depend on which builder a worker called before, or on chance."""
    expected = losses(KerasEngine(), plain)
    assert losses(engine, clearing) == expected
    assert losses(engine, clearing) == expected


def test_a_delivered_model_takes_batches_of_any_size(engine: KerasEngine, tmp_path: Any) -> None:
    """Else its file says that cases come one by one."""
    trajectory = engine.start(plain, {"batch_size": 32}, 11, 0, DATA)
    model = trajectory._program.model
    assert model.input_shape == (None, 4)
    cases = keras.ops.convert_to_tensor(INPUTS)
    name, form = save_model(model, tmp_path, lambda made: np.asarray(made(cases)))
    assert form == "keras"
    again = load_model(tmp_path / name, form, lambda: plain, {}, (4,))
    assert again.input_shape == (None, 4)
    assert again(cases).shape == (200, 1)


def with_a_step_of_its_own() -> Any:
    model = plain()
    model.train_step = lambda _: {}
    return model


def frozen() -> Any:
    model = plain()
    model.trainable = False
    return model


@pytest.mark.parametrize(
    ("builder", "words"),
    [
        (with_a_step_of_its_own, "returned a model with a train_step of its own"),
        (frozen, r"has no trainable weights \(layers: 3, frozen or without weights\)"),
    ],
)
def test_what_would_not_be_trained_as_it_says_is_refused(
    engine: KerasEngine, builder: Any, words: str
) -> None:
    with pytest.raises(RunError, match=words) as caught:
        losses(engine, builder)
    assert "\n" not in str(caught.value)


class Own(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1, "sigmoid")

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):  # type: ignore[no-untyped-def]
        return super().compute_loss(x, y, y_pred, sample_weight)


class Asking(Own):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, *, training):  # type: ignore[no-untyped-def]
        return (2.0 if training else 1.0) * super().compute_loss(x, y, y_pred, sample_weight)


class Defaulting(Own):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=False):  # type: ignore[no-untyped-def]
        return (2.0 if training else 1.0) * super().compute_loss(x, y, y_pred, sample_weight)


def test_a_loss_that_asks_is_told_that_it_is_training(engine: KerasEngine) -> None:
    """Else a model trains on another loss than under Keras's own ``fit``."""
    plainly = losses(engine, Own, epochs=1)
    for kind in (Asking, Defaulting):
        # Adam does not see how large a gradient is: the same steps, and twice the loss.
        assert losses(engine, kind, epochs=1) == pytest.approx([2 * plainly[0]], rel=1e-4)
