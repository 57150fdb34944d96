"""Stormsweep: the study file of the data folder, in one precision, from Python.

    by_stormsweep.py DATA_FOLDER OUT.json float32|bfloat16

The data were prepared before, as for the peers; that they are whole is checked, as always.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stormsweep import Study, __version__


def main() -> None:
    folder, file, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    study = Study.from_toml(folder / f"{precision}.toml", runs=Path.cwd())
    outcome = study.run()
    if outcome.failed:
        raise SystemExit(f"failed: {outcome.failed[0].reason}")
    names = list(study.file.search.space)
    scores = [
        {**{name: row[name] for name in names}, "roc_auc": row["roc_auc_mean"]}
        for row in study.results().to_dict("records")
    ]
    said = {"version": f"stormsweep {__version__}", "scores": scores}
    file.write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
