"""Storm patches: their format, reading and checking them, the synthetic twin, preparing them."""

from stormsweep.storms.patches import PatchBlock, PatchFile
from stormsweep.storms.problem import prepare_storms, storm_folder
from stormsweep.storms.runs import Block, RunFiles, RunReader, find_runs
from stormsweep.storms.twin import TwinSummary, synthesize

__all__ = [
    "Block",
    "PatchBlock",
    "PatchFile",
    "RunFiles",
    "RunReader",
    "TwinSummary",
    "find_runs",
    "prepare_storms",
    "storm_folder",
    "synthesize",
]
