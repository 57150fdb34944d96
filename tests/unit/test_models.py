"""How a user's model builder is found, checked and called; no test here needs TensorFlow."""

import subprocess
import sys

import pytest

from stormsweep.errors import ModelError
from stormsweep.models import storm_cnn
from stormsweep.models.build import check_builder, find_builder


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text
    return text


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_importing_the_package_or_finding_its_builder_loads_no_keras():
    # Else `stormsweep --help` and the driver would wait ten seconds for TensorFlow.
    code = (
        "import sys; from stormsweep.models.build import find_builder, check_builder; "
        "check_builder(find_builder('stormsweep.models:storm_cnn'), ['filters', 'batch_size']); "
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_module_is_found_by_name():
    assert find_builder("stormsweep.models:storm_cnn") is storm_cnn


def test_a_file_is_found_by_path_with_its_folder_importable(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path / "helper_of_builder.py", "width = 3\n")
    path = write(
        tmp_path / "mine.py",
        "import helper_of_builder\ndef build(n=1):\n    return helper_of_builder.width * n\n",
    )
    assert find_builder(f"{path}:build")(n=2) == 6


def test_a_file_is_loaded_once_and_again_when_it_was_edited(tmp_path, monkeypatch):
    # The same function means the same compiled program; an edited one must not be ignored.
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = write(tmp_path / "mine.py", "def build():\n    return 1\n")
    first = find_builder(f"{path}:build")
    assert find_builder(f"{path}:build") is first
    write(path, "def build():\n    return 1 + 1\n")
    assert find_builder(f"{path}:build")() == 2


def test_files_of_the_same_name_do_not_collide(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number) / "mine.py", f"def build():\n    return {number}\n")
    found = [find_builder(f"{tmp_path / str(number)}/mine.py:build")() for number in (1, 2)]
    assert found == [1, 2]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nowhere_at_all:build", "no module 'nowhere_at_all'"),
        ("stormsweep.modells:storm_cnn", "did you mean 'models'"),
        ("stormsweep.models:storm_cn", "did you mean 'storm_cnn'"),
        ("stormsweep.models.build:GIVEN", "is a tuple; must be a function"),
        ("no_colon", "must be"),
        ("/nowhere/mine.py:build", "there is no file /nowhere/mine.py"),
    ],
)
def test_a_builder_that_cannot_be_found_is_one_clear_line(spec, words):
    with pytest.raises(ModelError) as caught:
        find_builder(spec)
    assert words in one_line(caught)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ValueError('two\\nlines')", "raised ValueError: two lines"),
        ("import not_installed_anywhere", "No module named 'not_installed_anywhere'"),
        ("def build(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def built(): ...", "did you mean 'built'"),
    ],
)
def test_a_file_that_cannot_be_imported_says_why_in_one_line(tmp_path, monkeypatch, source, words):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = write(tmp_path / "mine.py", source + "\n")
    with pytest.raises(ModelError) as caught:
        find_builder(f"{path}:build")
    assert words in one_line(caught)


def test_a_missing_import_inside_a_module_is_not_mistaken_for_a_missing_module(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "module_with_bad_import.py", "import not_installed_anywhere\n")
    with pytest.raises(ModelError) as caught:
        find_builder("module_with_bad_import:build")
    assert "importing module_with_bad_import raised" in one_line(caught)


def build(input_shape, filters=8, *, rate=0.1):
    return input_shape, filters, rate


def with_epochs(epochs=3):
    return epochs


def needs_width(width):
    return width


@pytest.mark.parametrize("names", [[], ["filters", "rate"], ["batch_size", "learning_rate"]])
def test_a_space_that_fits_is_let_through(names):
    check_builder(build, [*names, "epochs"])


@pytest.mark.parametrize(
    ("function", "names", "words"),
    [
        (build, ["filter"], "does not take 'filter' (did you mean 'filters'?); it takes filters"),
        (with_epochs, ["epochs"], "must not depend on it"),
        (needs_width, ["wide"], "does not take 'wide'"),
        (needs_width, [], "needs 'width'"),
        (dict.fromkeys, ["width"], "takes"),
    ],
)
def test_a_space_that_does_not_fit_is_one_clear_line(function, names, words):
    # Else the study would fail in every single run, hours later.
    with pytest.raises(ModelError) as caught:
        check_builder(function, names)
    assert words in one_line(caught)
