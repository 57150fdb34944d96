"""Where the work runs: this machine, or workers elsewhere."""
