"""Tables, arrays, functions: if these fail, a user's own data are misread or cannot be studied."""

import datetime as dt
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from stormsweep.config.study import DataTable
from stormsweep.data.folds import folds
from stormsweep.data.functions import prepare_function
from stormsweep.data.npz import prepare_npz
from stormsweep.data.prepared import sources_changed
from stormsweep.data.source import destination, request
from stormsweep.data.tables import input_blocks, prepare_csv
from stormsweep.errors import DataError

HAIL = Path(__file__).parents[3] / "shared" / "data" / "hagelslag-ssef-2015"


def config(source, **settings):
    return DataTable(source=source, **settings)


@contextmanager
def one_line(message):
    """Expect a DataError whose text fits and is one line."""
    with pytest.raises(DataError, match=message) as caught:
        yield
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not HAIL.is_dir(), reason=f"no storm tables at {HAIL}")
def test_real_hail_tables_by_date(tmp_path):
    table = config(
        "csv",
        path=HAIL,
        inputs=["*_mean", "*_max"],
        target="Hail_Size",
        threshold=25,
        event=">=",
        groups={"run_date": r"file:(\d{8})", "track": "Track_ID"},
        test_from=dt.date(2015, 5, 29),
    )
    seen = []
    data = prepare_csv(table, 1, tmp_path / "hail", lambda *step: seen.append(step))
    data.verify()
    summary, train, test = data.summary(), data.part("train"), data.part("test")
    assert summary["train"] + summary["test"] == 834
    assert summary["groups"]["run_date"] == 7
    assert data.manifest["parts"]["test"]["groups"]["run_date"] == 4
    assert len(summary["inputs"]) == 36
    assert "uh_max_mean" in summary["inputs"]
    assert not [name for name in summary["inputs"] if not name.endswith(("_mean", "_max"))]
    assert seen[-1] == (11, 11)
    assert data.manifest["provenance"]["files"][0]["name"].endswith("20150520.csv")
    assert sources_changed(data.manifest) is None
    rows = pd.read_csv(HAIL / "track_step_SSEF_wrf-s3cn_arw_20150529.csv")
    np.testing.assert_array_equal(test.labels[: len(rows)], rows["Hail_Size"] >= 25)
    assert np.abs(train.inputs.mean(axis=0)).max() < 1e-4
    np.testing.assert_allclose(train.inputs.std(axis=0), 1, rtol=1e-4)
    assert np.isfinite(test.inputs).all()
    for one, other in folds(train.labels, train.groups["run_date"], 3, 1):
        assert not set(train.groups["track"][one]) & set(train.groups["track"][other])
    model = LogisticRegression(C=0.01, max_iter=500).fit(train.inputs, train.labels)
    assert roc_auc_score(test.labels, model.predict_proba(test.inputs)[:, 1]) > 0.6


