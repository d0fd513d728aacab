"""Runs as jobs of a Slurm cluster: submitted by submitit, kept going through preemption, time limits and crashes."""
