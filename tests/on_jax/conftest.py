"""Collect nothing where Keras is to run on TensorFlow."""

import os

collect_ignore_glob = [] if os.environ.get("STORMSWEEP_TEST_JAX") else ["test_*.py"]