@pytest.fixture
def tables(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for day in range(20, 26):
        pd.DataFrame(
            {
                "station": [f"00{i % 3}" for i in range(10)],
                "cape_mean": rng.normal(1000, 300, 10),
                "shear_max": rng.normal(20, 5, 10),
                "hail": [0.0, 30.0] * 5,
                "note": ["text"] * 10,
            }
        ).to_csv(folder / f"run_201505{day}.csv", index=False)
    return folder


def csv(path, **settings):
    defaults = {
        "inputs": ["cape_mean", "shear_max"],
        "target": "hail",
        "threshold": 25,
        "groups": {"run_date": r"file:(\d{8})", "station": "station"},
    }
    return config("csv", path=path, **{**defaults, **settings})


def test_a_file_a_folder_and_a_pattern_are_read_alike(tables, tmp_path):
    one = prepare_csv(csv(tables), 0, tmp_path / "a")
    other = prepare_csv(csv(tables / "run_*.csv"), 0, tmp_path / "b")
    assert one.fingerprint == other.fingerprint
    assert one.summary()["train"] == 60
    assert one.manifest["groups"]["station"] == ["000", "001", "002"]
    single = prepare_csv(csv(tables / "run_20150522.csv"), 0, tmp_path / "c")
    assert single.summary()["train"] == 10
    assert single.manifest["groups"]["run_date"] == ["20150522"]
    below = prepare_csv(csv(tmp_path / "*" / "run_2015052[0-2].csv"), 0, tmp_path / "d")
    assert below.summary()["train"] == 30
    (tables / "run_20150601.csv").write_text("x\n1\n")
    assert "new since" in str(sources_changed(one.manifest))
    assert "new since" in str(sources_changed(other.manifest))
    assert sources_changed(single.manifest) is None


def test_large_tables_are_read_in_parts_with_the_same_result(tables, tmp_path, monkeypatch):
    whole = prepare_csv(csv(tables, test_fraction=0.3), 0, tmp_path / "a", group_by="run_date")
    monkeypatch.setattr("stormsweep.data.tables._ROWS", 3)
    parts = prepare_csv(csv(tables, test_fraction=0.3), 0, tmp_path / "b", group_by="run_date")
    assert whole.fingerprint == parts.fingerprint


def test_a_day_without_rows_among_others_adds_nothing(tables, tmp_path):
    (tables / "run_20150510.csv").write_text("station,cape_mean,shear_max,hail,note\n")
    assert prepare_csv(csv(tables), 0, tmp_path / "a").summary()["train"] == 60


def test_patterns_never_take_the_target_or_a_group(tables, tmp_path):
    for path in tables.iterdir():
        path.write_text(path.read_text().replace("station", "id").replace("note", "n"))
        frame = pd.read_csv(path).drop(columns="n")
        frame.to_csv(path, index=False)
    data = prepare_csv(csv(tables, inputs=["*"], groups={"id": "id"}), 0, tmp_path / "a")
    assert data.summary()["inputs"] == ["cape_mean", "shear_max"]
    with one_line("data.inputs: 'hail' is the target"):
        prepare_csv(csv(tables, inputs=["hail"], groups={}), 0, tmp_path / "b")


def test_the_columns_keep_the_order_of_the_table(tables, tmp_path):
    data = prepare_csv(csv(tables, inputs=["shear_max", "cape_*", "*_max"]), 0, tmp_path / "a")
    assert data.summary()["inputs"] == ["cape_mean", "shear_max"]


def test_dates_in_columns_split_as_well(tables, tmp_path):
    for path in tables.iterdir():
        frame = pd.read_csv(path)
        frame["when"] = f"2015-05-{path.stem[-2:]} 18:00:00"
        frame.to_csv(path, index=False)
    settings = {"groups": {"station": "station", "when": "when"}}
    data = prepare_csv(csv(tables, test_from=dt.date(2015, 5, 24), **settings), 0, tmp_path / "a")
    assert data.summary()["test"] == 20
    assert data.manifest["split"] == {"test_from": "2015-05-24", "group": "when"}


def test_a_share_is_drawn_in_whole_groups_and_by_the_seed(tables, tmp_path):
    table = csv(tables, test_fraction=0.3)
    one = prepare_csv(table, 7, tmp_path / "a", group_by="run_date")
    again = prepare_csv(table, 7, tmp_path / "b", group_by="run_date")
    assert one.fingerprint == again.fingerprint
    assert one.summary()["test"] == 20
    codes = [set(one.part(part).groups["run_date"].tolist()) for part in ("train", "test")]
    assert not codes[0] & codes[1]
    others = {
        prepare_csv(table, seed, tmp_path / "c", group_by="run_date").fingerprint
        for seed in range(5)
    }
    assert len(others) > 1
    single = prepare_csv(table, 7, tmp_path / "d", group_by="none").summary()
    assert (single["test"], single["test_positives"]) == (18, 9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": None}, "data.inputs: missing"),
        ({"target": None}, "data.target: missing"),
        ({"path": None}, "data.path: missing"),
        ({"path": Path("/no/such/place")}, "data.path: there is no file or folder /no/such/place"),
        ({"path": Path("/no/such/*.csv")}, r"data.path: no file fits /no/such/\*\.csv"),
        ({"inputs": ["cape_maen"]}, r"data.inputs: 'cape_maen' is no .* mean 'cape_mean'"),
        ({"inputs": ["*_median"]}, r"data.inputs: no column .* fits the pattern '\*_median'"),
        ({"inputs": ["note"]}, "column 'note' is not of numbers; row 1 has 'text'"),
        ({"target": "hale"}, r"data.target: 'hale' is no column .*did you mean 'hail'"),
        ({"threshold": None}, "target 'hail': 5 of 10 values are neither 0 nor 1, such as 30"),
        ({"groups": {"s": "staton"}}, r"data.groups.s: 'staton' is no column .*'station'"),
        ({"groups": {"d": "file:["}}, "data.groups.d: .* no regular expression"),
        ({"groups": {"d": r"file:\d+"}}, "data.groups.d: .* no group; put"),
        ({"groups": {"d": "file:(x{9})"}}, "data.groups.d: .* finds nothing in the file name"),
        ({"groups": {"a/b": "station"}}, "group 'a/b': allowed are"),
        ({"test_from": dt.date(2016, 1, 1)}, "no case in the test part; run_date runs from 2015"),
        ({"test_from": dt.date(2015, 1, 1)}, "no case in the training part"),
        (
            {"test_from": dt.date(2015, 5, 24), "groups": {"station": "station"}},
            r"data.test_from: .* no group holds dates \(groups: station\)",
        ),
        ({"test_fraction": 0.001, "groups": {}}, "data.test_fraction: given 0.001"),
    ],
)
def test_mistakes_with_tables_end_in_one_line_and_write_nothing(
    tables, tmp_path, settings, message
):
    with one_line(message):
        prepare_csv(csv(**{"path": tables, **settings}), 0, tmp_path / "out" / "a")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_group_to_share_by_must_exist(tables, tmp_path):
    with one_line("validation.group_by: is 'run_dat' .did you mean 'run_date'"):
        prepare_csv(csv(tables, test_fraction=0.3), 0, tmp_path / "a", group_by="run_dat")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("shear_max", "shear"), "lacks 'shear_max' and has 'shear' be"),
        (lambda text: re.sub(r"(?m)^(002,)[\d.]+", r"\1", text), "'cape_mean' has 3 missing"),
        (
            lambda text: re.sub(r"(?m)^001", "", text),
            "column 'station' has 3 missing",
        ),
        (lambda text: text.replace(",30.0,", ",,"), "column 'hail' has 5 missing or"),
        (lambda text: re.sub(r"(?m)^(002,)[\d.]+", r"\1inf", text), "'cape_mean' has 3 missing"),
        (lambda text: re.sub(r"(?m)^(002,)[\d.]+", r"\1n/k", text), "row 3 has 'n/k'"),
        (lambda text: text + '"open', "cannot be read as a table"),
        (lambda text: "", "cannot be read as a table"),
    ],
)
def test_a_damaged_table_is_named(tables, tmp_path, damage, message, monkeypatch):
    monkeypatch.setattr("stormsweep.data.tables._ROWS", 4)
    file = tables / "run_20150523.csv"
    text = damage(file.read_text())
    file.write_text(text)
    with one_line(re.escape(str(file)) + ".*" + message):
        prepare_csv(csv(tables), 0, tmp_path / "a")


