"""Losing these: scores lost to a crash, or a damaged journal taken for a whole one."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.errors import JournalError
from stormsweep.records import Entry, RunFailed, RunPlanned, TaskDone
from stormsweep.results import journal as journals
from stormsweep.results.journal import Follower, JournalWriter, decode, encode, of_kind, read

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False) | st.just(math.inf)
values = st.integers(-(2**53), 2**53) | numbers | st.booleans() | text
planned = st.builds(
    RunPlanned,
    run=text,
    hyperparameters=st.dictionaries(text, values | st.lists(values, max_size=3), max_size=4),
    fold=st.integers(0, 9),
    milestones=st.lists(st.integers(1, 99), max_size=4),
)
failed = st.builds(
    RunFailed, text, st.integers(0, 9), st.integers(0, 9), text, text, text, st.integers(1, 9), text
)
done = st.builds(
    TaskDone,
    run=text,
    from_epoch=st.integers(0, 9),
    to_epoch=st.integers(0, 9),
    scores=st.dictionaries(text, numbers, max_size=4),
    worker=text,
    session=st.integers(1, 9),
    submitted=numbers,
    started=numbers,
    stopped=numbers,
    phases=st.dictionaries(text, numbers, max_size=3),
    epoch_loss=st.lists(numbers, max_size=3),
    patches=st.integers(0, 2**40),
    updates=st.integers(0, 2**40),
    memory_mb=numbers,
    parameters=st.integers(0, 2**40),
    threads=st.integers(0, 99),
    cores=st.lists(st.integers(0, 999), max_size=3),
)
records: Any = planned | failed | done
entries = st.builds(Entry, st.integers(0, 2**31).map(float), records)


@given(entries)
def test_what_is_written_is_what_is_read(entry: Entry) -> None:
    line = encode(entry)
    assert line.count("\n") == 1
    json.loads(line, parse_constant=lambda _: pytest.fail("not strict JSON"))
    assert decode(line) == entry


def test_scores_that_are_not_numbers_survive() -> None:
    entry = Entry(1.0, RunPlanned("r", {"x": "nan", "y": -math.inf}, 0, [1]))
    assert decode(encode(entry)) == entry
    line = encode(Entry(1.0, RunPlanned("r", {"x": math.nan}, 0, [1])))
    record = decode(line).record
    assert isinstance(record, RunPlanned)
    assert math.isnan(record.hyperparameters["x"])


@given(st.lists(records, min_size=1, max_size=6), st.integers(0, 1000))
def test_a_journal_cut_anywhere_keeps_every_whole_record(
    tmp_path_factory: pytest.TempPathFactory, what: list[Any], permille: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with JournalWriter(path) as journal:
        for record in what:
            journal.append(record)
    whole = path.read_bytes()
    cut = len(whole) * permille // 1000
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert [entry.record for entry in read(path)] == what[:kept]
    # Whoever goes on appends after the last whole record, and all of it reads back.
    found: list[Entry] = []
    with JournalWriter(path, found.append) as journal:
        assert [entry.record for entry in found] == what[:kept]
        journal.append(what[0])
    assert [entry.record for entry in read(path)] == [*what[:kept], what[0]]


def test_a_lost_line_end_is_no_torn_line(tmp_path: Path) -> None:
    """Two whole records on one line are damage to be told of; dropping both would lose work."""
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.append(*(RunPlanned(f"r{n}", {}, 0, [1]) for n in range(2)))
    path.write_bytes(path.read_bytes().replace(b"}\n{", b"}\x0b{"))
    with pytest.raises(JournalError, match="line 1 of 1 is damaged"):
        read(path)


@given(
    st.lists(records, min_size=2, max_size=4),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([1, 2, 4, 8, 16]),
)
def test_a_flipped_bit_before_the_last_line_is_found(
    tmp_path_factory: pytest.TempPathFactory, what: list[Any], where: float, bit: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.append(*what)
    raw = bytearray(path.read_bytes())
    last_line = raw.rindex(b"\n", 0, len(raw) - 1) + 1
    raw[int(where * last_line)] ^= bit
    path.write_bytes(raw)
    with pytest.raises(JournalError, match=r"journal\.jsonl: line \d+ of \d+ is damaged"):
        read(path)


@pytest.mark.parametrize("change", [{"v": 2}, {"kind": "new-to-us"}, {"colour": "red"}])
@pytest.mark.parametrize("last", [True, False])
def test_a_whole_line_of_another_version_is_never_cut_off(
    tmp_path: Path, change: dict[str, Any], last: bool
) -> None:
    """A laptop and a cluster's module may be a release apart: the record is sound, and stays."""
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.append(RunPlanned("a", {}, 0, [1]))
    own = path.read_bytes()
    body = json.loads(own) | change
    del body["crc"]
    text = json.dumps(body, separators=(",", ":"))
    theirs = f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()
    path.write_bytes(own + theirs + (b"" if last else own))
    before = path.read_bytes()

    def follow(path: Path) -> list[Entry]:
        return list(Follower(path).new())

    for reads in (read, JournalWriter, follow):
        with pytest.raises(JournalError, match="written by another version") as refused:
            reads(path)
        assert "cut it off" not in str(refused.value)
    assert path.read_bytes() == before


def test_a_missing_journal_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"journal\.jsonl: there is no journal here"):
        read(tmp_path / "journal.jsonl")


def test_a_disk_that_takes_half_a_line_loses_nothing_written_before(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as journal:
        journal.append(RunPlanned("a", {}, 0, [1]))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
        try:
            with pytest.raises(JournalError, match="cannot be written: File too large"):
                journal.append(RunPlanned("b", {}, 0, [1]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        journal.append(RunPlanned("c", {}, 0, [1]))
    assert [record.run for record in of_kind(read(path), RunPlanned)] == ["a", "c"]


def test_ctrl_c_while_a_record_is_synced_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sync = tmp_path / "journal.jsonl", os.fsync

    def interrupted(descriptor: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert len(read(path)) == 1, "who reads along sees it by now"
        sync(descriptor)

    with JournalWriter(path) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                journal.append(RunPlanned("a", {}, 0, [1]))
        assert [entry.record.run for entry in read(path)] == ["a"]  # type: ignore[union-attr]
        journal.append(RunPlanned("b", {}, 0, [1]))
    assert [entry.record.run for entry in read(path)] == ["a", "b"]  # type: ignore[union-attr]


def test_a_second_writer_is_found_before_it_can_mix_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path) as sleeper, JournalWriter(path) as awake:
        awake.append(RunPlanned("a", {}, 0, [1]))
        with pytest.raises(JournalError, match="another process wrote to it"):
            sleeper.append(RunPlanned("b", {}, 0, [1]))
    assert [record.run for record in of_kind(read(path), RunPlanned)] == ["a"]


def test_a_record_that_came_while_the_journal_was_read_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long journal takes a while to read: another driver may have begun in it."""
    path, scan = tmp_path / "journal.jsonl", journals._scan
    with JournalWriter(path) as other:
        other.append(RunPlanned("a", {}, 0, [1]))

        def scanned(path: Path) -> list[tuple[Entry, int]]:
            found = list(scan(path))
            other.append(RunPlanned("b", {}, 0, [1]))
            return found

        monkeypatch.setattr(journals, "_scan", scanned)
        with pytest.raises(JournalError, match="another process wrote to it"):
            JournalWriter(path)
    monkeypatch.undo()
    assert [record.run for record in of_kind(read(path), RunPlanned)] == ["a", "b"]
