"""Unpack a storm archive: plain files below one folder, nothing else, and all of them or none.

An archive comes from a network and is not trusted: every member is judged by its header before a
byte of it is written (`place`), nothing is followed out of the folder, and what it may unpack to
is bounded by what is expected of it.
"""

from __future__ import annotations

import errno
import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from stormsweep.errors import DataError
from stormsweep.files import readable

#: Far more than an archive of 100 runs needs: members, and bytes of one header's extension.
_MOST_MEMBERS = 10_000
_MOST_HEADER_BYTES = 1 << 20
_CHUNK = 1 << 20
_EXTENSIONS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
#: A tar archive ends with two blocks of zeros.
_END = bytes(2 * tarfile.BLOCKSIZE)
#: What reading a damaged archive can raise; RecursionError: headers that extend each other.
_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
)


#: What making a file can fail with because of its name, and not because of the disk.
_OF_THE_NAME = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP}
)
_SHOWN = 80


class DamagedArchive(DataError):
    """An archive that is cut short, or is no gzipped tar archive at all."""


def extract(
    archive: Path,
    into: Path,
    top: str,
    most: int,
    progress: Callable[[float], None] | None = None,
) -> dict[str, int]:
    """Write the files that an archive holds under its one folder.

    Parameters
    ----------
    archive : Path
        A ``.tar.gz`` file.
    into : Path
        An empty folder; becomes what the archive calls `top`.
    top : str
        The folder that everything in the archive lies under.
    most : int
        Bytes that it may unpack to.
    progress : callable, optional
        Told the share of the archive that is read.

    Returns
    -------
    dict of str to int
        Size in bytes by the file's path relative to `into`.

    Raises
    ------
    DamagedArchive
        If the archive is cut short, fails its checksum or is no gzipped tar archive.
    DataError
        If it holds anything but plain files and folders under `top`, a name twice, or more than
        it may; what was written by then is left to the caller to remove.
    """
    listed: dict[str, int] = {}
    size = archive.stat().st_size or 1
    try:
        with open(archive, "rb") as packed:
            stream = _Unzipped(packed, archive, most)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                for member, path in _judged(tar, archive, into, top, most):
                    out = _made(archive, member, into / path)
                    if out is None:
                        continue
                    with out:
                        _write(tar, member, out)
                    listed[path.as_posix()] = member.size
                    if progress:
                        progress(packed.tell() / size)
            stream.finish()
    except _DAMAGE as error:
        raise DamagedArchive(f"{archive}: damaged or cut short ({error})") from None
    if progress:
        progress(1.0)
    return listed


def place(member: tarfile.TarInfo, top: str) -> PurePosixPath | None:
    """Decide where a member of an archive goes.

    Parameters
    ----------
    member : tarfile.TarInfo
        The member's header.
    top : str
        The folder that everything must lie under.

    Returns
    -------
    PurePosixPath or None
        Path below `top`; None for what needs no writing: `top` itself, and the ``._*`` files that
        macOS puts beside others.

    Raises
    ------
    ValueError
        Saying why the member is refused.
    """
    name = member.name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/"):
        raise ValueError("has an absolute path")
    if ".." in parts or "\\" in name or "\0" in name:
        raise ValueError("has a path that leads elsewhere")
    if kind := _kind(member):
        raise ValueError(f"is {kind}")
    if parts and member.isreg() and parts[-1].startswith("._"):
        return None
    if member.isdir() and parts in ([], [top]):
        return None
    if len(parts) < 2 or parts[0] != top:
        raise ValueError(f"lies outside of {top}/")
    return PurePosixPath(*parts[1:])


def _kind(member: tarfile.TarInfo) -> str | None:
    """Name what a member is if it is neither a plain file nor a folder."""
    if member.issym():
        return "a symbolic link"
    if member.islnk():
        return "a hard link"
    if member.isdev():
        return "a device or a pipe"
    if member.isdir() or (member.isreg() and not member.issparse()):
        return None
    return "no plain file"


def _judged(
    tar: tarfile.TarFile, archive: Path, into: Path, top: str, most: int
) -> Iterator[tuple[tarfile.TarInfo, PurePosixPath]]:
    total = 0
    for number, member in enumerate(tar):
        try:
            path = place(member, top)
            # A second opinion; Python has it from 3.11.4 on.
            if hasattr(tarfile, "data_filter"):
                tarfile.data_filter(member, str(into))
        except (ValueError, tarfile.FilterError) as reason:
            raise DataError(
                f"{archive}: refused: {_shortened(member.name)!r} {reason}; only plain files and "
                f"folders under {top}/ are unpacked"
            ) from None
        total += member.size
        if total > most or member.size < 0 or number >= _MOST_MEMBERS:
            raise _too_much(archive, most)
        if path is not None:
            yield member, path


def _made(archive: Path, member: tarfile.TarInfo, path: Path) -> IO[bytes] | None:
    """Make the file that a member is, to be written to, or the folder."""
    # Exclusive: neither a link nor an earlier member is ever written through.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(os.open(path, flags, 0o666), "wb")
    except FileExistsError:
        why = "stands there twice"
    except OSError as error:
        if error.errno not in _OF_THE_NAME:
            raise
        why = f"has a path that no file can have ({error.strerror})"
    raise DataError(f"{archive}: refused: {_shortened(member.name)!r} {why}")


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, out: IO[bytes]) -> None:
    source = tar.extractfile(member)
    assert source is not None, "a regular file has content"
    while chunk := source.read(_CHUNK):
        out.write(chunk)


def _too_much(archive: Path, most: int) -> DataError:
    return DataError(
        f"{archive}: refused: it unpacks to more than {readable(most)} or {_MOST_MEMBERS:,} files, "
        "the most that is expected of it"
    )


class _Member(tarfile.TarInfo):
    """A header that may not claim an extension (a long name, say) of gigabytes, read at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        """Read a header block."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENSIONS and not 0 <= member.size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {member.size:,} bytes")
        return member


class _Unzipped(gzip.GzipFile):
    """The tar stream inside of a gzip file: bounded, and known to have ended as it should."""

    def __init__(self, packed: IO[bytes], archive: Path, most: int) -> None:
        super().__init__(fileobj=packed, mode="rb")
        self._archive = archive
        self._most = most
        # Headers and padding come on top of the files.
        self._left = most + _MOST_MEMBERS * 4 * tarfile.BLOCKSIZE
        self._tail = b""

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        data = super().read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _too_much(self._archive, self._most)
        self._tail = (self._tail + data[-len(_END) :])[-len(_END) :]
        return data

    def finish(self) -> None:
        """Read to the end, where gzip has its checksum and tar its blocks of zeros."""
        while self.read(_CHUNK):
            pass
        if self._tail != _END:
            raise EOFError("it does not end as tar archives do")
