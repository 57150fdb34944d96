"""What prepared data were read from, and whether that has changed since."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stormsweep import files
from stormsweep.errors import DataError


def of_files(folder: Path, paths: Iterable[Path], pattern: str | None = None) -> dict[str, Any]:
    """Describe the raw files that data are made from.

    Parameters
    ----------
    folder : Path
        The folder that the files lie in.
    paths : iterable of Path
        The files, in `folder` or below.
    pattern : str, optional
        The glob pattern, relative to `folder`, that found them; a file that matches it later and
        is not among them counts as a change.

    Returns
    -------
    dict
        ``folder``, ``pattern`` and ``files``, a list of name (relative to the folder), bytes,
        mtime_ns and sha256.
    """
    listed = [of_file(folder, path) for path in paths]
    return {"folder": str(folder.resolve()), "pattern": pattern, "files": listed}


def of_file(folder: Path, path: Path) -> dict[str, Any]:
    """Describe one raw file: name (relative to the folder), bytes, mtime_ns and sha256.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    try:
        state = path.stat()
        return {
            "name": path.resolve().relative_to(folder.resolve()).as_posix(),
            "bytes": state.st_size,
            "mtime_ns": state.st_mtime_ns,
            "sha256": files.sha256(path),
        }
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def sources_changed(manifest: dict[str, Any], *, missing: bool = False) -> str | None:
    """Say which raw file is no longer what the data were prepared from.

    A file of the same size and time of change is taken as the same; one whose time differs is read
    and compared by its checksum.

    Parameters
    ----------
    manifest : dict
        Manifest of prepared data.
    missing : bool, optional
        Whether a missing file counts; by default not, as archives may be deleted once prepared.

    Returns
    -------
    str or None
        One line such as ``"/data/x.csv: changed since the data were prepared"``, or None.
    """
    provenance = manifest.get("provenance", {})
    listed = provenance.get("files", [])
    folder = Path(provenance.get("folder", "."))
    for facts in listed:
        path = folder / facts["name"]
        try:
            state = path.stat()
            same = state.st_size == facts["bytes"] and (
                state.st_mtime_ns == facts["mtime_ns"] or files.sha256(path) == facts["sha256"]
            )
        except (FileNotFoundError, NotADirectoryError):
            if missing:
                return f"{path}: missing since the data were prepared"
            continue
        except OSError as error:
            return f"{path}: cannot be read ({error.strerror})"
        if not same:
            return f"{path}: changed since the data were prepared"
    if provenance.get("pattern"):
        known = {facts["name"] for facts in listed}
        for path in sorted(folder.glob(provenance["pattern"])):
            if path.is_file() and path.relative_to(folder).as_posix() not in known:
                return f"{path}: new since the data were prepared"
    return None