def test_an_array_file_given_as_a_table_is_said_to_be_none(tmp_path):
    path = digits(tmp_path / "digits.npz")
    with one_line(re.escape(f"{path}: is no text in UTF-8; a CSV table is expected")):
        list(input_blocks(path, ["a"]))


def digits(path, **change):
    images, labels = load_digits(return_X_y=True)
    arrays = {
        "inputs": images.reshape(-1, 8, 8)[:300],
        "labels": (labels[:300] >= 5).astype(np.int64),
        "writer": np.arange(300) // 30,
    }
    np.savez(path, **{k: v for k, v in {**arrays, **change}.items() if v is not None})
    return path


def test_real_digits_through_npz(tmp_path):
    table = config("npz", path=digits(tmp_path / "d.npz"), groups={"writer": "writer"})
    data = prepare_npz(table, 0, tmp_path / "a")
    part = data.part("train")
    assert part.inputs.shape == (300, 8, 8, 1)
    assert data.summary()["inputs"] == ["inputs"]
    assert data.summary()["target"] == "labels"
    assert data.manifest["groups"]["writer"] == sorted(str(i) for i in range(10))
    assert part.inputs.mean() == pytest.approx(0, abs=1e-5)
    assert part.inputs.std() == pytest.approx(1, abs=1e-5)
    assert data.part("test").inputs.shape == (0, 8, 8, 1)
    images = load_digits().images[:300]
    np.testing.assert_allclose(
        part.inputs[..., 0], (images - images.mean()) / images.std(), atol=1e-5
    )


