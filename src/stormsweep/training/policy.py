"""In what precision Keras layers compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stormsweep.errors import RunError

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
#: In Keras's global state while the block lasts, unless that is cleared.
_MARK = "stormsweep_precision"


@contextmanager
def precision_of_layers(precision: str) -> Iterator[None]:
    """Have Keras layers made in the block compute in a precision, ``float32`` or ``bfloat16``.

    A builder may set a policy of its own.

    Raises
    ------
    RunError
        If something in the block cleared Keras's global state, and the precision with it.
    """
    import keras
    from keras.src.backend.common import global_state

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[precision])
    global_state.set_global_attribute(_MARK, precision)
    try:
        yield
        cleared = global_state.get_global_attribute(_MARK) is None
        # What Keras falls back to; another one was set on purpose.
        if cleared and keras.config.dtype_policy().name == keras.config.floatx() != precision:
            raise RunError(
                "the builder calls keras.utils.clear_session() or keras.backend.clear_session(), "
                f"after which layers no longer compute in {precision}; remove the call"
            )
    finally:
        global_state.set_global_attribute(_MARK, None)
        keras.config.set_dtype_policy(before)
