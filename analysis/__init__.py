"""What came out of the runs: collected, judged, compared; shown by `tables`, `figures` and `report`.

May import `roadmap`. It reads run folders and the paper's published tables; `runner` it does not know, nor torch.
"""
