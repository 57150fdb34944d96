"""Keras models as scikit-learn's estimators: for `SweepSearchCV`, pipelines and whatever takes one.

`keras.wrappers` has estimators too, but (Keras 3.15) a clone of one forgets its epochs and batch
size, arguments of the builder cannot be searched one by one, arrays of more than two dimensions are
refused, and there are no probabilities. So these are our own, on scikit-learn's base classes.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from stormsweep.models.generators import generators_kept

_RATE, _DEFAULT_RATE = "learning_rate", 1e-3
#: Images and series of images are inputs, too.
_ALLOWED: dict[str, Any] = {"ensure_2d": False, "allow_nd": True}


class _KerasEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share; `KerasClassifier` says what the parameters are."""

    def __init__(
        self,
        build: Callable[..., Any],
        *,
        epochs: int = 1,
        batch_size: int = 32,
        random_state: int | None = None,
        verbose: int = 0,
        fit_options: dict[str, Any] | None = None,
        **hyperparameters: Any,
    ) -> None:
        self.build = build
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose
        self.fit_options = fit_options
        self._hyperparameters = hyperparameters

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, arguments of the builder that were given among them.

        Parameters
        ----------
        deep : bool
            Those of parameters that are estimators, too.
        """
        found: dict[str, Any] = super().get_params(deep)
        return found | self._hyperparameters

    def set_params(self, **params: Any) -> Self:
        """Set parameters, arguments of the builder among them.

        Parameters
        ----------
        **params : object
            New values by name.

        Returns
        -------
        self
            With these values.

        Raises
        ------
        ValueError
            If neither the estimator nor its builder takes one.
        """
        build = params.get("build", self.build)
        own = set(super().get_params(deep=False))
        theirs = {name: value for name, value in params.items() if name not in own}
        takes = _takes(build)
        if takes is not None:
            for name in theirs:
                # The optimizer's learning rate is always there.
                if name not in takes | {_RATE}:
                    allowed = ", ".join(sorted(own | takes | {_RATE}))
                    raise ValueError(
                        f"Invalid parameter {name!r} for estimator {type(self).__name__}; "
                        f"allowed are {allowed}"
                    )
        self._hyperparameters = self._hyperparameters | theirs
        super().set_params(**{name: value for name, value in params.items() if name in own})
        return self

    def fit(self, X: Any, y: Any, **more: Any) -> Self:
        """Build a model and train it.

        Parameters
        ----------
        X : array-like, shape (n, ...)
            The inputs; numbers.
        y : array-like, shape (n,) or (n, outputs)
            The target.
        **more : object
            What else Keras's ``fit`` is called with, such as ``sample_weight``.

        Returns
        -------
        self
            Trained.

        Raises
        ------
        ValueError
            If a learning rate was given that the builder neither takes nor leaves to the estimator.
        """
        X, y = validate_data(self, X, y, multi_output=True, **_ALLOWED)
        y = self._target(y)
        with _seeded(self.random_state):
            model = self._built(X)
            options = {"epochs": self.epochs, "batch_size": self.batch_size}
            options |= {"verbose": self.verbose, **(self.fit_options or {}), **more}
            told = model.fit(X, self._as_the_loss_has_it(model, y), **options)
        self.model_, self.history_ = model, dict(told.history)
        return self

    def _built(self, X: Any) -> Any:
        import keras

        hyperparameters = dict(self._hyperparameters)
        takes = _takes(self.build)
        for name, value in self._given(X).items():
            if takes is not None and name in takes:
                hyperparameters.setdefault(name, value)
        rate = hyperparameters.get(_RATE, _DEFAULT_RATE)
        ours = takes is not None and _RATE not in takes
        if ours:
            hyperparameters.pop(_RATE, None)
        model = self.build(**hyperparameters)
        if not getattr(model, "compiled", False):
            model.compile(optimizer=keras.optimizers.Adam(rate), loss=self._loss(model))
        elif ours and _RATE in self._hyperparameters:
            name = getattr(self.build, "__qualname__", type(self.build).__qualname__)
            raise ValueError(
                f"{_RATE}: {rate!r} would have no effect, because {name} compiles its model and "
                f"does not take {_RATE}; let it take {_RATE}, or leave the model uncompiled"
            )
        return model

    def _outputs(self, X: Any) -> Any:
        check_is_fitted(self, "model_")
        X = validate_data(self, X, reset=False, **_ALLOWED)
        return np.asarray(self.model_.predict(X, batch_size=self.batch_size, verbose=0))

    def _given(self, X: Any) -> dict[str, Any]:
        return {"input_shape": tuple(X.shape[1:])}

    def _target(self, y: Any) -> Any:
        raise NotImplementedError

    def _as_the_loss_has_it(self, model: Any, y: Any) -> Any:
        return y

    def _loss(self, model: Any) -> str:
        raise NotImplementedError


class KerasClassifier(ClassifierMixin, _KerasEstimator):  # type: ignore[misc]
    """A classifier that is a Keras model.

    The model ends with one probability (two classes) or with one for each class. ``score`` is
    that of scikit-learn's classifiers, the accuracy.

    Parameters
    ----------
    build : callable
        Returns a Keras model, compiled or not; called with the keywords of `hyperparameters`, and
        with ``input_shape`` (of one case) and ``classes`` (their number) where it asks for them by
        name. A function of a module, or of a script, so that workers can be given it.
    epochs, batch_size : int
        Of the training.
    random_state : int, optional
        Seed of weights, order of batches and dropout. None: other ones each time. Fits with a seed
        in threads of one process wait for each other.
    verbose : int
        As of Keras's ``fit``.
    fit_options : dict, optional
        What else Keras's ``fit`` is called with: ``callbacks``, ``validation_split``, ...
    **hyperparameters : object
        Arguments of the builder. They are parameters of the estimator like all others. A builder
        that leaves its model uncompiled is compiled with Adam, and ``learning_rate`` is that of the
        optimizer; one that compiles its model takes ``learning_rate`` itself, or it is refused.

    Attributes
    ----------
    model_ : keras.Model
        The trained model.
    history_ : dict of str to list
        What Keras's ``fit`` told, by epoch.
    classes_ : ndarray, shape (classes,)
        The classes, sorted.

    Examples
    --------
    >>> def build(units=8):
    ...     import keras
    ...
    ...     layers = [keras.layers.Dense(units, "relu"), keras.layers.Dense(1, "sigmoid")]
    ...     return keras.Sequential(layers)
    >>> KerasClassifier(build, epochs=3, units=16).get_params()["units"]
    16
    """

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities.

        Parameters
        ----------
        X : array-like, shape (n, ...)
            The inputs.

        Returns
        -------
        ndarray, shape (n, classes)
            In the order of `classes_`.
        """
        found = self._outputs(X)
        if found.ndim == 1 or found.shape[1] == 1:
            event = found.reshape(-1, 1)
            found = np.hstack([1 - event, event])
        return found

    def predict(self, X: Any) -> Any:
        """Return the most probable classes.

        Parameters
        ----------
        X : array-like, shape (n, ...)
            The inputs.

        Returns
        -------
        ndarray, shape (n,)
            Of `classes_`.
        """
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _target(self, y: Any) -> Any:
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        return numbers

    def _given(self, X: Any) -> dict[str, Any]:
        return super()._given(X) | {"classes": len(self.classes_)}

    def _as_the_loss_has_it(self, model: Any, y: Any) -> Any:
        name = getattr(model.loss, "name", None) or getattr(model.loss, "__name__", model.loss)
        return np.eye(len(self.classes_))[y] if name == "categorical_crossentropy" else y

    def _loss(self, model: Any) -> str:
        # A model without input layer has no shape yet; two classes may well have two outputs.
        shape = getattr(model.layers[-1], "units", None) or model.output_shape[-1]
        return "binary_crossentropy" if shape == 1 else "sparse_categorical_crossentropy"


