"""Seeding TensorFlow without throwing away what it has made ready to run.

`tf.random.set_seed` clears TensorFlow's cache of kernels, so that random operations with a state of
their own begin anew. With them goes every compiled function: the next call of a program optimizes
its graph again, a fifth of a second for the storm CNN, for every run. Keras's own layers and
initializers draw from seeds that are inputs, and have no state to be cleared.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tensorflow.python.eager import context
from tensorflow.python.framework import random_seed

#: How many operations were made that keep a random state, in a model or anywhere else.
_stateful = 0
#: Whether compiled functions were given up, whose kernels stay in memory until they are cleared.
_given_up = False
_get_seed = random_seed.get_seed


def _get_seed_and_note(op_seed: Any) -> Any:
    """Do what TensorFlow does to seed an operation with a state: nearly all are made with it."""
    global _stateful
    _stateful += 1
    return _get_seed(op_seed)


random_seed.get_seed = _get_seed_and_note


def made_with_a_state() -> int:
    """Return how many operations were made so far that keep a random state."""
    return _stateful


def forget_made_since(made: int) -> None:
    """Take what was made since there were `made` for what will never run, and have no state."""
    global _stateful
    _stateful = made


def draws_with_a_state(graph: Any) -> str | None:
    """Return the name of a random operation in a traced function that keeps a state of its own.

    Such a one was seeded when the function was traced, for whichever run that was, and nothing
    outside of its kernel knows how many numbers it has drawn.

    Parameters
    ----------
    graph : tf.Graph
        Of the function; those that it calls are looked through as well. What is inside of
        ``tf.py_function`` cannot be seen.

    Returns
    -------
    str or None
        The operation, below the scopes of its layers, without numbers; None where there is none.
    """
    traced = graph.as_graph_def()
    bodies = [traced.node, *(function.node_def for function in traced.library.function)]
    # Operations without a state are given their seed as an input.
    named = (node.name for body in bodies for node in body if "seed2" in node.attr)
    first = next(named, None)
    # Keras and TensorFlow number what is made, through the process: each run would say another.
    return first and re.sub(r"(_\d+)+(?=/|$)", "", first.removeprefix("while/"))


def clear_next() -> None:
    """Have the next seeding clear all kernels, and with them those of what was given up."""
    global _given_up
    _given_up = True


@contextmanager
def kernels_kept() -> Iterator[None]:
    """Let `tf.random.set_seed` inside the block leave compiled functions as they are.

    From the first random operation with a state of its own (``tf.random.normal``, say, for a user's
    initial weights) the block changes nothing: such a one must begin anew with every run.
    """
    held = context.context()
    clearing = held._set_global_seed

    def set_seed(seed: int) -> None:
        global _given_up
        if _stateful or _given_up:
            clearing(seed)
            _given_up = False
        else:
            known = isinstance(seed, int | str | None)  # all that TensorFlow takes, and arrays
            held._seed, held._rng = seed, random.Random(seed if known else int(seed))

    held._set_global_seed = set_seed
    try:
        yield
    finally:
        held._set_global_seed = clearing
