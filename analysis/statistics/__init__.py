"""Statistics of runs: samples, the comparisons of a study, how many runs a difference needs, images and ranks.

May import NumPy and SciPy, and nothing of this project: it knows no rungs, folders or tables.
"""