class KerasRegressor(RegressorMixin, _KerasEstimator):  # type: ignore[misc]
    """A regressor that is a Keras model.

    One that its builder leaves uncompiled is trained on the mean squared error. ``score`` is that
    of scikit-learn's regressors, the coefficient of determination.

    Parameters
    ----------
    build : callable
        Returns a Keras model, compiled or not; called with the keywords of `hyperparameters`, and
        with ``input_shape`` (of one case) where it asks for it by name. A function of a module, or
        of a script, so that workers can be given it.
    epochs, batch_size : int
        Of the training.
    random_state : int, optional
        Seed of weights, order of batches and dropout. None: other ones each time. Fits with a seed
        in threads of one process wait for each other.
    verbose : int
        As of Keras's ``fit``.
    fit_options : dict, optional
        What else Keras's ``fit`` is called with: ``callbacks``, ``validation_split``, ...
    **hyperparameters : object
        Arguments of the builder. They are parameters of the estimator like all others. A builder
        that leaves its model uncompiled is compiled with Adam, and ``learning_rate`` is that of the
        optimizer; one that compiles its model takes ``learning_rate`` itself, or it is refused.

    Attributes
    ----------
    model_ : keras.Model
        The trained model.
    history_ : dict of str to list
        What Keras's ``fit`` told, by epoch.
    """

    def predict(self, X: Any) -> Any:
        """Return the predictions.

        Parameters
        ----------
        X : array-like, shape (n, ...)
            The inputs.

        Returns
        -------
        ndarray
            Of the shape that y had.
        """
        found = self._outputs(X)
        return found.reshape(len(found)) if self._flat else found

    def _target(self, y: Any) -> Any:
        self._flat = np.ndim(y) == 1
        return np.asarray(y, dtype=np.float64)

    def _loss(self, model: Any) -> str:
        return "mse"


def _takes(build: Callable[..., Any]) -> set[str] | None:
    """Return the keywords that a builder takes; None: any."""
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(build).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return None
    return set(parameters)


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed what Keras draws from; leave all generators as they were.

    Keras takes the seeds of weights and of dropout from Python's global generator, from which other
    threads may draw in the midst of it, so it is lent one of its own. `training.randomness` does
    the same for programs of which it knows all random operations; those of ``fit`` it does not.
    """
    if seed is None:
        yield
        return
    import keras
    from keras.src.random import seed_generator

    with generators_kept():
        keras.utils.set_random_seed(int(seed))
        seed_generator.python_random = random.Random(int(seed))
        yield
