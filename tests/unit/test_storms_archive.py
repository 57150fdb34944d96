"""Losing this: storm files that are not those of the archive, or not all of them, unnoticed."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from stormsweep import files
from stormsweep.errors import DataError, StudyInterrupted
from stormsweep.storms import find_runs, schema, synthesize
from stormsweep.storms.archive import Fetched, fetch
from stormsweep.storms.sources import ARCHIVES, source_of
from tests.archive_server import FOLDERS, NAMES, header, packed, serving, tar_of

TABLES, PATCHES = NAMES


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Both archives, of a small twin: without its ``twin.json`` it reads as real files do."""
    folder = tmp_path_factory.mktemp("storms") / "twin"
    synthesize(folder, 300, 3)
    return packed(folder)


@pytest.fixture
def mirror(archives: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder that holds both archives."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, content in archives.items():
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return all that lies in a folder; the empty dictionary where there is none."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(folder: Path, *sources: Path | str, **options: object) -> str:
    """Fetch what must be refused, with nothing changed by it."""
    before = contents(folder)
    with pytest.raises(DataError) as error:
        fetch(folder, sources, waits=(0, 0), **options)  # type: ignore[arg-type]
    assert contents(folder) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_both_archives_are_downloaded_checked_and_unpacked(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    told: dict[str, list[float]] = {}
    folder = tmp_path / "data" / "ncar-storms"
    with serving(files=archives) as site:
        fetched = fetch(
            folder,
            [site.base],
            progress=lambda what, share: told.setdefault(what, []).append(share),
        )
        assert fetched.unpacked == NAMES
        assert fetched.runs == len(find_runs(folder)) > 10
        assert f"{fetched.runs} of the archive's 100 runs" in str(fetched)
        assert len(site.gets()) == 2
        record = json.loads((folder / "archives.json").read_text())["archives"]
        for name in NAMES:
            assert (folder / name).read_bytes() == archives[name]
            assert record[name]["bytes"] == len(archives[name])
            assert record[name]["sha256"] == files.sha256(folder / name)
            assert record[name]["source"] == site.url(name)
        for shares in told.values():
            assert shares == sorted(shares)
            assert shares[0] == 0
            assert shares[-1] == 1
        assert {path.name for path in folder.iterdir()} == {*NAMES, *FOLDERS, "archives.json"}

        before = contents(folder)
        again = fetch(folder, [site.base])
        assert again.unpacked == ()
        assert contents(folder) == before
        assert len(site.gets()) == 2


def test_archives_of_this_machine_are_unpacked_from_where_they_lie(
    tmp_path: Path, mirror: Path
) -> None:
    folder = tmp_path / "data"
    fetch(folder, [mirror], keep_archives=False)
    assert {path.name for path in mirror.iterdir()} == set(NAMES)
    assert not any((folder / name).exists() for name in NAMES)
    record = json.loads((folder / "archives.json").read_text())["archives"]
    assert record[TABLES]["sha256"] == files.sha256(mirror / TABLES)

    files_one_by_one = fetch(tmp_path / "other", [mirror / PATCHES, mirror / TABLES])
    assert files_one_by_one.runs == len(find_runs(folder))


def test_downloads_are_removed_when_asked_to(tmp_path: Path, archives: dict[str, bytes]) -> None:
    with serving(files=archives) as site:
        fetch(tmp_path / "a", [site.base], keep_archives=False)
        fetch(tmp_path / "b", [site.base])
    fetch(tmp_path / "b", keep_archives=False)
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert {path.name for path in folder.iterdir()} == {*FOLDERS, "archives.json"}


def test_an_archive_that_lies_there_is_taken(tmp_path: Path, mirror: Path) -> None:
    """As the course's own script leaves them: downloaded, not unpacked."""
    fetched = fetch(mirror)
    assert fetched.unpacked == NAMES


def test_where_an_archive_is_taken_from(mirror: Path) -> None:
    tables, patches = ARCHIVES
    own = f"https://storage.googleapis.com/{schema.PATCH_FOLDER}/{PATCHES}"
    assert source_of(patches, []) == own
    assert source_of(patches, ["https://x.org/storms/"]) == f"https://x.org/storms/{PATCHES}"
    assert source_of(patches, ["https://x.org"]) == f"https://x.org/{PATCHES}"
    assert source_of(patches, ["https://x.org/a?key=1"]) == f"https://x.org/a/{PATCHES}?key=1"
    direct = [f"https://x.org/{TABLES}", f"http://y.org/{PATCHES}?key=1"]
    assert source_of(tables, direct) == direct[0]
    assert source_of(patches, direct) == direct[1]
    assert source_of(patches, direct[:1]) is None
    # What names the archive itself goes before what only might have it.
    assert source_of(patches, [mirror, direct[1]]) == direct[1]
    assert source_of(tables, [mirror, direct[1]]) == mirror / TABLES


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("ftp://x.org/storms", "allowed are http:// and https:// URLs"),
        ("file:///etc/passwd", "allowed are http:// and https:// URLs"),
        ("s3://me:secret@bucket", "given 's3://bucket'"),
        ("https://", "allowed are"),
        ("nowhere", "no such file or folder"),
        ("empty", f"empty has no {TABLES}"),
        ("storms.zip", f"an archive is called {TABLES}"),
        ("linked", f"is a symbolic link to ../mirror/{TABLES}; name that file itself"),
        ("folders", "is no plain file"),
    ],
)
def test_sources_that_cannot_be(
    tmp_path: Path, mirror: Path, source: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "storms.zip").write_text("zip")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / TABLES).symlink_to(f"../mirror/{TABLES}")
    (tmp_path / "folders" / TABLES).mkdir(parents=True)
    assert said in refused(Path("data"), source)
    assert not Path("data").exists()


