"""Tests of the JAX engine; Keras has one backend a process, so another process runs them.

`tests/unit/test_training_jax.py` starts it. To run them by hand: ``STORMSWEEP_TEST_JAX=1 pytest
tests/on_jax``.
"""
