"""Losing these: a misspelt key that does nothing, and hours spent on a study nobody asked for."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import pytest

from stormsweep.config.growth import grew
from stormsweep.config.load import differences, dump_study, load_study
from stormsweep.config.sites import find_site, load_sites
from stormsweep.config.study import METRICS, StudyFile
from stormsweep.config.template import template
from stormsweep.errors import StudyFileError

ROOT = Path(__file__).parents[2]
SLURM = '[site.{}]\nscheduler = "slurm"\nnodes = {}\n'
BASE = '[study]\nname = "a"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "study: is missing"),
        ("x =", "is not valid TOML"),
        (BASE + "[serach]\nx = 1", "unknown key 'serach' (did you mean 'search'?)"),
        (BASE + '[search]\nstrategi = "grid"', "'search.strategi' (did you mean 'strategy'?)"),
        (
            BASE + '[search]\nstrategy = "grd"',
            "search.strategy: given 'grd'; must be one of grid, ra",
        ),
        (BASE + '[search]\nstrategy = "grd"', "(did you mean 'grid'?)"),
        (BASE + '[search]\nmetric = "auc"', "search.metric: given 'auc'; must be one of roc_auc"),
        (BASE + "[search.space]\nbatch_size = []", "search.space.batch_size: given []"),
        (BASE + "[search.space]\nbatch_size = [1.5]", "given 1.5; must be a whole number from 1"),
        (BASE + "[search.space]\nbatch_size = 5", "given 5; must be a list of values"),
        (BASE + '[data]\nthreshold = "0.005"', "data.threshold: given '0.005'; must be a number"),
        (BASE + "[model.parameters]\nepochs = [1, 2]", "given [1, 2]; must be a whole number"),
        (
            BASE + '[data]\nsource = "csv"\ngroups = {storm = "id"}',
            "validation.group_by: must be given, one of storm or none",
        ),
        (BASE + "[search.space]\nepochs = [5, 5]", "search.space.epochs: given 5 twice"),
        (BASE + "[search.space]\nrate = [nan]", "given nan in the list; must be a finite number"),
        (BASE + "[search.space]\nrate = {low = 1, high = 2, lo = 3}", "(did you mean 'low'?)"),
        (
            # The name of a type of Python's, too.
            BASE + "[search.space]\ndepth = {low = 1, high = 2, int = true}",
            "unknown key 'search.space.depth.int' (did you mean 'integer'?); [search.space.depth] "
            "takes low, high, log, integer, when",
        ),
        (
            BASE + "[search.space]\nlist = {low = 1, high = 2, lo = 3}",
            "unknown key 'search.space.list.lo' (did you mean 'low'?); [search.space.list] takes",
        ),
        (BASE + "[search.space]\nrate = {low = 1, high = 2}", "a grid needs a list of values"),
        (
            BASE + '[search]\nstrategy = "random"\n[search.space]\nrate = {low = 2, high = 1}',
            "search.space.rate: low must be below high",
        ),
        (BASE + "[engine]\nbundle = 3", 'bundles are for use = "jax"; remove it'),
        (BASE + '[engine]\nuse = "jax"\nbundle = 0', 'must be a whole number from 1, or "auto"'),
        (
            BASE + '[engine]\nuse = "jax"\n[augment]\nrotate_degrees = 5',
            "augment.when: is 'on-the-fly', which the engine jax does not do; must be 'ahead'",
        ),
        (BASE + '[site]\nworkers = "two"', "site.workers: given 'two'; must be a whole number"),
        (
            BASE + "[site]\nworkers = 0",
            'site.workers: given 0; must be a whole number from 1, or "auto"',
        ),
        (BASE + "[site]\nworkers = true", "site.workers: given True; must be a whole number"),
        (BASE + '[site]\npin = "no"', "site.pin: given 'no'; must be true, false, \"auto\" or"),
        (BASE + "[data]\ntest_from = 3", "data.test_from: given 3; must be a date"),
        (BASE + '[data]\nsource = "foo"', "data.source: given 'foo'; must be"),
        (BASE + "[balance]\nratio = 2", "balance.ratio: given 2; must be at most 1"),
        (BASE + '[balance]\nscope = "before"', "must be 'training-folds' or 'before-split'"),
        (BASE + "[augment]\nrotate_degrees = 181", "given 181; must be at most 180"),
        (
            BASE + '[data]\nsource = "csv"\npath = "x.csv"\nvectors = {wind = ["u", "v"]}',
            "data.vectors: is for images; rows of tables are none",
        ),
        (BASE + "[augment]\nflip = true", "augment.flip: given True; a mirror image turns"),
        (
            BASE + '[augment]\nmethod = "2019-ahead"\nrotate_degrees = 5',
            "augment.rotate_degrees: given 5.0 beside method = '2019-ahead', which fixes it",
        ),
        (
            BASE + '[validation]\nsplit = "k-fold"\ngroup_by = "track"',
            "is 'track', but validation.split = 'k-fold' knows no groups; must be none",
        ),
        (
            BASE + '[validation]\nsplit = "grouped"\ngroup_by = "none"',
            "is 'none', but validation.split = 'grouped' needs a group",
        ),
        (BASE + '[model]\nbuild = "foo"', "model.build: given 'foo'; must be"),
        (BASE + "[validation]\nfolds = 1", "validation.folds: given 1; must be at least 2"),
        ('[study]\nname = "../x"', "study.name: given '../x'; must be letters"),
        (
            BASE + "[search.space]\nrate = [1]\n[model.parameters]\nrate = 3",
            "model.parameters.rate: is also in search.space",
        ),
    ],
)
def test_every_mistake_is_one_line_with_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(StudyFileError) as caught:
        load_study(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert len(message.splitlines()) == 1 or "TOML" in message


def test_missing_and_unreadable_files_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="there is no such file"):
        load_study(tmp_path / "none.toml")
    with pytest.raises(StudyFileError, match="is a folder"):
        load_study(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyFileError, match="is not UTF-8"):
        load_study(tmp_path / "bytes.toml")


def test_a_study_written_out_reads_back_as_it_was(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        BASE + '[data]\nsource = "csv"\npath = "tables"\ngroups = {run_date = "file:(\\\\d{8})"}\n'
        '[model]\nbuild = "mine.py:net"\nparameters = {filters = [8, 16]}\n'
        '[search]\nstrategy = "random"\n[search.space]\nkind = ["a", 3, 0.5, [1, 2]]\n'
        'norm = ["a", true, false]\n'
        "rate = {low = 1e-4, high = 1, log = true}\n",
    )
    study = load_study(path)
    assert study.data.path == tmp_path / "tables"
    assert study.model.build == f"{tmp_path / 'mine.py'}:net"
    copy = tmp_path / "elsewhere" / "study.toml"
    copy.parent.mkdir()
    copy.write_text(dump_study(study), encoding="utf-8")
    assert load_study(copy) == study
    assert differences(study, load_study(copy)) == []


def test_differences_name_the_keys_but_not_where_the_work_runs(tmp_path: Path) -> None:
    old = load_study(write(tmp_path, BASE + "[search.space]\nepochs = [5]"))
    new = load_study(
        write(tmp_path, BASE + "[search.space]\nepochs = [5, 10]\n[site]\nworkers = 7")
    )
    assert differences(old, new) == ["search.space.epochs was [5], is [5, 10]"]
    zero = load_study(write(tmp_path, BASE + "[search.space]\nepochs = [5]\nrate = [0]"))
    point = load_study(write(tmp_path, BASE + "[search.space]\nepochs = [5]\nrate = [0.0]"))
    assert differences(zero, point) == ["search.space.rate was [0], is [0.0]"]


MOVED = (
    '[data]\nsource = "{source}"\npath = "{data}"\ninputs = ["x"]\ntarget = "y"\n'
    '[model]\nbuild = "{build}"\n[search]\nstrategy = "tpe"\ntrials = 3\nknown = "{known}"\n'
    "[search.space]\nepochs = [5]"
)
PLACES = {"source": "csv", "data": "t/*.csv", "build": "m.py:net", "known": "k.jsonl"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"data": "tables/x/*.csv", "build": "nets/m.py:net", "known": "more/k.jsonl"}, None),
        ({"data": "t/*.txt"}, "data.path was"),
        ({"build": "m.py:other"}, "model.build was"),
        ({"build": "m2.py:net"}, "model.build was"),
        ({"build": "m:net"}, "model.build was"),
        ({"known": "k2.jsonl"}, "search.known was"),
    ],
)
def test_files_may_be_moved_but_not_be_others(
    tmp_path: Path, changes: dict[str, str], said: str | None
) -> None:
    """Losing this: a study that is moved starts anew, or goes on with another model or data."""
    old = load_study(write(tmp_path, BASE + MOVED.format(**PLACES)))
    (tmp_path / "elsewhere").mkdir()
    new = load_study(write(tmp_path / "elsewhere", BASE + MOVED.format(**PLACES | changes)))
    found = differences(old, new, growing=True)
    assert grew(old, new) == any("known" in key for key in changes if said)
    if said is None:
        assert found == []
        return
    (only,) = found
    assert only.startswith(said)


def test_a_function_that_reads_data_may_be_moved(tmp_path: Path) -> None:
    text = BASE + '[data]\nsource = "{}"\n'
    old = load_study(write(tmp_path, text.format("a/read.py:cases")))
    new = load_study(write(tmp_path, text.format("b/read.py:cases")))
    other = load_study(write(tmp_path, text.format("b/read.py:others")))
    assert (differences(old, new), len(differences(old, other))) == ([], 1)


@pytest.mark.parametrize("name", ["quickstart", "taki-2019"])
def test_shipped_studies_are_sound(name: str) -> None:
    assert load_study(ROOT / "studies" / f"{name}.toml").study.name == name


def test_the_template_loads_as_it_is_and_names_every_key(tmp_path: Path) -> None:
    text = template("mine")
    study = load_study(write(tmp_path, text))
    assert study.study.name == "mine"
    for table, content in study.model_dump().items():
        for key in content:
            assert f"{key} = " in text or f"[{table}.{key}]" in text, f"{table}.{key}"


def test_the_templates_examples_of_unset_keys_are_allowed(tmp_path: Path) -> None:
    lines = template("mine").splitlines()
    shown = [line[2:] if line.startswith("# ") and " = " in line else line for line in lines]
    # What only other strategies than the template's take.
    others = ("dropout =", "l2 =", "filters =", "momentum =", "first_folds =", "known =")
    kept = [line for line in shown if not line.startswith(("#", *others))]
    kept = [line for line in kept if not line.startswith(("A range", "Every key", "The study"))]
    load_study(write(tmp_path, "\n".join(kept)))


def test_every_metric_has_a_direction() -> None:
    assert set(METRICS.values()) == {"maximize", "minimize"}


def test_sites_are_found_beside_the_study_file() -> None:
    sites = load_sites(ROOT / "studies" / "quickstart.toml")
    assert {"local", "taki-2013", "taki-2018", "taki-gpu"} <= set(sites)
    assert sites["taki-2018"].cores_per_node == 36
    with pytest.raises(StudyFileError, match="did you mean 'taki-2018'"):
        find_site("taki-2081", ROOT / "studies" / "quickstart.toml")


def test_a_site_with_a_line_break_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text(
        '[site.x]\nscheduler = "slurm"\naccount = "a\\nrm -rf"\n', encoding="utf-8"
    )
    with pytest.raises(StudyFileError, match=r"site\.x\.account: .*must be one line"):
        load_sites(tmp_path / "study.toml")


def test_the_users_own_sites_count_after_the_projects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "config" / "stormsweep"
    home.mkdir(parents=True)
    (home / "sites.toml").write_text(SLURM.format("mine", 3) + SLURM.format("both", 3))
    (tmp_path / "sites.toml").write_text(SLURM.format("both", 5))
    monkeypatch.setenv("XDG_CONFIG_HOME", os.fspath(tmp_path / "config"))
    sites = load_sites(tmp_path / "study.toml")
    assert sites["mine"].nodes == 3
    assert sites["both"].nodes == 5


def test_the_reference_pages_say_what_the_code_does() -> None:
    """Losing this: keys, commands and names that are described and not there, or the reverse."""
    pages = runpy.run_path(os.fspath(ROOT / "docs" / "generate_reference.py"))["PAGES"]
    assert len(pages) == 4
    for path, page in pages.items():
        written = path.read_text(encoding="utf-8")
        assert written == page(), f"{path.name}: run python docs/generate_reference.py"


def test_the_template_says_the_default_where_it_sets_another_value(tmp_path: Path) -> None:
    """Losing this: values taken for defaults that are none."""
    text = template("mine")
    mine = load_study(write(tmp_path, text))
    default = StudyFile.model_validate({"study": {"name": "mine"}}).model_dump()
    for table, content in mine.model_dump().items():
        for key, value in content.items():
            other = f"# Default: {json.dumps(default[table][key], default=str)}.\n{key} = "
            differs = value != default[table][key] and key not in ("cache", "space")
            assert (other in text) == differs, f"{table}.{key}"
