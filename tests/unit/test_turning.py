"""Turned patches: if these fail, the wind no longer fits the image, or a run depends on chance."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormsweep.data.prepared import PreparedData, PreparedWriter, Target, Variable
from stormsweep.data.turned import open_turned, turn, vectors_of, write_turned
from stormsweep.errors import DataError
from stormsweep.training.engine import FoldData, Turning
from stormsweep.training.keras_tf import KerasEngine, configure
from stormsweep.training.seeds import draw_turns, draw_versions
from stormsweep.work import Augmentation
from tests.marks import slow

SIDE = 32
MIDDLE = (SIDE - 1) / 2
PHYSICAL = Augmentation("physical", 20.0, flip=False, copies=2)


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    configure(1)


def smooth_wind(seed):
    """Wind of a few smooth vortices and divergences in the middle of a patch, (1, 32, 32, 2)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    u, v = np.zeros((2, SIDE, SIDE))
    for _ in range(3):
        at_x, at_y = random.uniform(11, 20, 2)
        spin, spread = random.uniform(-3, 3, 2)
        bell = np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * 3.0**2))
        u += (spread * (x - at_x) - spin * (y - at_y)) * bell
        v += (spread * (y - at_y) + spin * (x - at_x)) * bell
    return np.stack([u, v], -1)[np.newaxis].astype(np.float32)


def vorticity(wind):
    """dv/dx - du/dy by central differences, per cell."""
    du_dy = np.gradient(wind[0, ..., 0], axis=0)
    dv_dx = np.gradient(wind[0, ..., 1], axis=1)
    return dv_dx - du_dy


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(-np.pi, np.pi))
def test_the_vorticity_of_the_turned_wind_is_the_turned_vorticity(seed, angle):
    wind = smooth_wind(seed)
    angles, plain = np.array([angle]), np.array([False])
    of_turned = vorticity(turn(wind, angles, plain, vectors=[(0, 1)]))
    before = vorticity(wind)[np.newaxis, ..., np.newaxis].astype(np.float32)
    turned = turn(before, angles, plain)[0, ..., 0]
    inner = slice(6, -6)
    error = np.abs(of_turned - turned)[inner, inner].max()
    assert error < 0.12 * np.abs(before).max()  # linear interpolation between cells
    # A wind that is left as it was would be far off for any angle worth the name.
    if abs(angle) > 0.5 and np.abs(before).max() > 1:
        unturned = vorticity(turn(wind, angles, plain))
        assert np.abs(unturned - turned)[inner, inner].max() > 2 * error


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(-0.5, 0.5))
def test_a_mirror_image_turns_the_sense_of_rotation(seed, angle):
    wind = smooth_wind(seed)
    mirrored = turn(wind, np.array([0.0]), np.array([True]), vectors=[(0, 1)])
    np.testing.assert_allclose(vorticity(mirrored), -vorticity(wind)[:, ::-1], atol=1e-4)


def test_a_quarter_turn_is_exact():
    wind = smooth_wind(1)
    turned = turn(wind, np.array([np.pi / 2]), np.array([False]), vectors=[(0, 1)])
    # What was east is north now: the cell (row, col) comes from (side - 1 - col, row) ...
    moved = wind[0].transpose(1, 0, 2)[:, ::-1]
    # ... and an eastward wind blows northward.
    expected = np.stack([-moved[..., 1], moved[..., 0]], -1)
    np.testing.assert_allclose(turned[0], expected, atol=1e-4)


@pytest.mark.parametrize(("physical", "mode"), [(True, "reflect"), (False, "nearest")])
@pytest.mark.parametrize("degrees", [5, 180])
def test_the_compiled_epoch_turns_patches_as_scipy_does(physical, mode, degrees):
    import tensorflow as tf

    from stormsweep.training.turning import turn as turn_in_graph

    random = np.random.default_rng(3)
    mean, std = np.array([20.0, -0.3, 0.8]), np.array([15.0, 4.6, 5.0])
    raw = (random.standard_normal((12, SIDE, SIDE, 3)) * std + mean).astype(np.float32)
    scaled = ((raw - mean) / std).astype(np.float32)
    turns = draw_turns(12, degrees, True, 1, 2, 3)
    assert {-1.0, 1.0} == set(turns[:, 1])
    vectors = ((1, 2),) if physical else ()
    how = Turning(degrees, True, physical, vectors, tuple(mean), tuple(std))
    ours = turn_in_graph(tf.constant(scaled), tf.constant(turns), how).numpy()
    theirs = (turn(raw, turns[:, 0], turns[:, 1] < 0, vectors, mode) - mean) / std
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.fixture
def data(tmp_path):
    """Prepared images of a scalar and a wind vector."""
    random = np.random.default_rng(0)
    variables = [Variable("refl"), Variable("u", "m s-1", "wind:x"), Variable("v", "", "wind:y")]
    inputs = random.standard_normal((60, 8, 8, 3)) * [10, 4, 5] + [20, 0, 1]
    with PreparedWriter(
        tmp_path / "prepared", source="npz", synthetic=True, inputs=variables, target=Target("y")
    ) as writer:
        writer.append(inputs, np.arange(60) % 2, is_test=np.arange(60) >= 50)
    return PreparedData.open(tmp_path / "prepared")


