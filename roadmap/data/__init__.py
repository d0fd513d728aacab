"""Data sets as plain data: descriptions, and the layouts of image folders, packed files and robustness sets.

May import the modules beside this package. Images are not read here but in `runner/data`.
"""
