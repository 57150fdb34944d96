"""Prepared arrays: if these fail, a study trains on data that are not what was given."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormsweep.data import pieces as pieces_module
from stormsweep.data.moments import Moments
from stormsweep.data.pieces import PieceWriter
from stormsweep.data.prepared import PreparedData, PreparedWriter, Target, Variable, sources_changed
from stormsweep.data.provenance import of_files
from stormsweep.data.writer import About, write_prepared
from stormsweep.errors import DataError

N = 60


def cases(shape=(4, 4, 2), n=N, seed=5):
    rng = np.random.default_rng(seed)
    return {
        "inputs": rng.normal(300, 2, (n, *shape)).astype(np.float32),
        "targets": rng.normal(0, 1, n),
        "groups": {"day": [f"2015-05-{20 + i % 7}" for i in range(n)], "track": np.arange(n) // 3},
        "is_test": np.arange(n) % 7 >= 5,
    }


def write(path, data, cuts=(), **options):
    channels = data["inputs"].shape[-1]
    settings_ = {
        "source": "npz",
        "synthetic": True,
        "inputs": [Variable(f"v{i}", "K") for i in range(channels)],
        "target": Target("y", "s-1", 0.5),
        "groups": list(data["groups"]),
    }
    bounds = [0, *sorted(cuts), len(data["targets"])]
    with PreparedWriter(path, **{**settings_, **options}) as writer:
        for rows in (slice(a, b) for a, b in itertools.pairwise(bounds)):
            writer.append(
                data["inputs"][rows],
                data["targets"][rows],
                {name: values[rows] for name, values in data["groups"].items()},
                data["is_test"][rows],
            )
    return PreparedData.open(path)


@pytest.fixture
def prepared(tmp_path):
    return write(tmp_path / "prepared", cases())


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.npy")
    }


def test_a_model_sees_what_was_given_scaled_with_the_training_part_only(prepared):
    data = cases()
    test = data["is_test"]
    mean = data["inputs"][~test].astype(float).mean(axis=(0, 1, 2))
    std = data["inputs"][~test].astype(float).std(axis=(0, 1, 2))
    for name, mask in (("train", ~test), ("test", test)):
        part = prepared.part(name)
        np.testing.assert_allclose(part.inputs, (data["inputs"][mask] - mean) / std, atol=1e-5)
        assert part.inputs.dtype == np.float32
        np.testing.assert_array_equal(part.targets, data["targets"][mask].astype(np.float32))
        np.testing.assert_array_equal(part.labels, data["targets"][mask] > 0.5)
        assert part.labels.dtype == np.uint8
        labels = np.array(prepared.manifest["groups"]["day"])
        np.testing.assert_array_equal(
            labels[part.groups["day"]], np.array(data["groups"]["day"])[mask]
        )
    stated = prepared.manifest["inputs"]
    np.testing.assert_allclose([one["mean"] for one in stated], mean, rtol=1e-12)
    np.testing.assert_allclose([one["std"] for one in stated], std, rtol=1e-9)


def test_the_test_part_has_no_say_in_the_scaling(tmp_path):
    data = cases()
    one = write(tmp_path / "one", data)
    data["inputs"][data["is_test"]] *= 100
    other = write(tmp_path / "other", data)
    assert one.manifest["inputs"] == other.manifest["inputs"]
    assert bytes_of(one.path / "train") == bytes_of(other.path / "train")
    assert one.fingerprint != other.fingerprint


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, N), max_size=12), st.sampled_from([(4, 4, 2), (3,)]))
def test_how_the_cases_come_in_blocks_does_not_matter(tmp_path_factory, cuts, shape):
    folder = tmp_path_factory.mktemp("blocks")
    whole = write(folder / "whole", cases(shape))
    cut = write(folder / "cut", cases(shape), cuts)
    assert bytes_of(whole.path) == bytes_of(cut.path)
    assert whole.fingerprint == cut.fingerprint


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, N), max_size=5), st.lists(st.integers(0, N), max_size=12), st.randoms()
)
def test_pieces_join_to_the_same_data_whoever_wrote_them_how(tmp_path_factory, cuts, inner, chance):
    """Pieces are cut by what is read; who reads them, in which order and blocks, must not show."""
    folder, data = tmp_path_factory.mktemp("pieces"), cases()
    about = About(
        source="npz",
        synthetic=True,
        inputs=[Variable("v0", "K"), Variable("v1", "K")],
        target=Target("y", "s-1", 0.5),
        groups=list(data["groups"]),
    )
    bounds = list(itertools.pairwise([0, *sorted(cuts), N]))

    def joined(name, blocks):
        numbers = list(range(len(bounds)))
        chance.shuffle(numbers)
        pieces = {}
        for number in numbers:
            first, last = bounds[number]
            edges = [first, *sorted(b for b in blocks if first < b < last), last]
            place = folder / f"{name}{number}"
            place.mkdir()
            writer = PieceWriter(place, about.inputs, about.target, about.groups)
            for rows in (slice(a, b) for a, b in itertools.pairwise(edges)):
                groups = {group: values[rows] for group, values in data["groups"].items()}
                inputs, targets = data["inputs"][rows], data["targets"][rows]
                writer.append(inputs, targets, groups, data["is_test"][rows])
            pieces[number] = writer.finish()
        write_prepared(folder / name, [pieces[n] for n in range(len(bounds))], about)
        return PreparedData.open(folder / name)

    one, other = joined("one", []), joined("other", inner)
    assert bytes_of(one.path) == bytes_of(other.path)
    assert one.fingerprint == other.fingerprint
    # Sums over other pieces differ in their last bits, and nothing else does.
    whole = write(folder / "whole", data)
    for part in ("train", "test"):
        first, second = one.part(part), whole.part(part)
        np.testing.assert_allclose(first.inputs, second.inputs, atol=1e-6)
        np.testing.assert_array_equal(first.targets, second.targets)
        np.testing.assert_array_equal(first.labels, second.labels)
        for group, codes in first.groups.items():
            np.testing.assert_array_equal(codes, second.groups[group])
    assert one.manifest["groups"] == whole.manifest["groups"]


def test_scaling_in_several_blocks_gives_the_same_as_in_one(tmp_path, monkeypatch):
    data = cases()
    one = write(tmp_path / "one", data)
    monkeypatch.setattr(pieces_module, "_BLOCK", 200)  # six cases of 32 values
    many = write(tmp_path / "many", data)
    np.testing.assert_allclose(one.part("train").inputs, many.part("train").inputs, atol=1e-6)
    assert many.part("train").inputs.shape == one.part("train").inputs.shape


def test_memory_does_not_grow_with_the_number_of_cases(tmp_path):
    import tracemalloc

    def peak(blocks):
        block = np.ones((500, 16, 16, 2), np.float32) * np.arange(500)[:, None, None, None]
        tracemalloc.start()
        with PreparedWriter(
            tmp_path / str(blocks),
            source="npz",
            synthetic=True,
            inputs=[Variable("a"), Variable("b")],
            target=Target("y"),
        ) as writer:
            for _ in range(blocks):
                writer.append(block, np.arange(500) % 2)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        shutil.rmtree(tmp_path / str(blocks))
        return top

    # 250 MiB of cases; what is held is the fixed block in float64 and its copies.
    assert peak(250) < 150 * 2**20


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.sampled_from([0.0, 1e4, -3e6]),
    st.integers(0, 99),
)
def test_statistics_survive_a_mean_far_from_zero(sizes, offset, seed):
    rng = np.random.default_rng(seed)
    blocks = [(offset + rng.normal(0, 5, (n, 3, 3, 2))).astype(np.float32) for n in sizes]
    moments = Moments(2)
    for block in blocks:
        moments.add(block)
    everything = np.concatenate(blocks).astype(np.longdouble)
    mean, std = moments.scaling()
    np.testing.assert_allclose(mean, everything.mean(axis=(0, 1, 2)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(std, everything.std(axis=(0, 1, 2)), rtol=1e-9)
    again = Moments.from_json(json.loads(json.dumps(moments.as_json())))
    assert [one.tolist() for one in again.scaling()] == [mean.tolist(), std.tolist()]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.3, -7e-30])
def test_a_constant_channel_becomes_zero_and_not_nan(tmp_path, value):
    data = cases()
    data["inputs"][..., 1] = value
    prepared = write(tmp_path / "prepared", data, [7, 13])
    assert prepared.manifest["inputs"][1]["std"] == 1
    assert not prepared.part("train").inputs[..., 1].any()
    assert np.isfinite(prepared.part("test").inputs).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_target_equal_to_the_threshold_follows_the_event_rule(tmp_path, dtype):
    # 0.005 is not the same number in float32 and float64; both must be "equal to the threshold".
    data = cases((2,), 4)
    data["targets"] = np.array([0.004, 0.005, 0.006, 0.0], dtype)
    data["is_test"][:] = False
    above = write(tmp_path / "a", data, target=Target("y", threshold=0.005, event=">"))
    reached = write(tmp_path / "r", data, target=Target("y", threshold=0.005, event=">="))
    assert above.part("train").labels.tolist() == [0, 0, 1, 0]
    assert reached.part("train").labels.tolist() == [0, 1, 1, 0]


def test_the_arrays_can_be_taken_over_without_a_copy_and_keep_changes_to_themselves(prepared):
    inputs = prepared.part("train").inputs
    assert inputs.ctypes.data % 64 == 0
    assert inputs.flags.c_contiguous
    assert inputs.flags.writeable
    inputs[:] = 0
    prepared.verify()
    assert prepared.part("train").inputs.any()


def test_a_test_part_may_be_empty_but_a_training_part_not(tmp_path):
    data = cases((3,))
    data["is_test"][:] = False
    prepared = write(tmp_path / "prepared", data)
    assert prepared.part("test").inputs.shape == (0, 3)
    prepared.verify()
    data["is_test"][:] = True
    with pytest.raises(DataError, match="training part has no case"):
        write(tmp_path / "none", data)
    assert not (tmp_path / "none").exists()


def test_the_summary_says_what_the_journal_needs(prepared):
    data = cases()
    train = ~data["is_test"]
    assert prepared.summary() == {
        "source": "npz",
        "synthetic": True,
        "fingerprint": prepared.fingerprint,
        "train": int(train.sum()),
        "train_positives": int((data["targets"][train] > 0.5).sum()),
        "test": int((~train).sum()),
        "test_positives": int((data["targets"][~train] > 0.5).sum()),
        "groups": {"day": 5, "track": 20},
        "inputs": ["v0", "v1"],
        "input_shape": [4, 4, 2],
        "target": "y",
        "threshold": 0.5,
        "units": "s-1",
        "event": ">",
    }


def test_equal_data_have_equal_fingerprints_wherever_and_whenever_they_are_made(tmp_path):
    one = write(tmp_path / "one", cases(), provenance={"folder": "/a"}, request={"path": "/a"})
    other = write(tmp_path / "other", cases(), provenance={"folder": "/b"}, request={"path": "/b"})
    assert one.fingerprint == other.fingerprint
    assert write(tmp_path / "c", cases(), synthetic=False).fingerprint != one.fingerprint


ARRAYS = ["train/inputs.npy", "test/inputs.npy", "train/labels.npy", "test/groups_day.npy"]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ARRAYS), st.floats(0, 0.999), st.integers(0, 7))
def test_a_flipped_bit_is_found(tmp_path_factory, name, place, bit):
    prepared = write(tmp_path_factory.mktemp("flip") / "prepared", cases((2,)))
    file = prepared.path / name
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"changed since it was prepared") as caught:
        prepared.verify()
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_or_shortened_array_is_named_in_one_line(prepared, name):
    file = prepared.path / name
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"cut short .*`stormsweep data prepare --again` with"):
        prepared.verify()
    with pytest.raises(DataError, match=r"changed since it was prepared; run"):
        prepared.part(name.split("/")[0])
    file.unlink()
    for act in (prepared.verify, lambda: prepared.part(name.split("/")[0])):
        with pytest.raises(DataError, match=re.escape(str(file)) + ": missing"):
            act()


def test_a_changed_manifest_is_found(prepared):
    file = prepared.path / "manifest.json"
    text = file.read_text()
    for changed in (text.replace('"synthetic": true', '"synthetic": false'), text[:-40], "[]", ""):
        file.write_text(changed)
        with pytest.raises(DataError, match=r"manifest\.json: changed since it was prepared"):
            prepared.verify()
    file.unlink()
    with pytest.raises(DataError, match="no prepared data here"):
        PreparedData.open(prepared.path)


def test_a_manifest_of_another_format_says_so(prepared):
    file = prepared.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(DataError, match="another version of Stormsweep"):
        PreparedData.open(prepared.path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_values_that_are_no_numbers_are_refused_by_name_and_count(tmp_path, value):
    data = cases()
    data["inputs"] = data["inputs"].astype(float)
    data["inputs"][3, 1, 1, 1] = data["inputs"][4, 0, 0, 1] = value
    with pytest.raises(DataError, match=r"input 'v1': 2 of 960 values are missing or not finite"):
        write(tmp_path / "prepared", data)
    data = cases()
    data["targets"][2] = value
    with pytest.raises(DataError, match=r"target 'y': 1 of 60 values are missing or not finite"):
        write(tmp_path / "prepared", data)
    assert list(tmp_path.iterdir()) == []


def test_targets_without_a_threshold_must_be_zero_or_one(tmp_path):
    data = cases()
    with pytest.raises(DataError, match=r"neither 0 nor 1, such as .*set data\.threshold"):
        write(tmp_path / "prepared", data, target=Target("y"))
    data["targets"] = np.arange(N) % 2
    prepared = write(tmp_path / "prepared", data, target=Target("y"))
    assert prepared.summary()["threshold"] is None
    assert prepared.part("train").labels.sum() == prepared.summary()["train_positives"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": np.zeros((N, 4, 4, 3), np.float32)}, "inputs have shape"),
        ({"inputs": np.zeros((N - 1, 4, 4, 2), np.float32)}, "inputs have shape"),
        ({"inputs": np.full((N, 2), "a")}, "allowed: numbers"),
        ({"targets": np.zeros((N, 2))}, "one number a case"),
        ({"targets": np.array(["a"] * N)}, "one number a case"),
        ({"groups": {"day": ["a"] * (N - 1), "track": ["b"] * N}}, "groups_day has shape"),
        ({"is_test": np.zeros(3, bool)}, "is_test has shape"),
    ],
)
def test_blocks_that_do_not_fit_are_refused_and_nothing_stays(tmp_path, change, message):
    data = cases()
    names = {"inputs": [Variable("a"), Variable("b")], "groups": ["day", "track"]}
    with (
        pytest.raises(DataError, match=message) as caught,
        PreparedWriter(
            tmp_path / "prepared",
            source="npz",
            synthetic=True,
            target=Target("y", "", 0.0),
            **names,
        ) as writer,
    ):
        writer.append(**{**data, **change})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_preparation_leaves_the_older_data_alone(prepared):
    writer = PreparedWriter(
        prepared.path, source="npz", synthetic=True, inputs=[Variable("a")], target=Target("y")
    )

    def begin_and_stop():
        with writer:
            writer.append(np.zeros((2, 1)), [0, 1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin_and_stop()
    prepared.verify()
    assert [path.name for path in prepared.path.parent.iterdir()] == ["prepared"]


def test_a_group_cannot_write_outside_the_folder(tmp_path):
    with pytest.raises(DataError, match=r"group '\.\./x'"):
        PreparedWriter(
            tmp_path, source="npz", synthetic=True, inputs=[], target=Target("y"), groups=["../x"]
        )


def test_a_changed_source_is_noticed_and_a_deleted_one_forgiven(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    paths = [raw / f"{name}.csv" for name in "ab"]
    for path in paths:
        path.write_text("x\n1\n")
    manifest = {"provenance": of_files(raw, paths, "*.csv")}
    assert sources_changed(manifest) is None
    paths[0].write_text("x\n1\n")  # written anew, with the same content
    assert sources_changed(manifest) is None
    paths[1].write_text("x\n2\n")
    assert sources_changed(manifest) == f"{paths[1]}: changed since the data were prepared"
    paths[1].unlink()
    assert sources_changed(manifest) is None
    missing = f"{paths[1]}: missing since the data were prepared"
    assert sources_changed(manifest, missing=True) == missing
    (raw / "c.csv").write_text("x\n3\n")
    assert sources_changed(manifest) == f"{raw / 'c.csv'}: new since the data were prepared"
    shutil.rmtree(raw)
    assert sources_changed(manifest) is None
    assert sources_changed({"provenance": {"function": "m:f"}}) is None
