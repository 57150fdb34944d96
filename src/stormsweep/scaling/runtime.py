"""How long training takes: a few physical terms, fitted to what journals say.

What a worker does in a task is timed phase by phase, and each phase has its own terms:

- training: per patch and per step, both with a part that grows with the parameters, and per epoch;
- compiling, opening the data, building or restoring the model: per time, more where it is the first
  in a process;
- scoring: per time and per patch scored; writing the checkpoint: per time and per parameter.

Threads divide what is per patch, but for a share; neighbours (busy threads of other workers on the
node) share its memory and its caches, and slow everything down. No term can be negative, so they
are found by non-negative least squares, on relative errors: a tenth too much is as wrong in a short
task as in a long one. Tasks that went astray say nothing of them (`stormsweep.scaling.scatter`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from stormsweep.errors import UserError
from stormsweep.scaling.observed import observations
from stormsweep.scaling.scatter import Scatter, astray, scatter
from stormsweep.scaling.terms import (
    CLOCK,
    UNITS,
    by_phase,
    columns_of,
    fitted,
    identified,
    relative,
    seconds_of,
    summed,
    told_of,
)
from stormsweep.wording import percent

__all__ = ["Checked", "RunTime", "check", "fit", "kind_of", "observations"]

Reals = NDArray[np.float64]
#: What neighbours cost where they were always or never there, as a share: on machines that were
#: measured it was 3 to 11 %, so that this is less wrong than nothing.
_USUAL_CONTENTION = 0.05
#: The share of what is per patch that threads do not divide, where all workers had as many.
_USUAL_SERIAL = 0.12
#: How unsure a time is for each doubling of workers and threads beyond those that were measured, as
#: a standard deviation of its logarithm: about what such times were off by where they were tried.
_DOUBT = {"workers": 0.05, "threads": 0.1}
#: A busy neighbour costs at most this share.
_MOST_CONTENTION = 2.0
#: So far outside of what was measured nobody is warned.
_NEAR = 1.25
#: Groups of runs that are left out, each in turn.
_GROUPS = 12

#: Of more stretches than that, so many are enough to see how far off a fit is.
_ENOUGH = 6000
#: What is done once for a process, and once for a program of it.
_ONCE = {
    "opens": ("open/worker", "compile/first"),
    "compiles": ("compile/program", "train/compiled", "score/program"),
}


@dataclass(frozen=True, eq=False)
class RunTime:
    """What training takes, as fitted.

    Attributes
    ----------
    kind : str
        Which processor, engine, precision, model and inputs this is of.
    terms : dict
        Seconds by term; `units` says of what.
    off : dict
        By which factor models (by their ``parameters``) and ``batch_size`` are off what the terms
        say of their training: how well a processor computes a layer, and what a batch that leaves
        the caches costs, follows no line. Empty where they are off no more than by chance.
    contention : float
        What each busy thread of another worker on the node adds, as a share.
    neighbours : float
        The most such threads that this is known of; more are taken to cost as much as those.
    assumed : bool
        Whether the contention is a usual one, because all observations had as many workers.
    serial : float
        The share of what is per patch that threads are assumed not to divide, because all workers
        had as many; 0 where several numbers were seen, which tell it.
    scatter : Scatter
        How single tasks are off what they should take, and which of them went astray.
    runs, stretches : int
        What it was fitted on: all but those.
    ranges : dict
        Least and most of ``batch_size``, ``parameters``, ``threads``, ``workers`` that were seen.
    usual : dict
        What is taken where it is not said: ``patches_per_epoch``, ``validation``, ``bundle``, and
        the share of stretches for which a model was built or restored (``builds``).
    """

    kind: str
    terms: dict[str, float]
    off: dict[str, dict[int, float]]
    contention: float
    neighbours: float
    assumed: bool
    serial: float
    scatter: Scatter
    runs: int
    stretches: int
    ranges: dict[str, tuple[int, int]]
    usual: dict[str, float]

    @property
    def units(self) -> dict[str, str]:
        """What each term is measured in."""
        return {name: UNITS[name] for name in self.terms}

    def seconds(
        self,
        *,
        patches: ArrayLike,
        updates: ArrayLike,
        batch_size: ArrayLike,
        parameters: ArrayLike,
        threads: ArrayLike = 1,
        workers: ArrayLike = 1,
        compiles: ArrayLike = False,
        opens: ArrayLike = False,
        scores: ArrayLike = True,
        builds: ArrayLike | None = None,
        epochs: ArrayLike | None = None,
        validation: ArrayLike | None = None,
        bundle: ArrayLike | None = None,
        neighbours: ArrayLike | None = None,
    ) -> Any:
        """Return how long a stretch of training takes on average; arrays in, arrays out.

        Where nothing goes astray: what is lost then comes to it, see `scatter`.

        Parameters
        ----------
        patches, updates : float
            Patches trained on, and steps made, all epochs together.
        batch_size, parameters : int
            Patches of a step; trainable parameters of the model.
        threads, workers : int
            Threads of a worker, and busy workers of a node.
        compiles, opens, scores, builds : bool
            Whether the program is compiled, the worker has done nothing before, the stretch ends
            with a score, the model is built or restored. Numbers between are shares of such
            stretches; `builds` is the usual share unless given.
        epochs, validation : float, optional
            Epochs, and patches scored; as usual unless given.
        bundle : int, optional
            Runs trained together; the seconds are one's share. As usual unless given.
        neighbours : float, optional
            Busy threads of the node's other workers, where they are not simply all of them.

        Returns
        -------
        float or ndarray
        """
        told = {
            "patches": patches,
            "updates": updates,
            "batch_size": batch_size,
            "parameters": parameters,
            "threads": threads,
            "compiles": compiles,
            "opens": opens,
            "scores": scores,
            "builds": self.usual["builds"] if builds is None else builds,
            "epochs": np.asarray(patches, float) / self.usual["patches_per_epoch"]
            if epochs is None
            else epochs,
            "validation": self.usual["validation"] if validation is None else validation,
            "bundle": self.usual["bundle"] if bundle is None else bundle,
            "serial": self.serial,
        }
        if neighbours is None:
            neighbours = (np.asarray(workers, float) - 1) * np.asarray(threads, float)
        numbers = {name: np.asarray(value, float) for name, value in told.items()}
        slowed = self.slowed(np.asarray(neighbours, float))
        total = summed(self.terms, self.off, numbers) * slowed
        return total if np.ndim(total) else float(total)

    def foretold(self, table: pd.DataFrame) -> Reals:
        """Return what each row of `observations` takes by this model."""
        slowed = self.slowed(table["neighbours"].to_numpy(float))
        return np.asarray(summed(self.terms, self.off, told_of(table, self.serial)) * slowed)

    def slowed(self, neighbours: Reals) -> Reals:
        """Return by which factor so many busy threads of other workers slow a worker down."""
        return np.asarray(1 + self.contention * np.minimum(neighbours, self.neighbours))

    def doubt(self, *, workers: int, threads: int) -> float:
        """Return how unsure times are because the layout is not one of those measured.

        Parameters
        ----------
        workers, threads : int
            Of a node, and of each.

        Returns
        -------
        float
            Standard deviation of the logarithm, of all times together; 0 where it was measured.
        """
        squares = 0.0
        for name, asked in (("workers", workers), ("threads", threads)):
            low, high = self.ranges[name]
            doublings = math.log2(max(asked / high, low / asked, 1.0))
            squares += (_DOUBT[name] * doublings) ** 2
        return math.sqrt(squares)

    def beyond(
        self,
        *,
        batch_size: ArrayLike = (),
        parameters: ArrayLike = (),
        threads: ArrayLike = (),
        workers: ArrayLike = (),
    ) -> list[str]:
        """Return what is asked that was not measured, one plain line each."""
        asked = {
            "batch_size": ("batch size", batch_size),
            "parameters": ("parameters", parameters),
            "threads": ("threads a worker", threads),
            "workers": ("workers a node", workers),
        }
        lines = []
        for name, (words, values) in asked.items():
            given = np.unique(np.asarray(values, float).ravel())
            low, high = self.ranges[name]
            near = 1.0 if name in ("threads", "workers") else _NEAR
            outside = [f"{v:g}" for v in given if not low / near <= v <= high * near]
            if outside:
                seen = f"{low}" if low == high else f"{low} to {high}"
                lines.append(f"{words}: {', '.join(outside)}; measured was {seen}")
                if name == "workers":
                    lines.append(self._about_neighbours())
                elif name == "threads" and self.serial:
                    lines.append(
                        f"only one number of threads was measured: that they do not divide "
                        f"{percent(self.serial)} of the work is assumed"
                    )
        return lines

    def _about_neighbours(self) -> str:
        if self.assumed:
            return (
                f"only one number of workers was measured: that neighbours cost "
                f"{percent(self.contention)} is assumed"
            )
        return (
            f"what {self.neighbours:g} busy neighbour{'s' * (self.neighbours != 1)} cost was "
            "measured; more are taken to cost no more"
        )


@dataclass(frozen=True, eq=False)
class Checked:
    """How far a model is off on runs that it has not seen.

    Attributes
    ----------
    median, tail : float
        Median and 90th percentile over runs of the relative error of a run's seconds.
    bias : float
        Of all their seconds together: above 0, too much is foretold.
    runs : DataFrame
        One row a run: ``study``, ``run``, ``batch_size``, ``seconds``, ``foretold``, ``error``. One
        that opened the data, or compiled, when no other did is not among them, nor are stretches
        that went astray.
    """

    median: float
    tail: float
    bias: float
    runs: pd.DataFrame


def fit(observed: pd.DataFrame, kind: str | None = None) -> RunTime:
    """Fit what training takes to what was observed.

    Parameters
    ----------
    observed : DataFrame
        From `observations`, of one journal or several.
    kind : str, optional
        Which processor, engine and model; unless given the one with the most stretches.

    Returns
    -------
    RunTime

    Raises
    ------
    UserError
        If no run was finished.
    """
    whole = _of_kind(observed, kind)
    return _fit(whole, _astray(whole))


def kind_of(observed: pd.DataFrame) -> str:
    """Return which processor, engine and model most stretches that came to something are of.

    Parameters
    ----------
    observed : DataFrame
        From `observations`.

    Raises
    ------
    UserError
        If no run was finished.
    """
    return str(_of_kind(observed, None)["kind"].iloc[0])


def _serial(table: pd.DataFrame) -> float:
    return _USUAL_SERIAL if len(np.unique(table["threads"])) < 2 else 0.0


def _astray(table: pd.DataFrame) -> NDArray[np.bool_]:
    return astray(table, told_of(table, _serial(table)), seconds_of(table))


def _fit(whole: pd.DataFrame, out: NDArray[np.bool_]) -> RunTime:
    """Fit to all but some, which went astray."""
    table = whole[~out].reset_index(drop=True)
    serial = _serial(table)
    told, seconds = told_of(table, serial), seconds_of(table)
    names = identified(told)
    near = table["neighbours"].to_numpy(float)
    assumed = len(np.unique(table["workers"])) < 2
    contention, most = _USUAL_CONTENTION, 1.0
    if not assumed:
        contention = _contention(told, seconds, near, names)
        most = float(((table["workers"] - 1) * table["threads"]).max())
    slowed = 1 + contention * np.minimum(near, most)
    terms, off = fitted(told, seconds, slowed, names)
    beside = 1 + contention * np.minimum(whole["neighbours"].to_numpy(float), most)
    usual = {
        phase: np.asarray(about * beside, float)
        for phase, about in by_phase(terms, off, told_of(whole, serial)).items()
    }
    trained = told["epochs"] > 0
    return RunTime(
        kind=str(table["kind"].iloc[0]),
        terms=terms,
        off=off,
        contention=contention,
        neighbours=most,
        assumed=assumed,
        serial=serial,
        scatter=scatter(whole, seconds_of(whole), usual, out),
        runs=len(table[["study", "run"]].drop_duplicates()),
        stretches=len(table),
        ranges={
            name: (int(table[name].min()), int(table[name].max()))
            for name in ("batch_size", "parameters", "threads", "workers")
        },
        usual={
            "patches_per_epoch": float(
                np.median(told["patches"][trained] / told["epochs"][trained])
            ),
            "validation": float(np.median(told["validation"])),
            "builds": float(told["builds"].mean()),
            "bundle": float(np.median(told["bundle"])),
        },
    )


def check(
    observed: pd.DataFrame, by: tuple[str, ...] = ("study", "run"), kind: str | None = None
) -> Checked:
    """Foretell runs that were left out of the fit, group by group.

    Of very many runs only some are looked at, drawn at random.

    Parameters
    ----------
    observed : DataFrame
        From `observations`.
    by : tuple of str
        What is left out together: runs, or all of a ``batch_size``, or of ``workers`` and
        ``threads``.
    kind : str, optional
        As in `fit`.

    Raises
    ------
    UserError
        If there are fewer than two groups.
    """
    table = _sample(_of_kind(observed, kind))
    table = table[~_astray(table)].reset_index(drop=True)
    group = table.groupby(list(by), sort=False).ngroup().to_numpy()
    count = int(group.max()) + 1
    if count < 2:
        raise UserError(f"one {' and '.join(by)} only: nothing can be left out of the fit")
    group = np.random.default_rng(0).permutation(count)[group] % _GROUPS
    foretold, alone = np.zeros(len(table)), np.zeros(len(table), bool)
    for one in np.unique(group):
        out = group == one
        rest = table[~out].reset_index(drop=True)
        foretold[out] = _fit(rest, np.zeros(len(rest), bool)).foretold(table[out])
        alone[out] = _alone(table[out], table[~out])
    table = table.assign(foretold=foretold, alone=alone)
    runs = table.groupby(["study", "run"], sort=False).agg(
        batch_size=("batch_size", "first"),
        seconds=("seconds", "sum"),
        foretold=("foretold", "sum"),
        alone=("alone", "any"),
    )
    runs = runs[~runs["alone"]].drop(columns="alone").reset_index()
    if runs.empty:
        raise UserError("every run did something that no other did: nothing can be checked")
    runs["error"] = runs["foretold"] / runs["seconds"] - 1
    size = runs["error"].abs()
    return Checked(
        float(size.median()),
        float(size.quantile(0.9)),
        float(runs["foretold"].sum() / runs["seconds"].sum() - 1),
        runs,
    )


def _sample(table: pd.DataFrame) -> pd.DataFrame:
    """Return runs drawn at random, about as many as make `_ENOUGH` stretches."""
    if len(table) <= _ENOUGH:
        return table
    run = table.groupby(["study", "run"], sort=False).ngroup().to_numpy()
    place = np.random.default_rng(0).permutation(int(run.max()) + 1)[run]
    drawn: pd.DataFrame = table[place < (place.max() + 1) * _ENOUGH / len(table)]
    return drawn.reset_index(drop=True)


def _alone(out: pd.DataFrame, rest: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which stretches did what is done once, where none of the others did it.

    Whichever run comes first has to open the data and compile the program: with one worker there
    is one that did in a whole study, and no other run to learn from what that takes.
    """
    columns = [column for column in _ONCE if not rest[column].any()]
    return out[columns].any(axis=1).to_numpy(bool)


