"""Tables of what came out: the study's own, counts, robustness, and the paper's pairs of systems.

May import `roadmap`, `analysis.published` and the modules beside this package. Printing is the command line's.
"""
