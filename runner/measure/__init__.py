"""Measuring and exporting networks: speed and memory, the input pipeline, evaluation, robustness, exported files.

May import `roadmap` and all of `runner`.
"""
