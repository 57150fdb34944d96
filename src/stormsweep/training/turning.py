"""Turning patches inside the compiled epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stormsweep.training.engine import Turning


def turn(patches: Any, turns: Any, how: Turning) -> Any:
    """Rotate and mirror patches, and their vectors with them.

    Columns run along x and rows along y, so that a positive angle turns from x to y: from east to
    north where rows grow northward, anticlockwise.

    Parameters
    ----------
    patches : tensor of float32, shape (b, height, width, channels)
        Scaled inputs.
    turns : tensor of float32, shape (b, 2)
        From `seeds.draw_turns`: angle in radians, and -1 where the patch is mirrored first.
    how : Turning
        What the channels are.

    Returns
    -------
    tensor of float32, shape (b, height, width, channels)
        Values between cells are interpolated linearly; beyond the edges the patch is reflected, or
        its edge goes on (``2019-on-the-fly``).
    """
    height, width = patches.shape[1], patches.shape[2]
    cos, sin, mirror = tf.cos(turns[:, 0]), tf.sin(turns[:, 0]), turns[:, 1]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    # Where in the given patch each cell of the turned one comes from: the inverse of the turn.
    to_x, to_y = (mirror * cos, mirror * sin), (-sin, cos)
    zero = tf.zeros_like(cos)
    transforms = tf.stack(
        [
            *to_x,
            middle_x - to_x[0] * middle_x - to_x[1] * middle_y,
            *to_y,
            middle_y - to_y[0] * middle_x - to_y[1] * middle_y,
            zero,
            zero,
        ],
        axis=1,
    )
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=patches,
        transforms=transforms,
        output_shape=tf.constant([height, width]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT" if how.turns_vectors else "NEAREST",
    )
    if not how.turns_vectors or not how.vectors:
        return moved
    # Components have scales of their own: they are turned in their units, and scaled again.
    mean, std = (np.asarray(values, np.float32) for values in (how.mean, how.std))
    channels = tf.unstack(moved, axis=-1)
    cos, sin, mirror = (value[:, tf.newaxis, tf.newaxis] for value in (cos, sin, mirror))
    for x, y in how.vectors:
        u = mirror * (channels[x] * std[x] + mean[x])
        v = channels[y] * std[y] + mean[y]
        channels[x] = (cos * u - sin * v - mean[x]) / std[x]
        channels[y] = (sin * u + cos * v - mean[y]) / std[y]
    return tf.stack(channels, axis=-1)
