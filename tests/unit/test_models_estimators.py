"""Keras models in scikit-learn's clothes: without them a Keras user cannot use SweepSearchCV."""

from __future__ import annotations

import pickle
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stormsweep import KerasClassifier, KerasRegressor, SweepSearchCV


def build(input_shape, units=8):
    """Leaves loss and optimizer to the estimator, as builders of studies do."""
    import keras

    return keras.Sequential(
        [
            keras.layers.Input(input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(units, "relu"),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )


def build_three(classes, loss="sparse_categorical_crossentropy"):
    import keras

    model = keras.Sequential([keras.layers.Dense(classes, "softmax")])
    model.compile("adam", loss)
    return model


def build_line():
    import keras

    return keras.Sequential([keras.layers.Dense(1)])


def test_every_parameter_survives_a_clone_and_a_wrong_one_is_named():
    made = KerasClassifier(build, epochs=7, batch_size=5, units=3, fit_options={"shuffle": False})
    assert clone(made).get_params() == made.get_params()
    assert clone(made).set_params(units=4, learning_rate=0.1, epochs=2).get_params() == (
        made.get_params() | {"units": 4, "learning_rate": 0.1, "epochs": 2}
    )
    with pytest.raises(ValueError, match=r"Invalid parameter 'unit' .*; allowed are .*units"):
        made.set_params(unit=3)


def test_a_learning_rate_that_would_have_no_effect_is_refused():
    X, y = load_iris(return_X_y=True)
    message = r"^learning_rate: 0\.1 would have no effect, because build_three compiles .*$"
    with pytest.raises(ValueError, match=message):
        KerasClassifier(build_three, learning_rate=0.1).fit(X, y)
    with pytest.raises(ValueError, match=message):
        SweepSearchCV(
            KerasClassifier(build_three), {"learning_rate": [0.1]}, cv=2, error_score="raise"
        ).fit(X, y)


def build_paced(learning_rate):
    import keras

    model = keras.Sequential([keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy")
    return model


def test_a_learning_rate_that_the_builder_takes_is_its_own():
    X, y = load_iris(return_X_y=True)
    made = KerasClassifier(build_paced, learning_rate=0.25, batch_size=150, random_state=0).fit(
        X, y
    )
    assert float(made.model_.optimizer.learning_rate) == 0.25


@pytest.mark.slow
def test_two_classes_three_and_numbers():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    two = KerasClassifier(build, epochs=5, learning_rate=0.01, random_state=0)
    two.fit(X, np.where(y, "benign", "malignant"))
    assert roc_auc_score(y, two.predict_proba(X)[:, 0]) > 0.95
    assert set(two.predict(X)) == {"benign", "malignant"}
    assert len(two.history_["loss"]) == 5
    again = pickle.loads(pickle.dumps(two))
    np.testing.assert_array_equal(again.predict_proba(X), two.predict_proba(X))
    # Images, too.
    images = X[:, :24].reshape(-1, 2, 3, 4)
    assert KerasClassifier(build).fit(images, y).predict(images).shape == (len(y),)

    X, y = load_iris(return_X_y=True)
    found = [
        KerasClassifier(build_three, epochs=2, random_state=1, loss=loss).fit(X, y).predict_proba(X)
        for loss in ("sparse_categorical_crossentropy", "categorical_crossentropy")
    ]
    assert found[0].shape == (150, 3)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)

    X, y = load_diabetes(return_X_y=True)
    line = KerasRegressor(build_line, epochs=2, random_state=0).fit(X, y)
    assert line.predict(X).shape == y.shape


@pytest.mark.slow
def test_a_seed_gives_the_same_model_and_leaves_other_generators_alone():
    X, y = load_iris(return_X_y=True)
    before = random.getstate()
    found = [
        KerasClassifier(build_three, random_state=5).fit(X, y).predict_proba(X) for _ in range(2)
    ]
    np.testing.assert_array_equal(*found)
    assert random.getstate() == before


def build_drawing(disturb):
    """A model in whose making somebody else draws from Python's generator, `disturb` a time."""
    import keras

    layers = []
    for width in (4, 3):
        random.sample(range(9), disturb)
        layers += [keras.layers.Dense(width, "softmax"), keras.layers.Dropout(0.2)]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.mark.slow
def test_another_thread_that_draws_random_numbers_changes_no_score():
    X, y = load_iris(return_X_y=True)
    quiet, disturbed = (
        KerasClassifier(build_drawing, disturb=disturb, random_state=5).fit(X, y).predict_proba(X)
        for disturb in (0, 3)
    )
    np.testing.assert_array_equal(disturbed, quiet)


@pytest.mark.slow
def test_a_seed_of_an_estimator_does_not_become_that_of_the_program():
    """Else what a notebook draws from TensorFlow after a fit is the same numbers each time."""
    import keras
    import tensorflow as tf

    X, y = load_iris(return_X_y=True)
    keras.utils.set_random_seed(1)
    expected = tf.random.normal([3]).numpy(), keras.random.normal([3]).numpy()
    keras.utils.set_random_seed(1)
    KerasClassifier(build_three, random_state=5).fit(X, y)
    found = tf.random.normal([3]).numpy(), keras.random.normal([3]).numpy()
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def build_in_step(own, other):
    """Tell another thread that this builder was called; give it a moment to come as far."""
    own.set()
    other.wait(timeout=1)
    return build_drawing(0)


def test_fits_in_two_threads_are_those_of_one_and_leave_keras_its_generator():
    """Else scores of ``cross_val_score`` with threads change from call to call, and Keras goes on
    with a generator that nobody can seed any more."""
    from keras.src.random import seed_generator

    X, y = load_iris(return_X_y=True)
    alone = KerasClassifier(build_drawing, disturb=0, random_state=5).fit(X, y).predict_proba(X)
    inside = [threading.Event(), threading.Event()]

    def fit(own, other):
        made = KerasClassifier(build_in_step, own=own, other=other, random_state=5)
        return made.fit(X, y).predict_proba(X)

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(fit, inside, reversed(inside)))
    assert seed_generator.python_random is random
    for probabilities in found:
        np.testing.assert_array_equal(probabilities, alone)


@pytest.mark.slow
def test_arguments_of_the_builder_are_searched_beside_epochs():
    X, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), KerasClassifier(build, random_state=0))
    grid = {"kerasclassifier__units": [2, 8], "kerasclassifier__epochs": [1]}
    ours = SweepSearchCV(pipeline, grid, cv=2, scoring="roc_auc").fit(X, y)
    theirs = GridSearchCV(pipeline, grid, cv=2, scoring="roc_auc").fit(X, y)
    np.testing.assert_array_equal(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"]
    )
    assert len(set(ours.cv_results_["mean_test_score"])) == 2
