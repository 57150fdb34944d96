"""A learning rate that is a constant of a model's program, as users write them."""

from __future__ import annotations

from typing import Any


def warming(learning_rate: float) -> Any:
    """Return a schedule of one's own; import no Keras before its backend is chosen."""
    import keras

    class Warming(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        def __init__(self, learning_rate: float) -> None:
            self.learning_rate = learning_rate

        def __call__(self, step: Any) -> Any:
            return self.learning_rate * keras.ops.minimum(1.0, (step + 1.0) / 3)

        def get_config(self) -> dict[str, float]:
            return {"learning_rate": self.learning_rate}

    return Warming(learning_rate)
