"""How a run is trained, and where: `machine`, `data`, `train`, `launch`, `measure`, each importing those before it.

May import `roadmap`. What it produces is in run folders, whose files `roadmap/record` defines; `analysis` it does not
know.
"""
