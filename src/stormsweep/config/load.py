"""From TOML to a checked study file and back; every mistake in one line."""

from __future__ import annotations

import datetime as dt
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import tomlkit
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from stormsweep.config.growth import resettled, shrunk
from stormsweep.config.strategies import HALVING
from stormsweep.config.study import StudyFile
from stormsweep.errors import StudyFileError, closest, nearest

M = TypeVar("M", bound=BaseModel)
#: A message lists so many studies at most.
_MOST_LISTED = 8


def load_study(path: Path) -> StudyFile:
    """Read and check a study file.

    Relative paths in it are taken from the file's own folder, except ``data.cache``, which is
    taken from the current folder; all are absolute in what is returned.

    Parameters
    ----------
    path : Path
        The TOML file.

    Returns
    -------
    StudyFile

    Raises
    ------
    StudyFileError
        If the file is missing, is not TOML, or says something that is not allowed.
    """
    folder, content = path.resolve().parent, read_toml(path)
    if path.name == "study.toml" and (folder / "journal.jsonl").is_file():
        _forgive(content)
    study = parse(path, content, StudyFile)
    data = study.data.model_copy(
        update={
            "path": None if study.data.path is None else _absolute(folder, study.data.path),
            "cache": _absolute(Path.cwd(), study.data.cache),
            "source": _absolute_function(folder, study.data.source),
        }
    )
    known = study.search.known
    search = study.search.model_copy(
        update={"known": None if known is None else _absolute(folder, known)}
    )
    model = study.model.model_copy(update={"build": _absolute_function(folder, study.model.build)})
    return study.model_copy(update={"data": data, "model": model, "search": search})


def _forgive(content: dict[str, Any]) -> None:
    """Take from the file of a study that was begun what was not refused then, and did nothing."""
    search = content.get("search")
    if isinstance(search, dict):
        strategy = search.get("strategy", "grid")
        if (search.get("sampler") if strategy in HALVING else strategy) == "grid":
            search.pop("trials", None)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    StudyFileError
        If the file is missing, unreadable or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = nearest(path.name, (one.name for one in path.parent.glob("*.toml")))
        raise StudyFileError(f"{path}: there is no such file{near}") from None
    except IsADirectoryError:
        raise StudyFileError(f"{path}: is a folder; a TOML file is expected") from None
    except OSError as error:
        raise StudyFileError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise StudyFileError(f"{path}: is not UTF-8 text; a TOML file is expected") from None
    except tomllib.TOMLDecodeError as error:
        raise StudyFileError(f"{path}: is not valid TOML: {error}") from None


def no_such_study(path: Path, runs: Path) -> str:
    """Say, for an error, that a study's directory is not there, and which ones are.

    Parameters
    ----------
    path : Path
        What was given.
    runs : Path
        The folder of all studies' directories.
    """
    there: dict[str, Path] = {}
    for folder in dict.fromkeys((path.parent, runs)):
        for name in ("study.toml", "journal.jsonl"):
            for found in sorted(one.parent for one in folder.glob(f"*/{name}")):
                there.setdefault(found.name, found)
    file, near = path.parent / f"{path.name}.toml", closest(path.name, there)
    meant = file if file.is_file() else there.get(near or "")
    text = f"{path}: there is no such study"
    if meant is not None:
        text += f" (did you mean {str(meant)!r}?)"
    if there:
        known, more = [str(one) for one in there.values()], len(there) - _MOST_LISTED
        text += f"; there are {', '.join(known[:_MOST_LISTED])}"
        text += f" and {more} more" if more > 0 else ""
    return text


