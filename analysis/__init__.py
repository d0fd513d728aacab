"""Collects, judges and compares the results of runs, and shows them: `tables`, `figures` and `report`.

Part of the distribution roadmap-convnext. May import `roadmap`, but neither `runner` nor torch.
It reads run folders and the paper's published tables.
"""
