"""Starting the processes that train runs, on this machine or on a Slurm cluster.

May import `roadmap` and all of `runner`. `runner/train` trains one run.
"""
