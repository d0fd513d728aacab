"""How a run is trained, and where."""
