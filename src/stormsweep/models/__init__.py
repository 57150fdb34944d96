"""Models: the two of the 2019 study, and how a user's own model is found.

Importing this package does not import Keras; building a model does.
"""

from stormsweep.models.storm import storm_cnn, storm_dnn

__all__ = ["storm_cnn", "storm_dnn"]
