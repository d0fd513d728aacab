"""Drawn designs: which runs are of a space, what their errors say about its parameters, as a table and as a figure.

May import what `analysis` may. The statistics themselves are in `analysis.statistics.spaces`.
"""
