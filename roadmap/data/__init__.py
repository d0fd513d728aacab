"""Data sets as plain data: what one is, and the layouts of image folders, packed files and robustness sets.

May import the modules beside this package. No image is read here: that is `runner/data`.
"""
