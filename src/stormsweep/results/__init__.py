"""The journal and the frames drawn from it."""
