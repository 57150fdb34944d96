"""Checkpoints: what was written whole comes back the same, what is damaged counts as missing."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stormsweep.training.checkpoint import (
    discard,
    load,
    path_of,
    remove,
    remove_passed,
    save,
)

STATE = {
    "model/000": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    "model/001": np.array([7, 1], np.int32),
    "optimizer/000": np.array(5, np.int64),
}


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    path = save(tmp_path / "new", "run-1", 5, STATE, {"scores": {"roc_auc": 0.1 + 0.2}})
    assert path.name == "run-1-e0005.npz"
    state, result = load(tmp_path / "new", "run-1", 5)
    assert result == {"scores": {"roc_auc": 0.1 + 0.2}}
    assert state.keys() == STATE.keys()
    for name, value in STATE.items():
        assert state[name].dtype == value.dtype
        assert np.array_equal(state[name], value)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.int64]),
        hnp.array_shapes(min_dims=0, min_side=0),
        elements=st.integers(-99, 99),
    )
)
@settings(max_examples=25, deadline=None)
def test_any_array_comes_back(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("checkpoints")
    save(folder, "r", 1, {"a/b": value}, {})
    state, _ = load(folder, "r", 1)
    assert state["a/b"].shape == value.shape
    assert state["a/b"].tobytes() == value.tobytes()


def test_a_missing_checkpoint_is_none_without_a_word(tmp_path):
    said = []
    assert load(tmp_path, "run-1", 5, said.append) is None
    assert load(tmp_path / "nowhere", "run-1", 5, said.append) is None
    assert said == []


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.99])
def test_a_cut_off_checkpoint_counts_as_missing_and_says_so(tmp_path, where):
    path = save(tmp_path, "run-1", 5, STATE, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(where * len(whole))])
    said = []
    assert load(tmp_path, "run-1", 5, said.append) is None
    assert str(path) in said[0]


def test_no_flipped_byte_changes_what_comes_back(tmp_path):
    # A study must never go on from weights that are not those it wrote.
    path = save(tmp_path, "run-1", 5, STATE, {"a": 1})
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        found = load(tmp_path, "run-1", 5, lambda _: None)
        if found is not None:
            state, result = found
            assert result == {"a": 1}
            assert all(np.array_equal(state[name], STATE[name]) for name in STATE)


def test_a_file_renamed_to_another_run_is_refused(tmp_path):
    save(tmp_path, "run-1", 5, STATE, {}).rename(path_of(tmp_path, "run-2", 5))
    said = []
    assert load(tmp_path, "run-2", 5, said.append) is None
    assert "another run" in said[0]


def test_a_pickle_is_never_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.savez(path_of(tmp_path, "r", 1), **{"state/a": np.array([Trap()], object)})
    assert load(tmp_path, "r", 1, lambda _: None) is None


def test_a_checkpoint_is_replaced_and_nothing_is_left_beside(tmp_path):
    save(tmp_path, "r", 1, STATE, {"a": 1})
    save(tmp_path, "r", 1, STATE, {"a": 2})
    assert load(tmp_path, "r", 1)[1] == {"a": 2}
    assert len(list(tmp_path.iterdir())) == 1


def test_no_folder_is_listed_to_write_a_checkpoint(tmp_path, monkeypatch):
    """Losing this: thirty thousand listings of ten thousand names on a disk that all share."""
    save(tmp_path, "r", 1, STATE, {})

    def listed(path="."):
        raise AssertionError(f"{path} is listed")

    with monkeypatch.context() as patched:
        for name in ("listdir", "scandir"):
            patched.setattr(os, name, listed)
        save(tmp_path, "r", 1, STATE, {})
        save(tmp_path, "r", 2, STATE, {})
    assert len(list(tmp_path.iterdir())) == 2


def test_the_checkpoint_before_one_that_could_not_be_written_stays(tmp_path):
    """Losing this: a whole run, trained again in the next session after a quota was full."""
    for epoch in (3, 5, 15):
        save(tmp_path, "r", epoch, STATE, {})
    assert remove_passed(tmp_path, {"r": (10, False)}) == 1
    assert load(tmp_path, "r", 3) is None
    assert load(tmp_path, "r", 5) is not None
    assert remove_passed(tmp_path, {"r": (15, False)}) == 1
    assert load(tmp_path, "r", 5) is None


def test_only_what_is_passed_is_removed(tmp_path):
    for epoch in (5, 10, 15):
        save(tmp_path, "r", epoch, STATE, {})
        save(tmp_path, "ended", epoch, STATE, {})
    save(tmp_path, "r-e0005", 99, STATE, {})
    assert remove_passed(tmp_path, {"r": (10, False), "ended": (15, True)}) == 4
    assert load(tmp_path, "r", 5) is None
    # The last on record, from which the run goes on, and the one after, whose result was lost.
    assert load(tmp_path, "r", 10) is not None
    assert load(tmp_path, "r", 15) is not None
    discard(tmp_path, "r", (5, 10))
    assert load(tmp_path, "r", 10) is None
    assert remove(tmp_path, "r") == 1
    assert remove(tmp_path, "r") == 0
    assert load(tmp_path, "r-e0005", 99) is not None
