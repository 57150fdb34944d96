"""Files that are whole or not there: written beside, synced, then moved into place.

What is written beside, ``.NAME.PLACE-PROCESS-START-RANDOM.partial``, says which process writes it.
One that was killed leaves it behind; whoever writes NAME next, on the same host, sweeps it away.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from stormsweep.errors import DataError, UserError, nearest

#: The variable with which users loosen, or tighten, who may read and write what a study leaves.
UMASK = "STORMSWEEP_UMASK"
_CHUNK = 1 << 20
_MAKER = re.compile(
    r"\.(?P<name>.+)\.(?P<place>[0-9a-f]{8})-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]{8}"
    r"\.(?P<what>partial|old)",
    re.DOTALL,
)


@contextmanager
def replacing(path: Path, *, sweeps: bool = True) -> Iterator[Path]:
    """Give a path beside `path` to write to; move it into place when the block ends well.

    Parameters
    ----------
    path : Path
        The file to create or replace. Its folder is created when missing.
    sweeps : bool
        Whether what processes that are gone left of `path` is looked for, which takes a listing of
        the folder: not where somebody else does it, once for all the files of a large one.

    Yields
    ------
    Path
        A file name in the same folder. It is removed again when the block raises, and by the next
        one to write `path` should this process be killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if sweeps:
        sweep(path)
    beside = _beside(path)
    try:
        yield beside
        with open(beside, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; move it into place when the block ends well.

    An existing folder at `path` is replaced. When the block raises, nothing at `path` changes.
    What a killed process left of it is swept away first.

    Parameters
    ----------
    path : Path
        The folder to create or replace.

    Yields
    ------
    Path
        An empty folder in the same parent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    beside = _beside(path)
    old = beside.with_suffix(".old")
    beside.mkdir()
    try:
        yield beside
        if not _exchanged(beside, path):
            _replace_folder(beside, path, old)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        _remove_folder(beside)
        shutil.rmtree(old, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    # What was replaced is there now, if they changed places.
    shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def passing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, for the owner alone, and remove it in the end.

    Those of processes that were killed go when the next one asks for the same `path`, on the same
    host, as far as its user may remove them.

    Parameters
    ----------
    path : Path
        Names the folder; there never is anything at `path` itself.

    Yields
    ------
    Path
        An empty folder in the same parent, which must be there.
    """
    sweep(path)
    beside = _beside(path)
    beside.mkdir(0o700)
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _exchanged(beside: Path, path: Path) -> bool:
    """Have two folders change places at once, so that there always is one; False: cannot be done.

    Linux can, on most file systems but NFS.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(beside), here, os.fsencode(path), exchange) == 0)


def _replace_folder(beside: Path, path: Path, old: Path) -> None:
    for more in (True, True, False):
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
        try:
            os.replace(beside, path)
            return
        except OSError:
            # Another process may have put its own there meanwhile.
            if not (more and path.exists()):
                raise


def _remove_folder(folder: Path) -> None:
    """Remove a folder that threads of a library may still write to: they end soon.

    One of them may make it anew, with all above its file: it is gone when it stays so.
    """
    stayed = 0
    for _ in range(40):
        shutil.rmtree(folder, ignore_errors=True)
        stayed = 0 if folder.exists() else stayed + 1
        if stayed == 4:
            return
        time.sleep(0.05)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a disk raises that takes no more into one line.

    Parameters
    ----------
    path : Path
        What is written in the block; one that `replacing` gave is named as it will be called.

    Raises
    ------
    DataError
        Instead of an `OSError`, or of the `RuntimeError` that is all that netCDF4 says of a disk.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise DataError(
            f"{in_place(path)}: cannot be written; is the disk full? ({reason})"
        ) from None


def sweep(path: Path) -> None:
    """Remove what processes that are gone left half-written beside `path`.

    What a process of this host writes at this moment is left alone, and so is all that comes from
    another host or container, whose processes cannot be seen from here. A folder that was moved
    aside, and not yet replaced when the process was killed, is moved back.

    Parameters
    ----------
    path : Path
        What was to be written; nothing that belongs to its neighbours is touched.
    """
    try:
        beside = sorted(path.parent.iterdir())  # ".old" before the ".partial" of its maker
    except OSError:
        return
    for left in beside:
        made = _MAKER.fullmatch(left.name)
        if made is None or made["name"] != path.name or not _maker_gone(made):
            continue
        if made["what"] == "old" and left.with_suffix(".partial").exists():
            with suppress(OSError):  # The one that it was to be replaced with came no further.
                if not path.exists():
                    left.rename(path)
                    continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def in_place(path: Path) -> Path:
    """Return where something that is being written will lie: what a message should name.

    Examples
    --------
    >>> in_place(Path("runs/.out.a1b2c3d4-17-4711-0123abcd.partial/train.nc")).as_posix()
    'runs/out/train.nc'
    """
    made = (_MAKER.fullmatch(part) for part in path.parts)
    return Path(*(hit["name"] if hit else part for hit, part in zip(made, path.parts, strict=True)))


