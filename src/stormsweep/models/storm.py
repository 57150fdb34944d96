"""The two networks of the 2019 study, in Keras 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def storm_cnn(
    input_shape: Sequence[int],
    filters: Sequence[int] = (8, 16, 32),
    kernel_size: int = 5,
    width: int = 0,
    dropout: float = 0.0,
    l2: float = 0.0,
    learning_rate: float = 0.001,
) -> keras.Model:
    """Build the convolutional network for storm patches.

    Each block is a convolution of same size, ReLU, and 2 x 2 average pooling; one sigmoid unit
    follows. With the defaults and three channels of 32 x 32 it has 17,169 trainable parameters,
    with filters 16-32-64 it has 66,337: the networks of the AMS deep learning short course of 2019
    (Gagne and others) that the 2019 study tuned.

    Parameters
    ----------
    input_shape : sequence of int
        Height, width and channels of a patch.
    filters : sequence of int
        Filters of each block; its length is the number of blocks.
    kernel_size : int
        Side of the convolution's window in cells.
    width : int
        Units (ReLU) of a dense layer before the output; 0: none.
    dropout : float
        Share of whole feature maps dropped in training after each convolution, 0 to below 1.
    l2 : float
        Factor of the squared convolution weights in the loss.
    learning_rate : float
        Step size of Adam.

    Returns
    -------
    keras.Model
        Compiled with Adam and binary cross-entropy; its output (n, 1) is a probability, computed
        in float32 also where the rest is mixed precision.

    Raises
    ------
    ValueError
        If the inputs are not images, or too small for that many poolings.
    """
    import keras
    from keras import layers

    if len(input_shape) != 3:
        raise ValueError(
            f"storm_cnn takes images (height, width, channels); the data have shape "
            f"{tuple(input_shape)}; storm_dnn takes rows of numbers"
        )
    if not filters or min(input_shape[:2]) < 2 ** len(filters):
        raise ValueError(
            f"filters: given {list(filters)}; each entry halves the image, and {input_shape[0]} x "
            f"{input_shape[1]} cells allow 1 to {min(input_shape[:2]).bit_length() - 1} of them"
        )
    stack: list[keras.Layer] = [layers.Input(tuple(input_shape))]
    for count in filters:
        stack.append(
            layers.Conv2D(
                count,
                kernel_size,
                padding="same",
                activation="relu",
                kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
            )
        )
        if dropout:
            stack.append(layers.SpatialDropout2D(dropout))
        stack.append(layers.AveragePooling2D(2))
    stack.append(layers.Flatten())
    if width:
        stack.append(layers.Dense(width, activation="relu"))
    # A probability in bfloat16 has three digits: the last layer stays float32.
    stack.append(layers.Dense(1, activation="sigmoid", dtype="float32"))
    model = keras.Sequential(stack)
    model.compile(keras.optimizers.Adam(float(learning_rate)), "binary_crossentropy")
    return model


def storm_dnn(
    input_shape: Sequence[int],
    width: int = 10,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
) -> keras.Model:
    """Build the dense network for storm statistics.

    One layer of tanh units and a sigmoid unit: 61 parameters with four inputs, as in 2019.

    Parameters
    ----------
    input_shape : sequence of int
        Number of inputs, as a shape; images are flattened.
    width : int
        Number of tanh units.
    learning_rate, momentum : float
        Of stochastic gradient descent.

    Returns
    -------
    keras.Model
        Compiled with SGD and binary cross-entropy; its output (n, 1) is a probability.
    """
    import keras
    from keras import layers

    flatten = [layers.Flatten()] if len(input_shape) > 1 else []
    model = keras.Sequential(
        [
            layers.Input(tuple(input_shape)),
            *flatten,
            layers.Dense(width, activation="tanh"),
            layers.Dense(1, activation="sigmoid", dtype="float32"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(float(learning_rate), momentum=float(momentum)),
        "binary_crossentropy",
    )
    return model
