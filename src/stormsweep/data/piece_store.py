"""Where pieces wait beside the data that they become, through interruptions."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stormsweep import files
from stormsweep.data.layout import FORMAT
from stormsweep.data.pieces import Piece
from stormsweep.data.provenance import sources_changed
from stormsweep.errors import DataError

_REQUEST = "request.json"


class PieceStore:
    """The folder ``.<name>.pieces`` beside the destination; a context manager.

    Entering it takes it for this process alone, and clears away what was begun for another request
    or by another version, and what was half-written when somebody was killed. Leaving it removes
    it when all is done or no piece is whole; after anything that ends the block early, the pieces
    stay for the next time.

    Parameters
    ----------
    destination : Path
        The folder of prepared data.
    request : mapping
        All that decides what the pieces hold, beside the files they are read from.
    """

    def __init__(self, destination: Path, request: Mapping[str, Any]) -> None:
        self.destination = destination
        self.folder = destination.with_name(f".{destination.name}.pieces")
        self._alone = True
        self._request = {
            "format": FORMAT,
            "stormsweep": version("stormsweep"),
            "request": json.loads(json.dumps(dict(request), default=str)),
        }

    def __enter__(self) -> Self:
        try:
            self._lock = self._take()
            try:
                self._clear()
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise DataError(f"{self.destination}: cannot be written ({error.strerror})") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or not self.count():
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def piece(self, name: str) -> Path:
        """Return the folder of a piece, there or not."""
        return self.folder / name

    def count(self) -> int:
        """Return how many whole pieces are there."""
        return len(self._whole())

    def discard(self) -> None:
        """Remove all pieces: for a request that they can never serve."""
        for folder in self._whole():
            shutil.rmtree(folder)

    def held(self) -> int:
        """Return how many bytes the pieces that are there take."""
        return sum(path.stat().st_size for path in self.folder.glob("*/*/*.raw"))

    def _whole(self) -> list[Path]:
        found = self.folder.glob("*/piece.json")
        return [path.parent for path in found if not path.parent.name.startswith(".")]

    def _take(self) -> int:
        """Lock the folder; the lock goes with the process, however that ends."""
        path = self.folder / "lock"
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise DataError(
                    f"{self.destination}: another process is preparing these data; wait for it"
                ) from None
            except OSError:
                self._alone = False
                return lock  # A file system without locks: two at once would be the user's doing.
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(lock).st_ino:
                    return lock
            os.close(lock)  # Whoever had it before has removed the folder meanwhile.

    def _clear(self) -> None:
        path = self.folder / _REQUEST
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        for entry in self.folder.iterdir():
            half = entry.name.endswith((".partial", ".old"))
            if entry.is_dir() and (half or known != self._request):
                shutil.rmtree(entry)
        # Under the lock nobody else is writing, on whatever host the writer of these was.
        name = glob.escape(f".{self.destination.name}.")
        for left in self.destination.parent.glob(f"{name}*.partial") if self._alone else ():
            shutil.rmtree(left, ignore_errors=True)
        if known != self._request:
            files.write_json(path, self._request)


def whole_piece(folder: Path, data: Path) -> Piece | None:
    """Return the piece of an earlier session if it can be used: whole, its sources unchanged.

    Parameters
    ----------
    folder : Path
        The piece's folder; its facts note ``sources``, see `stormsweep.data.provenance.of_file`.
    data : Path
        The folder that the sources lie in.
    """
    try:
        piece = Piece(folder)
        provenance = {"folder": str(data), "files": piece.facts["sources"]}
        changed = sources_changed({"provenance": provenance}, missing=True)
        return piece if changed is None and piece.sound() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
