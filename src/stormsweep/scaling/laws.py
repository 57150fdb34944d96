"""Laws of scaling: how much faster work gets with more workers, fitted to measured times.

Three laws, each with a speed-up S(n) of n workers over one:

- Amdahl's [1]_: S = 1 / (s + (1 - s) / n). A share s of the work cannot be divided.
- Gustafson's [2]_: S = s + (1 - s) n. The work grows with the workers, its serial part does not.
- the universal scalability law [3]_: S = n / (1 + c (n - 1) + k n (n - 1)). Contention c is waiting
  for what is shared, coherency k what every two workers cost each other: with it there is a most.

A measured time is fitted as T(n) = T(1) / S(n), with T(1) a parameter like the others: the time of
one worker is measured with noise too, and a ratio of two times would hide that.

References
----------
.. [1] G. M. Amdahl, Validity of the single processor approach to achieving large scale computing
   capabilities, AFIPS Spring Joint Computer Conference 30 (1967), 483-485.
.. [2] J. L. Gustafson, Reevaluating Amdahl's law, Communications of the ACM 31 (1988), 532-533.
.. [3] N. J. Gunther, A general theory of computational scalability based on rational functions,
   arXiv:0808.1431 (2008); Guerrilla Capacity Planning, Springer (2007), chapters 4 to 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from scipy.special import fdtrc

from stormsweep.errors import UserError, nearest
from stormsweep.wording import counted

Reals = NDArray[np.float64]
#: How often the weights of a fit follow its times.
_REWEIGHTED = 4
#: With this probability counts that scatter as the repeats do are taken for more than that.
_BY_CHANCE = 0.05
#: Noise is cut there, as a logarithm: a factor of a hundred and more says no more than that.
_FAR = 5.0


def amdahl(n: ArrayLike, serial_fraction: ArrayLike) -> Reals:
    """Return the speed-up of n workers by Amdahl's law (1967).

    Examples
    --------
    >>> [float(s) for s in amdahl([1, 2, 4], 0.5).round(2)]
    [1.0, 1.33, 1.6]
    """
    n, s = np.asarray(n, float), np.asarray(serial_fraction, float)
    return np.asarray(n / (s * n + (1 - s)))


def gustafson(n: ArrayLike, serial_fraction: ArrayLike) -> Reals:
    """Return the scaled speed-up of n workers by Gustafson's law (1988): of n times the work.

    Examples
    --------
    >>> [float(s) for s in gustafson([1, 2, 4], 0.5)]
    [1.0, 1.5, 2.5]
    """
    n, s = np.asarray(n, float), np.asarray(serial_fraction, float)
    return np.asarray(s + (1 - s) * n)


def usl(n: ArrayLike, contention: ArrayLike, coherency: ArrayLike) -> Reals:
    """Return the speed-up of n workers by Gunther's universal scalability law (2007).

    Examples
    --------
    >>> [float(s) for s in usl([1, 2, 4], 0.1, 0.01).round(2)]
    [1.0, 1.79, 2.82]
    """
    n, c = np.asarray(n, float), np.asarray(contention, float)
    return np.asarray(n / (1 + c * (n - 1) + np.asarray(coherency, float) * n * (n - 1)))


@dataclass(frozen=True)
class _Form:
    """A law as sums of terms that are not negative, which is what makes its fit exact.

    Attributes
    ----------
    names, most : tuple
        Of the parameters, and what they are at most.
    speedup : callable
        Of workers and parameters.
    terms : callable
        Of workers: one column for the term of T(1) alone, one for each parameter. The time is their
        sum (Gustafson's: one over it); coefficients divided by that at one worker are the
        parameters.
    power : int
        The time to this power is the sum.
    """

    names: tuple[str, ...]
    most: tuple[float, ...]
    speedup: Callable[..., Reals]
    terms: Callable[[Reals], Reals]
    power: int = 1


def _terms_of_usl(n: Reals) -> Reals:
    return np.stack([1 / n, np.ones_like(n), n - 1], -1)


_LAWS: dict[str, _Form] = {
    "amdahl": _Form(("serial_fraction",), (1.0,), amdahl, lambda n: _terms_of_usl(n)[..., :2]),
    "gustafson": _Form(
        ("serial_fraction",),
        (1.0,),
        gustafson,
        lambda n: np.stack([n, np.ones_like(n)], -1),
        power=-1,
    ),
    "usl": _Form(("contention", "coherency"), (1.0, math.inf), usl, _terms_of_usl),
}


@dataclass(frozen=True, eq=False)
class Law:
    """A law of scaling that was fitted to measured times.

    Attributes
    ----------
    name : str
        ``amdahl``, ``gustafson`` or ``usl``.
    parameters, intervals : dict
        Each parameter, and between what it lies with the probability `level`. Where there are no
        more times than parameters the interval is all that is allowed.
    error : float
        Mean relative error of times at numbers of workers that were left out of the fit, each in
        turn; NaN where too few are left without one.
    measured : tuple of int
        The fewest and the most workers that were measured.
    seconds_of_one : float
        The time of one worker, as fitted.
    scatter : float
        Relative standard deviation of single times about the law.
    scaled : bool
        Whether the work grew with the workers.
    level : float
        Of the intervals.
    draws : ndarray, resamples x terms
        Coefficients of the law's terms, 1 at one worker, one row a resample; no rows where nothing
        says how sure the fit is.
    """

    name: str
    parameters: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    error: float
    measured: tuple[int, int]
    seconds_of_one: float
    scatter: float
    scaled: bool
    level: float
    draws: Reals = field(repr=False)

    def speedup(self, n: ArrayLike) -> Reals:
        """Return how much faster n workers are than one.

        Parameters
        ----------
        n : array of float
            Numbers of workers.
        """
        return _LAWS[self.name].speedup(n, *self.parameters.values())

    def seconds(self, n: ArrayLike) -> Reals:
        """Return how long n workers take for the work that was measured, in seconds.

        Parameters
        ----------
        n : array of float
            Numbers of workers.
        """
        work = np.asarray(n, float) if self.scaled else 1.0
        return np.asarray(self.seconds_of_one * work / self.speedup(n))

    def interval(self, n: ArrayLike) -> tuple[Reals, Reals]:
        """Return between what the speed-up of n workers lies, with the probability `level`.

        That is the law's own doubt, if the law is right; single times scatter besides. NaN where
        there are no more times than parameters.

        Parameters
        ----------
        n : array of float
            Numbers of workers.
        """
        n = np.asarray(n, float)
        if not len(self.draws):
            nothing = np.full(n.shape, np.nan)
            return nothing, nothing
        form = _LAWS[self.name]
        sums = np.moveaxis(form.terms(n) @ self.draws.T, -1, 0)
        with np.errstate(divide="ignore"):
            # A draw of a time below 0 says that nothing bounds the speed-up but the workers.
            speedups = np.minimum(np.maximum(sums, 0.0) ** (-form.power), n)
        return _between(speedups, self.level, self.speedup(n), 0.0, n)

    @property
    def best_workers(self) -> float:
        """The number of workers beyond which more make it slower; infinity: there is none."""
        coherency = self.parameters.get("coherency", 0.0)
        if not coherency:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.parameters["contention"]) / coherency))

    @property
    def limit(self) -> float:
        """The speed-up that no number of workers exceeds; infinity: there is none."""
        if self.name == "gustafson":
            return math.inf if self.parameters["serial_fraction"] < 1 else 1.0
        if math.isfinite(self.best_workers):
            return float(self.speedup(self.best_workers))
        first = next(iter(self.parameters.values()))
        return 1 / first if first else math.inf

    def beyond(self, n: float) -> str:
        """Return a plain warning where the law is asked about what was not measured, else "".

        Parameters
        ----------
        n : float
            The number of workers.
        """
        few, most = self.measured
        if n > most:
            times = n / most
            far = f", {times:.3g} times as many" if times >= 2 else ""
            return (
                f"{n:g} workers were not measured: the most were {most}{far}; the law may not hold "
                "there"
            )
        if n < few:
            return f"{n:g} workers were not measured: the fewest were {few}"
        return ""


def fit(
    workers: Sequence[int] | ArrayLike,
    seconds: Sequence[float] | ArrayLike,
    law: str = "usl",
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.9,
    scaled: bool | None = None,
    weights: Sequence[float] | ArrayLike | None = None,
) -> Law:
    """Fit a law to measured times by least squares of relative errors.

    Parameters
    ----------
    workers, seconds : sequence of float
        One entry a measurement; repeats are entries of their own. One worker need not be there.
    law : str
        ``amdahl``, ``gustafson`` or ``usl``.
    resamples : int
        How many synthetic sets of times the intervals are made of.
    seed : int
        Of those.
    level : float
        Of the intervals.
    scaled : bool, optional
        Whether the work grew with the workers (weak scaling). Unless given it did for Gustafson's
        law and not for the others.
    weights : sequence of float, optional
        How much each time counts: one that is the mean of three counts 3.

    Returns
    -------
    Law

    Raises
    ------
    UserError
        If times were measured at fewer numbers of workers than the law has parameters, or are none.
    """
    form = _form(law)
    scaled = law == "gustafson" if scaled is None else scaled
    n, times, weight = _checked(workers, seconds, weights)
    counts = np.unique(n)
    terms = len(form.names) + 1
    if len(counts) < terms:
        raise UserError(
            f"{law}: times of {counted(len(counts), 'number')} of workers were given "
            f"({', '.join(f'{c:g}' for c in counts)}); {terms} or more are needed"
        )
    per_work = times / n if scaled else times
    solution, fitted = _solve(form, n, per_work, weight)
    if not solution[:2].any():
        raise UserError(f"{law}: nothing says how long one worker takes; measure it too")
    draws = _draws(form, n, per_work, fitted, weight, resamples, seed)
    values, intervals = {}, {}
    for place, (name, most) in enumerate(zip(form.names, form.most, strict=True), start=1):
        values[name] = float(solution[place] / solution[:2].sum())
        intervals[name] = (0.0, most)
        if len(draws):
            low, high = _between(draws[:, place], level, values[name], 0.0, most)
            intervals[name] = (float(low), float(high))
    free = len(times) - terms
    squares = float((weight * (per_work / fitted - 1) ** 2).sum())
    return Law(
        law,
        values,
        intervals,
        _left_out(form, n, per_work, weight),
        (int(counts[0]), int(counts[-1])),
        float(solution[:2].sum()) ** form.power,
        math.sqrt(squares / free) if free else math.nan,
        scaled,
        level,
        draws,
    )


def choose(
    workers: Sequence[int] | ArrayLike,
    seconds: Sequence[float] | ArrayLike,
    laws: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.9,
    scaled: bool = False,
    weights: Sequence[float] | ArrayLike | None = None,
) -> list[Law]:
    """Fit several laws; the one that errs least on numbers of workers left out comes first.

    Laws of the same error stand in order of their parameters, the fewest first; those that cannot
    be tried on what was left out come last. Laws for which there are too few numbers of workers are
    not among them.

    Parameters
    ----------
    laws : sequence of str, optional
        Which; unless given Amdahl's and the universal law, and Gustafson's where the work grew.
    workers, seconds, resamples, seed, level, scaled, weights
        As in `fit`.

    Raises
    ------
    UserError
        If there are too few numbers of workers for any.
    """
    names = laws or (["gustafson", "usl"] if scaled else ["amdahl", "usl"])
    found: list[Law] = []
    refused: list[UserError] = []
    for name in names:
        try:
            found.append(fit(workers, seconds, name, resamples, seed, level, scaled, weights))
        except UserError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return sorted(found, key=_order)


def _order(law: Law) -> tuple[bool, float, int]:
    return math.isnan(law.error), round(law.error, 6), len(law.parameters)


def _form(law: str) -> _Form:
    if law not in _LAWS:
        raise UserError(
            f"law: given {law!r}; there are {', '.join(_LAWS)}{nearest(law, list(_LAWS))}"
        )
    return _LAWS[law]


def _checked(workers: Any, seconds: Any, weights: Any) -> tuple[Reals, Reals, Reals]:
    n, times = np.asarray(workers, float).ravel(), np.asarray(seconds, float).ravel()
    weight = np.ones_like(times) if weights is None else np.asarray(weights, float).ravel()
    if len({len(n), len(times), len(weight)}) > 1:
        raise UserError(f"{len(n)} numbers of workers, {len(times)} times, {len(weight)} weights")
    if not len(n):
        raise UserError("no times were measured")
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise UserError("a measured time is not a positive number")
    if not (np.isfinite(n).all() and (n >= 1).all()):
        raise UserError("a number of workers is less than 1")
    if not (np.isfinite(weight).all() and (weight > 0).all()):
        raise UserError("a weight is not a positive number")
    return n, times, weight


def _between(
    drawn: Reals, level: float, value: ArrayLike, least: ArrayLike, most: ArrayLike
) -> tuple[Reals, Reals]:
    """Return an interval from draws (along the first axis), cut at what is allowed.

    What was fitted is always in it: that is allowed, and draws may not be.
    """
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2), axis=0)
    return np.minimum(np.clip(low, least, most), value), np.maximum(
        np.clip(high, least, most), value
    )


def _solve(form: _Form, n: Reals, times: Reals, weight: Reals) -> tuple[Reals, Reals]:
    """Return the coefficients and the times that they give."""
    terms, target = form.terms(n), times**form.power
    about = target
    for _ in range(_REWEIGHTED):
        # Errors relative to the fitted times: relative to the measured ones, short times, which are
        # short by chance, would count more.
        rows = np.sqrt(weight) / about
        solution = nnls(terms * rows[:, None], target * rows)[0]
        about = terms @ solution
    return solution, about ** (1 / form.power)


def _draws(
    form: _Form, n: Reals, times: Reals, fitted: Reals, weight: Reals, resamples: int, seed: int
) -> Reals:
    """Return what synthetic sets of times come to, as coefficients that are 1 at one worker.

    A handful of residuals is too few to draw from, and resampled pairs may lack whole numbers of
    workers: the noise is drawn from the normal distribution. Its own size is known from those few
    residuals only, so that is drawn too, from its chi-squared distribution: without it intervals
    from ten times would be a fifth too short.

    Coefficients may be negative here. Were they not, a set whose coherency comes out as 0 would
    lend its contention a certainty that it has not, and intervals of 90 % would hold 82 %.
    """
    terms, target = form.terms(n), fitted**form.power
    rows = np.sqrt(weight) / target
    inverse = np.linalg.pinv(terms * rows[:, None])
    free_solution = inverse @ (times**form.power * rows)
    about = terms @ free_solution
    if len(times) == len(free_solution) or (about <= 0).any():
        return np.zeros((0, len(free_solution)))
    residuals = (times**form.power / about - 1) / form.power
    own, shared, free = _noise(n, residuals, weight, len(free_solution))
    rng = np.random.default_rng(seed)
    counts, place = np.unique(n, return_inverse=True)
    noise = own * rng.standard_normal((resamples, len(times))) / np.sqrt(weight)
    noise += shared * rng.standard_normal((resamples, len(counts)))[:, place]
    noise *= np.sqrt(free / rng.chisquare(free, resamples))[:, None]
    drawn = about * np.exp(form.power * np.clip(noise, -_FAR, _FAR))
    solutions = (drawn * rows) @ inverse.T
    whole = solutions[:, :2].sum(axis=1)
    kept = whole > 0
    return np.asarray(solutions[kept] / whole[kept, None])


def _noise(n: Reals, residuals: Reals, weight: Reals, terms: int) -> tuple[float, float, int]:
    """Return the noise of each time, what those of a number of workers share, and what is free.

    An analysis of variance: what the law leaves of the means of repeats, against the repeats'.
    """
    counts, place = np.unique(n, return_inverse=True)
    total = float((weight * residuals**2).sum())
    sizes = np.bincount(place, weight)
    between = float((np.bincount(place, weight * residuals) ** 2 / sizes).sum())
    within = max(0.0, total - between)
    free_between, free_within = len(counts) - terms, len(n) - len(counts)
    if free_between and free_within and within > 0:
        own = within / free_within
        shared = between / free_between - own
        if fdtrc(free_between, free_within, 1 + shared / own) < _BY_CHANCE:
            return math.sqrt(own), math.sqrt(shared / float(sizes.mean())), free_between
    free = free_between + free_within
    return math.sqrt(total / free), 0.0, free


def _left_out(form: _Form, n: Reals, times: Reals, weight: Reals) -> float:
    """Return the mean relative error at numbers of workers left out of the fit, each in turn."""
    counts = np.unique(n)
    if len(counts) < len(form.names) + 2:
        return math.nan
    errors = []
    for count in counts:
        kept, out = n != count, n == count
        solution, _ = _solve(form, n[kept], times[kept], weight[kept])
        foretold = float((form.terms(np.array([count])) @ solution)[0])
        truth = float(np.average(times[out], weights=weight[out]))
        if foretold <= 0:
            return math.inf
        errors.append(abs(foretold ** (1 / form.power) / truth - 1))
    return float(np.mean(errors))