@pytest.mark.parametrize("shape", [(300, 4), (300, 5, 5, 3), (300, 5, 4)])
def test_npz_takes_columns_and_images_with_and_without_channels(tmp_path, shape):
    given = np.random.default_rng(0).normal(3, 4, shape)
    path = digits(tmp_path / "d.npz", inputs=None, x=given)
    data = prepare_npz(config("npz", path=path, inputs=["x"]), 0, tmp_path / "a")
    expected = shape if len(shape) != 3 else (*shape, 1)
    assert data.part("train").inputs.shape == expected
    assert len(data.summary()["inputs"]) == expected[-1]


def test_npz_can_be_split_by_share_or_date(tmp_path):
    days = np.datetime64("2015-05-01") + np.arange(300) // 30
    path = digits(tmp_path / "d.npz", writer=None, day=days)
    by_date = config("npz", path=path, groups={"day": "day"}, test_from=dt.date(2015, 5, 9))
    assert prepare_npz(by_date, 0, tmp_path / "a").summary()["test"] == 60
    share = config("npz", path=path, test_fraction=0.2)
    assert prepare_npz(share, 0, tmp_path / "b").summary()["test"] == 60


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {"inputs": ["input"]}, "data.inputs: 'input' is no array .*did you mean 'inputs'"),
        ({}, {"inputs": ["a", "b"]}, "data.inputs: given 2 names"),
        ({}, {"target": "y"}, "data.target: 'y' is no array"),
        ({}, {"groups": {"day": "day"}}, "data.groups.day: 'day' is no array"),
        ({"labels": np.zeros(299)}, {}, r"'labels' has shape \(299,\); 'inputs' has 300 cases"),
        ({"writer": np.zeros(9, int)}, {"groups": {"w": "writer"}}, r"'w' has shape \(9,\)"),
        ({"labels": np.array([{}] * 300)}, {}, "'labels' holds Python objects"),
        ({"labels": np.array(["a"] * 300)}, {}, "'labels' has type <U1; allowed: numbers"),
        ({"inputs": np.zeros(300)}, {}, r"'inputs' has shape \(300,\); allowed"),
        ({"inputs": np.zeros((0, 3)), "labels": np.zeros(0)}, {}, "none of them 0"),
        ({"inputs": np.float64(3)}, {}, "single value"),
        ({"inputs": np.full((300, 2), np.nan)}, {}, "input 'inputs.0.': 300 of 300 values"),
        ({"labels": np.arange(300)}, {}, "298 of 300 values are neither 0 nor 1"),
        ({}, {"path": Path("/no/file.npz")}, "data.path: there is no file /no/file.npz"),
    ],
)
def test_mistakes_with_npz_end_in_one_line(tmp_path, change, settings, message):
    path = digits(tmp_path / "d.npz", **change)
    with one_line(message):
        prepare_npz(config("npz", **{"path": path, **settings}), 0, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x80\x04]\x94.", b"text"])
def test_what_is_no_npz_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    with one_line("is not an .npz file"):
        prepare_npz(config("npz", path=path), 0, tmp_path / "a")
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").replace(path)
    with one_line("is not an .npz file"):
        prepare_npz(config("npz", path=path), 0, tmp_path / "a")


def test_a_damaged_npz_is_noticed(tmp_path):
    path = digits(tmp_path / "d.npz")
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with one_line("array 'inputs' is damaged"):
        prepare_npz(config("npz", path=path), 0, tmp_path / "a")


