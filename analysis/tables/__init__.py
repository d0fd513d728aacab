"""Tables of results: of the study, of counts, of robustness, and of the paper's pairs of systems.

May import `roadmap`, `analysis.published` and the modules next to this package. The command line prints them.
"""
