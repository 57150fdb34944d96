"""Probabilities for new cases, from the model of a verified study."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stormsweep import __version__
from stormsweep.config.kinds import STORM_SOURCES
from stormsweep.data.probabilities import ProbabilityWriter
from stormsweep.data.scaling import scale
from stormsweep.errors import DataError, ModelError, RunError, UserError
from stormsweep.files import replacing, sha256
from stormsweep.study.delivery import FOLDER, read_facts

#: Told what is being done and how much of it, from 0 to 1.
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Cases:
    """Some consecutive cases of a file.

    Attributes
    ----------
    first : int
        Number of the first one in its file.
    inputs : ndarray, shape (n, ...)
        In physical units.
    places : dict of str to ndarray, shape (n,) each
        `stormsweep.data.probabilities.PLACES`; empty where cases have none.
    """

    first: int
    inputs: NDArray[Any]
    places: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Predicted:
    """What was written.

    Attributes
    ----------
    path : Path
        The NetCDF file.
    cases, forecast : int
        Cases, and those at or above the decision threshold.
    threshold : float
        The decision threshold.
    synthetic : bool
        Whether the model was trained on synthetic data.
    """

    path: Path
    cases: int
    forecast: int
    threshold: float
    synthetic: bool


def predict(
    directory: Path,
    sources: Sequence[Path],
    output: Path,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Predicted:
    """Write the probabilities of new cases to a NetCDF file, whole or not at all.

    Parameters
    ----------
    directory : Path
        Of a verified study.
    sources : sequence of Path
        Patch files in the archive's format (no tables needed; the target may be missing) for a
        study of storms; where its inputs are columns, tables (no patch files needed). Tables with
        the same input columns for ``csv``, an ``.npz`` file with the same array for ``npz``.
    output : Path
        The file to write.
    overwrite : bool
        Replace the file if it is there.
    progress : callable, optional
        Told what is being done, and how much of it, from 0 to 1.

    Returns
    -------
    Predicted
        Where the file is, and how many cases it forecasts.

    Raises
    ------
    UserError
        If the study has no verified model, a file does not fit it, or the output cannot be
        written.
    """
    facts = read_facts(directory / FOLDER)
    _check_output(output, sources, overwrite)
    reader = _reader(facts, sources)
    counts = [reader.count(path) for path in sources]
    if not sum(counts):
        raise DataError(f"{sources[0]}: there is no case in it")
    told = progress or (lambda _what, _share: None)
    told("loading the model", 0.0)
    ask = _predictor(directory, facts)
    told("loading the model", 1.0)
    threshold, done, forecast = float(facts["decision_threshold"]), 0, 0
    names = [str(path) for path in sources]
    with (
        replacing(output) as beside,
        ProbabilityWriter(
            beside,
            sum(counts),
            names,
            threshold,
            event_in_words(facts["event"]),
            _attributes(facts, directory, names, output),
            reader.places,
        ) as writer,
    ):
        for number, path in enumerate(sources):
            read = 0
            for cases in reader.read(path):
                probabilities = ask(scale(cases.inputs, facts["inputs"]))
                _check(probabilities, path)
                writer.append(probabilities, number, cases.first, cases.places)
                read += len(probabilities)
                forecast += int(np.count_nonzero(probabilities >= np.float32(threshold)))
                told("predicting", (done + read) / sum(counts))
            if read != counts[number]:
                raise DataError(f"{path}: changed while it was read; predict again")
            done += read
    return Predicted(output, done, forecast, threshold, bool(facts["synthetic"]))


def _predictor(
    directory: Path, facts: dict[str, Any]
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    with model_loaded(directory, facts) as model:
        from stormsweep.training.inference import Predictor

        ask = Predictor(model)
        # Compiled here: afterwards Keras is the user's again, whatever its layout of images is.
        ask(np.zeros((1, *facts["input_shape"]), np.float32))
        return ask


@contextlib.contextmanager
def model_loaded(directory: Path, facts: dict[str, Any]) -> Iterator[Any]:
    """Load the verified model into this process, which until now did without TensorFlow.

    Parameters
    ----------
    directory : Path
        Of the study.
    facts : dict
        What `stormsweep.study.delivery.read_facts` returned.

    Yields
    ------
    keras.Model
        What is done with it within says nothing on standard error but what Python says.

    Raises
    ------
    ModelError
        If it cannot be loaded.
    """
    from stormsweep.cluster.machine import cores

    with contextlib.ExitStack() as stack:
        stack.enter_context(_standard_error_kept())
        from stormsweep.training.keras_tf import lent

        try:
            stack.enter_context(lent(cores()))
        except RuntimeError as error:
            raise ModelError(f"{error}, in this Python; predict in a new one") from None
        from stormsweep.models.generators import generators_kept
        from stormsweep.training.inference import load_model

        # What the user draws afterwards must not follow from the model's seed.
        with generators_kept():
            model = load_model(
                directory / FOLDER / facts["model"],
                facts["form"],
                lambda: _builder(directory, facts),
                facts["hyperparameters"],
                facts["input_shape"],
                facts["precision"],
                _seed(facts),
                facts.get("fold"),
            )
        yield model


def _builder(directory: Path, facts: dict[str, Any]) -> Callable[..., Any]:
    """Import the builder, if its code is still that which the model was trained with."""
    from stormsweep.config.load import load_study
    from stormsweep.study.setup import builder_and_checksum, file_of

    places, study = [facts["build"]], directory / "study.toml"
    if facts["build"].rpartition(":")[0].endswith(".py") and study.is_file():
        # The study may have been run since where its files were moved or copied to.
        places.insert(0, load_study(study).model.build)
        places = [one for one in places if Path(one.rpartition(":")[0]).is_file()] or places[:1]
    for build in dict.fromkeys(places):
        function, checksum = builder_and_checksum(build, _seed(facts))
        known = {checksum}
        if "seed" not in facts and (file := file_of(function)) and file.is_file():
            # Before a model said its seed, its checksum was that of this file, whatever it imports.
            known.add(sha256(file))
        if facts["build_sha256"] in known:
            return function
    raise ModelError(
        f"{places[0]}: the file, or one that it imports, was edited since the study was "
        f"verified, and {facts['model']} cannot be loaded without what it was then; undo that"
    )


def _seed(facts: dict[str, Any]) -> int:
    # The first models do not say.
    return int(facts.get("seed", 0))


@contextlib.contextmanager
def _standard_error_kept() -> Iterator[None]:
    """Keep what TensorFlow's C++ libraries say when they are loaded from the user's terminal.

    They write to the process's standard error, whatever their level of logging is set to.
    """
    try:
        own = os.dup(2)
    except OSError:  # there is none
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(own, 2)
            os.close(own)


def _check(probabilities: NDArray[np.float32], path: Path) -> None:
    from stormsweep.training.scores import check_probabilities

    try:
        check_probabilities(probabilities)
    except RunError as error:
        raise DataError(f"{path}: {error}") from None


def event_in_words(event: dict[str, Any]) -> str:
    """Return the event of a study in words.

    Examples
    --------
    >>> event_in_words({"name": "x", "threshold": 0.005, "event": ">", "units": "s-1"})
    'x > 0.005 s-1'
    """
    if event.get("threshold") is None:
        return f"{event['name']}"
    text = f"{event['name']} {event['event']} {event['threshold']:g} {event.get('units', '')}"
    where = {"mask": " over the storm's own cells", "patch": " in the patch"}
    return text.strip() + where.get(event.get("label_from", ""), "")


def _check_output(output: Path, sources: Sequence[Path], overwrite: bool) -> None:
    if not output.resolve().parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}")
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give the file to write")
    if any(path.exists() and output.exists() and output.samefile(path) for path in sources):
        raise UserError(f"{output}: is one of the files to predict from; name another output")
    if output.exists() and not overwrite:
        raise UserError(f"{output}: is there already; name another output, or use --overwrite")


def _attributes(
    facts: dict[str, Any], directory: Path, names: Sequence[str], output: Path
) -> dict[str, Any]:
    now = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    command = ["stormsweep", "predict", str(directory), *names, "-o", str(output)]
    event = facts["event"]
    said: dict[str, Any] = {
        "title": f"Probabilities of {event_in_words(event)}, by the study {facts['study']}",
        "history": f"{now} {shlex.join(command)}",
        "source": f"Stormsweep {__version__}, model of the study {facts['study']}, configuration "
        f"{facts['configuration']}, trained on {facts['trained_on']['cases']} cases",
        "study": facts["study"],
        "configuration": facts["configuration"],
        "event": event_in_words(event),
        "event_variable": event["name"],
        "decision_threshold": np.float64(facts["decision_threshold"]),
        "model_sha256": facts["model_sha256"],
        "training_fingerprint": facts["trained_on"]["fingerprint"],
        "training_data": "synthetic: these are not probabilities of real storms"
        if facts["synthetic"]
        else f"not synthetic (source {facts['source']})",
    }
    if event.get("threshold") is not None:
        said["event_threshold"] = np.float64(event["threshold"])
        said["event_units"] = event.get("units", "")
    return said


class _Reader:
    """Reads new cases of one kind of source."""

    places = False

    def __init__(self, facts: dict[str, Any]) -> None:
        self._names = [str(variable["name"]) for variable in facts["inputs"]]
        self._shape = tuple(facts["input_shape"])
        self._array = facts.get("array")

    def count(self, path: Path) -> int:
        """Check a file as far as that takes no reading of all of it; return its cases."""
        return sum(len(cases.inputs) for cases in self.read(path))

    def read(self, path: Path) -> Iterator[Cases]:
        """Yield the cases of a file in blocks."""
        raise NotImplementedError


class _Storms(_Reader):
    places = True

    def count(self, path: Path) -> int:
        from stormsweep.storms.patches import PatchFile

        with PatchFile(path, self._names) as file:
            return file.count

    def read(self, path: Path) -> Iterator[Cases]:
        from stormsweep.storms.patches import PatchFile

        with PatchFile(path, self._names) as file:
            start = int(file.start.replace(tzinfo=dt.UTC).timestamp())
            for block in file.blocks():
                places = {
                    "time": start + 3600 * block.hour,
                    "forecast_reference_time": np.full(len(block.hour), start),
                    "lat": block.lat,
                    "lon": block.lon,
                    "track_id": block.track,
                    "track_step": block.step,
                }
                yield Cases(block.rows.start, block.inputs, places)


class _Tables(_Reader):
    def read(self, path: Path) -> Iterator[Cases]:
        from stormsweep.data.tables import input_blocks

        first = 0
        for values in input_blocks(path, self._names):
            yield Cases(first, values, {})
            first += len(values)


class _StormRows(_Reader):
    places = True

    def read(self, path: Path) -> Iterator[Cases]:
        from stormsweep.storms.rows import storm_rows

        first = 0
        for values, places in storm_rows(path, self._names):
            yield Cases(first, values, places)
            first += len(values)


class _Arrays(_Reader):
    def read(self, path: Path) -> Iterator[Cases]:
        from stormsweep.data.npz import input_array

        values = input_array(path, str(self._array), self._shape)
        for first in range(0, len(values), 4096):
            yield Cases(first, values[first : first + 4096], {})


def _reader(facts: dict[str, Any], sources: Sequence[Path]) -> _Reader:
    source = facts["source"]
    kinds: dict[str, type[_Reader]] = {"csv": _Tables, "npz": _Arrays}
    if source in STORM_SOURCES:
        kinds[source] = _Storms
        if len(facts["input_shape"]) == 1:
            from stormsweep.storms.rows import has_places

            # By the statistics of their tables; a table may hold the inputs alone.
            kinds[source] = _StormRows if all(map(has_places, sources)) else _Tables
    if source not in kinds:
        raise UserError(
            f"predict: the study's data come from the function {source!r}, so Stormsweep cannot "
            "read new cases of it; load model.keras with Keras instead"
        )
    return kinds[source](facts)