CODE = """
import numpy as np
def plain():
    x = np.arange(48.).reshape(12, 2, 2)
    return {"inputs": x, "target": np.arange(12) % 2, "synthetic": True, "units": "mm"}
def with_config(config):
    return {**plain(), "groups": {"day": ["a", "b", "c"] * 4}, "target": [config.threshold, 9] * 6}
def with_default(n=3):
    return plain()
def raises():
    raise RuntimeError("no\\nnetwork")
def wrong():
    return [1]
def unknown():
    return {**plain(), "traget": 1}
def short():
    return {"inputs": np.zeros((3, 2)), "target": [0, 1]}
def ragged():
    return {"inputs": [[1], [1, 2]], "target": [0, 1]}
def no_target():
    return {"inputs": np.zeros((3, 2))}
not_callable = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_storms.py").write_text(CODE)
    (folder / "broken_storms.py").write_text("import no_such_thing_at_all\n")
    (folder / "failing_storms.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("my_storms", "broken_storms", "failing_storms"):
        sys.modules.pop(name, None)


def test_a_function_of_ones_own_gives_the_data(module, tmp_path):
    for source in ("my_storms:plain", f"{module}/my_storms.py:plain", "my_storms:with_default"):
        data = prepare_function(config(source), 0, tmp_path / "a")
        assert data.synthetic
        assert data.part("train").inputs.shape == (12, 2, 2, 1)
        assert data.summary()["units"] == "mm"
        assert data.manifest["provenance"]["function"] == source
        assert sources_changed(data.manifest) is None
    data = prepare_function(config("my_storms:with_config", threshold=5.0), 0, tmp_path / "b")
    assert data.summary()["groups"] == {"day": 3}
    assert data.part("train").labels.tolist() == [0, 1] * 6
    (module / "my_storms.py").write_text(CODE + "\n")
    assert "my_storms.py: changed" in str(sources_changed(data.manifest))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module:f", "data.source: there is no module 'no_such_module'"),
        ("my_storms.inner:f", "my_storms"),
        ("/no/file.py:f", "data.source: there is no file /no/file.py"),
        ("my_storms:plian", r"my_storms has no function 'plian' .did you mean 'plain'"),
        ("my_storms:not_callable", "no function 'not_callable'"),
        ("broken_storms:f", "importing broken_storms: ModuleNotFoundError: .*no_such_thing"),
        ("failing_storms:f", "importing failing_storms: ZeroDivisionError: division by zero"),
        ("my_storms:raises", "my_storms:raises: RuntimeError: no network"),
        ("my_storms:wrong", "returned list; a mapping"),
        ("my_storms:unknown", r"the key 'traget' .did you mean 'target'"),
        ("my_storms:short", r"'target' has shape \(2,\); 'inputs' has 3 cases"),
        ("my_storms:ragged", "inputs: ValueError"),
        ("my_storms:no_target", "returned no 'target'"),
        ("my_storms:with space", "data.source: given"),
    ],
)
def test_mistakes_with_functions_end_in_one_line(module, tmp_path, source, message):
    with one_line(message):
        prepare_function(config(source), 0, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_request_of_its_own_has_a_folder_of_its_own(tables, tmp_path):
    one = destination(tmp_path, request(csv(tables), 1, "none"))
    assert re.fullmatch(r"csv-[0-9a-f]{8}", one.name)
    assert one.parent == tmp_path / "prepared"
    assert one == destination(tmp_path, request(csv(tables), 2, "run_date"))
    assert one != destination(tmp_path, request(csv(tables, threshold=20), 1, "none"))
    share = csv(tables, test_fraction=0.2)
    folders = {destination(tmp_path, request(share, s, g)) for s in (1, 2) for g in ("none", "x")}
    assert len(folders) == 4
    twin = config("twin")
    assert destination(tmp_path, request(twin, 1, "a")) != destination(
        tmp_path, request(twin, 2, "a")
    )
    function = destination(tmp_path, request(config("/a/b/my code.py:load"), 1, "none"))
    assert re.fullmatch(r"my-code.py-load-[0-9a-f]{8}", function.name)
