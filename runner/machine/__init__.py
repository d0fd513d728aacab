"""The machine that runs are trained on: devices, cores, processes, signals, locks, random numbers, code snapshots.

May import `roadmap`, and nothing else of `runner`.
"""
