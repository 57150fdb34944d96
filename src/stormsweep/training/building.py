"""How the model of a run is made: the builder called, its model compiled and looked at."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import RunError
from stormsweep.training.engine import says_out_of_memory
from stormsweep.training.outlived import refuse_used, remember

_KEYWORDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def arguments(
    builder: Callable[..., Any], hyperparameters: Mapping[str, Any], input_shape: Sequence[int]
) -> dict[str, Any]:
    """Return the keywords with which a builder is called.

    Parameters
    ----------
    builder : callable
        The builder.
    hyperparameters : mapping
        Of a run. ``epochs`` is never passed, because one training serves all numbers of epochs;
        ``batch_size`` to a builder that asks for it by name, ``learning_rate`` to one that takes
        it: the engine uses both itself.
    input_shape : sequence of int
        Shape of one case; passed to a builder that asks for it by name.
    """
    named = _named(builder)
    unasked = {"epochs"} | ({"batch_size"} - named)
    if not _takes(builder, "learning_rate"):
        unasked.add("learning_rate")
    passed = {name: value for name, value in hyperparameters.items() if name not in unasked}
    if "input_shape" in named:
        passed["input_shape"] = tuple(input_shape)
    return passed


def _named(builder: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(builder).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind in _KEYWORDS}


def _takes(builder: Callable[..., Any], name: str) -> bool:
    """Whether a builder takes a parameter, by name or as one of ``**hyperparameters``."""
    parameters = inspect.signature(builder).parameters.values()
    return name in _named(builder) or any(p.kind is p.VAR_KEYWORD for p in parameters)


def build_model(
    builder: Callable[..., Any],
    hyperparameters: Mapping[str, Any],
    input_shape: Sequence[int],
) -> keras.Model:
    """Call a builder; compile what it left uncompiled.

    Parameters
    ----------
    builder : callable
        From hyperparameters to a Keras model.
    hyperparameters : mapping
        Of the run.
    input_shape : sequence of int
        Shape of one case.

    Returns
    -------
    keras.Model
        Compiled; where the builder left that out, with Adam and binary cross-entropy.

    Raises
    ------
    RunError
        If the builder raises, or what it returns cannot be trained here.
    """
    label = getattr(builder, "__qualname__", repr(builder))
    try:
        model = builder(**arguments(builder, hyperparameters, input_shape))
    except Exception as error:
        if says_out_of_memory(error):
            raise
        text = " ".join(str(error).split())
        said = f"{label} raised {type(error).__name__}: {text[:400]}"
        raise RunError(said + _place(builder, error)) from error
    if not isinstance(model, keras.Model):
        raise RunError(f"{label} returned {type(model).__name__}; must be a Keras model")
    if model.compiled and model.optimizer is None:
        raise RunError(f"{label} compiled its model without an optimizer")
    # One set on the model itself is no method of its class.
    if getattr(model.train_step, "__func__", None) is not keras.Model.train_step:
        raise RunError(
            f"{label} returned a model with a train_step of its own; "
            "must be trained by the loss and the optimizer it is compiled with"
        )
    refuse_used(model, label)
    if not model.compiled:
        rate = float(hyperparameters.get("learning_rate", 0.001))
        model.compile(keras.optimizers.Adam(rate), "binary_crossentropy")
    elif "learning_rate" in hyperparameters and not _takes(builder, "learning_rate"):
        raise RunError(
            f"{label} compiles its model without taking learning_rate, which the study gives; "
            "take it as a parameter, or return the model uncompiled"
        )
    return cast_once(model)


def cast_once(model: keras.Model) -> keras.Model:
    """Have a Sequential leave the inputs to its layers.

    In mixed precision it casts them to what it computes in, back to what its inputs are declared
    as, and its first layer once more.
    """
    if isinstance(model, keras.Sequential):
        model._convert_input_args = False
    return model


def _place(builder: Callable[..., Any], error: Exception) -> str:
    """Word where in the builder's own file an exception came up; else where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    if not frames:
        return ""
    code = getattr(inspect.unwrap(builder), "__code__", None)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    frame = (own or frames)[-1]
    return f" ({Path(frame.filename).name}:{frame.lineno})"


def output_is_flat(model: keras.Model, case: NDArray[np.float32]) -> bool:
    """Run one case through a model, which builds it; return whether its output is (n,).

    Parameters
    ----------
    model : keras.Model
        Compiled; built or not.
    case : ndarray of float32, shape (1, ...)
        One case.

    Raises
    ------
    RunError
        If the model does not take it, its output is neither (n, 1) nor (n,), or it has nothing to
        train.
    """
    shape = run_case(model, case)
    if shape not in ((1,), (1, 1)):
        raise RunError(
            f"the model's output has shape {('n', *shape[1:])}; must be (n, 1) or (n,), "
            "the probability of the event"
        )
    if not model.trainable_variables:
        raise RunError(
            f"the model {model.name!r} has no trainable weights (layers: "
            f"{len(model.layers)}, frozen or without weights); at least one layer must train"
        )
    remember(model)
    return len(shape) == 1


def run_case(model: keras.Model, case: NDArray[np.float32]) -> tuple[int, ...]:
    """Run one case through a model, which builds it; return the shape of its output.

    Parameters
    ----------
    model : keras.Model
        Built or not.
    case : ndarray of float32, shape (1, ...)
        One case.

    Raises
    ------
    RunError
        If the model does not take it.
    """
    try:
        if isinstance(model, keras.Sequential) and not model.built:
            # Its first call would build it for batches of one, and a saved model would say so.
            model.build((None, *case.shape[1:]))
        return tuple(getattr(model(keras.ops.convert_to_tensor(case)), "shape", ()))
    except _errors_of_backend() as error:
        text = " ".join(str(error).split())
        raise RunError(
            f"the model does not take inputs of shape {tuple(case.shape[1:])}: {text[:400]}"
        ) from error


def _errors_of_backend() -> tuple[type[Exception], ...]:
    if keras.backend.backend() != "tensorflow":
        return ValueError, TypeError
    import tensorflow as tf

    return ValueError, TypeError, tf.errors.OpError
