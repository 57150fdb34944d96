"""Runs of small models on JAX, as the tests here train them; importing this sets JAX up."""

from __future__ import annotations

import numpy as np

from stormsweep.training.engine import FoldData
from stormsweep.training.keras_jax import configure

configure(1)

from stormsweep.models import storm_cnn  # noqa: E402

SEED, RATES = 11, (0.001, 0.005, 0.02)
RUN = {"batch_size": 32, "filters": [4]}
#: Of float32 sums in another order, over a few epochs.
NEAR = {"atol": 2e-4, "rtol": 2e-4}
INPUTS = np.random.default_rng(5).standard_normal((300, 12, 12, 3), dtype=np.float32)
LABELS = (INPUTS.reshape(300, -1)[:, :4].sum(1) > 0.3).astype(np.uint8)


def fold(rows, class_weight=None):
    return FoldData(INPUTS, LABELS, rows, np.arange(250, 300), class_weight, 0.4)


#: 4 batches and 22, 6 batches and 8, 5 and none: no two folds take the same steps.
FOLDS = [fold(np.arange(150)), fold(np.arange(50, 250)), fold(np.arange(160))]
WEIGHTED = [fold(data.train, (0.7, 1.9)) for data in FOLDS]


def normalized(learning_rate):
    """What a layer computes over a batch would change if the batch were filled up."""
    import keras

    model = keras.Sequential(
        [
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "binary_crossentropy")
    return model


def started(engine, builder=storm_cnn, run=RUN, folds=FOLDS, rates=RATES):
    return [
        engine.start(builder, {**run, "learning_rate": rate}, SEED, number, data)
        for rate in rates
        for number, data in enumerate(folds)
    ]


def together(engine, runs, to_epoch):
    """Train runs in one call; return what came of each, in their order."""
    found = {id(run): result for part in engine.train(runs, to_epoch) for run, result in part}
    return [found[id(run)] for run in runs]


def alike(run, other):
    assert run.state().keys() == other.state().keys()
    for name, value in run.state().items():
        np.testing.assert_allclose(value, other.state()[name], **NEAR, err_msg=name)


def rows_of_numbers(train=150):
    inputs = INPUTS[:, 0, 0]
    return FoldData(
        inputs,
        (inputs[:, 0] > 0).astype(np.uint8),
        np.arange(train),
        np.arange(250, 300),
        None,
        0.5,
    )
