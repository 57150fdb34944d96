"""Losing this: two gigabytes are downloaded anew after every break, or two halves are glued."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormsweep.errors import DataError
from stormsweep.storms.download import (
    WAITS,
    Resuming,
    Step,
    Whole,
    next_step,
    request_headers,
    stated_bytes,
)
from tests.archive_server import serving

CONTENT = random.Random(2019).randbytes(1_000_000)
OTHER = random.Random(2020).randbytes(1_000_000)


class Download:
    """One download into a folder, and all that was said of it."""

    def __init__(self, folder: Path, waits: tuple[float, ...] = (0, 0), **limits: int) -> None:
        self.target = folder / "storms"
        self.half = folder / "storms.part"
        self.said: list[str] = []
        self.shares: list[tuple[int, int | None]] = []
        self.resuming = Resuming(
            self.half,
            limits.get("most", 10**8),
            limits.get("expected"),
            lambda had, total: self.shares.append((had, total)),
            self.said.append,
            waits,
        )

    def __call__(self, url: str) -> bytes:
        self.resuming(url, str(self.target), None)
        assert not self.half.exists()
        assert not self.half.with_name("storms.part.json").exists()
        return self.target.read_bytes()

    def refused(self, url: str) -> str:
        with pytest.raises(DataError) as error:
            self.resuming(url, str(self.target), None)
        assert not self.target.exists()
        assert "\n" not in str(error.value)
        return str(error.value)


def test_a_broken_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(files={"storms": CONTENT}, breaks=[300_000, 400_000]) as site:
        download = Download(tmp_path)
        assert download(site.url("storms")) == CONTENT
        gets = site.gets()
    assert [get.status for get in gets] == [200, 206, 206]
    # What was in flight when the connection broke may come twice, a block at most each time.
    assert sum(get.sent for get in gets) < len(CONTENT) + 3 * 65536
    assert download.shares[-1] == (len(CONTENT), len(CONTENT))
    assert "broke off at" in download.said[0]


def test_it_goes_on_in_another_session_too(tmp_path: Path) -> None:
    with serving(files={"storms": CONTENT}, breaks=[500_000], statuses=[200, 500]) as site:
        message = Download(tmp_path, waits=()).refused(site.url("storms"))
        assert "kept; go on later with the same command" in message
        before = sum(get.sent for get in site.gets())
        message = Download(tmp_path, waits=()).refused(site.url("storms"))
        assert "500" in message
        assert Download(tmp_path)(site.url("storms")) == CONTENT
        assert sum(get.sent for get in site.gets()) - before < 600_000


def test_a_server_that_cannot_go_on_begins_anew(tmp_path: Path) -> None:
    with serving(files={"storms": CONTENT}, ranges=False, breaks=[300_000]) as site:
        download = Download(tmp_path)
        assert download(site.url("storms")) == CONTENT
    assert [get.status for get in site.gets()] == [200, 200]
    assert any("beginning anew" in line for line in download.said)


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"etags": {"storms": '"a"'}}, {"etags": {"storms": '"b"'}}),
        ({"modified": {"storms": "Tue, 1 Jan 2019"}}, {"modified": {"storms": "Wed, 2 Jan 2019"}}),
        ({"etags": {"storms": 'W/"a"'}}, {"etags": {"storms": 'W/"b"'}}),
        ({}, {"files": {"storms": OTHER[:-5]}}),
    ],
)
def test_a_file_that_changed_between_two_tries_is_not_glued(
    tmp_path: Path, first: dict, second: dict, if_range: bool
) -> None:
    with serving(files={"storms": CONTENT}, breaks=[400_000], if_range=if_range, **first) as site:
        Download(tmp_path, waits=()).refused(site.url("storms"))
        site.files = {"storms": OTHER}
        for name, value in second.items():
            setattr(site, name, value)
        assert Download(tmp_path)(site.url("storms")) == site.files["storms"]


def test_a_half_file_from_elsewhere_is_not_glued(tmp_path: Path) -> None:
    with serving(files={"a/storms": CONTENT, "b/storms": OTHER}, breaks=[400_000]) as site:
        Download(tmp_path, waits=()).refused(site.url("a/storms"))
        assert Download(tmp_path)(site.url("b/storms")) == OTHER
    assert "range" not in site.gets("b/")[0].headers


def test_a_half_file_that_was_whole_is_not_asked_for_again(tmp_path: Path) -> None:
    with serving(files={"storms": CONTENT}, breaks=[400_000]) as site:
        download = Download(tmp_path, waits=())
        download.refused(site.url("storms"))
        download.half.write_bytes(CONTENT)
        assert Download(tmp_path)(site.url("storms")) == CONTENT
        assert len(site.gets()) == 1


def test_more_bytes_stated_than_there_are(tmp_path: Path) -> None:
    """Where the server knows ranges, it says itself that there is no more; else it is given up."""
    with serving(files={"storms": CONTENT}, lie=1000) as site:
        download = Download(tmp_path)
        assert download(site.url("storms")) == CONTENT
        download.target.unlink()
    with serving(files={"storms": CONTENT}, lie=1000, ranges=False) as site:
        message = Download(tmp_path).refused(site.url("storms"))
        assert "broke off at 1,000,000 of 1,001,000 bytes" in message
        assert "given up after 3 tries" in message
        assert len(site.gets()) == 3


def test_an_end_too_early_is_noticed_without_a_stated_length(tmp_path: Path) -> None:
    """The rest of a file then has no length of its own; that of the whole is known."""
    with serving(files={"storms": CONTENT}, breaks=[300_000]) as site:
        Download(tmp_path, waits=()).refused(site.url("storms"))
        site.lengths, site.breaks = False, [200_000]
        download = Download(tmp_path)
        assert download(site.url("storms")) == CONTENT
    assert "ended at" in download.said[0]


def test_waits_grow() -> None:
    assert list(WAITS) == sorted(set(WAITS))


def test_each_further_try_waits_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("stormsweep.storms.download.time.sleep", slept.append)
    with serving(files={"storms": CONTENT}, statuses=[503] * 9) as site:
        Download(tmp_path, waits=(1, 2, 4)).refused(site.url("storms"))
    assert slept == [1, 2, 4]


def test_a_server_out_of_breath_is_asked_again(tmp_path: Path) -> None:
    with serving(files={"storms": CONTENT}, statuses=[503, 429]) as site:
        assert Download(tmp_path)(site.url("storms")) == CONTENT


@pytest.mark.parametrize("status", [403, 410])
def test_a_server_that_refuses_is_not_asked_again(tmp_path: Path, status: int) -> None:
    with serving(files={"storms": CONTENT}, statuses=[status]) as site:
        assert str(status) in Download(tmp_path).refused(site.url("storms"))
        assert "404" in Download(tmp_path).refused(site.url("none"))
    assert len(site.gets()) == 2


@pytest.mark.parametrize("lengths", [True, False])
def test_a_file_far_too_large_is_stopped(tmp_path: Path, lengths: bool) -> None:
    with serving(files={"storms": CONTENT}, lengths=lengths) as site:
        download = Download(tmp_path, most=300_000)
        assert "at most 300.0 kB are expected" in download.refused(site.url("storms"))
    assert not download.half.exists()


def test_without_a_stated_length_the_end_is_the_end(tmp_path: Path) -> None:
    with serving(files={"storms": CONTENT}, lengths=False) as site:
        assert stated_bytes(site.url("storms")) is None
        assert Download(tmp_path)(site.url("storms")) == CONTENT


def test_another_size_than_recorded_is_refused_before_it_is_downloaded(tmp_path: Path) -> None:
    with serving(files={"storms": CONTENT}) as site:
        message = Download(tmp_path, expected=999_999).refused(site.url("storms"))
    assert "expected 999,999 bytes, the server has 1,000,000" in message


def test_redirects_lead_to_the_web_only(tmp_path: Path) -> None:
    with serving(files={"storms": CONTENT}) as site:
        site.redirects = {
            "moved": site.url("storms"),
            "out": "file:///etc/passwd",
            "ftp": "ftp://127.0.0.1/x",
            "round": site.url("round"),
        }
        assert Download(tmp_path)(site.url("moved")) == CONTENT
        (tmp_path / "storms").unlink()
        for name in ("out", "ftp", "round"):
            assert "cannot be fetched" in Download(tmp_path).refused(site.url(name))


def test_nobody_listens(tmp_path: Path) -> None:
    with serving() as site:
        url = site.url("storms")
    assert "Connection refused; given up after 3 tries" in Download(tmp_path).refused(url)


def test_a_compressed_transport_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    """A server that calls an archive gzip-encoded must not have it unpacked on the way."""
    import gzip

    content = gzip.compress(b"storms" * 1000)
    with serving(files={"storms": content}, encoding="gzip") as site:
        assert Download(tmp_path)(site.url("storms")) == content
    assert site.gets()[0].headers["accept-encoding"] == "identity"


def test_no_password_of_another_purpose_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(files={"storms": CONTENT}) as site:
        Download(tmp_path)(site.url("storms"))
    assert "authorization" not in site.gets()[0].headers


def test_proxies_of_the_environment_are_used_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(files={"http://storms.invalid/storms": CONTENT, "storms": OTHER}) as site:
        monkeypatch.setenv("http_proxy", site.base)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        download = Download(tmp_path)
        assert download("http://storms.invalid/storms") == CONTENT
        assert any("proxy" in line for line in download.said)
        # This machine itself is never asked through one.
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert Download(tmp_path)(site.url("storms")) == OTHER


def test_a_link_in_the_place_of_the_half_file_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    download = Download(tmp_path)
    download.half.symlink_to(precious)
    with serving(files={"storms": CONTENT}) as site, pytest.raises(OSError, match="symbolic"):
        download.resuming(site.url("storms"), str(download.target), None)
    assert precious.read_text() == "mine"


TAGS = st.sampled_from([None, '"a"', '"b"'])


@given(
    have=st.integers(1, 20),
    start=st.integers(0, 20),
    total=st.integers(1, 20),
    said=st.one_of(st.none(), st.integers(1, 20)),
    was=TAGS,
    now=TAGS,
    status=st.sampled_from([206, 416]),
)
def test_only_what_fits_is_glued(
    have: int,
    start: int,
    total: int,
    said: int | None,
    was: str | None,
    now: str | None,
    status: int,
) -> None:
    span = f"bytes {start}-{total - 1}/{total}" if status == 206 else f"bytes */{total}"
    headers = {"Content-Range": span} | ({"ETag": now} if now else {})
    step = next_step(status, headers, have, Whole("http://x/y", said, was, None))
    same = was == now or None in (was, now)
    if step is Step.APPEND:
        assert status == 206
        assert same
        assert start == have
        assert said in (None, total)
    elif step is Step.DONE:
        assert status == 416
        assert same
        assert total == have
    else:
        assert step is Step.DISCARD


def test_a_part_that_nobody_asked_for_is_never_the_whole() -> None:
    headers = {"Content-Range": "bytes 5-9/10"}
    assert next_step(206, headers, 0, None) is Step.LATER


def test_a_weak_tag_does_not_vouch_for_bytes() -> None:
    weak = Whole("http://x/y", 10, 'W/"a"', "Tue, 1 Jan 2019")
    assert request_headers(7, weak)["If-Range"] == "Tue, 1 Jan 2019"
