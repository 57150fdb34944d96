"""Source ``csv``: any table to prepared data."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stormsweep.config.study import DataTable
from stormsweep.data.arrays import Progress, from_file_name
from stormsweep.data.layout import labels_of
from stormsweep.data.prepared import PreparedData, PreparedWriter, Target, Variable
from stormsweep.data.provenance import of_files
from stormsweep.data.source import given_path, request
from stormsweep.data.split import choose_test
from stormsweep.data.unread import QUICK, Cases
from stormsweep.errors import DataError, nearest
from stormsweep.files import namesake

_ROWS = 1 << 16  # rows of a table taken into memory at a time


@dataclass(frozen=True, slots=True)
class _Tables:
    """The files of a csv source and what of them is used."""

    folder: Path
    pattern: str | None
    paths: tuple[Path, ...]
    columns: tuple[str, ...]
    inputs: tuple[str, ...]
    target: str
    groups: dict[str, str]


def prepare_csv(
    config: DataTable,
    seed: int,
    destination: Path,
    progress: Progress | None = None,
    *,
    group_by: str = "none",
) -> PreparedData:
    """Prepare the rows of one or more tables.

    Parameters
    ----------
    config : DataTable
        ``path`` is a file, a folder (all its ``*.csv``) or a pattern; ``inputs`` are columns or
        patterns of columns, which take neither the target nor columns of groups; ``groups`` are
        columns or ``file:REGEX``.
    seed : int
        A test set by share is drawn with it.
    destination : Path
        The folder to create or replace.
    progress : callable, optional
        Called with the number of files read and of all files.
    group_by : str, optional
        ``validation.group_by``: a test set by share takes whole groups of it.

    Returns
    -------
    PreparedData
        Rows in the order of the sorted files.

    Raises
    ------
    DataError
        In one line, if a file or a column is missing, files have different columns, or a value is
        missing or not a number.
    """
    tables = _find(config)
    aim = Target(tables.target, "", config.threshold, config.event)
    provenance = of_files(tables.folder, tables.paths, tables.pattern)
    labels, groups, starts = _read_labels(tables, aim)
    is_test, split = choose_test(config, labels, groups, group_by, seed)
    with PreparedWriter(
        destination,
        source=config.source,
        synthetic=False,
        inputs=[Variable(name) for name in tables.inputs],
        target=aim,
        groups=list(groups),
        split=split,
        provenance=provenance,
        request=request(config, seed, group_by),
    ) as writer:
        for number, path in enumerate(tables.paths):
            first = starts[number]
            for block in _blocks(path, [*tables.inputs, tables.target]):
                rows = slice(first, first + len(block))
                if rows.stop > starts[number + 1]:
                    raise DataError(f"{path}: changed while it was read; prepare again")
                writer.append(
                    block[list(tables.inputs)].to_numpy(np.float64),
                    block[tables.target].to_numpy(np.float64),
                    {name: values[rows] for name, values in groups.items()},
                    is_test[rows],
                    where=str(path),
                )
                first = rows.stop
            if first != starts[number + 1]:
                raise DataError(f"{path}: changed while it was read; prepare again")
            if progress:
                progress(number + 1, len(tables.paths))
    return PreparedData.open(destination)


def csv_cases(config: DataTable) -> Cases | None:
    """Read what the rows of one or more tables are split by.

    Parameters
    ----------
    config : DataTable
        As for `prepare_csv`.

    Returns
    -------
    Cases or None
        None: the tables are large.

    Raises
    ------
    DataError
        As for `prepare_csv`, as far as the values of the inputs do not matter.
    """
    tables = _find(config)
    if sum(path.stat().st_size for path in tables.paths) > QUICK:
        return None
    aim = Target(tables.target, "", config.threshold, config.event)
    labels, groups, _ = _read_labels(tables, aim)
    return Cases(labels, groups)


def input_blocks(path: Path, columns: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    """Read the input columns of a new table, in blocks of rows.

    Parameters
    ----------
    path : Path
        The table. It needs neither the target nor groups, and may have other columns besides.
    columns : sequence of str
        Names of the inputs.

    Yields
    ------
    ndarray of float32, shape (n, columns)

    Raises
    ------
    DataError
        In one line, if a column is missing, or a value is missing or not a number.
    """
    for block in row_blocks(path, columns):
        yield block[list(columns)].to_numpy(np.float64).astype(np.float32)


def row_blocks(
    path: Path, numbers: Sequence[str], texts: Sequence[str] = ()
) -> Iterator[pd.DataFrame]:
    """Read columns of a new table, in blocks of rows; see `input_blocks`.

    Parameters
    ----------
    path : Path
        The table.
    numbers, texts : sequence of str
        Columns of numbers, and those that are taken as they are written.

    Yields
    ------
    pandas.DataFrame
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    known = header(path)
    for name in (*numbers, *texts):
        if name not in known:
            raise DataError(f"{path}: column {name!r} is missing{nearest(name, known)}")
    yield from _blocks(path, list(numbers), texts)


def _find(config: DataTable) -> _Tables:
    """Find the files and the columns that are used."""
    for key in ("inputs", "target"):
        if getattr(config, key) is None:
            raise DataError(f'data.{key}: missing; source = "csv" needs it')
    folder, pattern, paths = _files(given_path(config))
    columns = header(paths[0])
    for path in paths[1:]:
        _same_columns(path, header(path), paths[0], columns)
    target = str(config.target)
    _known(target, columns, "data.target", paths[0])
    for group, column in config.groups.items():
        if not column.startswith("file:"):
            _known(column, columns, f"data.groups.{group}", paths[0])
    inputs = _inputs(config, columns, paths[0])
    return _Tables(folder, pattern, paths, columns, inputs, target, dict(config.groups))


