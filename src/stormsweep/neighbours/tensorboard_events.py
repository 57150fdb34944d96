"""TensorBoard: event files with the scores as scalars, and the hyperparameters for its HParams.

The files are written with TensorBoard's own messages, and without TensorFlow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stormsweep.neighbours.owned import need, own_folder
from stormsweep.neighbours.told import Configuration, Fit, Told
from stormsweep.results.facts import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from tensorboard.compat.proto.summary_pb2 import Summary

    Write = Callable[[Summary, float, int], None]

#: Longest part of a folder's name that words a configuration.
_LONGEST = 100


def write_tensorboard(told: Told, folder: Path) -> None:
    """Write a study as TensorBoard's event files.

    Each fit is a run, ``<configuration>/fold-<n>``, with its scores at milestones
    (``validation/<score>``) and the training loss of each epoch (``training/loss``). Folds of one
    configuration are one group of HParams, which shows their mean.
    ``<configuration>/mean`` has the mean over folds at each milestone.

    Parameters
    ----------
    told : Told
        The study.
    folder : Path
        Where to; see `own_folder`.

    Raises
    ------
    UserError
        If TensorBoard is not installed, or the folder is not ours.
    """
    need("tensorboard", "tensorboard", "tensorboard", "tensorboard")
    from tensorboard.plugins.hparams import summary_v2 as hparams

    names = list(dict.fromkeys(name for one in told.configurations for name in one.hyperparameters))
    with own_folder(folder, told.journal) as beside:
        config = hparams.hparams_config_pb(
            [hparams.HParam(name) for name in names],
            [hparams.Metric(_tag(score), display_name=score) for score in told.scores],
            time_created_secs=told.begun,
        )
        with _events(beside, told.begun) as write:
            write(config, told.begun, 0)
        for one in told.configurations:
            run = beside / folder_name(one)
            _write_mean(run / "mean", one)
            for fit in one.fits:
                if fit.scores or fit.losses or fit.failure:
                    _write_fit(run / f"fold-{fit.fold}", one, fit)


def folder_name(one: Configuration) -> str:
    """Return the name of a configuration's folder: its hyperparameters, and its id."""
    point = ",".join(f"{name}={shown(value)}" for name, value in one.hyperparameters.items())
    return f"{re.sub(r'[^A-Za-z0-9_.,=+-]', '_', point)[:_LONGEST]},{one.id}".lstrip(".,")


def _write_mean(folder: Path, one: Configuration) -> None:
    curve = one.curve()
    if not curve:
        return
    with _events(folder, one.started) as write:
        for epoch, scores in curve.items():
            when = max(fit.scored[epoch] for fit in one.fits if epoch in fit.scored)
            write(_scalars((_tag(name), value) for name, value in scores.items()), when, epoch)


def _write_fit(folder: Path, one: Configuration, fit: Fit) -> None:
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams import summary_v2 as hparams

    point = {name: _value(value) for name, value in one.hyperparameters.items()}
    with _events(folder, fit.started) as write:
        write(hparams.hparams_pb(point, one.id, fit.started), fit.started, 0)
        for epoch, loss in fit.losses.items():
            when = next((at for e, at in sorted(fit.scored.items()) if e >= epoch), fit.stopped)
            write(_scalars([("training/loss", loss)]), when, epoch)
        for epoch, scores in fit.scores.items():
            when = fit.scored[epoch]
            write(_scalars((_tag(name), value) for name, value in scores.items()), when, epoch)
        if one.epochs in fit.scores:
            write(_ended(api_pb2.STATUS_SUCCESS, fit.stopped), fit.stopped, 0)
        elif fit.failure:
            write(_ended(api_pb2.STATUS_FAILURE, fit.stopped), fit.stopped, 0)


def _tag(score: str) -> str:
    return f"validation/{score}"


def _value(value: Any) -> Any:
    """Return a hyperparameter as HParams takes it: a boolean, a number or a text."""
    value = shown(value)
    return value if isinstance(value, bool | int | float | str) else str(value)


def _scalars(values: Iterable[tuple[str, float]]) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])


def _ended(status: Any, when: float) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=when)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=ended)
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])


@contextmanager
def _events(folder: Path, begun: float) -> Iterator[Write]:
    """Give a function that appends to a new event file of a folder."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard tells event files by the middle of their names, and reads the number as a time.
    with open(folder / f"events.out.tfevents.{int(begun)}.stormsweep", "wb") as stream:
        records = RecordWriter(stream)
        first = Event(wall_time=begun, file_version="brain.Event:2")
        records.write(first.SerializeToString())

        def write(summary: Summary, when: float, step: int) -> None:
            event = Event(wall_time=when, step=step, summary=summary)
            records.write(event.SerializeToString())

        yield write
