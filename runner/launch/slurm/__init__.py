"""Runs as jobs of a Slurm cluster: submitted by submitit, requeued after preemption, time limits and crashes.

May import `roadmap` and all of `runner`. No other package runs a command of Slurm.
"""
