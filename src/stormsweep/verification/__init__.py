"""Verification: scores of probability forecasts on a test set, how sure they are, their curves."""
