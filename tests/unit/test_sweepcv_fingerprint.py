"""Fingerprints: if they fail, a search goes on with another's scores, or refuses its own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stormsweep.sweepcv.fingerprint import fingerprint


def scorer(power):
    return lambda estimator, X, y: estimator.score(X, y) ** power


class Ring:
    """Holds itself."""

    def __init__(self, size):
        self.size, self.me = size, self


FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=[3, 4])
#: Each made twice alike, and once otherwise.
PAIRS = {
    "array": lambda n: np.arange(6.0).reshape(2, 3) + n,
    "shape": lambda n: np.zeros((2, 3) if n else (3, 2)),
    "dtype": lambda n: np.zeros(2, "f8" if n else "f4"),
    "strided": lambda n: np.arange(12)[n::2],
    "texts": lambda n: np.array(["a", "bc" if n else "b"], object),
    "sparse": lambda n: scipy.sparse.csc_matrix([[0, 1 + n], [2, 0]]),
    "frame": lambda n: FRAME.assign(a=[1, 2 + n]),
    "names": lambda n: FRAME.rename(columns={"a": f"a{n}"}),
    "index": lambda n: FRAME.set_index(pd.Index([3, 5 + n])),
    "series": lambda n: pd.Series([1.0, n], name="y"),
    "categories": lambda n: pd.Series(["u", "v" if n else "w"], dtype="category"),
    "estimator": lambda n: make_pipeline(StandardScaler(), LogisticRegression(C=1 + n)),
    "class": lambda n: RandomForestClassifier() if n else LogisticRegression(),
    "closure": scorer,
    "lambda": lambda n: (lambda x: x + 1) if n else (lambda x: x + 2),
    "partial": lambda n: functools.partial(max, n),
    "scorer": lambda n: make_scorer(mean_squared_error, greater_is_better=bool(n)),
    "distribution": lambda n: scipy.stats.loguniform(1, 10 + n),
    "random state": lambda n: np.random.RandomState(n),
    "generator": lambda n: np.random.default_rng(n),
    "ring": Ring,
    "set": lambda n: {"a", "b", str(n)},
    "kinds": lambda n: 1 if n else True,
}


@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
def test_equal_things_have_equal_fingerprints_and_others_have_not(make):
    assert fingerprint(make(0)) == fingerprint(make(0))
    assert fingerprint(make(0)) != fingerprint(make(1))


def test_it_is_the_same_in_another_process():
    code = (
        "from tests.unit.test_sweepcv_fingerprint import *\n"
        "print(fingerprint(*[make(0) for make in PAIRS.values()]))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == fingerprint(*[make(0) for make in PAIRS.values()])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_plain_values_differ_where_python_says_so(one, other):
    same = repr(one) == repr(other)
    assert (fingerprint(one) == fingerprint(other)) >= same
    if one != other:
        assert fingerprint(one) != fingerprint(other)