def test_turned_patches_lie_after_the_patches_themselves(data):
    folder = write_turned(data, PHYSICAL, seed=4)
    array = open_turned(folder, data.fingerprint, check=True)
    own = data.part("train").inputs
    assert array.shape == (150, 8, 8, 3)
    np.testing.assert_array_equal(array[:50], own)
    assert not np.allclose(array[50:100], own)
    assert not np.allclose(array[50:100], array[100:])
    again = write_turned(data, PHYSICAL, seed=4)
    assert again == folder
    np.testing.assert_array_equal(open_turned(again, data.fingerprint), array)


def test_the_way_of_2019_turns_every_patch_by_two_degrees_and_leaves_the_wind(data):
    array = open_turned(
        write_turned(data, Augmentation("2019-ahead", 2.0, flip=False, copies=1), 0),
        data.fingerprint,
    )
    own = np.asarray(data.part("train").inputs)
    same = turn(own, np.full(50, np.radians(2)), np.zeros(50, bool), mode="constant")
    np.testing.assert_array_equal(array[50:], same)


def test_changed_or_foreign_turned_patches_are_refused(data):
    folder = write_turned(data, PHYSICAL, seed=4)
    with pytest.raises(DataError, match="turned patches changed"):
        open_turned(folder, "another fingerprint")
    with (folder / "inputs.npy").open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"\1\2\3\4")
    with pytest.raises(DataError, match="turned patches changed"):
        open_turned(folder, data.fingerprint, check=True)


def test_channels_of_arrays_are_vectors_where_the_study_says_so(tmp_path):
    from stormsweep.config.study import DataTable
    from stormsweep.data.npz import prepare_npz

    inputs = np.random.default_rng(0).standard_normal((9, 4, 4, 3))
    np.savez(tmp_path / "x.npz", images=inputs, labels=np.arange(9) % 2)
    asked = {"source": "npz", "path": tmp_path / "x.npz", "inputs": ["images"], "target": "labels"}
    wind = {"wind": ["images[1]", "images[2]"]}
    prepared = prepare_npz(DataTable(**asked, vectors=wind), 0, tmp_path / "out")
    assert vectors_of(prepared.manifest) == [(1, 2)]
    assert vectors_of(prepare_npz(DataTable(**asked), 0, tmp_path / "none").manifest) == []
    wrong = {"wind": ["images[1]", "images[3]"]}
    with pytest.raises(DataError, match=r"data.vectors.wind: 'images\[3\]' is no channel"):
        prepare_npz(DataTable(**asked, vectors=wrong), 0, tmp_path / "wrong")


def test_half_a_vector_cannot_be_turned(data):
    manifest = {"inputs": [entry for entry in data.manifest["inputs"] if entry["name"] != "v"]}
    with pytest.raises(DataError, match="'u' is one component of the wind"):
        vectors_of(manifest)


def test_rows_of_a_table_cannot_be_turned(tmp_path):
    with PreparedWriter(
        tmp_path / "p", source="csv", synthetic=False, inputs=[Variable("x")], target=Target("y")
    ) as writer:
        writer.append([[1.0], [2.0], [3.0]], [0, 1, 1])
    with pytest.raises(DataError, match=r"inputs have shape \(1,\); only images"):
        write_turned(PreparedData.open(tmp_path / "p"), PHYSICAL, 0)


def fold_data(**changes):
    random = np.random.default_rng(5)
    inputs = random.standard_normal((300, 12, 12, 3), dtype=np.float32)
    labels = (inputs[:, :4, :4, 0].mean((1, 2)) > 0).astype(np.uint8)
    plain = FoldData(inputs, labels, np.arange(100), np.arange(100, 150), None, 0.4)
    return dataclasses.replace(plain, **changes)


TURNING = Turning(30.0, True, True, ((1, 2),), (0.0, 0.1, 0.2), (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(fold_data(turning=TURNING), id="on the fly"),
        slow(fold_data(versions=range(2)), id="ahead"),
    ],
)
def test_a_turned_run_is_the_same_however_it_is_cut(data):
    from stormsweep.models import storm_cnn

    run, engine = {"batch_size": 32, "learning_rate": 0.005, "filters": [4, 8]}, KerasEngine()

    def predictions(*stops, data=data, interrupted=False):
        trajectory = engine.start(storm_cnn, run, 7, 1, data)
        for stop in stops:
            trajectory.advance(stop)
            if interrupted:
                state = trajectory.state()
                trajectory = engine.start(storm_cnn, run, 7, 1, data)
                trajectory.restore(state, stop)
        return trajectory.predict(data.validation)

    whole = predictions(4)
    np.testing.assert_array_equal(predictions(1, 3, 4), whole)
    np.testing.assert_array_equal(predictions(2, 4, interrupted=True), whole)
    plain = dataclasses.replace(data, turning=None, versions=range(1))
    assert not np.array_equal(predictions(4, data=plain), whole)


def test_draws_depend_on_seed_fold_and_epoch_alone():
    one, same = (draw_turns(50, 5, False, 1, 2, 3) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one[:, 0]).max() <= np.radians(5)
    assert (one[:, 1] == 1).all()
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 4)):
        assert not np.array_equal(draw_turns(50, 5, False, *other), one)
    versions = draw_versions(500, range(1, 4), 1, 2, 3)
    assert set(versions) == {1, 2, 3}
    assert set(draw_versions(9, range(1, 2), 1, 2, 3)) == {1}
