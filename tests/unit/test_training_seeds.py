"""Randomness that depends on seed, fold and epoch alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.training.seeds import batch_order, initial_seed, seed32


def test_seeds_are_the_same_for_ever():
    # Other numbers here would change the scores of every study that was ever run.
    assert [seed32(2019, 0, "weights"), seed32(2019, 2, "order", 15)] == [958645222, 2711778416]
    assert batch_order(np.arange(8), 2019, 1, 3).tolist() == [6, 3, 7, 2, 0, 4, 5, 1]


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(1, 99))
def test_seeds_are_distinct_and_fit_32_bits(seed, fold, epoch):
    made = {
        initial_seed(seed, fold),
        initial_seed(seed, fold + 1),
        seed32(seed, fold, "order", epoch),
        seed32(seed, fold, "order", epoch + 1),
        seed32(seed, epoch, "order", fold + 100),
    }
    assert len(made) == 5
    assert all(0 <= value < 2**32 for value in made)


@given(st.lists(st.integers(0, 50)), st.integers(0, 99))
def test_an_epoch_has_every_row_as_often_as_given(rows, seed):
    order = batch_order(np.array(rows, np.int64), seed, 0, 1)
    assert sorted(order.tolist()) == sorted(rows)
    assert order.dtype == np.int64
