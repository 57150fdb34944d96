"""Models that were trained, written down; any backend of Keras can load what another wrote."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from stormsweep.errors import ModelError, typed
from stormsweep.training.building import build_model, cast_once, run_case
from stormsweep.training.calling import outputs
from stormsweep.training.outlived import remember
from stormsweep.training.policy import precision_of_layers
from stormsweep.training.randomness import seeded
from stormsweep.training.seeds import initial_seed

log = logging.getLogger(__name__)
WHOLE, WEIGHTS = "model.keras", "model.weights.h5"
#: Beside a model: some cases, scaled as in training, and what it made of them when it was trained.
CHECK = "model.check.npz"
#: How far the probabilities of one model may lie apart on different processors, in any precision.
TOLERANCE = 0.02
_CASES = 16


def save_model(
    model: keras.Model,
    folder: Path,
    predict: Callable[[keras.Model], NDArray[np.float32]],
) -> tuple[str, str]:
    """Write a model to a folder, whole where Keras can, else its weights.

    Some models of users (custom layers that cannot be written down) are saved without complaint
    and fail when they are loaded, so the file is loaded at once and compared.

    Parameters
    ----------
    model : keras.Model
        Trained.
    folder : Path
        Where to.
    predict : callable
        Has a model predict some cases; the loaded one must predict the same.

    Returns
    -------
    tuple of str and str
        The file's name and its form: ``keras`` or ``weights``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(folder / WHOLE)
            again = keras.saving.load_model(folder / WHOLE, compile=False, safe_mode=True)
        if np.array_equal(predict(model), predict(again)):
            return WHOLE, "keras"
        reason = "the loaded model predicts otherwise"
    except Exception as error:  # a user's layer may raise anything when it is written or read
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    log.warning("the model cannot be saved whole (%s); its weights are", reason)
    (folder / WHOLE).unlink(missing_ok=True)
    model.save_weights(folder / WEIGHTS)
    return WEIGHTS, "weights"


def load_whole(path: Path) -> keras.Model:
    """Load a model that was saved whole, uncompiled.

    Raises
    ------
    ValueError or TypeError
        If it has layers of a user's that are not registered; others where the file is unfit.
    """
    return cast_once(keras.saving.load_model(path, compile=False, safe_mode=True))


def rebuilt(
    path: Path,
    builder: Callable[..., Any],
    hyperparameters: Mapping[str, Any],
    input_shape: Sequence[int],
    precision: str,
    seed: int,
    fold: int | None,
) -> keras.Model:
    """Build a model as its run did, and load its weights.

    A layer may hold constants that were drawn when the model was built, and that no file of weights
    has: they are drawn again from the seed of the run.

    Parameters
    ----------
    path : Path
        The file of weights.
    builder : callable
        The model builder.
    hyperparameters : mapping
        With which it is called.
    input_shape : sequence of int
        Shape of one case.
    precision : str
        ``float32`` or ``bfloat16``, under which the model was built.
    seed : int
        The study's.
    fold : int or None
        The run's; None: nobody wrote it down.

    Raises
    ------
    ModelError
        If the builder draws what follows from the fold, and that is not known.
    RunError
        If the builder raises, or does not return a model.
    """
    case = np.zeros((1, *input_shape), np.float32)
    with precision_of_layers(precision), seeded(initial_seed(seed, fold or 0)) as drawn:
        model = build_model(builder, hyperparameters, input_shape)
        run_case(model, case)
        if fold is None and drawn():
            raise ModelError(
                f"{path}: its builder draws random numbers, and an earlier version did not write "
                f"down what they follow from; remove {path.parent} and make it again with "
                f"`{typed('verify', path.parent.parent)}`"
            )
    with warnings.catch_warnings():
        # It tells that the optimizer's variables are not loaded; nothing is trained here.
        warnings.simplefilter("ignore")
        model.load_weights(path)
    # A frozen layer that all models of the builder share must be found as it is from now on.
    remember(model, anew=True)
    return model


def check_model(
    path: Path,
    load: Callable[[], keras.Model],
    inputs: NDArray[np.float32],
    probabilities: NDArray[np.float32],
) -> str:
    """See whether a file becomes the trained model again; keep some cases to see it by later.

    Parameters
    ----------
    path : Path
        The model's file.
    load : callable
        Returns the model: what `rebuilt` makes of weights, or what Keras loads.
    inputs : ndarray of float32, shape (n, ...)
        Cases, scaled as in training.
    probabilities : ndarray of float32, shape (n,)
        What the trained model makes of them.

    Returns
    -------
    str
        What is wrong, in a few words; empty: nothing.
    """
    # From the least to the most probable: where all are near 0, any model would do.
    order = np.argsort(probabilities, kind="stable")
    rows = np.sort(order[np.linspace(0, len(order) - 1, min(_CASES, len(order))).astype(np.int64)])
    cases, expected = np.asarray(inputs[rows]), probabilities[rows]
    check = path.with_name(CHECK)
    # Also where the model cannot be built here: a process where it can is to compare.
    backend = np.array(keras.backend.backend())
    np.savez(check, inputs=cases, probabilities=expected, backend=backend)
    try:
        model = load()
    except Exception as error:  # a user's builder may raise anything when it is called again
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    found = outputs(model, cases)
    alone = outputs(model, cases[:1])
    if not np.array_equal(found, outputs(model, cases)) or _unlike(alone, found[:1]):
        check.unlink()  # It is random when it predicts, or looks at other cases beside each.
        return ""
    return _unlike(found, expected)


def refuse_unlike(model: keras.Model, path: Path) -> None:
    """Refuse a loaded model that does not predict what the trained one did.

    Parameters
    ----------
    model : keras.Model
        Made of the file.
    path : Path
        The model's file, with what `check_model` wrote beside it; without, nothing is known.

    Raises
    ------
    ModelError
        If it does not.
    """
    check = path.with_name(CHECK)
    if not check.is_file():
        return
    with np.load(check, allow_pickle=False) as kept:
        said = _unlike(outputs(model, kept["inputs"]), kept["probabilities"])
        trained_on = str(kept["backend"]) if "backend" in kept else keras.backend.backend()
    if not said:
        return
    if path.name == WHOLE:
        why = (
            "a layer reads or draws something when its module is imported, and that is not what it "
            "was; put it back, or verify anew"
        )
    elif trained_on != keras.backend.backend():
        why = (
            f"it was trained on {trained_on}, and numbers that the builder draws by Keras are "
            f"others on {keras.backend.backend()}; draw them by NumPy, and verify anew"
        )
    else:
        why = (
            "its builder draws from a generator without a seed, or this Python had imported its "
            "module before; try a new Python, else mend the builder and verify anew"
        )
    raise ModelError(
        f"{path}: the loaded model predicts otherwise than when it was verified ({said}): {why}"
    )


def _unlike(found: NDArray[np.float32], expected: NDArray[np.float32]) -> str:
    apart = float(np.max(np.abs(found - expected)))
    return "" if apart <= TOLERANCE else f"probabilities differ by up to {apart:.2g}"