def test_secrets_of_a_url_are_neither_kept_nor_shown(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    asked = {f"{name}?signature=s3cr3t": content for name, content in archives.items()}
    said: list[str] = []
    with serving(files=asked, statuses=[503]) as site:
        base = site.base.replace("http://", "http://me:s3cr3t@") + "?signature=s3cr3t"
        fetch(tmp_path / "data", [base], waits=(0,), say=said.append)
    assert said
    assert "s3cr3t" not in " ".join(said)
    assert "s3cr3t" not in (tmp_path / "data" / "archives.json").read_text()


# What was fetched once is what it must be ever after.


@pytest.fixture
def fetched(tmp_path: Path, archives: dict[str, bytes]) -> Path:
    """A data folder, downloaded."""
    with serving(files=archives) as site:
        return fetch(tmp_path / "data", [site.base]).folder


def test_a_kept_archive_that_changed_is_noticed(fetched: Path) -> None:
    path = fetched / PATCHES
    content = bytearray(path.read_bytes())
    was = files.sha256(path)
    content[1000] ^= 1
    path.write_bytes(content)
    message = refused(fetched)
    assert f"expected sha256 {was}, got {files.sha256(path)}" in message
    assert "remove it and fetch again" in message
    path.write_bytes(content[:-1])
    assert f"expected {len(content):,} bytes, got {len(content) - 1:,}" in refused(fetched)


def test_another_archive_than_the_first_is_refused_wherever_it_comes_from(
    fetched: Path, mirror: Path, archives: dict[str, bytes]
) -> None:
    other = bytearray(archives[PATCHES])
    other[4] ^= 1  # the time in gzip's header: it unpacks to the same
    (mirror / PATCHES).write_bytes(other)
    (fetched / PATCHES).unlink()
    shutil.rmtree(fetched / FOLDERS[1])
    was = json.loads((fetched / "archives.json").read_text())["archives"][PATCHES]["sha256"]
    message = refused(fetched, mirror)
    assert f"expected sha256 {was}, got {files.sha256(mirror / PATCHES)}" in message
    with serving(files={PATCHES: bytes(other)}) as site:
        message = refused(fetched, site.base)
        assert f"expected {was} but got {files.sha256(mirror / PATCHES)}" in message
        site.files = archives
        assert fetch(fetched, [site.base]).unpacked == (PATCHES,)


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_unpacked_files_that_went_missing_or_changed_are_noticed(
    fetched: Path, damage: str
) -> None:
    path = find_runs(fetched)[3].patches
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, 100)
    message = refused(fetched)
    assert f"{fetched / FOLDERS[1]}: not whole: 1 of the" in message
    assert path.name in message
    shutil.rmtree(fetched / FOLDERS[1])
    assert fetch(fetched).unpacked == (PATCHES,)


def test_a_folder_that_somebody_else_unpacked(tmp_path: Path, mirror: Path) -> None:
    folder = tmp_path / "data"
    for path in (schema.table_path, schema.patch_path):
        for date in schema.RUN_DATES:
            file = path(folder, date)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("storms")
    assert fetch(folder, [mirror]).unpacked == ()
    assert str(fetch(folder)).startswith("100 runs from 2010-10-24 to 2017-03-29")
    lost = schema.patch_path(folder, schema.RUN_DATES[7])
    lost.write_text("")
    message = refused(folder, mirror)
    assert f"has files of 99 of the 100 runs, and none of {schema.RUN_DATES[7]}" in message


def test_a_folder_left_empty_is_filled(tmp_path: Path, mirror: Path) -> None:
    (tmp_path / "data" / FOLDERS[0]).mkdir(parents=True)
    assert fetch(tmp_path / "data", [mirror]).unpacked == NAMES


def test_a_twin_is_no_place_for_real_storms(tmp_path: Path, mirror: Path) -> None:
    synthesize(tmp_path / "twin", 100, 0)
    assert "holds a twin" in refused(tmp_path / "twin", mirror)


@pytest.mark.parametrize("text", ["", "[]", '{"archives": {"x": {}}}', '{"archives": 3}'])
def test_a_damaged_record_is_said_to_be(fetched: Path, text: str) -> None:
    (fetched / "archives.json").write_text(text)
    assert "archives.json: cannot be read" in refused(fetched)


# What can go wrong on the way.


