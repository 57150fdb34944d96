"""Stormsweep: the study file of the data folder, in one precision, from Python.

    by_stormsweep.py DATA_FOLDER OUT.json float32|bfloat16

The data were prepared before, as for the peers; that they are whole is checked, as always. Chance
starts from PEERS_SEED; the peers draw theirs anew in every repeat.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from stormsweep import Study, __version__
from stormsweep.config.load import load_study


def main() -> None:
    folder, out, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    file = load_study(folder / f"{precision}.toml")
    seeded = file.study.model_copy(update={"seed": int(os.environ["PEERS_SEED"])})
    study = Study(
        file.model_copy(update={"study": seeded}), folder / f"{precision}.toml", Path("peers")
    )
    outcome = study.run()
    if outcome.failed:
        raise SystemExit(f"failed: {outcome.failed[0].reason}")
    names = list(study.file.search.space)
    scores = [
        {**{name: row[name] for name in names}, "roc_auc": row["roc_auc_mean"]}
        for row in study.results().to_dict("records")
    ]
    said = {"version": f"stormsweep {__version__}", "scores": scores}
    out.write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
