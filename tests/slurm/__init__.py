"""A real Slurm of four small nodes on this machine: for tests, and `make slurm`."""
