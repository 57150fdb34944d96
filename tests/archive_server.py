"""A real HTTP server on loopback with the habits of bad ones, and archives to serve."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stormsweep.storms.sources import ARCHIVES

NAMES = tuple(archive.name for archive in ARCHIVES)
FOLDERS = tuple(archive.folder for archive in ARCHIVES)


@dataclass
class Request:
    """What a client asked for and got."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass
class Site:
    """What a server has and how it behaves; lists are used up, one entry a GET."""

    files: dict[str, bytes] = field(default_factory=dict)
    base: str = ""
    ranges: bool = True
    if_range: bool = True
    etags: dict[str, str] = field(default_factory=dict)
    modified: dict[str, str] = field(default_factory=dict)
    #: Bytes of the body after which the connection is cut; None: not at all.
    breaks: list[int | None] = field(default_factory=list)
    #: Added to every Content-Length, or to those of the first GETs.
    lie: int = 0
    lies: list[int] = field(default_factory=list)
    #: Whether Content-Length is sent at all.
    lengths: bool = True
    encoding: str | None = None
    statuses: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    #: Path to the bytes after which the server sends nothing more until `go_on` is set.
    holds: dict[str, int] = field(default_factory=dict)
    go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)

    def gets(self, name: str = "") -> list[Request]:
        return [each for each in self.requests if each.method == "GET" and name in each.path]

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"


@contextmanager
def serving(**habits: object) -> Iterator[Site]:
    """Serve on a free port of 127.0.0.1 while the block runs."""
    site = Site(**habits)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            # As a proxy, a server is asked for whole URLs.
            path = self.path if "://" in self.path else self.path.lstrip("/")
            asked = Request(self.command, path, {k.lower(): v for k, v in self.headers.items()})
            site.requests.append(asked)
            if path in site.redirects:
                self.head(asked, 302, {"Location": site.redirects[path], "Content-Length": "0"})
                return
            if body and site.statuses and (status := site.statuses.pop(0)) != 200:
                self.head(asked, status, {"Content-Length": "0"})
                return
            if path not in site.files:
                self.head(asked, 404, {"Content-Length": "0"})
                return
            content, start = site.files[path], 0
            headers = {"ETag": site.etags.get(path), "Last-Modified": site.modified.get(path)}
            headers["Content-Encoding"] = site.encoding
            wanted = asked.headers.get("range")
            state = asked.headers.get("if-range")
            if state and site.if_range and state not in headers.values():
                wanted = None
            status = 200
            if wanted and site.ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    span = f"bytes */{len(content)}"
                    self.head(asked, 416, {"Content-Range": span, "Content-Length": "0"})
                    return
                status = 206
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if site.lengths:
                lie = site.lies.pop(0) if body and site.lies else site.lie
                headers["Content-Length"] = str(len(content) - start + lie)
            self.head(asked, status, headers)
            if body:
                self.send(asked, path, content[start:])

        def head(self, asked: Request, status: int, headers: dict[str, str | None]) -> None:
            asked.status = status
            self.send_response(status)
            for name, value in headers.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()

        def send(self, asked: Request, path: str, content: bytes) -> None:
            stop = site.breaks.pop(0) if site.breaks else None
            hold = site.holds.get(path)
            for at in range(0, len(content), 16384):
                if stop is not None and asked.sent >= stop:
                    break
                if hold is not None and asked.sent >= hold:
                    self.wfile.flush()
                    site.go_on.wait(60)
                    hold = None
                piece = content[at : at + 16384]
                try:
                    self.wfile.write(piece)
                except OSError:
                    return
                asked.sent += len(piece)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.go_on.set()
        server.shutdown()
        server.server_close()


def packed(storms: Path) -> dict[str, bytes]:
    """Return both archives of a folder of storm files, by name."""
    archives = {}
    for name, folder in zip(NAMES, FOLDERS, strict=True):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
            tar.add(storms / folder, folder)
        archives[name] = buffer.getvalue()
    return archives


def tar_of(*members: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo) -> bytes:
    """Return a gzipped tar archive of headers, each with its content or without."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for member in members:
            info, content = member if isinstance(member, tuple) else (member, b"")
            info.mtime = int(time.time())
            if content:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if content else None)
    return buffer.getvalue()


def header(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info
