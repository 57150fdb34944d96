"""Kinds of sources and of folds, for those who read no study file: workers need no pydantic."""

from __future__ import annotations

STORM_SOURCES = ("twin", "ncar-storms")
TABLE_SOURCES = ("csv", "npz")
#: Ways to make folds that keep groups whole.
GROUPED_SPLITS = ("grouped", "stratified-grouped", "chronological")
#: Ways to make folds that need no chance, so that there is one round of them.
ONE_WAY_SPLITS = ("chronological", "consecutive")
#: Keys of ``[data]`` that choose among storms.
STORM_KEYS = ("first_date", "last_date", "missing")
