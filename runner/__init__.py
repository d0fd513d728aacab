"""How and where a run is trained: `machine`, `data`, `train`, `launch`, `measure`. Each imports only those before it.

May import `roadmap`, and not `analysis`. Writes run folders, whose files `roadmap/record` defines.
"""
