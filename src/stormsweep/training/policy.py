"""In what precision Keras layers compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


def takes_bfloat16(model: Any) -> bool:
    """Say whether all that a model does with its cases begins by rounding them to bfloat16.

    Layers do that which compute in bfloat16, but for some that encode categories. Operations on the
    input itself, and layers in a precision of their own, compute with the cases as they are; inputs
    that are whole numbers are made of those.

    Parameters
    ----------
    model : keras.Model
        Built.
    """
    import keras
    from keras.src.models import Functional

    if isinstance(model, keras.Sequential):
        known, first = type(model).call is keras.Sequential.call, model.layers[:1]
    elif isinstance(model, Functional):
        known = type(model).call is Functional.call
        first = [
            operation
            for operation in model.operations
            if any(
                given is case
                for node in operation._inbound_nodes
                for given in node.input_tensors
                for case in model.inputs
            )
        ]
    else:
        rounds = isinstance(model, keras.Layer) and model._convert_input_args and model.autocast
        return bool(rounds and model.compute_dtype == "bfloat16")
    numbers = all("float" in str(case.dtype) for case in model.inputs)
    return bool(known and first and numbers and all(map(takes_bfloat16, first)))
