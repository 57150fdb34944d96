"""Studies side by side: times, speed-ups, costs and scores. Frames in, frames out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from stormsweep.config.study import METRICS
from stormsweep.results.contenders import holm
from stormsweep.scaling import differences
from stormsweep.scaling.differences import Estimate
from stormsweep.scaling.lines import Fit, Line, by_x
from stormsweep.scaling.sides import Side, point_name

#: Work that differs by less than this share is the same.
SAME_WORK = 0.01
_UNKNOWN = Estimate(float("nan"), float("nan"), 0.0)


#: What is said of studies that have nothing in common.
COMPARABLE = (
    "scores can be compared of configurations that both scored on all folds: of the same "
    "hyperparameters, with values in common (search.space, epochs too); with the same data, "
    "[validation] and seed, fold by fold"
)


@dataclass(frozen=True)
class Comparison:
    """Two or more studies side by side; every frame is made when first asked for.

    Attributes
    ----------
    sides : list of Side
        The studies, the baseline first.
    score : str
        The score that is compared.
    common : list of str
        The hyperparameters that all have, ``epochs`` left out.
    x : str
        The hyperparameter that times are drawn against; empty: there is none.
    """

    sides: list[Side]
    score: str
    common: list[str]
    x: str

    @property
    def baseline(self) -> Side:
        """The study that the others are measured by."""
        return self.sides[0]

    @property
    def cases(self) -> str:
        """What the cases of all studies are called."""
        called = {side.cases for side in self.sides}
        return called.pop() if len(called) == 1 else "cases"

    @property
    def higher(self) -> bool:
        """Whether more of the score is better."""
        return METRICS.get(self.score, "maximize") == "maximize"

    @cached_property
    def lines(self) -> list[Line]:
        """Every study on every kind of its nodes; the first is what the others are measured by."""
        made = []
        for side in self.sides:
            shown = side.timed.assign(
                point=[self.key(side, point) for point in side.timed["point"]],
                x=pd.Series(
                    [side.points[point].get(self.x) for point in side.timed["point"]],
                    index=side.timed.index,
                ),
            )
            made += [
                Line(side.line(kind), side.label, kind, shown[shown["kind"] == kind])
                for kind in side.kinds
                if (shown["kind"] == kind).any()
            ]
        return made

    def key(self, side: Side, point: str) -> str:
        """Return a point by what all sides have; itself where that is unclear.

        Parameters
        ----------
        side : Side
            The study.
        point : str
            Its name for the point, as in `Side.points`.
        """
        return self._keys[side.label][point]

    @cached_property
    def _keys(self) -> dict[str, dict[str, str]]:
        keys = {}
        for side in self.sides:
            short = {point: point_name(own, self.common) for point, own in side.points.items()}
            counts = pd.Series(list(short.values())).value_counts()
            # A study that varies what another does not have: which of its points would be meant?
            keys[side.label] = {
                point: name if counts[name] == 1 else f"{side.label} {point}"
                for point, name in short.items()
            }
        return keys

    @cached_property
    def values(self) -> dict[str, dict[str, Any]]:
        """The hyperparameters of every point, those that all sides have."""
        return {
            self.key(side, point): {name: own[name] for name in self.common}
            for side in self.sides
            for point, own in side.points.items()
        }

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row a study and configuration.

        ``study``, ``point``, the hyperparameters that all have, ``epochs``, ``folds``,
        ``complete``, ``mean`` and ``sd`` of the score over folds, as published or with n - 1 in the
        denominator; ``shared``: whether the baseline, or for it another study, has it too.
        """
        parts = []
        for side in self.sides:
            own = side.configurations
            keys = [self.key(side, point) for point in own["point"]]
            part = pd.DataFrame({"study": side.label, "point": keys})
            for name in self.common:
                part[name] = [self.values[key][name] for key in keys]
            part["epochs"] = own["epochs"].to_numpy()
            for name, column in (
                ("folds", "folds"),
                ("complete", "complete"),
                ("mean", f"{self.score}_mean"),
                ("sd", f"{self.score}_sd"),
            ):
                part[name] = own[column].to_numpy()
            parts.append(part)
        table = pd.concat(parts, ignore_index=True)
        found = [set(zip(part["point"], part["epochs"], strict=True)) for part in parts]
        others = set().union(*found[1:])
        table["shared"] = [
            key in (others if study == self.baseline.label else found[0])
            for study, key in zip(
                table["study"], zip(table["point"], table["epochs"], strict=True), strict=True
            )
        ]
        return table

    @cached_property
    def differences(self) -> pd.DataFrame:
        """One row a study and configuration that it and the baseline have scored on all folds.

        ``study``, the hyperparameters, ``epochs``, ``baseline`` and ``mean`` (the means over
        folds), ``difference`` (how much better than the baseline, positive in either direction of
        the score), ``folds``, ``pairing`` (``paired`` on the same folds, or ``unpaired``),
        ``low`` and ``high`` (its 95 % interval, by itself), ``p``, ``low_all`` and ``high_all``
        (95 % for all rows at once), ``p_all`` (adjusted for the number of rows after Holm), and
        ``beyond``: whether ``p_all`` is below 0.05.
        """
        rows, found = [], []
        sign = 1.0 if self.higher else -1.0
        for side in self.sides[1:]:
            ours, theirs = self._complete(self.baseline), self._complete(side)
            for key in (key for key in ours if key in theirs):
                pair, estimate = self._estimate(side, [key])
                found.append(Estimate(sign * estimate.difference, *estimate[1:]))
                rows.append(
                    {"study": side.label, **self.values[key[0]], "epochs": key[1]}
                    | {"baseline": ours[key][0], "mean": theirs[key][0]}
                    | {"difference": found[-1].difference}
                    | {"folds": min(ours[key][2], theirs[key][2]), "pairing": pair}
                    | {"low": found[-1].interval()[0], "high": found[-1].interval()[1]}
                    | {"p": found[-1].p}
                )
        names = ["study", *self.common, "epochs", "baseline", "mean", "difference", "folds"]
        table = pd.DataFrame(rows, columns=[*names, "pairing", "low", "high", "p"])
        count = int(table["p"].notna().sum())
        ends = [estimate.interval(count) for estimate in found]
        table["low_all"], table["high_all"] = [low for low, _ in ends], [high for _, high in ends]
        table["p_all"] = holm(table["p"].tolist())
        table["beyond"] = table["p_all"] < 1 - differences.LEVEL
        return table

    @cached_property
    def overall(self) -> pd.DataFrame:
        """One row a study: the mean difference to the baseline over the shared configurations.

        ``study``, ``configurations``, ``difference``, ``pairing`` (``means only`` where single
        folds are not known, so that there is no interval), ``low``, ``high``, ``p``,
        ``better`` and ``worse``: how many configurations are, beyond noise.
        """
        rows = []
        sign = 1.0 if self.higher else -1.0
        for side in self.sides[1:]:
            theirs = self._complete(side)
            keys = [key for key in self._complete(self.baseline) if key in theirs]
            own = self.differences[self.differences["study"] == side.label]
            beyond = own.loc[own["beyond"], "difference"]
            pair, estimate = self._estimate(side, keys) if keys else ("", _UNKNOWN)
            estimate = Estimate(sign * estimate.difference, *estimate[1:])
            low, high = estimate.interval()
            rows.append(
                {"study": side.label, "configurations": len(keys)}
                | {"difference": estimate.difference, "pairing": pair}
                | {"low": low, "high": high, "p": estimate.p}
                | {"better": int((beyond > 0).sum()), "worse": int((beyond < 0).sum())}
            )
        return pd.DataFrame(rows)

    def _complete(self, side: Side) -> dict[tuple[str, int], tuple[float, float, int]]:
        """Return mean, standard deviation and folds of a side's complete configurations."""
        own = side.configurations
        own = own[own["complete"].astype(bool) & own[f"{self.score}_mean"].notna()]
        return {
            (self.key(side, row["point"]), int(row["epochs"])): (
                float(row[f"{self.score}_mean"]),
                float(row[f"{self.score}_sd"]) * side.published_sd,
                int(row["folds"]),
            )
            for row in own.to_dict("records")
        }

    def _estimate(self, side: Side, keys: list[tuple[str, int]]) -> tuple[str, Estimate]:
        """Return the difference of the means over some configurations, and how it was paired."""
        base = self.baseline
        rounds = base.rounds, side.rounds
        ours, theirs = self._by_fold(base, keys), self._by_fold(side, keys)
        if ours is not None and theirs is not None:
            if base.same_folds and base.same_folds == side.same_folds:
                return "paired", differences.paired(ours, theirs, base.rounds)
            both = [(float(v.mean()), _sd(v), len(v)) for v in (ours, theirs)]
            return "unpaired", differences.unpaired(both[0], both[1], rounds)
        known = [self._complete(base), self._complete(side)]
        if len(keys) == 1:
            ours, theirs = known[0][keys[0]], known[1][keys[0]]
            return "unpaired", differences.unpaired(ours, theirs, rounds)
        gap = np.mean([known[1][key][0] - known[0][key][0] for key in keys])
        return "means only", Estimate(float(gap), np.nan, 0.0)

    def _by_fold(self, side: Side, keys: list[tuple[str, int]]) -> Any:
        """Return the mean over some configurations on each fold; None where folds are not known."""
        if side.scores.empty:
            return None
        table = self._fold_scores[side.label]
        return table.loc[keys].mean(axis=0).to_numpy(dtype=float)

    @cached_property
    def _fold_scores(self) -> dict[str, pd.DataFrame]:
        found = {}
        for side in self.sides:
            if side.scores.empty:
                continue
            keyed = side.scores.assign(point=[self.key(side, p) for p in side.scores["point"]])
            found[side.label] = keyed.pivot_table(
                index=["point", "epochs"], columns="fold", values=self.score
            )
        return found

    @cached_property
    def times(self) -> pd.DataFrame:
        """One row a line and value of `x`, over all its fits that were timed.

        ``line``, ``study``, ``kind``, `x`, ``fits``, ``asked`` (patches that the fits ask for:
        epochs times the cases of an epoch), ``seconds`` (of workers), ``node_seconds``,
        ``core_seconds``. The last two say what whole nodes and cores took: the time of a worker is
        shared by those of its node.
        """
        rows = []
        for line in self.lines:
            for value, own in line.timed.groupby("x") if self.x else [(None, line.timed)]:
                part = Line(line.name, line.study, line.kind, own)
                head = {"line": line.name, "study": line.study, "kind": line.kind}
                rows.append(head | ({self.x: value} if self.x else {}) | part.spent(part.fits))
        names = ["line", "study", "kind", *([self.x] if self.x else [])]
        names += ["fits", "asked", "seconds", "node_seconds", "core_seconds"]
        return pd.DataFrame(rows, columns=names).astype({"fits": "int64"})

    @cached_property
    def speedups(self) -> pd.DataFrame:
        """One row a line and value of `x` that it shares with the first line, and one for all.

        ``line``, ``against``, ``measure`` (``node time`` of the shared fits, or ``wall time`` of
        whole studies that did the same fits), `x` (missing: all of them), ``fits`` that were
        compared, ``baseline_seconds``, ``seconds``; ``speedup``, missing where the fits are not the
        same work, and ``remark``, which says why; ``rate_ratio``: the ratio of patches asked for
        per second, whether the work is the same or not; ``core_ratio``: the ratio of the core
        seconds, where it is.
        """
        base, rows = self.lines[0], []
        for line in self.lines[1:]:
            shared = base.fits & line.fits
            parts: list[tuple[Any, set[Fit]]] = []
            if self.x:
                by_value = by_x(base, shared)
                parts = [(value, by_value[value]) for value in sorted(by_value)]
            # Of fits that were timed together all or none count, on either side.
            parts = [(value, line.within(base.within(fits))) for value, fits in parts]
            whole = line.within(base.within(shared))
            parts = [(value, fits) for value, fits in parts if fits]
            if len(parts) != 1 and whole:
                parts.append((None, whole))
            for value, fits in parts:
                ours, theirs = base.spent(fits), line.spent(fits)
                head = {"line": line.name, "against": base.name, "measure": "node time"}
                rows.append(
                    head
                    | ({self.x: value} if self.x else {})
                    | self._ratio(base, line, fits, ours, theirs, "node_seconds")
                )
            if base.fits == line.fits and (wall := self._walls(base, line)):
                ours, theirs = (
                    own.spent(own.fits) | {"wall": seconds}
                    for own, seconds in zip((base, line), wall, strict=True)
                )
                head = {"line": line.name, "against": base.name, "measure": "wall time"}
                rows.append(head | self._ratio(base, line, base.fits, ours, theirs, "wall"))
        names = ["line", "against", "measure", *([self.x] if self.x else []), "fits"]
        names += ["baseline_seconds", "seconds", "speedup", "rate_ratio", "core_ratio", "remark"]
        return pd.DataFrame(rows, columns=names)

    def _ratio(
        self,
        base: Line,
        line: Line,
        fits: set[Fit],
        ours: dict[str, float],
        theirs: dict[str, float],
        measure: str,
    ) -> dict[str, Any]:
        remark = self._not_the_same(base, line, fits, ours, theirs)
        before, after = ours[measure], theirs[measure]
        ratio = before / after if after > 0 else np.nan
        cores = ours["core_seconds"] / theirs["core_seconds"] if theirs["core_seconds"] else np.nan
        return {
            "fits": len(fits),
            "baseline_seconds": before,
            "seconds": after,
            "speedup": np.nan if remark else ratio,
            "rate_ratio": ratio * theirs["asked"] / ours["asked"],
            "core_ratio": np.nan if remark or measure == "wall" else cores,
            "remark": remark,
        }

    def _not_the_same(
        self, base: Line, line: Line, fits: set[Fit], ours: dict[str, Any], theirs: dict[str, Any]
    ) -> str:
        """Say why the shared fits are not the same work; empty: they are."""
        if not np.isfinite(ours["asked"] * theirs["asked"]):
            return "the cases of an epoch are not on record"
        ratio = theirs["asked"] / ours["asked"]
        if abs(ratio - 1) > SAME_WORK:
            return f"{ratio:.3g} times as many cases an epoch"
        points = {point for point, _, _ in fits}
        sizes = [self._parameters(one.study, points) for one in (base, line)]
        if all(sizes) and sizes[0] != sizes[1]:
            return "models of other sizes"
        return ""

    def _parameters(self, study: str, points: set[str]) -> dict[str, int]:
        side = next(one for one in self.sides if one.label == study)
        sizes = {self.key(side, point): size for point, size in side.parameters.items()}
        return {point: size for point, size in sizes.items() if point in points}

    def _walls(self, base: Line, line: Line) -> list[float] | None:
        """Return the wall times of two lines that are whole studies, or published ones."""
        walls = []
        for one in (base, line):
            side = next(side for side in self.sides if side.label == one.study)
            if len(side.kinds) > 1 and not side.published:
                return None
            walls.append(float(side.place(one.kind)["wall_seconds"]))
        return walls if min(walls) > 0 else None

    @cached_property
    def shared_fits(self) -> set[Fit]:
        """The fits that every line has a time of."""
        shared = set.intersection(*(line.fits for line in self.lines))
        for line in self.lines * 2:
            shared = line.within(shared)
        return shared

    @cached_property
    def costs(self) -> pd.DataFrame:
        """One row a line: what a fit cost.

        ``line``, ``fits``, ``core_seconds_per_fit`` (in tasks, over all its fits),
        ``shared_fits`` and ``core_seconds_per_shared_fit`` (over those that every line has),
        ``granted_core_hours`` and ``granted_core_seconds_per_fit`` (cores that are charged, for as
        long as they were given; published: all nodes until the slowest was done), ``gpu_hours``
        granted, ``money`` (what was granted at the site's prices, where the journal has them),
        ``money_per_fit`` and ``price_basis``.
        """
        rows: list[dict[str, Any]] = []
        count = len(self.shared_fits)
        for line in self.lines:
            side = next(side for side in self.sides if side.label == line.study)
            place = side.place(line.kind)
            own, shared = line.spent(line.fits), line.spent(self.shared_fits)
            granted, money = float(place["granted_core_hours"]), float(place["money"])
            each = shared["core_seconds"] / count if count else np.nan
            rows.append(
                {"line": line.name, "fits": len(line.fits)}
                | {"core_seconds_per_fit": own["core_seconds"] / len(line.fits)}
                | {"shared_fits": count, "core_seconds_per_shared_fit": each}
                | {"granted_core_hours": granted}
                | {"granted_core_seconds_per_fit": granted * 3600 / len(line.fits)}
                | {"gpu_hours": float(place["gpu_hours"])}
                | {"money": money, "money_per_fit": money / len(line.fits)}
                | {"price_basis": place["price_basis"]}
            )
        return pd.DataFrame(rows)

    @cached_property
    def places(self) -> pd.DataFrame:
        """One row a line: on what it ran."""
        parts = []
        for side in self.sides:
            own = side.places.drop(
                columns=["granted_core_hours", "gpu_hours", "money", "price_basis"]
            )
            own.insert(0, "line", [side.line(kind) for kind in own["kind"]])
            parts.append(own)
        return pd.concat(parts, ignore_index=True)


def _sd(values: Any) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
