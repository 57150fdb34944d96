"""What the test part said: the recorded look, and the predictions in ``model/`` that go with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stormsweep.files import sha256
from stormsweep.records import Entry, Verified
from stormsweep.results.audit import looked
from stormsweep.results.journal import of_kind
from stormsweep.verification import contingency
from stormsweep.verification.forecasts import CASE, Forecasts, forecasts
from stormsweep.verification.groups import Group, by_group, groupings
from stormsweep.verification.resampling import interval, resampled

#: Thresholds of the table of yes-or-no scores, besides that of the decision.
THRESHOLDS = (0.05, *(round(0.1 * step, 1) for step in range(1, 10)))


@dataclass(frozen=True)
class Tested:
    """The last look at the test part.

    Parameters
    ----------
    record : Verified
        What the journal says of it.
    folder : Path
        The study's ``model/``.
    seed : int
        The study's seed, with which blocks are drawn.
    """

    record: Verified
    folder: Path
    seed: int

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What ``model.json`` says; empty where it is missing or not of this look."""
        try:
            said = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        known = self.record.predictions_sha256
        return said if isinstance(said, dict) and said.get("predictions_sha256") == known else {}

    @property
    def audited(self) -> bool:
        """Whether an audit of the study scored the test part too."""
        return looked(self.folder.parent)

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """The test predictions; None where the file is missing or not that of this look."""
        path = self.folder / "test_predictions.parquet"
        if not path.is_file() or sha256(path) != self.record.predictions_sha256:
            return None
        return pd.read_parquet(path)

    @cached_property
    def forecasts(self) -> Forecasts | None:
        """The predictions beside what happened."""
        frame, record = self.predictions, self.record
        if frame is None:
            return None
        blocks = None if record.block == CASE else frame[record.block].astype(str).to_numpy()
        p, event = frame["probability"].to_numpy(), frame["event"].to_numpy()
        return forecasts(p, event, record.climatology, blocks, record.block)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """The resampled blocks: those of the recorded intervals."""
        known = self.forecasts
        blocks = self.record.blocks if known is None else known.blocks
        return resampled(blocks, self.record.resamples, self.seed)

    @cached_property
    def groups(self) -> dict[str, list[Group]]:
        """Scores by month, hour, region, and whatever groups the data have."""
        known, frame, record = self.forecasts, self.predictions, self.record
        if known is None or frame is None:
            return {}
        names = [name for name in frame.columns if name not in ("probability", "event", "target")]
        labels = {name: frame[name].astype(str).to_numpy(dtype=np.str_) for name in names}
        return {
            name: by_group(
                known,
                name,
                own,
                record.threshold,
                seed=self.seed,
                resamples=record.resamples,
                level=record.level,
            )
            for name, own in groupings(labels).items()
        }

    @cached_property
    def by_threshold(self) -> pd.DataFrame:
        """The yes-or-no scores over thresholds, each with ``_low`` and ``_high``."""
        known = self.forecasts
        if known is None:
            return pd.DataFrame()
        levels = np.unique([*THRESHOLDS, self.record.threshold])
        counted = contingency.tables(known, levels)
        values = contingency.scores(counted.total())
        samples = contingency.scores(counted.weighted(self.weights))
        columns: dict[str, Any] = {"threshold": levels}
        for name, own in values.items():
            low, high = interval(samples[name], self.record.level, known.blocks)
            columns |= {name: own, f"{name}_low": low, f"{name}_high": high}
        return pd.DataFrame(columns)

    @cached_property
    def cases(self) -> dict[str, NDArray[Any]]:
        """The telling cases as patches, by the names in ``test_cases.npz``; empty without."""
        path = self.folder / "test_cases.npz"
        if not self.facts or not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def tested(entries: Sequence[Entry], directory: Path | None, seed: int) -> Tested | None:
    """Return the last look at the test part, or None before there was one."""
    looks = of_kind(entries, Verified)
    if not looks:
        return None
    return Tested(looks[-1], (directory or Path()) / "model", seed)