def _of_kind(observed: pd.DataFrame, kind: str | None) -> pd.DataFrame:
    table = observed[(observed["epochs"] > 0) & (observed["seconds"] > 0)]
    if kind is not None:
        table = table[table["kind"] == kind]
    if table.empty:
        of = "" if kind is None else f" of {kind}"
        raise UserError(f"nothing to fit: the journal has no finished run{of}")
    usual: pd.DataFrame = table[table["kind"] == table["kind"].mode().iloc[0]]
    return usual.reset_index(drop=True)


def _contention(
    told: dict[str, Reals], seconds: dict[str, Reals], near: Reals, names: list[str]
) -> float:
    """Return what each busy neighbour adds to everything, as a share."""
    measured = seconds["train"]
    own = [name for name in names if name.startswith("train/")]
    columns = columns_of(told)
    design = np.stack([columns[name] for name in own], -1)

    def error(contention: float) -> float:
        slowed = design * (1 + contention * near)[:, None]
        about = slowed @ relative(slowed, measured)
        return float((np.log(np.maximum(measured, CLOCK) / np.maximum(about, CLOCK)) ** 2).sum())

    found = minimize_scalar(error, bounds=(0.0, _MOST_CONTENTION), method="bounded")
    return float(found.x) if error(found.x) < error(0.0) else 0.0
