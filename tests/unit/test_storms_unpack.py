"""Losing this: an archive from the network writes where it likes, or fills the disk."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stormsweep.errors import DataError
from stormsweep.storms.unpack import DamagedArchive, extract, place
from tests.archive_server import header, tar_of

TOP = "storms"
GOOD = (header(f"{TOP}/a.csv"), b"Step_ID\n")


def unpacked(folder: Path, content: bytes, most: int = 10**6) -> dict[str, int]:
    """Unpack into a folder of its own, beside which nothing may appear."""
    (folder / "archive.tar.gz").write_bytes(content)
    (folder / "into").mkdir()
    try:
        return extract(folder / "archive.tar.gz", folder / "into", TOP, most)
    finally:
        assert {path.name for path in folder.iterdir()} <= {"archive.tar.gz", "into", "victim"}
        for path in (folder / "into").rglob("*"):
            assert not path.is_symlink()
            assert path.is_dir() or path.is_file()


def refused(folder: Path, content: bytes, most: int = 10**6) -> str:
    with pytest.raises(DataError) as error:
        unpacked(folder, content, most)
    assert not isinstance(error.value, DamagedArchive)
    return str(error.value)


def test_plain_files_and_folders_are_unpacked(tmp_path: Path) -> None:
    content = tar_of(
        header("./", tarfile.DIRTYPE),
        header(f"./{TOP}", tarfile.DIRTYPE),
        GOOD,
        header(f"{TOP}/deeper", tarfile.DIRTYPE),
        (header(f"./{TOP}/deeper//b.csv"), b"x" * 3000),
        (header(f"{TOP}/{'long' * 60}.csv"), b"a name that needs a header of its own"),
        header(f"{TOP}/empty.csv"),
    )
    listed = unpacked(tmp_path, content)
    assert listed == {"a.csv": 8, "deeper/b.csv": 3000, f"{'long' * 60}.csv": 37, "empty.csv": 0}
    assert (tmp_path / "into" / "a.csv").read_bytes() == b"Step_ID\n"
    for name, size in listed.items():
        assert (tmp_path / "into" / name).stat().st_size == size


def test_modes_of_the_archive_do_not_count(tmp_path: Path) -> None:
    info = header(f"{TOP}/a.csv")
    info.mode = 0o6777
    unpacked(tmp_path, tar_of((info, b"x")))
    assert (tmp_path / "into" / "a.csv").stat().st_mode & 0o7111 == 0


def test_what_macos_puts_beside_files_is_left_out(tmp_path: Path) -> None:
    content = tar_of((header("._storms"), b"x"), (header(f"{TOP}/._a.csv"), b"x"), GOOD)
    assert list(unpacked(tmp_path, content)) == ["a.csv"]


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ((header("../victim/file"), b"evil"), "leads elsewhere"),
        ((header(f"{TOP}/../../victim/file"), b"evil"), "leads elsewhere"),
        ((header(f"{TOP}\\..\\file"), b"evil"), "leads elsewhere"),
        ((header("/tmp/victim/file"), b"evil"), "absolute path"),
        ((header(f"//{TOP}/file"), b"evil"), "absolute path"),
        ((header("other/file"), b"evil"), "outside of storms/"),
        ((header(TOP), b"evil"), "outside of storms/"),
        (header("other", tarfile.DIRTYPE), "outside of storms/"),
        (header(f"{TOP}/out", tarfile.SYMTYPE, "../../victim"), "a symbolic link"),
        (header(f"{TOP}/in", tarfile.SYMTYPE, "a.csv"), "a symbolic link"),
        (header(TOP, tarfile.SYMTYPE, "/tmp"), "a symbolic link"),
        (header(f"{TOP}/hard", tarfile.LNKTYPE, "../../victim/file"), "a hard link"),
        (header(f"{TOP}/null", tarfile.CHRTYPE), "a device or a pipe"),
        (header(f"{TOP}/disk", tarfile.BLKTYPE), "a device or a pipe"),
        (header(f"{TOP}/pipe", tarfile.FIFOTYPE), "a device or a pipe"),
        ((header(f"{TOP}/a.csv"), b"again"), "stands there twice"),
        ((header(f"{TOP}/a.csv/b"), b"below a file"), "stands there twice"),
        ((header(f"{TOP}/a.csv/b/c"), b"far below a file"), "no file can have (Not a directory)"),
        (header(f"{TOP}/a.csv", tarfile.DIRTYPE), "stands there twice"),
        (header(f"{TOP}/a.csv/b/c", tarfile.DIRTYPE), "no file can have (Not a directory)"),
        ((header(f"{TOP}/{'x' * 300}"), b"too long"), "xxx...' has a path that no file can have"),
        (header(f"{TOP}/{'y' * 300}/z", tarfile.DIRTYPE), "yyy...' has a path that no file can"),
        ((header(f"{TOP}/{'deep/' * 900}z"), b"too deep"), "dee...' has a path that no file"),
    ],
)
def test_evil_members_are_refused_and_named(
    tmp_path: Path, member: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], said: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    message = refused(tmp_path, tar_of(GOOD, member, (header(f"{TOP}/out/file"), b"evil")))
    assert said in message
    assert (victim / "file").read_text() == "mine"
    assert list(victim.iterdir()) == [victim / "file"]


def test_a_link_cannot_be_written_through_even_where_one_lies(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "archive.tar.gz").write_bytes(tar_of(GOOD))
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "a.csv").symlink_to(tmp_path / "victim")
    with pytest.raises(DataError, match="stands there twice"):
        extract(tmp_path / "archive.tar.gz", tmp_path / "into", TOP, 10**6)
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    half = bytes(600_000)
    members = ((header(f"{TOP}/a"), half), (header(f"{TOP}/b"), half))
    message = refused(tmp_path, tar_of(*members))
    assert "unpacks to more than 1.0 MB" in message
    assert not (tmp_path / "into" / "b").exists()


def test_a_bomb_behind_the_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    bomb = tar_of(GOOD) + gzip.compress(bytes(60_000_000), compresslevel=1)
    assert "unpacks to more than" in refused(tmp_path, bomb)


def test_a_bomb_of_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stormsweep.storms.unpack._MOST_MEMBERS", 100)
    members = [header(f"{TOP}/{number}") for number in range(101)]
    assert "100 files" in refused(tmp_path, tar_of(*members))


def test_a_bomb_in_a_header_is_not_read_into_memory(tmp_path: Path) -> None:
    long = header(f"{TOP}/x", tarfile.GNUTYPE_LONGNAME)
    long.size = 10**9
    buffer = io.BytesIO(long.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(DamagedArchive, match="a header of 1,000,000,000 bytes"):
        unpacked(tmp_path, gzip.compress(buffer.getvalue()))


def test_headers_that_extend_each_other_without_end(tmp_path: Path) -> None:
    long = header(f"{TOP}/x", tarfile.GNUTYPE_LONGNAME)
    long.size = 1
    block = long.tobuf(tarfile.GNU_FORMAT) + b"y" + bytes(511)
    with pytest.raises(DamagedArchive):
        unpacked(tmp_path, gzip.compress(block * 5000 + bytes(1024)))


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    sparse = header(f"{TOP}/x", tarfile.GNUTYPE_SPARSE)
    assert "no plain file" in refused(tmp_path, tar_of(sparse))


SOUND = tar_of(GOOD, (header(f"{TOP}/b.csv"), os.urandom(50_000)))


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>Not Found</html>",
        gzip.compress(b"no tar"),
        gzip.compress(bytes(100)),
        *(SOUND[:keep] for keep in (10, 300, 20_000, len(SOUND) - 4)),
        changed(SOUND, len(SOUND) // 2),
        changed(SOUND, len(SOUND) - 6),
        SOUND + b"rubbish",
        # The tar within was cut short before it was compressed, between two files.
        gzip.compress(gzip.decompress(SOUND)[:1024]),
        gzip.compress(gzip.decompress(SOUND)[:30_000]),
    ],
    # The bytes themselves are others in each process: they hold chance and the time.
    ids=[
        *("empty", "a page", "no tar", "zeros", "cut in its header", "cut at 300", "cut at 20000"),
        *("without its end", "changed", "changed at its end", "rubbish behind it"),
        *("a tar cut between files", "a tar cut in a file"),
    ],
)
def test_a_damaged_archive_is_noticed(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DamagedArchive, match="damaged or cut short"):
        unpacked(tmp_path, content)


NAMES = st.lists(
    st.sampled_from(["..", ".", "", TOP, "a", "._a", "\\", "\0", "é", "\udcff", "~"]), max_size=6
).map("/".join)


@given(name=st.one_of(NAMES, st.text()), kind=st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE]))
@example(name=f"{TOP}/.", kind=tarfile.REGTYPE)
def test_whatever_its_name_nothing_leads_out(name: str, kind: bytes) -> None:
    try:
        path = place(header(name, kind), TOP)
    except ValueError:
        return
    if path is not None:
        where = os.path.normpath(f"/data/into/{path}")
        assert where.startswith("/data/into/")
        assert [part for part in name.split("/") if part not in ("", ".")] == [TOP, *path.parts]
