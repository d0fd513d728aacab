"""From a data set to batches: reading, decoding, augmentation, packing.

May import `roadmap` and `runner.machine`.
"""
