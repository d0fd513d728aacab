"""What several figures share: layouts, type, colours and files (`style`), rows of rungs, and labels that avoid marks.

May import `roadmap` and what `analysis.figures` may, but no module that draws a figure.
"""
