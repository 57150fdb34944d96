"""Fingerprints: if they fail, a search goes on with another's scores, or refuses its own."""

from __future__ import annotations

import datetime
import functools
import os
import re
import subprocess
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.stats
import sklearn
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, mean_squared_error
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stormsweep import SweepSearchCV, UserError
from stormsweep.sweepcv.fingerprint import fingerprint


def scorer(power):
    return lambda estimator, X, y: estimator.score(X, y) ** power


class Ring:
    """Holds itself."""

    def __init__(self, size):
        self.size, self.me = size, self


class Slotted:
    """Has no `__dict__`, but another's slot as well."""

    __slots__ = ("__inner", "size", "unset")

    def __init__(self, size):
        self.size, self.__inner = 1, size


@dataclass(frozen=True, slots=True)
class Frozen:
    size: int


class Tensor(threading.local):
    """Its numbers are in no attribute, as those of PyTorch's tensors."""

    def __init__(self, numbers):
        _NUMBERS[id(self)] = self, numbers

    def detach(self):
        return self

    cpu = detach

    def __array__(self, dtype=None, copy=None):
        return np.asarray(_NUMBERS[id(self)][1], dtype)


_NUMBERS = {}


def long_array(n, **more):
    """Numbers that the words of the array leave out."""
    numbers = np.zeros((2000, 3))
    numbers[1000, 1] = n
    return xr.DataArray(numbers, **more)


def masked(n):
    mask = np.zeros(2000, bool)
    mask[1000] = n
    return np.ma.MaskedArray(np.zeros(2000), mask)


def with_global(n):
    """Return a function of a module in which a number was changed."""
    module = types.ModuleType("edited")
    text = (
        f"LIMIT = {n}\ndef inner(x):\n    return x + LIMIT\n"
        "def outer(x):\n    return [inner(y) for y in x]"
    )
    exec(compile(text, "edited.py", "exec"), vars(module))
    return module.outer


def with_module(n):
    """Return a function that calls one of another module, which was changed."""
    helpers = types.ModuleType("helpers")
    helpers.__file__ = "helpers.py"
    exec(compile(f"def loss(x):\n    return x + {n}", "helpers.py", "exec"), vars(helpers))
    known = {"helpers": helpers}
    text = "def scorer(x):\n    return helpers.loss(x)"
    exec(compile(text, "script.py", "exec"), known)
    return known["scorer"]


def with_empty_cell(n):
    def wanting(x):
        return later + x + n

    if n > 2:
        later = 3
    return wanting


def routed(n):
    """Return an estimator that asks for weights or for none, cloned."""
    with sklearn.config_context(enable_metadata_routing=True):
        return clone(LogisticRegression().set_fit_request(sample_weight=bool(n)))


def frozen(n):
    """Return a pipeline that begins with what was learned of other data."""
    X = np.arange(20.0).reshape(-1, 1)
    encoder = make_pipeline(StandardScaler(), PCA(random_state=0)).fit(X + n)
    return clone(make_pipeline(FrozenEstimator(encoder), LogisticRegression()))


def frozen_search(n):
    """Return a frozen search, which holds how long its fits took."""
    X = np.arange(20.0).reshape(-1, 1)
    forest = RandomForestClassifier(n_estimators=2, random_state=0)
    search = GridSearchCV(forest, {"max_depth": [1]}, cv=2)
    return FrozenEstimator(search.fit(X, np.arange(20) % 2 if n else np.arange(20) > 9))


