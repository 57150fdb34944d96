"""MLflow: an experiment for a study, a run for a configuration, a child of it for each fold."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stormsweep import __version__
from stormsweep.errors import UserError
from stormsweep.neighbours.owned import need, own_database
from stormsweep.neighbours.told import Configuration, Fit, State, Told
from stormsweep.results.facts import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_JOURNAL, _FIT = "stormsweep.journal", "stormsweep.fit"
#: Of every experiment but the empty one that MLflow makes by itself.
_OWNERS = (
    "SELECT t.value FROM experiments e LEFT JOIN experiment_tags t "
    f"ON t.experiment_id = e.experiment_id AND t.key = '{_JOURNAL}' "
    "WHERE e.experiment_id != 0 OR EXISTS (SELECT 1 FROM runs r WHERE r.experiment_id = 0)"
)
_STATUS = {
    State.complete: "FINISHED",
    State.failed: "FAILED",
    State.open: "RUNNING",
    State.stopped: "KILLED",
}
#: What MLflow takes in one call, and in a value.
_METRICS, _PARAMS, _LONGEST = 1000, 100, 6000


def write_mlflow(told: Told, where: Path | str) -> None:
    """Write a study to an MLflow store.

    Every number carries the instant at which it came to be, so that writing again to a store adds
    what is new and nothing twice.

    Parameters
    ----------
    told : Told
        The study.
    where : Path or str
        An SQLite file, which is made anew; or the URI of a tracking store, in which the experiment
        is begun or carried on.

    Raises
    ------
    UserError
        If MLflow is not installed, the file is not ours, or the store does not take it.
    """
    need("mlflow", "mlflow", "mlflow-skinny", "mlflow")
    # A study is nobody else's business: MLflow reports that it is used unless told not to.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Nor is the address of every run worth a line.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    if isinstance(where, str):
        _write(where, told, None)
        return
    with own_database(where, told.journal, _OWNERS) as beside:
        uri = f"sqlite:///{beside}"
        artifacts = where.resolve().with_name(f"{where.stem}-artifacts").as_uri()
        _write(uri, told, artifacts)
        _close(uri)


def _write(uri: str, told: Told, artifacts: str | None) -> None:
    from mlflow import MlflowClient

    with _quiet(), _one_line():
        _write_all(MlflowClient(tracking_uri=uri), told, artifacts)


def _write_all(client: MlflowClient, told: Told, artifacts: str | None) -> None:
    about = told.about
    tags = {
        _JOURNAL: told.journal,
        "stormsweep.version": __version__,
        "stormsweep.metric": about.metric,
        "stormsweep.strategy": about.strategy,
        "stormsweep.seed": str(about.seed),
        "stormsweep.folds": str(about.folds),
        "stormsweep.data": str(about.data.get("source", "")),
        "stormsweep.synthetic": str(bool(about.data.get("synthetic", False))).lower(),
        "stormsweep.model": about.model.get("build", ""),
    }
    known = client.get_experiment_by_name(about.name)
    if known is None:
        experiment = client.create_experiment(about.name, artifacts, tags)
    elif known.tags.get(_JOURNAL) != told.journal or known.lifecycle_stage != "active":
        raise UserError(
            f"export: the store has an experiment {about.name!r} already, which was deleted or is "
            "of something else; rename it there, or write to another store"
        )
    else:
        experiment = str(known.experiment_id)
    there = _there(client, experiment) if known is not None else {}
    for one in told.configurations:
        parent = _run(client, experiment, there, one.id, one, None, "")
        metrics = _curve(one.curve(), {e: _latest(one, e) for e in one.curve()})
        metrics += [_metric("seconds", one.seconds, one.stopped, one.epochs)]
        _log(client, parent, metrics, one, {"stormsweep.rank": str(one.rank or "")})
        for fit in one.fits:
            child = _run(client, experiment, there, f"{one.id}/{fit.fold}", one, fit, parent)
            metrics = _curve(fit.scores, fit.scored)
            metrics += [
                _metric("training_loss", loss, _when(fit, epoch), epoch)
                for epoch, loss in fit.losses.items()
            ]
            metrics += [
                _metric(f"{phase}_seconds", seconds, fit.stopped, one.epochs)
                for phase, seconds in fit.phases.items()
            ]
            metrics += [_metric("seconds", fit.seconds, fit.stopped, one.epochs)]
            _log(client, child, metrics, one, {"stormsweep.fold": str(fit.fold)})
            _end(client, child, _state(one, fit), fit.stopped)
        _end(client, parent, one.state, one.stopped)


def _run(
    client: MlflowClient,
    experiment: str,
    there: dict[str, str],
    name: str,
    one: Configuration,
    fit: Fit | None,
    parent: str,
) -> str:
    """Return the run of a configuration or a fit, begun where it is missing."""
    failure = one.failure if fit is None else fit.failure
    state = one.state if fit is None else _state(one, fit)
    tags = {
        _FIT: name,
        "stormsweep.configuration": one.id,
        "stormsweep.state": state.value,
        "mlflow.source.name": "stormsweep",
    }
    tags |= {"stormsweep.failure": failure[:_LONGEST]} if failure else {}
    tags |= {"mlflow.parentRunId": parent} if parent else {}
    if name in there:
        for key, value in tags.items():
            client.set_tag(there[name], key, value)
        return there[name]
    point = ", ".join(f"{key} {shown(value)}" for key, value in one.hyperparameters.items())
    title = point if fit is None else f"fold {fit.fold}: {point}"
    began = one.started if fit is None else fit.started
    run = client.create_run(experiment, round(began * 1000), tags, title[:250])
    return str(run.info.run_id)


def _there(client: MlflowClient, experiment: str) -> dict[str, str]:
    """Return our runs in an experiment, by what they are of."""
    found: dict[str, str] = {}
    token: str | None = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for run in page:
            if name := run.data.tags.get(_FIT):
                found[name] = run.info.run_id
        token = page.token
        if not token:
            return found


def _log(
    client: MlflowClient, run: str, metrics: list[Metric], one: Configuration, tags: dict[str, str]
) -> None:
    from mlflow.entities import Param, RunTag

    params = [
        Param(_key(name), str(shown(value))[:_LONGEST])
        for name, value in one.hyperparameters.items()
    ]
    labels = [RunTag(key, value) for key, value in tags.items()]
    client.log_batch(run, metrics[:_METRICS], params[:_PARAMS], labels)
    for start in range(_METRICS, len(metrics), _METRICS):
        client.log_batch(run, metrics[start : start + _METRICS])
    for start in range(_PARAMS, len(params), _PARAMS):
        client.log_batch(run, params=params[start : start + _PARAMS])


def _end(client: MlflowClient, run: str, state: State, when: float) -> None:
    if state is State.open:
        client.update_run(run, status=_STATUS[state])
    else:
        client.set_terminated(run, _STATUS[state], round(when * 1000))


def _state(one: Configuration, fit: Fit) -> State:
    if one.epochs in fit.scores:
        return State.complete
    if fit.failure:
        return State.failed
    return State.open if one.state is State.open else State.stopped


def _curve(scores: dict[int, dict[str, float]], times: dict[int, float]) -> list[Metric]:
    return [
        _metric(name, value, times[epoch], epoch)
        for epoch, own in scores.items()
        for name, value in own.items()
    ]


def _metric(name: str, value: float, when: float, step: int) -> Metric:
    from mlflow.entities import Metric

    return Metric(_key(name), value, round(when * 1000), step)


def _latest(one: Configuration, epoch: int) -> float:
    return max(fit.scored[epoch] for fit in one.fits if epoch in fit.scored)


def _when(fit: Fit, epoch: int) -> float:
    """Return an instant for an epoch's loss: when the milestone after it was reached."""
    return next((when for at, when in sorted(fit.scored.items()) if at >= epoch), fit.stopped)


def _key(name: str) -> str:
    """Return a name as MLflow allows it.

    Examples
    --------
    >>> _key("learning_rate"), _key("taux d'erreur")
    ('learning_rate', 'taux d_erreur')
    """
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:250]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow and Alembic from telling of every table that they make."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


@contextmanager
def _one_line() -> Iterator[None]:
    """Say in one line what a store has against it; its URI may hold a password."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        text = " ".join(str(error).split())
        raise UserError(f"export: MLflow's store does not take it: {text[:300]}") from None


def _close(uri: str) -> None:
    """Let go of a database, so that it can be moved."""
    from mlflow.tracking._tracking_service import utils

    store: Any = utils._get_store(uri)  # type: ignore[no-untyped-call]
    store.engine.dispose()
