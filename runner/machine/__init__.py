"""The machine that runs are trained on: devices, cores, processes, signals, locks, random numbers, the code's state.

May import `roadmap`, and nothing else of `runner`.
"""
