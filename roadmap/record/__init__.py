"""Run folders: the identity of a run, and the files that training writes and analysis reads.

May import everything of `roadmap` except the command line. The formats are defined here; training and analysis are not.
"""
