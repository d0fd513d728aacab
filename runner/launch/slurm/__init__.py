"""Runs as jobs of a Slurm cluster: submitted by submitit, requeued after preemption, time limits and crashes."""
