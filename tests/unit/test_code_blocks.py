"""The code of the documentation: if these fail, a reader types what does not work.

Study files go through the real loader, shell lines through the real command line up to the point
where it would begin to work, Python is carried out. What is too slow for here (training) runs in
`tests/integration/test_documented.py`.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from stormsweep.config.load import load_study
from stormsweep.config.sites import load_sites
from stormsweep.config.strategies import GROUP
from tests import journals
from tests.pages import PAGES, ROOT, WORDS, Block, blocks, every

#: Python that trains, or loads Keras: carried out in tests/integration.
TRAINS = {
    "README.md",
    "docs/how-to/your-own-model.md",
    "docs/how-to/verify-and-predict.md",
    "docs/how-to/coming-from.md",
    "docs/how-to/notebook.md",
    "docs/how-to/sweep-search-cv.md",
}
#: Words of a shell, and programs that are not ours.
SHELL = {".", "cd", "export", "ssh", "tmux", "cat", "ls", "source", "eval", "scancel", "wget", "rm"}


def name(block: Block) -> str:
    return str(block)


def test_every_block_says_what_it_is_and_an_excuse_stands_before_code() -> None:
    """Losing this: code that no test looks at, because its language is misspelt."""
    known = {"", "sh", "console", "python", "toml"} | WORDS
    found = [block for page in PAGES for block in blocks(page)]
    assert [f"{block}: {block.language}" for block in found if block.language not in known] == []
    excused = [block for block in found if block.excuse]
    comments = sum(page.read_text().count("<!-- not run:") for page in PAGES)
    assert comments == len(excused), "an excuse that stands above no block, or says nothing"
    assert len(excused) < len(found) / 10, "most code runs"


# Study files and sites


@pytest.mark.parametrize("block", every("toml"), ids=name)
def test_study_files_and_sites_are_what_the_loader_allows(block: Block, tmp_path: Path) -> None:
    given = tomllib.loads(block.text)
    if "project" in given:
        # What a package of the reader's announces, in its pyproject.toml.
        assert set(given["project"].pop("entry-points")) == {GROUP}
        assert given == {"project": {}}
        return
    site = given.get("site", {})
    if any(isinstance(value, dict) for value in site.values()):
        (tmp_path / "sites.toml").write_text(block.text, encoding="utf-8")
        assert set(site) <= set(load_sites(tmp_path / "study.toml"))
        return
    # A page shows the tables that it is about; the rest of a file is as short as can be.
    text = block.text if "study" in given else f'[study]\nname = "x"\n{block.text}'
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    loaded = load_study(tmp_path / "study.toml").model_dump()
    assert set(given) <= set(loaded)


# Commands


@pytest.fixture(scope="session")
def commands() -> dict[str, Any]:
    import runpy

    found = runpy.run_path(str(ROOT / "docs" / "generate_reference.py"))["commands"]()
    return {words: command for words, command, _ in found}


@pytest.mark.parametrize("block", every("", "sh", "console"), ids=name)
def test_shell_lines_are_commands_with_options_that_exist(
    block: Block, commands: dict[str, Any]
) -> None:
    for line in block.commands():
        check(line, commands)


def check(line: str, commands: dict[str, Any]) -> None:
    """Look at one line as far as can be without working."""
    for part in re.split(r"\s(?:&&|\|)\s", line):
        words = shlex.split(part, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words[:3] == ["python", "-m", "stormsweep"]:
            words = words[2:]
        program, rest = words[0], words[1:]
        if program == "stormsweep":
            understood(rest, commands)
        elif program == "make":
            makes(rest)
        elif program in ("python", "sh"):
            place = rest[1].replace(".", "/") if rest[0] == "-m" else rest[0]
            own = place.startswith(("benchmarks", "docs", "tests"))
            assert not own or any(map(Path.exists, (ROOT / place, ROOT / f"{place}.py"))), line
        elif program == "pip":
            for extra in re.findall(r"\[([a-z,]+)\]", part):
                project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
                assert set(extra.split(",")) <= set(project["optional-dependencies"]), line
        else:
            assert program in SHELL, f"{line}: a program that the test does not know"


def understood(words: list[str], commands: dict[str, Any]) -> None:
    """Let the real command line read the words, and stop before it does anything."""
    if words and words[0].startswith("--"):
        assert words[0] in ("--help", "--version", "--install-completion", "--show-completion")
        return
    for length in (2, 1):
        command = commands.get(" ".join(["stormsweep", *words[:length]]))
        if command is not None and len(words) >= length:
            break
    assert command is not None, f"stormsweep {shlex.join(words)}: no such command"
    try:
        command.make_context(words[length - 1], words[length:])
    except typer.Exit:
        assert "--help" in words
    except typer.TyperException as error:
        raise AssertionError(f"stormsweep {shlex.join(words)}: {error}") from error


def makes(words: list[str]) -> None:
    folder, rest = ROOT, words
    if words[:1] == ["-C"]:
        folder, rest = ROOT / words[1], words[2:]
    targets = re.findall(r"^([a-z-]+):", (folder / "Makefile").read_text(), re.MULTILINE)
    asked = [word for word in rest if "=" not in word]
    assert asked
    assert set(asked) <= set(targets)


def test_a_wrong_line_would_be_found(commands: dict[str, Any]) -> None:
    for line in (
        "stormsweep rum studies/quickstart.toml",
        "stormsweep run studies/quickstart.toml --worker-count 2",
        "stormsweep simulate runs/x --workers many",
        "stormsweep results",
        "make everything",
        "frobnicate",
    ):
        with pytest.raises(AssertionError):
            check(line, commands)


# Python


def studies_on_record(folder: Path) -> None:
    """Lay studies there with journals of simulated drivers: nothing is trained."""
    space: dict[str, Any] = {
        "batch_size": [128, 512],
        "learning_rate": [0.001, 0.005],
        "epochs": [5, 10],
    }
    for number, study in enumerate(("taki-2019", "taki-2018", "taki-2013", "quickstart")):
        directory = folder / "runs" / study
        sizes = [{"epoch_patches": 38_000, "validation": 9_000}] * 3
        journals.simulate(directory, space, fold_sizes=sizes, pace=1.0 + number, name=study)
        file = directory / "study.toml"
        lines = "".join(f"{key} = {json.dumps(values)}\n" for key, values in space.items())
        file.write_text(f"{file.read_text()}\n[search.space]\n{lines}", encoding="utf-8")
    (folder / "sites.toml").write_text((ROOT / "studies" / "sites.toml").read_text())


def with_a_report(folder: Path) -> None:
    from stormsweep import write_report

    studies_on_record(folder)
    write_report(folder / "runs" / "taki-2019")


def with_an_optuna_study(folder: Path) -> None:
    import optuna

    study = optuna.create_study(
        study_name="storms", direction="maximize", storage=f"sqlite:///{folder}/optuna.db"
    )
    study.optimize(lambda trial: 1 - trial.suggest_float("lr", 1e-3, 0.1), n_trials=2)


#: What must lie in the folder in which a page's Python runs; nothing, where a page is not named.
WORLDS: dict[str, Callable[[Path], None]] = {
    "docs/how-to/advise.md": studies_on_record,
    "docs/how-to/compare.md": studies_on_record,
    "docs/how-to/halving.md": studies_on_record,
    "docs/how-to/neighbours.md": with_an_optuna_study,
    "docs/how-to/report.md": with_a_report,
}


#: A whole report is drawn for one line of Python; searches start workers.
SLOW = {"docs/how-to/report.md", "docs/how-to/sweep-search-cv.md"}


def pages_with_python() -> list[Any]:
    pages = sorted({block.page.relative_to(ROOT).as_posix() for block in every("python")})
    slow = pytest.mark.slow
    return [pytest.param(ROOT / page, id=page, marks=[slow] * (page in SLOW)) for page in pages]


@pytest.mark.parametrize("page", pages_with_python())
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a page, one block after the other, as a reader would type it."""
    where = page.relative_to(ROOT).as_posix()
    written = [block for block in every("python") if block.page == page]
    for block in written:
        compile(block.text, str(block), "exec")
    if where in TRAINS or where.startswith("docs/tutorial/"):
        return
    WORLDS.get(where, lambda folder: None)(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__documentation__"}
    for block in written:
        exec(compile(block.text, str(block), "exec"), names)
