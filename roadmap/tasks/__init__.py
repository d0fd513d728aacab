"""The tasks of runs: their names, the heads of detection and segmentation, and what a transfer is, as plain data.

May import `roadmap.serialization`, `roadmap.plugins` and `roadmap.text`. Which runs are transferred, and how, is not
decided here (roadmap/record/transfers.py).
"""
