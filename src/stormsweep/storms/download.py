"""A downloader for pooch that goes on where a broken download stopped.

pooch has the names, the checksums and the move into place; its own downloaders begin again after
every break, though, and believe the length that a server states. This one keeps half a file
beside (``<name>.part``), with what the server said of the whole (``<name>.part.json``), so that two
halves are never glued that do not belong together. What to do with an answer is decided by a pure
function, `next_step`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from stormsweep import __version__
from stormsweep.errors import DataError
from stormsweep.files import readable, write_json

if TYPE_CHECKING:
    import requests

#: Seconds to wait before each further try; after the last, the download is given up.
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
#: A try that brought this many bytes was a good one: the waits begin anew.
_GOOD_TRY = 16 << 20
_CHUNK = 1 << 16
#: Seconds for a connection to stand, and between two pieces of an answer.
_TIMEOUT = (15.0, 60.0)
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")
_LATER = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Whole:
    """What a server said of the whole file when its download began.

    Attributes
    ----------
    url : str
        Where it comes from, as `shown` shows it.
    bytes : int or None
        Its size, where the server stated one.
    etag, last_modified : str or None
        What tells this state of the file from others, where the server stated it.
    """

    url: str
    bytes: int | None
    etag: str | None
    last_modified: str | None


class Step(Enum):
    """What to do with a server's answer."""

    APPEND = auto()
    """Its body goes on where the half file ends."""
    ANEW = auto()
    """Its body is the file from the beginning."""
    DONE = auto()
    """The half file is the whole one."""
    DISCARD = auto()
    """The half file is of no use: ask again, without it."""
    LATER = auto()
    """Another try may help."""
    NEVER = auto()
    """Another try would not help."""


def next_step(status: int, headers: Mapping[str, str], have: int, whole: Whole | None) -> Step:
    """Decide what to do with an answer.

    Parameters
    ----------
    status : int
        HTTP status.
    headers : mapping
        The answer's headers; names in any case if the mapping ignores it.
    have : int
        Bytes of the half file; above 0 the bytes from there on were asked for.
    whole : Whole or None
        What was said when the half file was begun.
    """
    if status == 200:
        return Step.ANEW
    if status in (206, 416) and have and whole:
        first, last, total = _content_range(headers.get("Content-Range", ""))
        same = all(
            was is None or now is None or was == now
            for was, now in (
                (whole.etag, headers.get("ETag")),
                (whole.last_modified, headers.get("Last-Modified")),
            )
        )
        if status == 416:
            return Step.DONE if same and total == have else Step.DISCARD
        length = _number(headers.get("Content-Length"))
        fits = first == have and (None in (total, whole.bytes) or total == whole.bytes)
        if length is not None and last is not None:
            fits = fits and length == last - have + 1
        return Step.APPEND if same and fits else Step.DISCARD
    return Step.LATER if status >= 500 or status in _LATER or status == 206 else Step.NEVER


def request_headers(have: int, whole: Whole | None) -> dict[str, str]:
    """Return the headers that ask for the rest of a half file, if it is still the same file.

    Examples
    --------
    >>> request_headers(7, Whole("http://x/y", 10, '"a"', None))
    {'Range': 'bytes=7-', 'If-Range': '"a"'}
    >>> request_headers(0, None)
    {}
    """
    if not have or whole is None:
        return {}
    strong = whole.etag if whole.etag and not whole.etag.startswith("W/") else None
    unless = strong or whole.last_modified
    return {"Range": f"bytes={have}-"} | ({"If-Range": unless} if unless else {})


