"""In what precision Keras layers compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


@contextmanager
def precision_of_layers(precision: str) -> Iterator[None]:
    """Have Keras layers made in the block compute in a precision, ``float32`` or ``bfloat16``."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
