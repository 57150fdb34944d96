"""Stormsweep: tune a model's hyperparameters in parallel, and measure the search while it runs."""

__version__ = "0.1.0"
