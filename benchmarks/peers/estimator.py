"""A Keras model as a scikit-learn classifier: what `keras.wrappers.scikit_learn` was in 2019.

Its successors do not serve here: SciKeras 0.13 cannot be scored by scikit-learn 1.9 (it still
answers for its tags in the way that 1.7 removed), and `keras.wrappers.SKLearnClassifier` of Keras
3.15 refuses images ("Found array with dim 4").
"""

from __future__ import annotations

import numpy as np
import problem
from sklearn.base import BaseEstimator, ClassifierMixin


class KerasClassifier(ClassifierMixin, BaseEstimator):
    """The network of `problem.build`, trained by Keras's `fit`."""

    def __init__(
        self, batch_size: int = 128, learning_rate: float = 0.001, epochs: int = 1
    ) -> None:
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.epochs = epochs

    def fit(self, X: np.ndarray, y: np.ndarray) -> KerasClassifier:
        self.classes_ = np.unique(y)
        self.model_ = problem.fit(X, y, self.batch_size, self.learning_rate, self.epochs)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        event = problem.predict(self.model_, X, self.batch_size)
        return np.column_stack([1 - event, event])
