"""Timings, scaling laws, simulation, advice: reads records only."""
