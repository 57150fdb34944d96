"""Training: engines behind one small protocol, checkpoints, scores."""
