"""Run folders: the identity of a run, and the files through which training and analysis meet.

May import everything of `roadmap` but the command line. The formats are here; what writes or reads them is elsewhere.
"""