def shown(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, query.

    Examples
    --------
    >>> shown("https://me:secret@example.org/a.tar.gz?signature=0f3")
    'https://example.org/a.tar.gz'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def stated_bytes(url: str) -> int | None:
    """Return the size that a server states for a file; None where it gives no such answer."""
    import requests

    with _session(url) as session, contextlib.suppress(requests.RequestException, OSError):
        answer = session.head(url, timeout=_TIMEOUT, allow_redirects=True)
        if answer.status_code == 200:
            return _number(answer.headers.get("Content-Length"))
    return None


class Resuming:
    """A downloader as pooch calls them.

    Parameters
    ----------
    half : Path
        Where half a file is kept.
    most : int
        Bytes after which the download is stopped: no such file is expected.
    expected : int or None
        Its size, where it is known from before.
    progress : callable
        Told bytes had and bytes in all (or None).
    say : callable
        Told in a line what happened.
    waits : sequence of float
        Seconds to wait before each further try.
    """

    def __init__(
        self,
        half: Path,
        most: int,
        expected: int | None,
        progress: Callable[[int, int | None], None],
        say: Callable[[str], None],
        waits: Sequence[float] = WAITS,
    ) -> None:
        self._half = half
        self._notes = half.with_name(f"{half.name}.json")
        self._most = most
        self._expected = expected
        self._progress = progress
        self._say = say
        self._waits = waits

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download `url` and move it to `output_file`.

        Raises
        ------
        DataError
            In one line, if that cannot be done; half a file is kept where one came.
        """
        failures = 0
        with _session(url) as session:
            if session.proxies:
                self._say(f"going through the proxy that the environment names for {_host(url)}")
            while True:
                before = self._have()
                try:
                    self._try(session, url)
                    break
                except _Broken as broken:
                    failures = 1 if self._have() - before >= _GOOD_TRY else failures + 1
                    reason = f"{shown(url)}: {broken}"
                    if failures > len(self._waits):
                        raise DataError(self._gave_up(reason, failures)) from None
                    wait = self._waits[failures - 1]
                    self._say(f"{reason}; trying again in {wait:.0f} s")
                time.sleep(wait)
        os.replace(self._half, output_file)
        self._notes.unlink(missing_ok=True)

    def _gave_up(self, reason: str, failures: int) -> str:
        kept = f"{readable(self._have())} are kept; " if self._have() else ""
        return (
            f"{reason}; given up after {failures} tries; {kept}go on later with the same command, "
            "or name another source with --from"
        )

    def _try(self, session: requests.Session, url: str) -> None:
        """Ask once, twice if the half file turns out to be of no use."""
        whole = self._known(url)
        have = self._have() if whole else 0
        if whole and have and have == whole.bytes:
            return
        with _asked(session, url, request_headers(have, whole)) as answer:
            match next_step(answer.status_code, answer.headers, have, whole):
                case Step.APPEND:
                    assert whole is not None
                    self._take(answer, whole, have)
                    return
                case Step.ANEW:
                    if have:
                        self._say(f"{shown(url)}: cannot be gone on with; beginning anew")
                    self._take(answer, self._described(url, answer.headers), 0)
                    return
                case Step.DONE:
                    return
                case Step.LATER:
                    raise _Broken(f"the server answers {answer.status_code} {answer.reason}")
                case Step.NEVER:
                    raise DataError(
                        f"{shown(url)}: the server answers {answer.status_code} {answer.reason}; "
                        "name another source with --from"
                    )
        self._say(f"{shown(url)}: is not the file that was begun; beginning anew")
        self.discard()
        self._try(session, url)

    def _take(self, answer: requests.Response, whole: Whole, have: int) -> None:
        """Write the body of an answer behind the first `have` bytes of the half file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_APPEND if have else os.O_TRUNC)
        with open(os.open(self._half, flags, 0o666), "ab", buffering=0) as out:
            if not have:
                write_json(self._notes, asdict(whole))
            try:
                for chunk in _body(answer):
                    have += len(chunk)
                    if have > self._most:
                        raise self._unexpected(whole.url, f"sent more than {readable(self._most)}")
                    out.write(chunk)
                    self._progress(have, whole.bytes)
            except _Broken as broken:
                raise _Broken(f"broke off at {_of(have, whole.bytes)} ({broken})") from None
            os.fsync(out.fileno())
        if whole.bytes not in (None, have):
            raise _Broken(f"ended at {_of(have, whole.bytes)}")

    def _described(self, url: str, headers: Mapping[str, str]) -> Whole:
        """Note what an answer says of the whole file; refuse a size that cannot be right."""
        size = _number(headers.get("Content-Length"))
        if size is not None and size > self._most:
            raise self._unexpected(shown(url), f"states {readable(size)}")
        if None not in (size, self._expected) and size != self._expected:
            raise DataError(
                f"{shown(url)}: not the archive that was fetched first: expected "
                f"{self._expected:,} bytes, the server has {size:,}; if it was replaced on "
                "purpose, remove archives.json from the data folder and fetch again"
            )
        return Whole(shown(url), size, headers.get("ETag"), headers.get("Last-Modified"))

    def _unexpected(self, url: str, what: str) -> DataError:
        self.discard()
        return DataError(
            f"{url}: the server {what}, and at most {readable(self._most)} are expected; this is "
            "not the archive"
        )

    def _have(self) -> int:
        try:
            return self._half.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def _known(self, url: str) -> Whole | None:
        """Return what the half file is half of, if it comes from this URL."""
        try:
            whole = Whole(**json.loads(self._notes.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return whole if whole.url == shown(url) else None

    def discard(self) -> None:
        """Remove the half file."""
        self._notes.unlink(missing_ok=True)
        self._half.unlink(missing_ok=True)


class _Broken(Exception):
    """A try that failed in a way that another may not."""


def _session(url: str) -> requests.Session:
    """Return a session that takes proxies and certificates from the environment, nothing else."""
    import requests

    session = requests.Session()
    # Not `trust_env`: it would send passwords from ~/.netrc as well.
    session.trust_env = False
    if not _LOOPBACK.fullmatch(_host(url)):
        session.proxies.update(requests.utils.get_environ_proxies(url))
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
    session.headers["User-Agent"] = f"stormsweep/{__version__}"
    # The file as it is: a compressed archive is not compressed once more for its transport.
    session.headers["Accept-Encoding"] = "identity"
    return session


@contextlib.contextmanager
def _asked(
    session: requests.Session, url: str, headers: dict[str, str]
) -> Iterator[requests.Response]:
    import requests

    try:
        answer = session.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
    except requests.exceptions.SSLError as error:
        if "certificate" in str(error).lower():
            raise DataError(
                f"{shown(url)}: its certificate cannot be trusted ({_reason(error)}); "
                "REQUESTS_CA_BUNDLE names certificates of your site, if it has its own"
            ) from None
        raise _Broken(_reason(error)) from None
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _Broken(_reason(error)) from None
    except (requests.RequestException, ValueError) as error:
        raise DataError(f"{shown(url)}: cannot be fetched ({_reason(error)})") from None
    with answer:
        ways = [hop.url for hop in (*answer.history, answer)]
        if urlsplit(url).scheme == "https" and any(not way.startswith("https:") for way in ways):
            raise DataError(f"{shown(url)}: sends on to {shown(ways[-1])}, which is not encrypted")
        yield answer


def _body(answer: requests.Response) -> Iterator[bytes]:
    """Yield the body as it was sent, whatever encoding it claims."""
    from urllib3.exceptions import HTTPError

    try:
        yield from answer.raw.stream(_CHUNK, decode_content=False)
    except HTTPError as error:
        raise _Broken(_reason(error)) from None


def _reason(error: BaseException) -> str:
    """Return the words of the innermost error that has some of its own."""
    words = ""
    inner: BaseException | None = error
    while inner is not None:
        words = getattr(inner, "strerror", None) or words or str(inner)
        if "timed out" in str(inner):
            words = "no answer in time"
        elif "IncompleteRead" in str(inner):
            words = "the connection ended"
        inner = inner.__cause__ or inner.__context__
    return " ".join(words.split())


def _content_range(text: str) -> tuple[int | None, int | None, int | None]:
    """Read ``bytes 7-9/10`` or ``bytes */10`` as first, last and total."""
    match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", text.strip())
    if not match:
        return None, None, None
    first, last, total = (_number(group) for group in match.groups())
    return first, last, total


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _of(have: int, total: int | None) -> str:
    return f"{have:,} bytes" if total is None else f"{have:,} of {total:,} bytes"


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
