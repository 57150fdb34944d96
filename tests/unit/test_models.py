"""How a user's model builder is found, checked and called; no test here needs TensorFlow."""

import subprocess
import sys
import warnings

import pytest

from stormsweep.errors import ModelError
from stormsweep.models import storm_cnn
from stormsweep.models.build import check_builder, find_builder
from stormsweep.models.source import asks_for, check_source


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


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def net(input_shape, width=3): ...", "does not take 'wide' (did you mean 'width'?)"),
        ("def net(input_shape, *, wide, depth): ...", "needs 'depth'"),
        ("def net(wide, /): ...", "does not take 'wide'"),
        ("def net(wide, epochs=1): ...", "must not depend on it"),
        ("def nett(wide): ...", "has no function 'net' (did you mean 'nett'?)"),
        ("from os import *\ndef net(width): ...", "does not take 'wide'"),
        ("def net(wide:", ".py:1: SyntaxError"),
        ("\0", "SyntaxError"),
    ],
)
def test_a_builder_is_refused_by_its_source_alone(tmp_path, source, words):
    # Else data are prepared and workers started for nothing; and the driver must not import it.
    path = write(tmp_path / "mine.py", f"{source}\nraise RuntimeError('imported')\n")
    with pytest.raises(ModelError) as caught:
        check_source(f"{path}:net", ["wide", "batch_size", "learning_rate", "epochs"])
    assert words in one_line(caught)


@pytest.mark.parametrize(
    "source",
    [
        "def net(input_shape, wide=3, deep=(1, 2), *, l2=0.0): ...",
        "def net(width, **others): ...",
        "r = '\\d'\ndef net(wide): ...",
        "import functools\n@functools.cache\ndef net(width): ...",
        "def net(width): ...\nnet = some(net)",
        "if True:\n    def net(width): ...",
        "def net(width): ...\nnet.__signature__ = 1",
        "def net(width): ...\nfrom os import *",
        "def change():\n    global net\n    net = 1\ndef net(width): ...",
        "class net:\n    def __init__(self, width): ...",
        "from helper import net",
        "from helper import *",
        "def __getattr__(name): ...",
        "globals()['net'] = 1",
        "try:\n    import net\nexcept ImportError:\n    net = None",
    ],
)
def test_a_builder_that_its_source_does_not_tell_enough_of_is_let_through(tmp_path, source):
    # A worker, which imports it, knows; a refusal here would stop a study that could run.
    path = write(tmp_path / "mine.py", source + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_source(f"{path}:net", ["wide"])


def test_a_builder_in_a_package_is_read_without_importing_the_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "package_never_imported").mkdir()
    folder = tmp_path / "package_never_imported"
    write(folder / "__init__.py", "from .nets import net as mine\nraise RuntimeError('imported')\n")
    write(folder / "nets.py", "def net(width): ...\n")
    for spec in ("package_never_imported:mine", "package_never_imported.nets:net"):
        assert check_source(spec, ["width"]) == folder / "nets.py"
        with pytest.raises(ModelError, match="does not take 'wide'"):
            check_source(spec, ["wide"])
    assert "package_never_imported" not in sys.modules


def test_the_shipped_builders_are_checked_and_what_is_no_python_is_let_through():
    check_source("stormsweep.models:storm_cnn", ["filters", "learning_rate", "epochs"])
    with pytest.raises(ModelError, match="did you mean 'learning_rate'"):
        check_source("stormsweep.models:storm_cnn", ["learningrate"])
    for spec in ("math:sin", "sys:exit", "stormsweep.none.at_all:net"):
        check_source(spec, ["width"])


@pytest.mark.parametrize(
    ("source", "asks"),
    [
        ("def net(width, batch_size): ...", True),
        ("def net(*, batch_size=3): ...", True),
        ("def net(width): ...", False),
        ("def net(**others): ...", False),
        ("import functools\n@functools.cache\ndef net(batch_size): ...", False),
        ("def another(batch_size): ...", False),
        ("def net(", False),
    ],
)
def test_whether_a_builder_asks_for_the_batch_size_is_told_where_its_source_does(
    tmp_path, source, asks
):
    path = write(tmp_path / "mine.py", f"{source}\n")
    assert asks_for(f"{path}:net", "batch_size") is asks
    assert not asks_for("package_that_is_not_there:net", "batch_size")