def test_half_unpacked_folders_are_recognised(tmp_path: Path, mirror: Path) -> None:
    """As a kill while unpacking leaves them."""
    folder = tmp_path / "data"
    left = folder / f".{FOLDERS[1]}.0123abcd.partial"
    left.mkdir(parents=True)
    (left / "NCARSTORM_20101024-0000_d01_model_patches.nc").write_text("half")
    said: list[str] = []
    fetch(folder, [mirror], say=said.append)
    assert not left.exists()
    assert "half unpacked" in said[0]


def test_a_kill_while_the_checksum_is_taken_costs_no_download(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    """Pooch then has the whole file under a temporary name."""
    folder = tmp_path / "data"
    staging = folder / f".{PATCHES}.fetching"
    staging.mkdir(parents=True)
    (staging / "tmp0123").write_bytes(archives[PATCHES])
    (staging / "tmp0456").touch()
    url = "http://127.0.0.1:1"
    notes = {
        "url": f"{url}/{PATCHES}",
        "bytes": len(archives[PATCHES]),
        "etag": None,
        "last_modified": None,
    }
    (folder / f"{PATCHES}.part.json").write_text(json.dumps(notes))
    (folder / TABLES).write_bytes(archives[TABLES])
    assert fetch(folder, [url], waits=()).unpacked == NAMES
    assert {path.name for path in folder.iterdir()} == {*NAMES, *FOLDERS, "archives.json"}


def test_too_little_room_is_said_before_anything_is_downloaded(
    tmp_path: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _path: usage)
    with serving(files=archives) as site:
        message = refused(tmp_path / "data", site.base)
        assert site.gets() == []
    size = sum(map(len, archives.values()))
    assert f"({files.readable(size)} to download" in message
    assert "5.0 MB are free" in message
    assert not (tmp_path / "data").exists()
    # Without a word from the server, what is known of the archive counts.
    with serving(files=archives, lengths=False) as site:
        assert "(2.0 GB to download" in refused(tmp_path / "data", site.base)


def test_a_full_disk_is_said_in_a_line(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stormsweep.storms.unpack._write", full)
    assert "the disk is full" in refused(tmp_path / "data", mirror)
    assert not (tmp_path / "data").exists()


def test_a_server_that_states_too_short_a_length(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    """It looks whole until it is unpacked; then it is downloaded once more, and no oftener."""
    said: list[str] = []
    with serving(files=archives, lies=[0, -1000]) as site:
        fetch(tmp_path / "a", [site.base], waits=(0,), say=said.append)
        assert len(site.gets(PATCHES)) == 2
        assert "downloading it once more" in said[0]
    with serving(files=archives, lie=-1000) as site:
        message = refused(tmp_path / "b", site.base)
        assert "damaged or cut short both times" in message
        assert len(site.gets()) == 2
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["../../evil", "a/b/c", "x" * 300], ids=["up", "below", "long"])
def test_an_evil_archive_leaves_nothing_behind(tmp_path: Path, mirror: Path, name: str) -> None:
    members = [(header(f"{FOLDERS[0]}/{each}"), b"evil") for each in ("a", name)]
    (mirror / TABLES).write_bytes(tar_of(*members))
    before = contents(tmp_path)
    assert "refused: " in refused(tmp_path / "data", mirror)
    with serving(files=contents(mirror)) as site:
        assert "thrown away: " in refused(tmp_path / "data", site.base)
        assert len(site.gets()) == 1
    assert contents(tmp_path) == before
    assert not (tmp_path / "data").exists()


def test_a_bomb_is_bounded_by_what_is_expected(tmp_path: Path, mirror: Path) -> None:
    bomb = header(f"{FOLDERS[0]}/bomb")
    bomb.size = 10**12
    (mirror / TABLES).write_bytes(gzip.compress(bomb.tobuf() + bytes(10_240)))
    assert "unpacks to more than 1.0 GB" in refused(tmp_path / "data", mirror)


def test_an_archive_of_something_else(tmp_path: Path, mirror: Path) -> None:
    (mirror / TABLES).write_bytes(tar_of((header(f"{FOLDERS[0]}/README"), b"Hail")))
    assert "holds no files that are called track_step" in refused(tmp_path / "data", mirror)


def test_two_at_once_are_refused(tmp_path: Path, mirror: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        assert "another `stormsweep data fetch` is at work here" in refused(folder, mirror)
    finally:
        os.close(handle)
    assert isinstance(fetch(folder, [mirror]), Fetched)


def test_an_interrupt_says_what_is_kept(tmp_path: Path, archives: dict[str, bytes]) -> None:
    def stop(what: str, share: float) -> None:
        if PATCHES in what and share > 0.3:
            raise KeyboardInterrupt

    with serving(files=archives) as site:
        with pytest.raises(StudyInterrupted, match=rf"[kM]B of {PATCHES} are kept"):
            fetch(tmp_path / "data", [site.base], progress=stop)
        half = (tmp_path / "data" / f"{PATCHES}.part").read_bytes()
        assert archives[PATCHES].startswith(half)
        fetch(tmp_path / "data", [site.base])
        assert site.gets(PATCHES)[-1].sent == len(archives[PATCHES]) - len(half)
