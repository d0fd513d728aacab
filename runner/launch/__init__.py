"""Runs given to processes: on this machine, and on a Slurm cluster.

May import `roadmap` and all of `runner`. How one run is trained is `runner/train`.
"""
