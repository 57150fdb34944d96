"""Studies on a real Slurm under faults at random instants: what do they cost and break?"""
