"""Where plan, data, workers and journal meet."""
