"""Losing this: a user asks for nodes by a law fitted wrongly, or is surer than the times allow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormsweep.errors import UserError
from stormsweep.scaling import laws

COUNTS = [1, 2, 4, 8, 16]
FUNCTIONS = {"amdahl": laws.amdahl, "gustafson": laws.gustafson, "usl": laws.usl}


def timed(
    law: str,
    truth: tuple[float, ...],
    counts: list[int],
    repeats: int,
    noise: float,
    seed: int,
    shared: float = 0.0,
) -> tuple[Any, Any]:
    """Times of a hundred seconds of work; `shared`: noise common to the repeats of a count."""
    rng = np.random.default_rng(seed)
    n = np.repeat(counts, repeats)
    times = 100.0 * (n if law == "gustafson" else 1) / FUNCTIONS[law](n, *truth)
    times = times * np.exp(noise * rng.standard_normal(len(n)))
    return n, times * np.exp(np.repeat(shared * rng.standard_normal(len(counts)), repeats))


fractions = st.floats(0.0, 0.9)
coherencies = st.floats(0.0, 0.05)
any_law = st.one_of(
    st.tuples(st.just("amdahl"), st.tuples(fractions)),
    st.tuples(st.just("gustafson"), st.tuples(fractions)),
    st.tuples(st.just("usl"), st.tuples(fractions, coherencies)),
)


@given(any_law)
@settings(max_examples=60, deadline=None)
def test_times_without_noise_give_back_what_they_were_made_of(case: tuple[str, Any]) -> None:
    law, truth = case
    n, times = timed(law, truth, COUNTS, 1, 0.0, 0)
    found = laws.fit(n, times, law, resamples=20)
    assert list(found.parameters.values()) == pytest.approx(list(truth), abs=1e-6)
    assert found.seconds_of_one == pytest.approx(100.0, rel=1e-6)
    assert found.seconds(n) == pytest.approx(times, rel=1e-6)
    assert found.error == pytest.approx(0.0, abs=1e-6)


@given(any_law, st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_noisy_times_give_back_about_what_they_were_made_of(
    case: tuple[str, Any], seed: int
) -> None:
    law, truth = case
    n, times = timed(law, truth, COUNTS, 5, 0.02, seed)
    found = laws.fit(n, times, law, resamples=200)
    # Times are known to 2 % / sqrt(5) a count: no law may be further off than some of those.
    expected = timed(law, truth, COUNTS, 1, 0.0, 0)[1]
    assert found.seconds(COUNTS) == pytest.approx(expected, rel=0.05)
    for name, value in found.parameters.items():
        low, high = found.intervals[name]
        assert 0.0 <= low <= value <= high
        assert name == "coherency" or high <= 1.0


@given(st.floats(0.0, 1.0), st.floats(0.0, 0.2), st.integers(1, 10_000))
def test_the_laws_agree_where_they_are_one(s: float, k: float, n: int) -> None:
    assert laws.usl(n, s, 0.0) == pytest.approx(laws.amdahl(n, s))
    for speedup in (laws.amdahl(n, s), laws.gustafson(n, s), laws.usl(n, s, k)):
        assert 0 < speedup <= n * (1 + 1e-12)
    assert laws.amdahl(1, s) == laws.gustafson(1, s) == laws.usl(1, s, k) == pytest.approx(1.0)
    # Gustafson's share is of the time on n workers, Amdahl's of that on one.
    serial = s / (s + (1 - s) * n)
    assert laws.amdahl(n, serial) == pytest.approx(laws.gustafson(n, s), rel=1e-9)


def covered(sets: int, resamples: int, level: float, *case: Any, **how: Any) -> dict[str, float]:
    law, truth, counts, repeats, noise = case
    hits: dict[str, float] = dict.fromkeys(["speedup", "beyond"], 0.0)
    most = max(counts)
    for seed in range(sets):
        n, times = timed(law, truth, counts, repeats, noise, seed, **how)
        found = laws.fit(n, times, law, resamples, seed, level)
        for (name, (low, high)), value in zip(found.intervals.items(), truth, strict=True):
            hits[name] = hits.get(name, 0.0) + (low <= value <= high) / sets
        for name, workers in (("speedup", most), ("beyond", 4 * most)):
            low, high = found.interval(workers)
            speedup = FUNCTIONS[law](workers, *truth)
            hits[name] += (low - 1e-9 <= speedup <= high + 1e-9) / sets
    return hits


# Of 250 sets 90 % are 225, give or take 5: outside of 84 % to 96 % an interval claims what it does
# not hold. At the edge of what is allowed an interval has one end only to be wrong at: up to 100 %.
CASES = [
    ("amdahl", (0.05,), [1, 2, 4, 8], 3, 0.05),
    ("amdahl", (0.0,), [1, 2, 4, 8], 3, 0.05),
    ("amdahl", (0.05,), [1, 2, 4], 1, 0.05),
    ("gustafson", (0.1,), [1, 2, 4, 8], 3, 0.05),
    ("usl", (0.05, 0.001), [1, 2, 4, 8], 3, 0.05),
    ("usl", (0.05, 0.0), [1, 2, 4, 8], 3, 0.05),
    ("usl", (0.0, 0.005), [1, 2, 4, 8], 3, 0.05),
    ("usl", (0.0, 0.0), [1, 2, 4, 8], 3, 0.05),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}{case[1]}x{case[3]}")
def test_intervals_hold_the_truth_about_as_often_as_they_claim(case: Any) -> None:
    held = covered(250, 250, 0.9, *case)
    at_the_edge = 0.0 in case[1]
    for name, share in held.items():
        assert share >= 0.84, (name, held)
        assert at_the_edge or share <= 0.965, (name, held)


def test_an_interval_of_half_holds_half() -> None:
    held = covered(250, 250, 0.5, "usl", (0.1, 0.002), [1, 2, 4, 8, 16], 3, 0.05)
    assert all(0.40 <= share <= 0.62 for share in held.values()), held


def test_repeats_that_share_their_noise_do_not_make_a_fit_sure() -> None:
    # A layout that divides the runs badly is slow in every repeat: three repeats are one time.
    held = covered(250, 250, 0.9, "amdahl", (0.05,), [1, 2, 4, 8, 16], 3, 0.01, shared=0.06)
    assert all(share >= 0.82 for share in held.values()), held


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [1, 2, 5])
@pytest.mark.parametrize("counts", [[1, 2, 3, 4], [1, 2, 4, 8, 16, 32]], ids=["few", "many"])
@pytest.mark.parametrize("truth", [(0.0, 0.0), (0.05, 0.0), (0.0, 0.01), (0.2, 0.001), (0.5, 0.02)])
def test_intervals_hold_their_claim_over_many_shapes_of_study(
    truth: tuple[float, float], counts: list[int], repeats: int
) -> None:
    for law, own in (("usl", truth), ("amdahl", truth[:1]), ("gustafson", truth[:1])):
        held = covered(600, 400, 0.9, law, own, counts, repeats, 0.05)
        assert min(held.values()) >= 0.85, (law, held)
        assert max(held.values()) <= (1.0 if 0.0 in own else 0.955), (law, held)


def test_the_time_of_one_worker_is_fitted_too() -> None:
    # One worker was slow by chance: taken as exact, it would make all others look superlinear.
    n, times = timed("amdahl", (0.02,), COUNTS, 1, 0.0, 0)
    times[0] *= 1.1
    found = laws.fit(n, times, "amdahl")
    assert found.seconds_of_one < 107
    low, high = found.intervals["serial_fraction"]
    assert low <= 0.02 <= high
    without = laws.fit(n[1:], times[1:], "amdahl")
    assert without.seconds_of_one == pytest.approx(100.0)
    assert without.measured == (2, 16)


def test_a_time_that_counts_as_three_is_as_good_as_three() -> None:
    n, times = timed("usl", (0.1, 0.002), COUNTS, 1, 0.05, 3)
    thrice = laws.fit(np.repeat(n, 3), np.repeat(times, 3), "usl")
    once = laws.fit(n, times, "usl", weights=[3.0] * len(n))
    assert once.parameters == pytest.approx(thrice.parameters)
    heavy = laws.fit(n, times, "usl", weights=[1, 1, 1, 1, 1000])
    assert heavy.seconds(16) == pytest.approx(times[-1], rel=1e-3)


def test_weak_scaling_is_fitted_to_speedups_of_the_work_that_grew() -> None:
    n, times = timed("gustafson", (0.3,), COUNTS, 1, 0.0, 0)
    assert times[0] == pytest.approx(100.0)
    assert times[-1] > times[0]
    found = laws.fit(n, times, "gustafson")
    assert found.scaled
    assert found.speedup(16) == pytest.approx(0.3 + 0.7 * 16)
    contended = laws.fit(n, 100.0 * n / laws.usl(n, 0.05, 0.001), "usl", scaled=True)
    assert contended.parameters == pytest.approx({"contention": 0.05, "coherency": 0.001})
    assert contended.seconds(16) == pytest.approx(1600 / laws.usl(16, 0.05, 0.001))


def test_the_law_that_errs_least_on_counts_left_out_comes_first() -> None:
    n, times = timed("usl", (0.05, 0.01), COUNTS, 3, 0.01, 1)
    found = laws.choose(n, times)
    assert [law.name for law in found] == ["usl", "amdahl"]
    assert found[0].error < 0.05 < found[1].error
    n, times = timed("amdahl", (0.2,), COUNTS, 3, 0.0, 1)
    # The universal law holds Amdahl's in it, and errs no more; the plainer one comes first.
    assert [law.name for law in laws.choose(n, times)] == ["amdahl", "usl"]
    grown = laws.choose(*timed("gustafson", (0.3,), COUNTS, 2, 0.01, 1), scaled=True)
    assert {law.name for law in grown} == {"gustafson", "usl"}
    assert grown[0].name == "gustafson"


def test_the_error_is_that_of_counts_the_fit_has_not_seen() -> None:
    n, times = timed("amdahl", (0.1,), [1, 2, 4], 2, 0.0, 0)
    times[n == 4] *= 1.5
    found = laws.fit(n, times, "amdahl")
    own = np.abs(found.seconds(n) / times - 1).mean()
    assert found.error > 1.5 * own
    # With three counts, two parameters and T(1) nothing is left to try the universal law on.
    assert math.isnan(laws.fit(n, times, "usl").error)
    assert [law.name for law in laws.choose(n, times)] == ["amdahl", "usl"]


def test_a_fit_through_every_time_does_not_claim_to_be_sure() -> None:
    found = laws.fit([1, 2, 4], [100, 52, 28], "usl")
    assert found.intervals == {"contention": (0.0, 1.0), "coherency": (0.0, math.inf)}
    assert np.isnan(found.interval([2, 8])).all()
    assert math.isnan(found.scatter)


def test_more_workers_than_help_are_named() -> None:
    n, times = timed("usl", (0.1, 0.01), COUNTS, 1, 0.0, 0)
    found = laws.fit(n, times, "usl")
    assert found.best_workers == pytest.approx(math.sqrt(0.9 / 0.01))
    assert found.limit == pytest.approx(float(found.speedup(found.best_workers)))
    assert found.speedup(40) < found.limit
    amdahl = laws.fit(n, 100 / laws.amdahl(n, 0.1), "amdahl")
    assert amdahl.best_workers == math.inf
    assert amdahl.limit == pytest.approx(10.0)


def test_asking_beyond_what_was_measured_is_said() -> None:
    found = laws.fit(*timed("amdahl", (0.1,), [2, 4, 8], 2, 0.01, 0), "amdahl")
    assert found.beyond(8) == found.beyond(3) == ""
    assert "64 workers were not measured: the most were 8, 8 times as many" in found.beyond(64)
    assert "the fewest were 2" in found.beyond(1)
    low, high = found.interval([4, 64])
    assert (high - low)[1] > (high - low)[0]
    assert (high <= [4, 64]).all()


def test_the_same_times_give_the_same_intervals() -> None:
    n, times = timed("usl", (0.05, 0.001), COUNTS, 2, 0.05, 5)
    one, two = (laws.fit(n, times, "usl", seed=7) for _ in range(2))
    assert one.intervals == two.intervals
    assert one.intervals != laws.fit(n, times, "usl", seed=8).intervals


@pytest.mark.parametrize(
    ("workers", "seconds", "law", "said"),
    [
        ([], [], "usl", "no times were measured"),
        ([1, 2], [1.0], "usl", "2 numbers of workers, 1 times"),
        ([1, 2, 4], [1.0, 0.0, 1.0], "usl", "not a positive number"),
        ([0, 2, 4], [1.0, 1.0, 1.0], "usl", "less than 1"),
        ([1, 1, 1], [1.0, 1.1, 1.2], "amdahl", "of 1 number of workers were given"),
        ([1, 2, 2], [1.0, 1.1, 1.2], "usl", "3 or more are needed"),
        ([1, 2, 4], [1.0, 0.6, 0.4], "amdal", "did you mean 'amdahl'"),
    ],
)
def test_wrong_use_is_one_line(
    workers: list[int], seconds: list[float], law: str, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        laws.fit(workers, seconds, law)
    assert "\n" not in str(caught.value)