def parse(path: Path, content: dict[str, Any], model: type[M]) -> M:
    """Check what a TOML file says against a model.

    Parameters
    ----------
    path : Path
        The file, for messages.
    content : dict
        What it says.
    model : type
        What may stand there.

    Raises
    ------
    StudyFileError
        For the first mistake: file, key, what was given, what is allowed.
    """
    try:
        return model.model_validate(content)
    except ValidationError as failure:
        # An unknown key explains other mistakes better than they do themselves.
        errors = sorted(failure.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise StudyFileError(f"{path}: {_say(errors[0], model, content)}") from None


def dump_study(study: StudyFile) -> str:
    """Return a study file as TOML with every default written out, in a fixed order."""
    document = tomlkit.document()
    for name, table in study.model_dump(mode="json", exclude_none=True).items():
        document[name] = _toml_table(table)
    return tomlkit.dumps(document)


#: Keys that may differ between sessions of one study: they do not decide over scores.
_FREE = ("data.cache", "engine.bundle", "study.keep_checkpoints")
#: Tables that are judged as a whole where a study may have grown.
_MAY_GROW = ("search.", "model.parameters", "validation.rounds")


def differences(old: StudyFile, new: StudyFile, growing: bool = False) -> list[str]:
    """Say in which keys two study files differ that decide over scores.

    ``[site]``, where the work runs, and the keys of `_FREE` may differ between sessions of one
    study, and so may the folders that its files lie in (`stormsweep.config.growth.resettled`).

    Parameters
    ----------
    old, new : StudyFile
        The file as it was run, and as it is now.
    growing : bool
        Whether its search may have grown: see `stormsweep.config.growth.shrunk`.

    Returns
    -------
    list of str
        ``"search.space.epochs was [5], is [5, 10]"`` and the like.
    """
    old = resettled(old, new)
    before, after = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    changes = []
    for key in dict.fromkeys([*before, *after]):
        if key.startswith("site.") or key in _FREE:
            continue
        if growing and (key.startswith(_MAY_GROW) and key != "search.metric"):
            continue
        # By their JSON: 0 and 0.0 are equal, but other values of the space.
        if json.dumps(before.get(key)) == json.dumps(after.get(key)):
            continue
        was, now = (_show(side[key]) if key in side else "unset" for side in (before, after))
        more = growing and key == "validation.folds"
        way = " (every split would be another; for more folds raise validation.rounds)"
        changes.append(f"{key} was {was}, is {now}{way if more else ''}")
    return changes + (shrunk(old, new) if growing else [])


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _toml_table(values: dict[str, Any]) -> Any:
    table = tomlkit.table()
    for key, value in values.items():
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if v is not None}
            table[key] = _toml_table(value)
        else:
            table[key] = value
    return table


def _absolute(folder: Path, path: Path) -> Path:
    return folder / path.expanduser()


def _absolute_function(folder: Path, spec: str) -> str:
    file, _, function = spec.rpartition(":")
    return f"{_absolute(folder, Path(file))}:{function}" if file.endswith(".py") else spec


def _say(error: ErrorDetails, model: type[BaseModel], content: dict[str, Any]) -> str:
    location = _location(error["loc"], content)
    key = ".".join(str(part) for part in location)
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(model, list(error["loc"][:-1]))
        where = f"[{'.'.join(map(str, location[:-1]))}]" if location[:-1] else "the file"
        return (
            f"unknown key {key!r}{nearest(str(location[-1]), known)}; "
            f"{where} takes {', '.join(known)}"
        )
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "value_error":
        message = str(context.get("error", error["msg"]))
        head = f"{key}: " if key and not message.startswith(key) else ""
        scalar = not isinstance(given, dict | list) and f"given {given!r}" not in message
        return head + (f"given {_show(given)}; {message}" if scalar else message)
    return f"{key}: given {_show(given)}; {_allowed(kind, context, error['msg'])}"


def _allowed(kind: str, context: dict[str, Any], message: str) -> str:
    match kind:
        case "literal_error":
            return f"must be {context['expected']}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            bound = next(iter(context.values()))
            words = {
                "greater_than": "above",
                "greater_than_equal": "at least",
                "less_than": "below",
                "less_than_equal": "at most",
            }
            return f"must be {words[kind]} {bound}"
        case "too_short":
            return "must have at least one entry"
        case "string_pattern_mismatch":
            return "must be letters, digits, '.', '_' or '-', and begin with a letter or digit"
        case _ if kind.startswith("date"):
            return "must be a date such as 2015-01-01"
        case _ if kind.endswith("_type") or kind.endswith("_parsing"):
            noun = kind.removesuffix("_type").removesuffix("_parsing")
            names = {
                "int": "a whole number",
                "float": "a number",
                "string": "a text in quotes",
                "bool": "true or false",
                "list": "a list",
                "dict": "a table",
                "model": "a table",
                "model_attributes": "a table",
                "path": "a path in quotes",
            }
            return f"must be {names.get(noun, noun)}"
        case "int_from_float":
            return "must be a whole number"
        case _:
            return message[:1].lower() + message[1:]


def _location(parts: tuple[int | str, ...], content: Any) -> list[int | str]:
    """Drop what pydantic adds for unions: names of types, where the file has no such key."""
    noise = {"int", "float", "str", "bool", "list", "function-before"}
    kept: list[int | str] = []
    for part in parts:
        if isinstance(content, dict) and part in content:
            content = content[part]
        elif isinstance(part, int):
            content = content[part] if isinstance(content, list) else None
        elif part in noise or part[:1] == "<" or "[" in part:
            continue
        kept.append(part)
    return kept


def _known_keys(model: type[BaseModel], location: list[int | str]) -> list[str]:
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = None if field is None else field.annotation
        if get_origin(annotation) is dict:  # Tables of any name, such as [site.NAME].
            tables = get_args(annotation)[1]
            if isinstance(tables, type) and issubclass(tables, BaseModel):
                return list(tables.model_fields)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
        else:
            from stormsweep.config.study import Choices, Range

            return list((Choices if "<values>" in location else Range).model_fields)
    return list(model.model_fields)


def _show(value: Any) -> str:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    text = repr(value) if not isinstance(value, dict) else "a table"
    return text if len(text) <= 80 else text[:77] + "..."
