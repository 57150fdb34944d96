"""Packed convolutions: another order of the same sums, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormsweep.models import storm_cnn
from stormsweep.training.engine import FoldData
from stormsweep.training.keras_tf import KerasEngine, configure

configure(1)

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from stormsweep.training.packing import (  # noqa: E402
    cells_at_a_time,
    pack,
    pack_kernel,
    pack_layers,
    unpack,
)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 7),
    packs=st.integers(1, 5),
    cells=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 6), st.sampled_from([1, 3, 5, 7])),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_a_packed_convolution_is_the_convolution(height, packs, cells, kernel, channels):
    generator = np.random.default_rng(0)
    images = generator.standard_normal((2, height, packs * cells, channels[0])).astype(np.float32)
    weights = generator.standard_normal((*kernel, *channels)).astype(np.float32)
    packed = tf.nn.conv2d(pack(images, cells), pack_kernel(tf.constant(weights), cells), 1, "SAME")
    expected = tf.nn.conv2d(images, weights, 1, "SAME")
    np.testing.assert_allclose(unpack(packed, cells), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("filters", "kernel_size", "l2"), [((8, 16, 32), 5, 0.0), ((4, 8), 7, 1e-3), ((6,), 3, 0.0)]
)
def test_a_packed_model_has_the_outputs_and_gradients_of_the_plain_one(filters, kernel_size, l2):
    def model():
        keras.utils.set_random_seed(3)
        return storm_cnn((32, 32, 3), filters, kernel_size, l2=l2)

    plain, packed = model(), model()
    config = packed.get_config()
    assert pack_layers(packed) == {8: 2, 4: 2, 6: 0}[filters[0]]
    assert packed.get_config() == config, "what is saved must not know of it"
    images = tf.random.stateless_normal([20, 32, 32, 3], (1, 2))
    labels = tf.cast(tf.reshape(tf.range(20) % 2, [-1, 1]), tf.float32)
    found = []
    for each in (plain, packed):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = each(images, training=True)
            loss = each.compute_loss(x=images, y=labels, y_pred=outputs)
        found.append([outputs, *tape.gradient(loss, [images, *each.trainable_variables])])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("filters", [8, 16])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5])
def test_no_height_of_a_kernel_is_given_another_gradient(height, filters):
    def model():
        keras.utils.set_random_seed(3)
        block = [keras.layers.Conv2D(filters, (height, 5), padding="same", activation="relu")]
        return keras.Sequential([keras.layers.Input((16, 16, 8)), *block])

    plain, packed = model(), model()
    assert pack_layers(packed) == (1 if filters == 8 or height % 2 else 0)
    images = tf.random.stateless_normal([4, 16, 16, 8], (1, 2))
    found = []
    for each in (plain, packed):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_mean(each(images) ** 2)
        found.append(tape.gradient(loss, [images, *each.trainable_variables]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_layers_that_are_not_plain_are_left_alone():
    layers = keras.layers
    stack = [
        layers.Input((16, 16, 4)),
        layers.Conv2D(4, 5, padding="same", activation="softmax"),
        layers.Conv2D(4, 5, padding="same", activation=lambda x: keras.ops.relu(x)),
        layers.Conv2D(4, 5, padding="same", strides=2),
        layers.Conv2D(4, 5, padding="same", dilation_rate=2),
        layers.Conv2D(4, 5, padding="same", groups=2),
        layers.Conv2D(4, 4, padding="same"),
        layers.Conv2D(4, 5),
        layers.DepthwiseConv2D(5, padding="same"),
    ]
    assert pack_layers(keras.Sequential(stack)) == 0
    used_twice = layers.Conv2D(3, 5, padding="same")
    image = layers.Input((16, 16, 3))
    assert pack_layers(keras.Model(image, used_twice(used_twice(image)))) == 0
    assert pack_layers(keras.Sequential([layers.Input((None, None, 3)), used_twice])) == 0


def test_an_odd_width_or_full_registers_are_computed_as_they_are():
    assert cells_at_a_time(width=31, kernel=5, channels=8) == 1
    assert cells_at_a_time(width=32, kernel=5, channels=16) == 1
    assert cells_at_a_time(width=32, kernel=3, channels=8) == 1, "three pairs for three cells"
    assert cells_at_a_time(width=32, kernel=5, channels=4) == 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_on_packs_gives_the_scores_of_training_without(precision):
    generator = np.random.default_rng(5)
    inputs = generator.standard_normal((200, 16, 16, 3), dtype=np.float32)
    labels = (inputs.reshape(200, -1)[:, :4].sum(1) > 0.3).astype(np.uint8)
    data = FoldData(inputs, labels, np.arange(150), np.arange(150, 200), None, 0.4)
    run = {"batch_size": 32, "learning_rate": 0.005, "filters": [8, 16]}
    found = []
    for packing in (False, True):
        trajectory = KerasEngine(precision, packing).start(storm_cnn, run, 11, 0, data)
        trajectory.advance(3)
        found.append(trajectory.predict(data.validation))
    assert not np.array_equal(*found), "nothing was packed"
    np.testing.assert_allclose(*found, atol=1e-3 if precision == "float32" else 0.05)
