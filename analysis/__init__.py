"""What came out of the runs: collected, counted and drawn."""
