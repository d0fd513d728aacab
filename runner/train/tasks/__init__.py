"""The tasks that the engine trains: what a batch is, its loss, and how a network is evaluated.

May import what `runner.train` may; the libraries of detection and segmentation are imported for these tasks alone.
"""