def _files(path: Path) -> tuple[Path, str | None, tuple[Path, ...]]:
    """Return a folder, the pattern relative to it if there is one, and the files, sorted."""
    if path.is_file():
        return path.parent, None, (path,)
    if path.is_dir():
        folder, pattern = path, "*.csv"
    elif glob.has_magic(str(path)):
        fixed = [part for part in path.parts if not glob.has_magic(part)]
        first = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
        folder = Path(*fixed[:first]) if first else Path()
        pattern = str(Path(*path.parts[first:]))
    else:
        raise DataError(f"data.path: there is no file or folder {path}{namesake(path)}")
    found = tuple(sorted(entry for entry in folder.glob(pattern) if entry.is_file()))
    if not found:
        raise DataError(f"data.path: no file fits {folder / pattern}")
    return folder, pattern, found


def header(path: Path) -> tuple[str, ...]:
    """Return the columns of a table.

    Raises
    ------
    DataError
        If it is no table.
    """
    return tuple(str(name) for name in next(_read(path, nrows=0)).columns)


def _same_columns(
    path: Path, columns: tuple[str, ...], first: Path, expected: tuple[str, ...]
) -> None:
    missing = [name for name in expected if name not in columns]
    more = [name for name in columns if name not in expected]
    if missing or more:
        what = [f"lacks {missing[0]!r}"] if missing else []
        what += [f"has {more[0]!r} besides"] if more else []
        raise DataError(
            f"{path}: its columns are not those of {first.name}: it {' and '.join(what)}"
        )


def _known(name: str, columns: Iterable[str], key: str, path: Path) -> None:
    if name not in columns:
        raise DataError(f"{key}: {name!r} is no column of {path}{nearest(name, columns)}")


def _inputs(config: DataTable, columns: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Return the columns that are named or fit a pattern, in the order of the table."""
    chosen: set[str] = set()
    kept = {config.target, *config.groups.values()}
    for name in config.inputs or []:
        if name == config.target:
            raise DataError(f"data.inputs: {name!r} is the target")
        if name in columns:
            chosen.add(name)
        elif glob.has_magic(name):
            found = {column for column in columns if fnmatch.fnmatchcase(column, name)} - kept
            if not found:
                raise DataError(f"data.inputs: no column of {path} fits the pattern {name!r}")
            chosen |= found
        else:
            _known(name, columns, "data.inputs", path)
    return tuple(column for column in columns if column in chosen)


def _read_labels(
    tables: _Tables, aim: Target
) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]], list[int]]:
    """Read targets and groups of all files; they decide the split before the inputs are read.

    Returns
    -------
    labels : ndarray of uint8, shape (n,)
    groups : dict of str to ndarray of str, shape (n,)
    starts : list of int
        At which row each file begins, and the number of rows.
    """
    labels: list[NDArray[np.uint8]] = []
    groups: dict[str, list[NDArray[Any]]] = {name: [] for name in tables.groups}
    starts = [0]
    for path in tables.paths:
        texts = [column for column in tables.groups.values() if not column.startswith("file:")]
        rows = 0
        for block in _blocks(path, [tables.target], texts):
            rows += len(block)
            targets = block[tables.target].to_numpy(np.float64)
            labels.append(labels_of(targets, aim, f"{path}: "))
            for name, column in tables.groups.items():
                if column.startswith("file:"):
                    label = from_file_name(column, path, name)
                    groups[name].append(np.full(len(block), label))
                else:
                    # Where the target serves as a group as well, it has been read as a number.
                    groups[name].append(block[column].astype(str).to_numpy(np.str_))
        starts.append(starts[-1] + rows)
    if not starts[-1]:
        raise DataError(f"{tables.paths[0]}: has no rows")
    joined = {name: np.concatenate(parts) for name, parts in groups.items()}
    return np.concatenate(labels), joined, starts


def _blocks(path: Path, numbers: list[str], texts: Iterable[str] = ()) -> Iterator[pd.DataFrame]:
    """Read columns in blocks of rows; none is given out from the first missing value on.

    A table of a header alone has no block.
    """
    texts = [name for name in dict.fromkeys(texts) if name not in numbers]
    used = [*numbers, *texts]
    missing = dict.fromkeys(used, 0)
    for block in _read(path, usecols=used, dtype=dict.fromkeys(texts, str), chunksize=_ROWS):
        for name in texts:
            missing[name] += int(block[name].isna().sum())
        for name in numbers:
            values = pd.to_numeric(block[name], errors="coerce")
            odd = block[name][values.isna() & block[name].notna()]
            if len(odd):
                raise DataError(
                    f"{path}: column {name!r} is not of numbers; row {int(odd.index[0]) + 1} has "
                    f"{str(odd.iloc[0])[:40]!r}"
                )
            block[name] = values.to_numpy(np.float64, na_value=np.nan)
            missing[name] += int((~np.isfinite(block[name])).sum())
        if len(block) and not any(missing.values()):
            yield block
    for name, count in missing.items():
        if count:
            raise DataError(
                f"{path}: column {name!r} has {count} missing or infinite values; fill or drop "
                "them first"
            )


def _read(path: Path, **options: Any) -> Iterator[pd.DataFrame]:
    """Read a table with pandas; its errors become one line."""
    try:
        table = pd.read_csv(path, **options)
        if isinstance(table, pd.DataFrame):
            yield table
        else:
            with table:
                yield from table
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text in UTF-8; a CSV table is expected") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are these
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a table ({reason})") from None
