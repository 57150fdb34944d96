"""Convolutions with few channels, computed some neighbouring cells at a time.

A processor's vector registers hold 16 numbers; a convolution to 8 channels leaves half of each
empty. In memory an image (height, width, channels) is an image (height, width / 2, 2 channels)
too, without moving a number: on it the same convolution is one to 16 channels, with a kernel that
has zeros where a cell does not reach. What is wasted on zeros is less than what is won: a 5 x 5
kernel spans three pairs of cells, six cells instead of five. The sums are the same, added up in
another order.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

#: Numbers that a vector register of 512 bits holds; sums are kept in float32 in every precision.
LANES = 16
#: Cells taken at a time; more never paid.
_CELLS = (1, 2, 4)
#: A form that saves less than this share of the work is left alone.
_LEAST_GAIN = 0.15
#: Activations that look at one number at a time, and so do not mind how cells are packed.
_ELEMENTWISE = frozenset(
    {"linear", "relu", "relu6", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus"}
)


def cells_at_a_time(width: int, kernel: int, channels: int) -> int:
    """Return how many neighbouring cells a convolution best computes at a time.

    Parameters
    ----------
    width : int
        Cells in a row of the image.
    kernel : int
        Odd width of the kernel.
    channels : int
        Channels that come out.

    Returns
    -------
    int
        1: as it is.

    Examples
    --------
    >>> cells_at_a_time(width=32, kernel=5, channels=8)
    2
    >>> cells_at_a_time(width=16, kernel=5, channels=16)
    1
    """
    work = {
        cells: -(-cells * channels // LANES) * (2 * reach(kernel, cells) + 1)
        for cells in _CELLS
        if width % cells == 0
    }
    best = min(work, key=lambda cells: (work[cells], cells))
    return best if work[best] <= (1 - _LEAST_GAIN) * work[1] else 1


def reach(kernel: int, cells: int) -> int:
    """Return how many packs to either side a kernel sees from a pack of `cells` cells."""
    return -(-(kernel // 2) // cells)


def pack_kernel(kernel: Any, cells: int) -> Any:
    """Return the kernel that does on packs of cells what a kernel does on cells.

    Parameters
    ----------
    kernel : tensor, shape (height, width, channels in, channels out)
        Of odd width.
    cells : int
        Cells of a pack.

    Returns
    -------
    tensor, shape (height, packs, cells * channels in, cells * channels out)
        The number of packs is odd.
    """
    height, width, ins, outs = kernel.shape
    around = reach(width, cells)
    packs = 2 * around + 1
    # From the first cell of the leftmost pack to where the kernel of the pack's first cell begins.
    before = around * cells - width // 2
    spare = cells * packs - width - before
    shifted = [
        tf.pad(kernel, [[0, 0], [before + cell, spare - cell], [0, 0], [0, 0]])
        for cell in range(cells)
    ]
    return tf.reshape(tf.stack(shifted, axis=3), [height, packs, cells * ins, cells * outs])


def pack(images: Any, cells: int) -> Any:
    """View images (n, height, width, channels) as (n, height, width / cells, cells * channels)."""
    _, height, width, channels = images.shape
    return tf.reshape(images, [-1, height, width // cells, cells * channels])


def unpack(images: Any, cells: int) -> Any:
    """Undo `pack`."""
    _, height, width, channels = images.shape
    return tf.reshape(images, [-1, height, width * cells, channels // cells])


def _plain(images: Any, kernel: Any) -> Any:
    return tf.nn.conv2d(images, kernel, 1, "SAME")


# TensorFlow keeps each use of a custom gradient for ever, and the graph it was used in with it.
# Inside a function that is traced once for each shape, that graph is this one's: small, and few.
@tf.function(autograph=False)  # type: ignore[untyped-decorator]
def _with_packed_gradient(images: Any, kernel: Any, cells: int) -> Any:
    """Convolve as usual; compute the gradient of the images on packs."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolve(images: Any, kernel: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            back = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
            of_images = unpack(_plain(pack(upstream, cells), pack_kernel(back, cells)), cells)
            of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=images,
                filter_sizes=tf.shape(kernel),
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            return of_images, of_kernel

        return _plain(images, kernel), gradient

    return convolve(images, kernel)


def pack_layers(model: keras.Model) -> int:
    """Have the convolutions of a model that gain by it compute packs of cells.

    Only plain layers are touched: two-dimensional, of stride 1, same padding, odd width, one group,
    channels last, and an activation that looks at one number at a time. Weights, configuration and
    what is saved stay as they are.

    Parameters
    ----------
    model : keras.Model
        Built; its layers are changed.

    Returns
    -------
    int
        How many layers were changed.
    """
    changed = 0
    for layer in model._flatten_layers(include_self=False):
        if type(layer) is not keras.layers.Conv2D or not _is_plain(layer):
            continue
        width, kernel = int(layer.input.shape[2]), layer.kernel_size[1]
        forward = cells_at_a_time(width, kernel, layer.kernel.shape[3])
        # What goes back passes the kernel upside down, and the edges of an even height with it.
        odd = layer.kernel_size[0] % 2 == 1
        backward = cells_at_a_time(width, kernel, layer.kernel.shape[2]) if odd else 1
        if forward > 1 or backward > 1:
            layer.call = functools.partial(_call, layer, forward, backward)
            changed += 1
    return changed


def _is_plain(layer: Any) -> bool:
    name = getattr(layer.activation, "__name__", "")
    return (
        layer.strides == (1, 1)
        and layer.dilation_rate == (1, 1)
        and layer.padding == "same"
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.kernel_size[1] % 2 == 1
        and layer.activation is getattr(keras.activations, name, None)
        and name in _ELEMENTWISE
        and len(getattr(layer, "_inbound_nodes", ())) == 1
        and None not in layer.input.shape[1:]
    )


def _call(layer: Any, forward: int, backward: int, inputs: Any) -> Any:
    """Compute what the layer's own `call` does."""
    kernel = tf.convert_to_tensor(layer.kernel)
    bias = tf.convert_to_tensor(layer.bias) if layer.use_bias else None
    if forward > 1:
        out = _plain(pack(inputs, forward), pack_kernel(kernel, forward))
        # On packs still, where TensorFlow fuses bias and activation with the convolution.
        bias = None if bias is None else tf.tile(bias, [forward])
    elif backward > 1:
        out = _with_packed_gradient(inputs, kernel, backward)
    if bias is not None:
        out = tf.nn.bias_add(out, bias)
    out = layer.activation(out)
    return unpack(out, forward) if forward > 1 else out
