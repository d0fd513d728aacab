"""A design as a network: resolved into layers, counted, drawn, built, and filled with published weights.

May import the modules beside this package, and nothing about studies or runs. Only `modules` and `weights` import
torch at the top; the others import it when they count or build a model of another library.
"""
