"""How and where a run is trained: `machine`, `data`, `train`, `launch`, `measure`. Each imports only those before it.

Part of the distribution roadmap-convnext. May import `roadmap`, and not `analysis`.
Writes run folders, whose files `roadmap/record` defines.
"""
