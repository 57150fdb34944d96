"""Neighbours: studies written for the tools that others use, and points read from theirs."""
