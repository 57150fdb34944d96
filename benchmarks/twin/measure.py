"""Draw a twin in memory and take its measure, figure by figure, beside what was published."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.twin import published
from stormsweep.storms import days, schema, twin

Floats = npt.NDArray[np.float64]
CHANNELS = ("REFL_COM_curr", "U10_curr", "V10_curr")


@dataclass(frozen=True)
class Sample:
    """A twin, as much of it as the figures need.

    Attributes
    ----------
    counts : dict
        Patches by run date.
    table : dict of str to ndarray, shape (n,)
        The 41 statistics, Track_ID and the target's maximum over the mask, five decimals.
    patch_max : ndarray, shape (n,)
        The target's maximum over the patch (1/s).
    run : ndarray of int, shape (n,)
        Index of each patch's run date.
    later : ndarray of bool, shape (n,)
        Whether that is in or after 2015.
    moments : dict
        By part and channel: mean and standard deviation over all cells.
    images : ndarray of float16, shape (n, 32, 32, 3), or None
        Reflectivity and wind, z-scored with the training part's moments.
    seconds : float
        Processor time of the synthesis, writing not included.
    """

    counts: dict[Any, int]
    table: dict[str, npt.NDArray[Any]]
    patch_max: Floats
    run: npt.NDArray[np.int64]
    later: npt.NDArray[np.bool_]
    moments: dict[str, dict[str, tuple[float, float]]]
    images: npt.NDArray[np.float16] | None
    seconds: float

    @property
    def event(self) -> npt.NDArray[np.bool_]:
        """The label of 2019: more than 0.005 1/s over the mask."""
        return np.asarray(self.table["RVORT1_MAX-future_max"] > 0.005)


def draw(patches: int, seed: int, images: bool = False) -> Sample:
    """Draw a twin of `patches` patches from `seed`."""
    start = time.process_time()
    counts = twin.run_counts(patches, seed)
    climate = days.climate(counts, seed)
    wanted = [*published.TABLE, "Track_ID", "RVORT1_MAX-future_max"]
    table: dict[str, list[Any]] = {name: [] for name in wanted}
    peaks, runs = [], []
    pictures = np.empty((patches, 32, 32, 3), "f2") if images else None
    done = 0
    sums = {part: np.zeros((4, 3)) for part in ("train", "test")}
    for index, (date, count) in enumerate(counts.items()):
        arrays, columns = twin.simulate(date, count, seed, climate)
        for name in wanted:
            table[name].append(columns[name])
        peaks.append(arrays["RVORT1_MAX_future"].max(axis=(1, 2)))
        runs.append(np.full(count, index))
        part = sums["test" if date >= schema.SPLIT_DATE else "train"]
        for row, name in enumerate(("REFL_COM", "U10", "V10", "T2")):
            values = arrays[f"{name}_curr"]
            part[row] += (
                values.size,
                values.sum(dtype="f8"),
                (values.astype("f8") ** 2).sum(),
            )
        if pictures is not None:
            for channel, name in enumerate(CHANNELS):
                pictures[done : done + count, ..., channel] = arrays[name]
        done += count
    seconds = time.process_time() - start
    moments = {}
    for part_name, part in sums.items():
        mean = part[:, 1] / part[:, 0]
        spread = np.sqrt(part[:, 2] / part[:, 0] - mean**2)
        moments[part_name] = {
            name: (float(mean[k]), float(spread[k]))
            for k, name in enumerate(("REFL_COM", "U10", "V10", "T2"))
        }
    joined = {name: np.concatenate(parts) for name, parts in table.items()}
    joined["RVORT1_MAX-future_max"] = np.round(joined["RVORT1_MAX-future_max"], 5)
    if pictures is not None:
        for k, name in enumerate(("REFL_COM", "U10", "V10")):
            mean, spread = moments["train"][name]
            pictures[..., k] -= np.float16(mean)
            pictures[..., k] /= np.float16(spread)
    run = np.concatenate(runs)
    later = np.array([date >= schema.SPLIT_DATE for date in counts])[run]
    return Sample(counts, joined, np.concatenate(peaks), run, later, moments, pictures, seconds)


@dataclass(frozen=True)
class Figure:
    """One published figure, the twin's, and how far apart they may be."""

    name: str
    published: float
    found: float
    within: float

    @property
    def holds(self) -> bool:
        """Whether the twin keeps to it."""
        return abs(self.found - self.published) <= self.within


def figures(sample: Sample) -> list[Figure]:
    """Return all figures but the skill."""
    result = []
    event, later = sample.event, sample.later
    top = sample.table["RVORT1_MAX-future_max"]
    for part, rows in (("train", ~later), ("test", later)):
        share = 100 * float(event[rows].mean())
        result.append(Figure(f"events, {part} (%)", published.EVENT_PERCENT[part], share, 0.3))
    result += [
        Figure(
            "mask maximum, 90th percentile, train (1e-3 1/s)",
            1e3 * published.MASK_P90,
            1e3 * float(np.percentile(top[~later], 90)),
            0.05 * 1e3 * published.MASK_P90,
        ),
        Figure(
            "mask maximum, standard deviation, train (1e-3 1/s)",
            1e3 * published.MASK_SD,
            1e3 * float(top[~later].std()),
            0.05 * 1e3 * published.MASK_SD,
        ),
        Figure(
            "patch maximum, 90th percentile, train (1e-3 1/s)",
            1e3 * published.PATCH_P90,
            1e3 * float(np.percentile(sample.patch_max[~later], 90)),
            0.05 * 1e3 * published.PATCH_P90,
        ),
        Figure(
            "patch maximum, percentile of 0.008 1/s",
            published.PATCH_8_PERCENTILE,
            100 * float((sample.patch_max <= 0.008).mean()),
            0.3,
        ),
    ]
    for part, channels in published.CHANNELS.items():
        for name, (mean, spread) in channels.items():
            found = sample.moments[part][name]
            result += [
                Figure(f"{name}, all cells, {part}: mean", mean, found[0], 0.05 * spread),
                Figure(f"{name}, all cells, {part}: SD", spread, found[1], 0.05 * spread),
            ]
    for name, (mean, spread) in published.TABLE.items():
        values = sample.table[name][~later]
        result.append(Figure(f"{name}: mean", mean, float(values.mean()), 0.25 * spread))
        result.append(Figure(f"{name}: SD", spread, float(values.std()), 0.25 * spread))
    for name, quantiles in published.QUANTILES.items():
        found = np.percentile(sample.table[name][later], published.PERCENTILES)
        for percent, value, mine in zip(published.PERCENTILES, quantiles, found, strict=True):
            # Printed with two digits, of 2016-17 only; the last twentieth is looser still.
            within = (0.33 if percent < 94 else 0.67) * published.TABLE[name][1]
            result.append(Figure(f"{name}: P{percent:g}, test", value, float(mine), within))
    return result