def _beside(path: Path) -> Path:
    pid = os.getpid()
    maker = f"{_place()}-{pid}-{_started(pid) or 0}"
    return path.with_name(f".{path.name}.{maker}-{uuid.uuid4().hex[:8]}.partial")


@cache
def _place() -> str:
    """Return in 8 digits where process numbers mean what they do here: the host, the container."""
    known = [socket.gethostname()]
    with suppress(OSError):
        known.append(Path("/etc/machine-id").read_text(encoding="utf-8").strip())
    with suppress(OSError):
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return f"{zlib.crc32(' '.join(known).encode()):08x}"


def _started(pid: int) -> int | None:
    """Return when a process of this host started, as it counts; None: it is gone; 0: unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return None
        except OSError:
            pass  # It is somebody else's.
        return 0
    # The name in parentheses may hold anything; state and start follow it.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _maker_gone(made: re.Match[str]) -> bool:
    """Tell for sure that the process is gone; its number may have been given to another since."""
    if made["place"] != _place():
        return False
    now, then = _started(int(made["pid"])), int(made["started"])
    return now is None or (now != then and 0 not in (now, then))


def check_space(path: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for, once what is left of `path` is swept away.

    Parameters
    ----------
    path : Path
        What is to be written; it need not exist.
    needed : int
        Bytes.

    Raises
    ------
    DataError
        If the file system has fewer bytes free.
    """
    sweep(path)
    free = free_bytes(path)
    if needed > free:
        raise DataError(f"{path}: needs {readable(needed)}, and the disk has {readable(free)} free")


def keep_within_group() -> int:
    """Have what this process makes from now on be read by the owner's group at most.

    The process's umask becomes 027, or stays stricter; or it is what ``STORMSWEEP_UMASK`` says.

    Returns
    -------
    int
        The umask before.

    Raises
    ------
    UserError
        If the variable is no umask, or would keep the owner out.
    """
    told = os.environ.get(UMASK)
    wanted = int(told, 8) if told and re.fullmatch(r"0?[0-7]{1,3}", told) else None
    if told and (wanted is None or wanted & 0o700):
        raise UserError(
            f"{UMASK}: given {told!r}; must be a umask that leaves the owner everything, such as "
            "027 (the group reads, the default), 007 (it writes too), 022 (everybody reads) or 077"
        )
    before = os.umask(0o077)
    os.umask(before | 0o027 if wanted is None else wanted)
    return before


@contextmanager
def within_group() -> Iterator[None]:
    """Have what is made in the block be read by the owner's group at most."""
    before = keep_within_group()
    try:
        yield
    finally:
        os.umask(before)


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def free_bytes(path: Path) -> int:
    """Return how many bytes are free on the disk that `path` lies, or would lie, on."""
    parent = path.absolute()
    while not parent.exists():
        parent = parent.parent
    return shutil.disk_usage(parent).free


def readable(size: float) -> str:
    """Word a number of bytes.

    Examples
    --------
    >>> readable(1), readable(65_536), readable(2_041_000_000)
    ('1 byte', '65.5 kB', '2.0 GB')
    """
    if size < 1000:
        return f"{size:.0f} byte{'' if round(size) == 1 else 's'}"
    units = ("kB", "MB", "GB")
    power = next((power for power in (1, 2) if size < 999.95 * 1000**power), 3)
    return f"{size / 1000**power:,.1f} {units[power - 1]}"


def namesake(path: Path) -> str:
    """Say what was probably meant by a path that is not there, from what lies beside it.

    Of a path whose folder is not there either, the first part that is missing counts.

    Returns
    -------
    str
        As `stormsweep.errors.nearest`; empty where nothing there has a like name.
    """
    for part in reversed([path, *path.parents]):
        if not part.exists():
            try:
                return nearest(part.name, (entry.name for entry in part.parent.iterdir()))
            except OSError:
                return ""
    return ""