def frozen_words(n):
    """Return a frozen vectorizer, which holds the address of its stop words."""
    return FrozenEstimator(TfidfVectorizer(stop_words=["the"]).fit(["the hail", f"storms {n}0"]))


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
    "routed": routed,
    "output": lambda n: StandardScaler().set_output(transform="pandas" if n else "default"),
    "frozen": frozen,
    "frozen search": frozen_search,
    "frozen words": frozen_words,
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
    "xarray": long_array,
    "coordinates": lambda n: long_array(0, dims=("x", "y"), coords={"y": [1, 2, 3 + n]}),
    "dimensions": lambda n: long_array(0, dims=("x", "yz"[n])),
    "data set": lambda n: xr.Dataset({"a": long_array(n)}),
    "mask": masked,
    "fields": lambda n: np.zeros(2, [("ab"[n], "f8")]),
    "kinds of fields": lambda n: np.zeros(2, [("a", "f8" if n else "i8")]),
    "tree": lambda n: xr.DataTree(children={"b": xr.DataTree(xr.Dataset({"a": long_array(n)}))}),
    "class of arrays": lambda n: xr.Dataset if n else xr.DataArray,
    "unit": lambda n: np.datetime64(1, "sD"[n]),
    "slots": Slotted,
    "frozen slots": Frozen,
    "tensor": lambda n: Tensor([1.0, n]),
    "nested": lambda n: {"a": [Slotted(long_array(n))]},
    "global": with_global,
    "module": with_module,
    "empty cell": with_empty_cell,
    "bound": lambda n: {1: n}.get,
    "cached": lambda n: functools.lru_cache(scorer(n)),
    "pattern": lambda n: re.compile("ab"[n]),
    "path": lambda n: Path("ab"[n]),
    "date": lambda n: datetime.date(2020, 1, 1 + n),
    "dtype itself": lambda n: np.dtype("f8" if n else "f4"),
    "missing": lambda n: pd.Series([1, None if n else 2], dtype="Int64"),
    "unused category": lambda n: pd.Series(pd.Categorical(["u"], ["u", "v" if n else "w"])),
}


@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
def test_equal_things_have_equal_fingerprints_and_others_have_not(make):
    assert fingerprint(make(0)) == fingerprint(make(0))
    assert fingerprint(make(0)) != fingerprint(make(1))


@pytest.mark.parametrize(
    "opaque",
    [threading.Lock(), (n for n in [1]), Slotted(threading.Lock())],
    ids=["lock", "generator", "slot"],
)
def test_what_does_not_say_what_it_holds_is_refused_in_one_line(opaque):
    with pytest.raises(UserError, match=r"^directory: an object of .* does not say .*$"):
        fingerprint({"a": opaque})
    assert fingerprint(1)


class Opaque:
    """Can be copied, but not written down."""

    def __deepcopy__(self, known):
        return self

    def __reduce__(self):
        raise TypeError("not\nto be pickled")


class Holding(LogisticRegression):
    """Takes anything."""

    def __init__(self, held=None):
        super().__init__()
        self.held = held


def test_only_a_search_with_a_directory_refuses_what_has_no_fingerprint(tmp_path):
    X, y = np.arange(20.0).reshape(-1, 1), np.arange(20) % 2
    search = SweepSearchCV(Holding(), {"held": [Opaque()]}, cv=2).fit(X, y)
    assert len(search.cv_results_["params"]) == 1
    with pytest.raises(UserError, match=r"Opaque does not say .* \(TypeError: not to be pickled"):
        search.set_params(directory=tmp_path).fit(X, y)


@pytest.mark.slow
def test_losses_of_keras_differ_by_what_their_configuration_leaves_out():
    keras = pytest.importorskip("keras")

    class Weighted(keras.losses.Loss):
        def __init__(self, weight):
            super().__init__()
            self.weight = weight

    assert fingerprint(Weighted(1.0)) == fingerprint(Weighted(1.0)) != fingerprint(Weighted(2.0))
    rates = [fingerprint(keras.optimizers.Adam(rate)) for rate in (0.1, 0.1, 0.2)]
    assert rates[0] == rates[1] != rates[2]


def test_a_global_that_scores_are_not_made_of_is_no_hindrance():
    known = {"lock": threading.Lock(), "n": 1}
    exec(compile("def scorer(x):\n    with lock:\n        return n", "script.py", "exec"), known)
    before = fingerprint(known["scorer"])
    assert fingerprint(known["scorer"]) == before
    known["n"] = 2
    assert fingerprint(known["scorer"]) != before


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
